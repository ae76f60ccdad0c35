"""The data of a real Airflow for monitoring: from its database, and in the files of its runs."""

import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.core.tokens import Token, read_unverified
from tests.monitoring import grammar
from tests.provider.conftest import driven

WRONG_LIST = [{"variable": "KEPT_TOKEN"}, {"variabel": "ODD_TOKEN"}]
SPOOL_FILE = "240_flowauth_rotator_managed"  # two checks of a minute each, and two minutes of grace
TEXTFILE = "flowauth_rotator_managed.prom"


@pytest.fixture
def run(airflow, renewal_server, folders):
    """Run the DAG of these tokens in an Airflow that writes files."""
    spool, textfiles = folders
    airflow.forget_status()
    connection = {"conn_type": "flowauth", "host": renewal_server.url, "login": "flowbot"}
    connection["password"] = renewal_server.password
    settings = {
        "AIRFLOW__FLOWAUTH_ROTATOR__CHECKMK_SPOOL_DIR": str(spool),
        "AIRFLOW__FLOWAUTH_ROTATOR__TEXTFILE_DIR": str(textfiles),
        "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(connection),
    }

    def run(*variables, listed=None, names=(), airflow=airflow):
        listed = listed or [{"variable": key} for key in variables]
        environment = settings | {"AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(listed)}
        conf = {"names": list(names)}
        return airflow.run(dag_id="managed", conf=conf, environment=environment)

    return run


def put(airflow, server, key, name, age=0):
    token = server.mint(name, issued_at=int(time.time()) - age)
    airflow.put_variable(key=key, value=token, description=None)


def samples(path):
    """The values of a textfile, by metric and label."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_a_run_writes_what_it_found_and_did(airflow, renewal_server, run, folders):
    """A kept, a rotated and a missing token, in both files; each is whole, and others may read."""
    spool, textfiles = folders
    put(airflow, renewal_server, "KEPT_TOKEN", "kept")
    put(airflow, renewal_server, "DUE_TOKEN", "due", age=2700)
    (spool / f"99{SPOOL_FILE}").write_text("of an earlier schedule")
    (spool / "900_other").write_text("of another program")
    run("KEPT_TOKEN", "DUE_TOKEN", "NO_TOKEN")
    assert {path.name for path in spool.iterdir()} == {SPOOL_FILE, "900_other"}
    assert {path.name for path in textfiles.iterdir()} == {TEXTFILE}
    for path in (spool / SPOOL_FILE, textfiles / TEXTFILE):
        assert path.stat().st_mode & 0o777 == 0o644
    head, _, lines = (spool / SPOOL_FILE).read_text().partition("\n")
    assert head == "<<<local:sep(0)>>>"
    states = {service: line.state for service, line in grammar.checkmk(lines).items()}
    assert states == {
        "FlowAuth_Token_kept": 0,
        "FlowAuth_Token_due": 0,
        "FlowAuth_Token_NO_TOKEN": 2,
        "FlowAuth_Rotation_Agent_managed": 0,
    }
    found = samples(textfiles / TEXTFILE)
    in_use = read_unverified(Token(airflow.variable(key="DUE_TOKEN")["value"]))
    expiration = "flowauth_rotator_token_expiration_timestamp_seconds"
    assert found[expiration, "due"] == in_use.expires_at.timestamp()
    assert {key[1] for key in found if key[0] == expiration} == {"kept", "due"}
    assert {key[1] for key in found if key[0] == "flowauth_rotator_token_expected"} == {
        *("kept", "due", "NO_TOKEN")
    }
    readable = {key[1]: value for key, value in found.items() if "token_readable" in key[0]}
    assert readable == {"kept": 1, "due": 1, "NO_TOKEN": 0}
    checked = found["flowauth_rotator_last_check_timestamp_seconds", "managed"]
    deadline = found["flowauth_rotator_check_deadline_timestamp_seconds", "managed"]
    assert deadline - checked == 240


def test_a_run_with_nothing_due_writes_too(airflow, renewal_server, run, folders):
    """As in most runs: the files show that the check took place."""
    put(airflow, renewal_server, "KEPT_TOKEN", "kept")
    run("KEPT_TOKEN")
    first = samples(folders[1] / TEXTFILE)
    run("KEPT_TOKEN")
    second = samples(folders[1] / TEXTFILE)
    key = ("flowauth_rotator_last_check_timestamp_seconds", "managed")
    assert second[key] > first[key]
    assert set(first) == set(second)


def test_a_rotation_that_cannot_begin_leaves_what_the_survey_read(
    airflow, renewal_server, run, folders
):
    """Its connection does not exist; its token is valid."""
    put(airflow, renewal_server, "DUE_TOKEN", "due", age=2700)
    done = run(listed=[{"variable": "DUE_TOKEN", "flowauth_conn_id": "nowhere"}])
    assert done["tasks"]["rotate due"]["state"] == "failed"
    _, _, lines = (folders[0] / SPOOL_FILE).read_text().partition("\n")
    line = grammar.checkmk(lines)["FlowAuth_Token_due"]
    assert line.text.startswith("Expires in ")
    assert "Connection nowhere does not exist" in line.text
    assert line.state == 2
    expiration = "flowauth_rotator_token_expiration_timestamp_seconds"
    in_use = read_unverified(Token(airflow.variable(key="DUE_TOKEN")["value"]))
    found = samples(folders[1] / TEXTFILE)
    assert found[expiration, "due"] == in_use.expires_at.timestamp()
    failure = found["flowauth_rotator_last_failure_timestamp_seconds", "due", "misconfigured"]
    assert failure > found["flowauth_rotator_token_renewal_timestamp_seconds", "due"]


def test_an_invalid_entry_turns_the_service_of_the_dag_critical(
    airflow, renewal_server, run, folders
):
    """The token that it should name has no service of its own."""
    put(airflow, renewal_server, "KEPT_TOKEN", "kept")
    run(listed=WRONG_LIST)
    _, _, lines = (folders[0] / SPOOL_FILE).read_text().partition("\n")
    found = grammar.checkmk(lines)
    dag = found["FlowAuth_Rotation_Agent_managed"]
    assert dag.state == 2
    assert any("variabel" in sentence for sentence in dag.details)
    assert found["FlowAuth_Token_kept"].state == 0
    wrong = samples(folders[1] / TEXTFILE)
    assert wrong["flowauth_rotator_agent_misconfigured", "managed"] == 1


def test_a_run_for_some_tokens_writes_nothing(airflow, renewal_server, run, folders):
    """The others would vanish from the files."""
    put(airflow, renewal_server, "KEPT_TOKEN", "kept")
    put(airflow, renewal_server, "OTHER_TOKEN", "other")
    run("KEPT_TOKEN", "OTHER_TOKEN", names=["kept"])
    assert [*folders[0].iterdir(), *folders[1].iterdir()] == []


def test_a_folder_that_takes_no_file_keeps_no_token_from_being_renewed(
    airflow, renewal_server, run, folders
):
    """The files grow old, which is what turns red."""
    for folder in folders:
        folder.rmdir()
        folder.write_text("no folder")
    put(airflow, renewal_server, "DUE_TOKEN", "due", age=2700)
    done = run("DUE_TOKEN")
    assert (done["state"], done["tasks"]["rotate due"]["report"]["outcome"]) == (
        "success",
        "rotated",
    )


def test_a_broken_library_keeps_no_token_from_being_renewed(
    airflow, airflow_home, renewal_server, run, folders, tmp_path
):
    """The one that writes textfiles cannot be imported any more."""
    broken = tmp_path / "broken" / "prometheus_client"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('broken')")
    put(airflow, renewal_server, "DUE_TOKEN", "due", age=2700)
    with driven(airflow_home, PYTHONPATH=str(broken.parent)) as with_broken_library:
        done = run("DUE_TOKEN", airflow=with_broken_library)
    assert (done["state"], done["tasks"]["rotate due"]["report"]["outcome"]) == (
        "success",
        "rotated",
    )
    assert [path.name for path in folders[0].iterdir()] == [SPOOL_FILE]


def test_each_rotation_is_counted_by_how_it_ended(airflow, renewal_server, run):
    """By outcome; one that fails, too."""
    put(airflow, renewal_server, "COUNTED_TOKEN", "counted", age=2700)
    airflow.put_variable(key="BAD_TOKEN", value="Bearer opaque", description=None)
    run("COUNTED_TOKEN", "BAD_TOKEN")
    once = by_variable(airflow)
    put(airflow, renewal_server, "COUNTED_TOKEN", "counted", age=2700)
    while int(time.time()) <= once["COUNTED_TOKEN"]["last_success_at"]:
        time.sleep(0.05)  # the document has whole seconds
    run("COUNTED_TOKEN", "BAD_TOKEN")
    twice = by_variable(airflow)
    assert once["COUNTED_TOKEN"]["rotation_counts"] == {"rotated": 1}
    assert twice["COUNTED_TOKEN"]["rotation_counts"] == {"rotated": 1, "adopted": 1}
    assert twice["BAD_TOKEN"]["rotation_counts"] == {"malformed": 2}
    assert "last_success_at" not in twice["BAD_TOKEN"]
    assert twice["COUNTED_TOKEN"]["last_success_at"] > once["COUNTED_TOKEN"]["last_success_at"]
    expires_at = twice["COUNTED_TOKEN"]["expires_at"]
    assert twice["COUNTED_TOKEN"]["newest_issued_expires_at"] == expires_at


def test_a_rotation_that_breaks_is_counted_too(
    airflow_home, renewal_server, run, tmp_path, airflow
):
    """As by a library that cannot be imported; the message says where."""
    broken = tmp_path / "broken" / "pyotp"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('broken')")
    put(airflow, renewal_server, "LOST_TOKEN", "lost", age=2700)
    with driven(airflow_home, PYTHONPATH=str(broken.parent)) as with_broken_library:
        done = run("LOST_TOKEN", airflow=with_broken_library)
    assert done["state"] == "failed"
    token = by_variable(airflow)["LOST_TOKEN"]
    assert token["rotation_counts"] == {"unavailable": 1}
    assert token["last_check"]["message"].startswith("Unexpected RuntimeError in flowauth.py")
    assert "last_success_at" not in token


def test_runs_that_fail_again_and_again_hide_no_token(airflow, renewal_server, run):
    """The last check determines what is shown of each token, whatever users start."""
    airflow.put_variable(key="BAD_TOKEN", value="Bearer opaque", description=None)
    put(airflow, renewal_server, "KEPT_TOKEN", "kept")
    run("KEPT_TOKEN", "BAD_TOKEN")
    before = airflow.status()
    for _ in range(3):
        failed = run("KEPT_TOKEN", "BAD_TOKEN", names=["nobody"])
        assert failed["tasks"]["survey"]["state"] == "failed"
    assert airflow.status() == before


def by_variable(airflow):
    """The tokens in the status document of the DAG `managed`, by Variable."""
    return {token["variable"]: token for token in airflow.status()["tokens"]}
