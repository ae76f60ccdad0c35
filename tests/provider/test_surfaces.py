"""One rule: every surface shows the same severity and message, in a real Airflow."""

import json
import re
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring import grammar
from tests.provider.conftest import driven

CODES = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
DAG_SERVICE = "FlowAuth_Rotation_Agent_managed"
DURATION = re.compile(r"(in|ago|Expired) \d[\w ]*?(?= \()")


@pytest.fixture
def run(airflow, renewal_server, folders):
    """Run the DAG of these entries in an Airflow that writes files."""
    connection = {"conn_type": "flowauth", "host": renewal_server.url, "login": "flowbot"}
    connection["password"] = renewal_server.password
    settings = {
        "AIRFLOW__FLOWAUTH_ROTATOR__CHECKMK_SPOOL_DIR": str(folders[0]),
        "AIRFLOW__FLOWAUTH_ROTATOR__TEXTFILE_DIR": str(folders[1]),
        "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(connection),
    }
    airflow.forget_status()

    def run(*entries, environment=None, on=airflow):
        listed = [{"variable": each} if isinstance(each, str) else each for each in entries]
        environment = settings | {
            "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(listed),
            **(environment or {}),
        }
        done = on.run(dag_id="managed", environment=environment)
        airflow.change_dag(is_paused=False)  # Airflow may have paused it when it was new
        return done

    yield run
    airflow.change_dag(is_paused=False, is_stale=False, has_import_errors=False)


@pytest.fixture
def put(airflow, renewal_server):
    """Store a token of the server that is so old in a Variable, under its key as its name."""

    def put(key, age=0, lifetime_minutes=60, **options):
        issued_at = int(time.time()) - age
        token = renewal_server.mint(
            key, lifetime_minutes=lifetime_minutes, issued_at=issued_at, **options
        )
        airflow.put_variable(key=key, value=token, description=None)
        return token

    return put


def without_durations(text):
    """A message without its relative times, which the next second may change."""
    return DURATION.sub(r"\1", text)


