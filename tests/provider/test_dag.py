"""The operator and the DAG in a real Airflow, against a real renewal server."""

import itertools
import time

import pytest

from demo.parts import free_port

numbers = itertools.count()
TEMPLATE = "{{ 1 + 1 }} {{ var.value.HEALTHY }}"  # a token's name is other people's input


@pytest.fixture
def connection(airflow, renewal_server):
    """A connection to the renewal server of this test, signed in to as flowbot."""
    conn_id = f"flowauth_{next(numbers)}"
    airflow.put_connection(
        conn_id=conn_id,
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
    )
    return conn_id


def mint_due(server, name):
    return server.mint(name, issued_at=int(time.time()) - 2700)


def stored(airflow, key):
    return airflow.variable(key=key)["value"]


def run_one(airflow, connection, variable="ONE"):
    done = airflow.run(dag_id="one", conf={"variable": variable, "connection": connection})
    return done["tasks"]["rotate"]


def test_a_due_token_is_rotated_and_reported(airflow, renewal_server, connection):
    """The task succeeds, the Variable holds the successor, the report is in XCom."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("success", 1)
    assert task["report"]["outcome"] == "rotated"
    assert task["report"]["name"] == "NIGHTLY"
    variable = airflow.variable(key="ONE")
    assert variable["value"] != token
    assert variable["description"].startswith("FlowAPI token NIGHTLY, expires")


def test_both_tokens_are_masked_in_pieces(airflow, renewal_server, connection):
    """By the time the rotation is over, Airflow's masker knows each segment of either token."""
    token = mint_due(renewal_server, "MASKED")
    airflow.put_variable(key="ONE", value=token, description=None)
    answer = run_one(airflow, connection)["answer"]
    assert answer["before"][1:] == [True, True]
    assert answer["after"] == ["log: ***!"] * 6
    assert stored(airflow, "ONE") != token


def test_a_capped_swap_is_red(airflow, renewal_server, connection):
    """The token is swapped, since it is better than none, and a person is told."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    renewal_server.limit("runner", minutes=16)
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["outcome"] == "capped"
    assert stored(airflow, "ONE") != token


def test_a_refusal_fails_the_task_at_once(airflow, renewal_server, connection):
    """What no retry mends is not retried, and the report carries the issuer's words."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description="ask Jo")
    renewal_server.revoke("runner")
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["outcome"] == "refused"
    assert "no longer assigned to you: runner" in task["report"]["reason"]
    assert (task["report"]["name"], task["report"]["renewal_requests"]) == ("NIGHTLY", 1)
    assert task["report"]["severity"] == "warning"
    assert airflow.variable(key="ONE") == {"value": token, "description": "ask Jo"}


def test_an_unreachable_issuer_is_tried_again(airflow, renewal_server):
    """Airflow's retries are used, and the token in use stays."""
    airflow.put_connection(conn_id="nobody", host=f"http://127.0.0.1:{free_port()}")
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    task = run_one(airflow, "nobody")
    assert (task["state"], task["tries"]) == ("failed", 2)
    assert task["report"]["outcome"] == "unavailable"
    assert stored(airflow, "ONE") == token


def test_a_connection_that_is_not_there_fails_the_task(airflow, renewal_server):
    """The report says which, and that is not retried."""
    airflow.put_variable(key="ONE", value=mint_due(renewal_server, "NIGHTLY"), description=None)
    task = run_one(airflow, "nowhere")
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["reason"] == "There is no connection nowhere."


@pytest.fixture
def several(airflow, renewal_server):
    """A Variable for each of the DAG's tokens; the one named MISSING is not there."""
    airflow.put_connection(
        conn_id="flowauth_default",
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
    )
    tokens = {
        "HEALTHY": renewal_server.mint("HEALTHY"),
        "DUE": mint_due(renewal_server, "ETL"),
        "MALFORMED": "Bearer opaque-canary",
        "ALSO_DUE": mint_due(renewal_server, TEMPLATE),
    }
    for key, value in tokens.items():
        airflow.put_variable(key=key, value=value, description=None)
    return tokens


def test_each_token_is_looked_after_whatever_the_others_are(airflow, renewal_server, several):
    """The due are rotated, the bad turn red under their names, the healthy cost nothing."""
    done = airflow.run(dag_id="several")
    tasks = done["tasks"]
    assert {label: task["state"] for label, task in tasks.items()} == {
        "survey": "success",
        "rotate ETL": "success",
        "rotate MALFORMED": "failed",
        "rotate MISSING": "failed",
        f"rotate {TEMPLATE}": "success",
        "report": "failed",
    }
    assert done["state"] == "failed"
    outcomes = [task["report"]["outcome"] for label, task in tasks.items() if "rotate" in label]
    assert sorted(outcomes) == ["malformed", "missing", "rotated", "rotated"]
    assert stored(airflow, "HEALTHY") == several["HEALTHY"]
    assert stored(airflow, "MALFORMED") == several["MALFORMED"]
    for key in ("DUE", "ALSO_DUE"):
        assert stored(airflow, key) != several[key]
    assert airflow.variable(key="DUE")["description"] == "for the nightly ETL"
    renewals = [request for request in renewal_server.requests if request.endswith("/renew")]
    assert len(renewals) == 2
