"""Scheduled checks of more tokens than one of them reads, in a real Airflow."""

import json
import time

import jwt
import pytest

from flowauth_rotator.provider.selection import MOST_READ

COUNT = 2 * MOST_READ + 5
VARIABLES = [f"MANY_{number}" for number in range(COUNT)]
HOUR = 3600


class Fleet:
    """Many managed tokens, the first of which is due and cannot be renewed.

    Attributes:
        airflow: the Airflow in which they are.
    """

    def __init__(self, airflow):
        self.airflow = airflow

    def run(self, kind="scheduled", **params):
        """Run the DAG, and return the id of the run."""
        settings = {"flowauth_conn_id": "many", "rehearse_every": None}
        tokens = [{"variable": each, "name": f"N {each}", **settings} for each in VARIABLES]
        tokens[0]["flowauth_conn_id"] = "not_made"
        environment = {"AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(tokens)}
        done = self.airflow.run(dag_id="managed", conf=params, environment=environment, kind=kind)
        return done["run_id"]

    def list_runs(self):
        """Return the run that read each token last, by Variable; None if none has read it."""
        tokens = self.airflow.status()["tokens"]
        return {each["variable"]: each.get("last_check", {}).get("run_id") for each in tokens}


@pytest.fixture
def fleet(airflow, signing_key):
    """Tokens of two hours, and one of which a quarter is left."""
    airflow.forget_status()
    airflow.put_connection(conn_id="many", host="https://flowauth.example.org")
    now = int(time.time())
    for key in VARIABLES:
        age = HOUR * 3 // 2 if key == VARIABLES[0] else 0
        claims = {"iat": now - age, "exp": now - age + 2 * HOUR, "sub": "flowbot", "aud": "S"}
        value = jwt.encode({**claims, "jti": key}, signing_key, "RS256")
        airflow.put_variable(key=key, value=value, description=None)
    yield Fleet(airflow)
    airflow.forget_status()


def test_scheduled_checks_read_a_hundred_each_and_those_that_are_due(fleet):
    """Each counts as a complete check. The page shows all tokens from the first check on."""
    first = fleet.run()
    runs = fleet.list_runs()
    assert list(runs) == VARIABLES
    assert list(runs.values()) == [first] * MOST_READ + [None] * (COUNT - MOST_READ)
    dag = fleet.airflow.status()["dags"][0]
    assert (dag["checked_by"], dag["token_count"]) == (first, COUNT)
    shown = {each["name"]: each for each in fleet.airflow.read_assessment()["tokens"]}
    assert {shown[f"N {each}"]["state"] for each in VARIABLES[1:]} == {"healthy"}

    second = fleet.run()
    runs = fleet.list_runs()
    assert runs[VARIABLES[0]] == second, "it is due"
    unread = VARIABLES[2 * MOST_READ - 1 :]
    assert {variable for variable, run in runs.items() if run is None} == set(unread)

    third = fleet.run()
    runs = fleet.list_runs()
    assert {runs[variable] for variable in unread} == {third}
    assert list(runs.values()).count(third) == MOST_READ
    assert runs[VARIABLES[1]] == third, "it was not read for the longest time"
    assert runs[VARIABLES[MOST_READ]] == second


def test_a_run_for_named_tokens_reads_those_alone_and_any_other_by_hand_reads_all(fleet):
    by_hand = fleet.run("manual")
    assert set(fleet.list_runs().values()) == {by_hand}
    named = fleet.run("manual", names=[VARIABLES[7], f"N {VARIABLES[9]}"])
    runs = fleet.list_runs()
    assert {key for key, run in runs.items() if run == named} == {VARIABLES[7], VARIABLES[9]}
    assert len(runs) == COUNT
