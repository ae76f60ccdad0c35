"""The status document of a real Airflow: what runs write, and what becomes of Airflow's records."""

import json
import time

import pytest

from flowauth_rotator.monitoring.status import VERSION


@pytest.fixture
def run(airflow, renewal_server):
    """Run the DAG of these Variables, as a user does who fills in the form."""
    connection = {"conn_type": "flowauth", "host": renewal_server.url, "login": "flowbot"}
    connection["password"] = renewal_server.password
    airflow.forget_status()

    def run(*variables, settings=None, entry=None, **params):
        environment = {
            "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(connection),
            "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(
                [{"variable": key, **(entry or {})} for key in variables]
            ),
            **(settings or {}),
        }
        return airflow.run(dag_id="managed", conf=params, environment=environment)

    return run


@pytest.fixture
def put(airflow, renewal_server):
    """Store a token of the server that is so old in a Variable.

    JWTs have whole seconds: a successor that was issued in the same one would gain nothing.
    """

    def put(key, name, age=2, **options):
        token = renewal_server.mint(name, issued_at=int(time.time()) - age, **options)
        airflow.put_variable(key=key, value=token, description=None)
        return token

    return put


def tokens_of(airflow):
    return {token["variable"]: token for token in airflow.status()["tokens"]}


def test_a_run_leaves_a_document_without_any_part_of_a_token(airflow, run, put):
    """In a Variable that says what it is; XComs have what Airflow needs to map tasks."""
    old = put("DUE_TOKEN", "due", age=2700)
    put("KEPT_TOKEN", "kept")
    done = run("DUE_TOKEN", "KEPT_TOKEN")
    assert done["state"] == "success"
    stored = airflow.variable(key="flowauth_rotator_status_managed")
    assert stored["description"].startswith("Written by the DAG managed at each check")
    assert json.loads(stored["value"])["version"] == VERSION
    new = airflow.variable(key="DUE_TOKEN")["value"]
    assert not any(part in stored["value"] for part in (*old.split("."), *new.split(".")))
    token = tokens_of(airflow)["DUE_TOKEN"]
    assert [event["outcome"] for event in token["rotations"]] == ["rotated"]
    assert token["rotations"][0]["run_id"] == token["last_check"]["run_id"] == done["run_id"]
    assert done["xcoms"] == ["rotate report", "survey return_value"]


def test_a_run_with_nothing_due_maps_nothing(run, put):
    """Its one XCom is an empty list, however many tokens there are."""
    keys = [f"KEPT_{number}_TOKEN" for number in range(5)]
    for key in keys:
        put(key, key.lower())
    run(*keys)  # rehearses
    done = run(*keys)
    assert done["xcoms"] == ["survey return_value"]
    assert done["tasks"]["survey"]["answer"] == []


@pytest.mark.parametrize("by", ["rotation", "rehearsal"])
def test_the_issuers_name_is_learnt(airflow, airflow_home, renewal_server, run, put, by):
    """FlowAuth's tokens carry no name: until then the key of the Variable stands in."""
    renewal_server.omit_names()
    variable = f"LEARNT_BY_{by.upper()}_TOKEN"
    put(variable, "AIRFLOW")
    if by == "rotation":
        entry = {"rehearse_every": None}
        run(variable, entry=entry)
        token = tokens_of(airflow)[variable]
        assert (token["name"], token["name_is_known"]) == (variable, False)
        assert run(variable, entry=entry, force=True)["state"] == "success"
    else:
        run(variable)
    assert run(variable)["state"] == "success"
    token = tokens_of(airflow)[variable]
    assert (token["name"], token["former_name"]) == ("AIRFLOW", variable)
    assert token["last_check"]["outcome"] == "healthy"
    sentence = f"is reported as 'AIRFLOW', and no longer as '{variable}'"
    assert airflow_home.log.read_text().count(sentence) == 1


def test_a_run_for_some_tokens_keeps_the_entries_of_the_others(airflow, run, put):
    """And the time of the last check of all tokens."""
    put("ONE_TOKEN", "one")
    put("TWO_TOKEN", "two")
    run("ONE_TOKEN", "TWO_TOKEN")
    before = airflow.status()
    run("ONE_TOKEN", "TWO_TOKEN", names=["one"], force=True)
    after = airflow.status()
    assert after["tokens"][1] == before["tokens"][1]
    assert after["tokens"][0]["rotation_counts"] == {"rotated": 1}
    assert after["dags"][0]["checked_at"] == before["dags"][0]["checked_at"]


def test_a_run_does_what_its_configuration_says(airflow, run, put):
    """Also where Airflow does not let a configuration override the parameters."""
    settings = {"AIRFLOW__CORE__DAG_RUN_CONF_OVERRIDES_PARAMS": "False"}
    for key in ("ASKED_TOKEN", "OTHER_TOKEN"):
        put(key, key.lower())
    variables = ("ASKED_TOKEN", "OTHER_TOKEN")
    done = run(*variables, settings=settings, names=["ASKED_TOKEN"], force=True)
    assert done["state"] == "success"
    assert done["tasks"]["rotate asked_token"]["report"]["outcome"] == "rotated"
    assert "rotate other_token" not in done["tasks"]


def test_a_refused_request_for_a_healthy_token_is_not_its_state(airflow, renewal_server, run, put):
    """The run fails; the token is as healthy as before, and the refusal is in its history."""
    renewal_server.add_role("withdrawn", max_lifetime_minutes=1440)
    put("KEPT_TOKEN", "kept", roles=["withdrawn"])
    renewal_server.revoke("withdrawn")
    run("KEPT_TOKEN")
    done = run("KEPT_TOKEN", force=True)
    assert (done["state"], done["tasks"]["report"]["state"]) == ("failed", "failed")
    token = tokens_of(airflow)["KEPT_TOKEN"]
    assert token["last_check"]["outcome"] == "healthy"
    assert token["rotations"][0]["outcome"] == "refused"
    assert token["rotations"][0]["run_id"] == done["run_id"]
    assert token["rotation_counts"] == {"refused": 1}


@pytest.mark.parametrize("text", ["", "null", "[1]", "{", '{"version": 0}', '{"version": 3}'])
def test_an_unusable_document_is_written_anew(airflow, run, put, text):
    """As after an upgrade, or when somebody has edited it."""
    put("KEPT_TOKEN", "kept")
    airflow.put_variable(key="flowauth_rotator_status_managed", value=text, description=None)
    assert run("KEPT_TOKEN")["state"] == "success"
    assert tokens_of(airflow)["KEPT_TOKEN"]["last_check"]["outcome"] == "healthy"


def test_nothing_is_lost_when_airflow_forgets(airflow, run, put):
    """`airflow db clean` of everything, and an XCom backend that keeps nothing after a run."""
    put("DUE_TOKEN", "due", age=2700)
    put("KEPT_TOKEN", "kept")
    run("DUE_TOKEN", "KEPT_TOKEN")
    before = airflow.status()
    airflow.clean_records()
    assert airflow.count_records() == {"xcoms": 0, "tasks": 0}
    assert airflow.status() == before
    while int(time.time()) <= tokens_of(airflow)["DUE_TOKEN"]["issued_at"]:
        time.sleep(0.05)
    run("DUE_TOKEN", "KEPT_TOKEN", force=True)
    token = tokens_of(airflow)["DUE_TOKEN"]
    assert token["rotation_counts"] == {"rotated": 2}
    assert [event["outcome"] for event in token["rotations"]] == ["rotated", "rotated"]