def samples(text):
    """The samples of one label, by metric and label value."""
    return {
        (sample.name, next(iter(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if len(sample.labels) == 1
    }


def verdicts(documents, key):
    """Severity and message by name or DAG id."""
    return {each[key]: (each["severity"], without_durations(each["message"])) for each in documents}


def compare_tokens(surfaces, *, files=None):
    """Assert that all surfaces agree on the tokens of the DAG; return their verdicts."""
    documents = [token for token in surfaces["page"]["tokens"] if token["dag_id"] == "managed"]
    expected = verdicts(documents, "name")
    states = {token["name"]: token["state"] for token in documents}
    for name in ("api/check", "json", "plan"):
        document = surfaces[name] if name == "api/check" else json.loads(surfaces[name])
        tokens = [token for token in document["tokens"] if token["dag_id"] == "managed"]
        assert verdicts(tokens, "name") == expected, name
    lines = surfaces["checkmk"]
    spool, textfile = files or (None, None)
    for text in (surfaces["checkmk"], spool) if spool else (lines,):
        found = grammar.checkmk(text)
        for name, (severity, message) in expected.items():
            line = found[f"FlowAuth_Token_{name}"]
            assert (line.state, without_durations(line.text)) == (CODES[severity], message)
    for name, (severity, message) in expected.items():
        head = f"{severity.upper()} - '{name}': {message}"
        assert head in without_durations(surfaces["nagios"])
    for text in filter(None, (surfaces["metrics"], surfaces["prometheus"], textfile)):
        metrics = samples(text)
        for name, (severity, _) in expected.items():
            assert metrics["flowauth_rotator_token_severity", name] == CODES[severity]
    return {name: (states[name], severity) for name, (severity, _) in expected.items()}


def compare_dag(surfaces):
    """Assert that all surfaces agree on the DAG; return its condition and severity."""
    [dag] = [dag for dag in surfaces["page"]["dags"] if dag["dag_id"] == "managed"]
    expected = (dag["condition"], dag["severity"], dag["message"], dag["hint"])
    for name in ("api/check", "json", "plan"):
        document = surfaces[name] if name == "api/check" else json.loads(surfaces[name])
        [dag] = [dag for dag in document["dags"] if dag["dag_id"] == "managed"]
        assert (dag["condition"], dag["severity"], dag["message"], dag["hint"]) == expected, name
    condition, severity, message, _ = expected
    [line] = [
        line
        for line in grammar.checkmk(surfaces["checkmk"]).values()
        if line.service == "FlowAuth_Rotation_Agent"
    ]
    assert f"managed: {message}" in line.text
    assert f"managed: {message}" in surfaces["nagios"]
    for name in ("metrics", "prometheus"):
        severity_metric = samples(surfaces[name])["flowauth_rotator_dag_severity", "managed"]
        assert severity_metric == CODES[severity]
    return condition, severity


def test_all_surfaces_agree_on_the_conditions_of_a_dag(airflow, airflow_home, run, put):
    """The eight of them, one after the other."""
    put("KEPT_TOKEN")
    run("KEPT_TOKEN")
    airflow.sync_dags()
    airflow.change_dag(is_paused=False)  # a new DAG is paused

    def condition():
        surfaces = airflow.read_surfaces()
        compare_tokens(surfaces)
        return compare_dag(surfaces)

    assert condition() == ("ok", "ok")
    airflow.edit_status(changes={"deadline_at": int(time.time()) - 60})
    assert condition() == ("late", "critical")
    run("KEPT_TOKEN", {"variabel": "ODD_TOKEN"})
    assert condition() == ("misconfigured", "critical")
    for column, expected in (
        ("is_paused", ("paused", "critical")),
        ("is_stale", ("missing", "critical")),
        ("has_import_errors", ("broken", "critical")),
    ):
        airflow.change_dag(**{column: True})
        assert condition() == expected
        airflow.change_dag(**{column: False})
    run("KEPT_TOKEN")
    with driven(airflow_home) as in_outage:
        in_outage.fail_reads(key="KEPT_TOKEN")
        assert run("KEPT_TOKEN", on=in_outage)["state"] == "failed"
    assert condition() == ("failed", "warning")
    airflow.edit_status(changes={"deadline_at": int(time.time()) - 60})
    assert condition() == ("failed", "critical")
    airflow.forget_status()
    assert condition() == ("new", "warning")


def test_all_surfaces_agree_on_every_outcome(airflow, renewal_server, run, put, folders):
    """Page, API, metrics, `check` in four formats, `plan`, spool file and textfile."""
    renewal_server.add_role("withdrawn", max_lifetime_minutes=1440)
    renewal_server.add_role("short", max_lifetime_minutes=1440)
    put("KEPT_TOKEN", lifetime_minutes=1440)
    put("DUE_TOKEN", age=2700)
    first = put("ADOPTED_TOKEN", age=2700)
    put("EXPIRED_TOKEN", age=4000)
    put("REFUSED_TOKEN", age=2700, roles=["withdrawn"])
    put("CAPPED_TOKEN", age=2700, roles=["short"])
    for key in ("HIDDEN_TOKEN", "STRAY_TOKEN", "REJECTED_TOKEN"):
        put(key, age=2700)
    for key in ("LOST_TOKEN", "RIVAL_TOKEN", "CONFLICT_TOKEN"):
        put(key)
    for _ in range(7):
        put("BUDGET_TOKEN", age=2700)
    renewal_server.revoke("withdrawn")
    renewal_server.limit("short", minutes=16)
    airflow.put_variable(key="BAD_TOKEN", value="Bearer opaque", description=None)
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    airflow.put_connection(
        conn_id="flowauth_other_key",
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
        extra=json.dumps(
            {
                "public_key": other_key.public_bytes(
                    Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
                ).decode()
            }
        ),
    )
    run("ADOPTED_TOKEN")
    airflow.put_variable(key="ADOPTED_TOKEN", value=first, description=None)
    hidden = airflow.variable(key="HIDDEN_TOKEN")["value"]
    run(
        *("KEPT_TOKEN", "DUE_TOKEN", "ADOPTED_TOKEN", "EXPIRED_TOKEN", "REFUSED_TOKEN"),
        *("CAPPED_TOKEN", "HIDDEN_TOKEN", "BUDGET_TOKEN", "BAD_TOKEN", "MISSING_TOKEN"),
        *("LOST_TOKEN", "RIVAL_TOKEN", "CONFLICT_TOKEN"),
        {"variable": "STRAY_TOKEN", "flowauth_conn_id": "nowhere"},
        {"variable": "REJECTED_TOKEN", "flowauth_conn_id": "flowauth_other_key"},
        environment={"AIRFLOW_VAR_HIDDEN_TOKEN": hidden},
    )
    outcomes = {
        token["name"]: token["last_check"]["outcome"] for token in airflow.status()["tokens"]
    }
    assert outcomes == {
        "KEPT_TOKEN": "healthy",
        "DUE_TOKEN": "rotated",
        "ADOPTED_TOKEN": "adopted",
        "EXPIRED_TOKEN": "expired",
        "REFUSED_TOKEN": "refused",
        "CAPPED_TOKEN": "capped",
        "HIDDEN_TOKEN": "shadowed",
        "BUDGET_TOKEN": "budget_exhausted",
        "BAD_TOKEN": "malformed",
        "MISSING_TOKEN": "missing",
        "STRAY_TOKEN": "misconfigured",
        "REJECTED_TOKEN": "rejected",
        **dict.fromkeys(("LOST_TOKEN", "RIVAL_TOKEN", "CONFLICT_TOKEN"), "healthy"),
    }
    airflow.sync_dags()
    spool, textfiles = (path.read_text() for folder in folders for path in folder.iterdir())
    files = spool.partition("\n")[2], textfiles
    found = compare_tokens(airflow.read_surfaces(), files=files)
    failed = {name: severity for name, (_, severity) in found.items() if severity != "ok"}
    assert failed == {
        **dict.fromkeys(("REFUSED_TOKEN", "CAPPED_TOKEN", "BUDGET_TOKEN"), "warning"),
        "HIDDEN_TOKEN": "warning",
        "REJECTED_TOKEN": "critical",  # the key that rejects the successor rejects it, too
        **dict.fromkeys(("EXPIRED_TOKEN", "BAD_TOKEN", "MISSING_TOKEN"), "critical"),
        "STRAY_TOKEN": "critical",
    }
    warning = {"severity": "warning", "message": "It did not respond.", "hint": "Check it."}
    airflow.record(
        reports={
            "LOST_TOKEN": {"outcome": "unavailable", **warning},
            "RIVAL_TOKEN": {"outcome": "superseded", "message": "Another writer was faster."},
            "CONFLICT_TOKEN": {"outcome": "conflict", **warning},
        }
    )
    compare_tokens(airflow.read_surfaces())


def test_what_airflow_forgets_changes_no_surface(airflow, airflow_home, run, put):
    """`airflow db clean` of everything, and an XCom backend that cannot read what it kept."""
    put("DUE_TOKEN", age=2700)
    put("KEPT_TOKEN")
    run("DUE_TOKEN", "KEPT_TOKEN")
    airflow.sync_dags()
    before = airflow.read_surfaces()
    airflow.clean_records()
    airflow.sync_dags()
    airflow.change_dag(is_paused=False)
    with driven(
        airflow_home, AIRFLOW__CORE__XCOM_BACKEND="tests.provider.forgetful.ForgetfulXCom"
    ) as forgetful:
        after = forgetful.read_surfaces()
    assert compare_tokens(after) == compare_tokens(before)
    assert samples_of_counters(after["metrics"]) == samples_of_counters(before["metrics"])
    for surfaces in (before, after):
        [token] = [each for each in surfaces["page"]["tokens"] if each["name"] == "DUE_TOKEN"]
        assert token["rotation_counts"] == {"rotated": 1}
        assert len(token["rotations"]) == 1


def samples_of_counters(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.type == "counter"
    }
