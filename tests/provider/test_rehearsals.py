"""Rehearsals in a real Airflow: which checks rehearse, and what they report."""

import json
import time

import pytest


@pytest.fixture
def run(airflow, renewal_server):
    """Run the DAG of the tokens in these Variables, with a connection of this password."""
    airflow.forget_status()

    def run(*variables, login="flowbot", password=renewal_server.password, timeout=30, **conf):
        connection = {"conn_type": "flowauth", "host": renewal_server.url, "login": login}
        listed = [each if isinstance(each, dict) else {"variable": each} for each in variables]
        environment = {
            "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(
                {**connection, "password": password, "extra": {"timeout": timeout}}
            ),
            "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(listed),
        }
        return airflow.run(dag_id="managed", conf=conf, environment=environment)

    return run


@pytest.fixture
def put(airflow, renewal_server):
    def put(key, name, age=0):
        token = renewal_server.mint(name, issued_at=int(time.time()) - age)
        airflow.put_variable(key=key, value=token, description=None)

    return put


def read_token(airflow):
    [token] = [it for it in airflow.read_assessment()["tokens"] if it["dag_id"] == "managed"]
    return token


def get_rehearsals(done):
    return {key: task["state"] for key, task in done["tasks"].items() if key.startswith("rotate ")}


def test_each_setup_is_rehearsed_once(airflow, renewal_server, run, put):
    """A new token, another connection or setting is a new setup; nothing is minted."""
    put("KEPT_TOKEN", "kept")
    rows = renewal_server.rows()
    assert get_rehearsals(run("KEPT_TOKEN")) == {"rotate kept": "success"}
    [status] = airflow.status()["tokens"]
    assert (status["last_rehearsal"]["outcome"], status.get("rotations")) == ("healthy", None)
    assert get_rehearsals(run("KEPT_TOKEN")) == {}
    assert get_rehearsals(run("KEPT_TOKEN", timeout=20)) == {"rotate kept": "success"}
    changed = {"variable": "KEPT_TOKEN", "lifetime_minutes": 30}
    assert get_rehearsals(run(changed, timeout=20)) == {"rotate kept": "success"}
    never = {"variable": "KEPT_TOKEN", "rehearse_every": None, "renew_before": "5m"}
    assert get_rehearsals(run(never, timeout=20)) == {}
    assert renewal_server.rows() == rows


def test_a_rehearsal_that_fails_is_a_warning(airflow, run, put):
    """Of the token, whose message has the date, and of the run."""
    put("KEPT_TOKEN", "kept")
    done = run("KEPT_TOKEN", password="wrong")
    assert get_rehearsals(done) == {"rotate kept": "failed"}
    assert done["state"] == "failed"
    token = read_token(airflow)
    assert token["severity"] == "warning"
    assert "; the renewal due on " in token["message"]
    assert " will fail: refused: Sign-in of 'flowbot' failed" in token["message"]
    assert get_rehearsals(run("KEPT_TOKEN")) == {"rotate kept": "success"}
    token = read_token(airflow)
    assert "will fail" not in token["message"]


def test_a_token_that_is_its_own_credential_is_rehearsed(airflow, renewal_server, run, put):
    """The bundled server judges it by all rules, and issues nothing."""
    put("KEPT_TOKEN", "kept")
    rows = renewal_server.rows()
    assert get_rehearsals(run("KEPT_TOKEN", login="")) == {"rotate kept": "success"}
    renewal_server.revoke("viewer")
    assert get_rehearsals(run("KEPT_TOKEN", login="", dry_run=True)) == {"rotate kept": "failed"}
    assert "no longer assigned to you: viewer" in read_token(airflow)["message"]
    assert renewal_server.rows() == rows


def test_a_dry_run_rotates_nothing(airflow, renewal_server, run, put):
    """Also a token that is due."""
    put("DUE_TOKEN", "due", age=2700)
    before = airflow.variable(key="DUE_TOKEN")["value"]
    rows = renewal_server.rows()
    assert get_rehearsals(run("DUE_TOKEN", dry_run=True)) == {"rotate due": "success"}
    assert (airflow.variable(key="DUE_TOKEN")["value"] == before, renewal_server.rows()) == (
        True,
        rows,
    )
