"""The page's API on a real metadata database, with documents as rotation DAGs write them."""

import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.parts import AirflowHome
from flowauth_rotator.monitoring.status import VERSION
from flowauth_rotator.provider.status_variable import build_key
from flowauth_rotator.provider.web.page_runs import build_run_prefix
from tests.provider.conftest import Driver
from tests.provider.page_facts import (
    DAG,
    HOUR,
    KEY,
    MINUTE,
    NOON,
    build_document,
    describe_dag,
    describe_token,
    encode_token,
)

NOW = round(NOON.timestamp())
NEXT_CHECK = round((NOON + 4 * MINUTE).timestamp())


@pytest.fixture(scope="module")
def driver(tmp_path_factory, airflow_binaries):
    """A process of an Airflow whose metadata database belongs to this module."""
    home = AirflowHome(tmp_path_factory.mktemp("page"), airflow_binaries)
    home.set_up()
    with home.log.open("a") as log:
        process = subprocess.Popen(
            [home.binaries / "python", Path(__file__).parent / "page_driver.py"],
            env=home.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        yield Driver(process)
        process.kill()


@pytest.fixture
def database(driver):
    """The same, with nothing in the database."""
    driver.reset()
    return driver


def put(database, dag_id=DAG, tokens=1, **columns):
    """Store a DAG that has checked so many tokens; return the keys of their Variables."""
    keys = [f"{dag_id}_{number}" for number in range(tokens)]
    texts = {key: encode_token() for key in keys}
    document = build_document(
        *(describe_token(text, key, dag_id, name=key) for key, text in texts.items()),
        dags=[describe_dag(dag_id)],
    )
    database.put_dag(dag_id=dag_id, next_check_at=NEXT_CHECK, **columns)
    database.put_variables(values={build_key(dag_id): document.dump(), **texts})
    return keys


def overview(database, **visitor):
    return database.list_tokens(now=NOW, **visitor)["document"]


def test_the_page_has_the_document_and_what_airflow_knows_now(database):
    """The next check, the token in the Variable, and the check that will renew it."""
    [key] = put(database)
    database.put_variables(values={key: encode_token(8 * HOUR + 7 * MINUTE)})
    document = overview(database, startable=[DAG])
    assert (document["version"], document["now"]) == (VERSION, NOW)
    [dag], [token] = document["dags"], document["tokens"]
    assert (dag["condition"], dag["next_check_at"]) == ("ok", NEXT_CHECK)
    assert token["expires_at"] == round((NOON + 8 * HOUR + 7 * MINUTE).timestamp())
    assert token["next_check_at"] == NEXT_CHECK
    assert token["renewal_check_at"] == round((NOON + 10 * MINUTE).timestamp())
    assert token["renewal"]["possible"]


@pytest.mark.parametrize(("dags", "tokens"), [(1, 10), (1, 200), (5, 10)])
def test_the_number_of_statements_is_constant(database, dags, tokens):
    """One each for DAGs, runs, scheduled DAGs, documents and tokens; one more for active runs."""
    for number in range(dags):
        keys = put(database, f"dag_{number}", tokens)
        states = {f"{build_run_prefix(key)}1": "success" for key in keys}
        database.put_runs(dag_id=f"dag_{number}", states=states, requested_at=NOW)
        for key in keys[:3]:
            database.schedule_dag(dag_id=f"uses_{key}", uri=f"flowauth://{key}")
    answer = database.list_tokens(now=NOW)
    assert len(answer["document"]["tokens"]) == dags * tokens
    assert all(token["run"] for token in answer["document"]["tokens"])
    assert len(answer["statements"]) == 5
    assert not any("xcom" in each or "task_instance" in each for each in answer["statements"])
    for number in range(dags):
        states = {
            f"{build_run_prefix(f'dag_{number}_{each}')}2": "running" for each in range(tokens)
        }
        database.put_runs(dag_id=f"dag_{number}", states=states, requested_at=NOW + 1)
    answer = database.list_tokens(now=NOW)
    assert all(token["run"]["active"] for token in answer["document"]["tokens"])
    assert len(answer["statements"]) == 6


@pytest.mark.parametrize(
    ("columns", "condition"),
    [
        ({}, "ok"),
        ({"is_paused": True}, "paused"),
        ({"stale": True}, "missing"),
        ({"stale": True, "has_import_errors": True}, "broken"),
    ],
)
def test_a_dag_that_will_not_run_has_no_next_check(database, columns, condition):
    """Whatever Airflow planned before."""
    put(database, **columns)
    document = overview(database)
    [dag], [token] = document["dags"], document["tokens"]
    expected = NEXT_CHECK if condition == "ok" else None
    assert (dag["condition"], dag["next_check_at"]) == (condition, expected)
    assert token["next_check_at"] == expected


def test_a_dag_without_a_document_has_not_checked_yet(database):
    """The tag makes it a rotation DAG; other DAGs are not shown."""
    database.put_dag(dag_id="tagged", next_check_at=NEXT_CHECK)
    database.put_dag(dag_id="other", tag="other")
    [dag] = overview(database, startable=["tagged", "other"])["dags"]
    assert (dag["dag_id"], dag["condition"]) == ("tagged", "new")
    assert dag["message"] == "First check pending"
    assert dag["next_check_at"] == NEXT_CHECK


def test_a_document_without_a_dag_is_of_a_missing_one(database):
    """Its tokens are not renewed any more."""
    text = encode_token()
    document = build_document(describe_token(text))
    database.put_variables(values={build_key(DAG): document.dump(), KEY: text})
    shown = overview(database)
    assert [dag["condition"] for dag in shown["dags"]] == ["missing"]
    assert [token["name"] for token in shown["tokens"]] == ["AIRFLOW"]


@pytest.mark.parametrize(
    "value", ["", "no JSON", '{"version": 2}', "[]", '{"version": 3, "dags": 7}']
)
def test_an_invalid_document_is_no_check(database, value):
    """The next check replaces it."""
    put(database)
    database.put_variables(values={build_key(DAG): value})
    document = overview(database, startable=[DAG])
    assert [dag["condition"] for dag in document["dags"]] == ["new"]
    assert document["tokens"] == []


def test_what_cannot_be_decrypted_is_said(database):
    """As after a change of the Fernet key: of a token, and of the status of the DAG."""
    [key] = put(database)
    database.garble(key=key)
    [token] = overview(database)["tokens"]
    assert (token["name"], token["state"]) == (key, "malformed")
    assert "cannot decrypt" in token["message"]
    database.garble(key=build_key(DAG))
    assert overview(database)["tokens"] == []
    [dag] = overview(database, startable=[DAG])["dags"]
    assert (dag["condition"], dag["severity"]) == ("failed", "warning")
    assert f"Variable {build_key(DAG)}" in dag["hint"]
    assert "`fernet_key`" in dag["hint"]


def test_a_copy_of_a_document_is_ignored(database):
    """A Variable that somebody has named like it, as a backup."""
    put(database)
    copy = build_document(describe_token(encode_token())).dump()
    database.put_variables(values={f"{build_key(DAG)}_backup": copy})
    assert len(overview(database)["tokens"]) == 1


def test_a_row_has_the_last_run_that_was_started_from_the_page(database):
    """Of the token and of no other one; not a run of another kind."""
    first, second = put(database, tokens=2)
    prefix = build_run_prefix(first)
    states = {f"{prefix}9": "failed", f"{prefix}10": "queued", "manual__1": "failed"}
    database.put_runs(dag_id=DAG, states=states, requested_at=NOW)
    rows = {row["variable"]: row for row in overview(database)["tokens"]}
    assert (rows[first]["run"]["run_id"], rows[first]["run"]["state"]) == (f"{prefix}10", "queued")
    assert rows[first]["run"]["requested_at"] == NOW
    assert rows[second]["run"] is None


@pytest.mark.parametrize(
    ("state", "tasks", "step"),
    [
        ("queued", {}, "queued"),
        ("running", {"survey": ["running"], "rotate": [None], "report": [None]}, "survey"),
        ("running", {"survey": ["up_for_retry"], "rotate": [None], "report": [None]}, "survey"),
        ("running", {"survey": ["success"], "rotate": [None], "report": [None]}, "rotate"),
        ("running", {"survey": ["success"], "rotate": ["success", "running"]}, "rotate"),
        ("running", {"survey": ["success"], "rotate": ["failed"], "report": ["queued"]}, "report"),
        ("running", {}, None),
        ("success", {"survey": ["success"], "rotate": ["success"], "report": ["success"]}, None),
    ],
)
def test_an_active_run_is_at_a_step(database, state, tasks, step):
    """The first task that has not ended."""
    [key] = put(database)
    run_id = f"{build_run_prefix(key)}1"
    database.put_runs(dag_id=DAG, states={run_id: state}, requested_at=NOW)
    database.put_task_instances(dag_id=DAG, run_id=run_id, states=tasks)
    [token] = overview(database)["tokens"]
    assert token["run"]["step"] == step


def test_a_row_has_the_dags_that_are_scheduled_on_its_asset(database):
    """Those that the user may read."""
    first, second = put(database, tokens=2)
    for dag_id in ("load", "export", "secret"):
        database.schedule_dag(dag_id=dag_id, uri=f"flowauth://{first}")
    rows = {row["variable"]: row for row in overview(database, hidden=["secret"])["tokens"]}
    assert [dag["dag_id"] for dag in rows[first]["scheduled_dags"]] == ["export", "load"]
    assert rows[first]["scheduled_dags"][0]["url"].startswith("dags/export")
    assert rows[second]["scheduled_dags"] == []


def test_the_page_has_the_time_zone_of_airflow(database):
    """The default of a new Airflow is UTC."""
    document = overview(database)
    assert document["time_zone"] == "UTC"


@pytest.mark.parametrize(
    ("minutes", "message"), [(1200, "at least 1201 minutes"), (99999, "at most 1440, or leave out")]
)
def test_a_lifetime_that_cannot_be_granted_is_refused(database, minutes, message):
    """Before a run is started, if the limits are known."""
    text = encode_token()
    document = build_document(describe_token(text, longest_minutes=1440))
    database.put_dag(dag_id=DAG, next_check_at=NEXT_CHECK)
    database.put_variables(values={build_key(DAG): document.dump(), KEY: text})
    body = {"lifetime_minutes": minutes}
    error = database.renew(name=KEY, body=body, now=NOW, startable=[DAG])
    assert error["code"] == 400
    assert message in error["message"]


def test_a_rehearsal_has_the_lifetime_of_the_token(database):
    """Another lifetime would be the result of a renewal that nobody has asked for."""
    [key] = put(database)
    body = {"dry_run": True, "lifetime_minutes": 60}
    error = database.renew(name=key, body=body, now=NOW, startable=[DAG])
    assert (error["code"], "leave out `lifetime_minutes`" in error["message"]) == (400, True)
    error = database.renew(name=key, body={"dry_run": 1}, now=NOW, startable=[DAG])
    assert error == {"code": 400, "message": "`dry_run` is not true or false."}


def test_a_run_says_whether_it_is_a_rehearsal(database):
    """By the configuration that the page has started it with."""
    first, second = put(database, tokens=2)
    for at, key, conf in ((NOW, first, {"dry_run": True}), (NOW + 1, second, {"force": True})):
        states = {f"{build_run_prefix(key)}1": "queued"}
        database.put_runs(dag_id=DAG, states=states, requested_at=at, conf=conf)
    runs = {row["variable"]: row["run"] for row in overview(database)["tokens"]}
    assert {key: run["is_rehearsal"] for key, run in runs.items()} == {first: True, second: False}


def test_a_user_sees_the_variables_that_they_may_read(database):
    """And the DAGs of these, and those whose runs they may start."""
    for dag_id in ("one", "two", "three"):
        put(database, dag_id)
    document = overview(database, hidden=["one_0", "two_0"], startable=["two"])
    assert [token["variable"] for token in document["tokens"]] == ["three_0"]
    assert [dag["dag_id"] for dag in document["dags"]] == ["three", "two"]


def test_monitoring_has_the_same_facts(database):
    """In JSON for `check`, and as metrics."""
    [key] = put(database)
    document = database.read_check(now=NOW)
    page = overview(database)
    assert document["version"] == VERSION
    assert document["tokens"][0].items() <= page["tokens"][0].items()
    assert document["dags"][0].items() <= page["dags"][0].items()
    families = text_string_to_metric_families(database.read_metrics(now=NOW))
    expiries = {
        sample.labels["name"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "flowauth_rotator_token_expiration_timestamp_seconds"
    }
    assert expiries == {key: page["tokens"][0]["expires_at"]}
