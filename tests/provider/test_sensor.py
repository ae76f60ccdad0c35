"""The sensor in a real Airflow."""

import time
from datetime import timedelta

import pytest

from flowauth_rotator.core.errors import Misconfigured

MODES = pytest.mark.parametrize("mode", ["poke", "deferred"])


def put(airflow, renewal_server, key, *, minutes_left):
    issued_at = int(time.time()) - 60 * (60 - minutes_left)
    airflow.put_variable(
        key=key, value=renewal_server.mint(key, issued_at=issued_at), description=None
    )


def wait(airflow, mode, key):
    return airflow.run(dag_id=f"waits_{mode}", conf={"variable": key})["tasks"]["wait"]["state"]


@MODES
def test_a_token_that_lives_long_enough_is_not_waited_for(
    airflow, airflow_home, renewal_server, mode
):
    """The log says until when it lives, and how much was wanted."""
    put(airflow, renewal_server, f"ENOUGH_{mode}", minutes_left=40)
    assert wait(airflow, mode, f"ENOUGH_{mode}") == "success"
    log = airflow_home.log.read_text()
    assert f"The token in Variable ENOUGH_{mode} lives until 20" in log
    assert "wanted: 0:30:00." in log


@MODES
def test_a_token_that_is_too_short_lived_is_waited_for_in_vain(
    airflow, airflow_home, renewal_server, mode
):
    """The sensor ends with its timeout, which is its own and no other error."""
    put(airflow, renewal_server, f"SHORT_{mode}", minutes_left=10)
    before = airflow_home.log.read_text().count("AirflowSensorTimeout")
    assert wait(airflow, mode, f"SHORT_{mode}") == "failed"
    assert airflow_home.log.read_text().count("AirflowSensorTimeout") > before


@MODES
def test_a_token_that_is_not_there_is_told_of_and_waited_for(airflow, airflow_home, mode):
    """As one that nobody can read."""
    airflow.put_variable(key=f"ODD_{mode}", value="no token", description=None)
    for key in (f"NONE_{mode}", f"ODD_{mode}"):
        assert wait(airflow, mode, key) == "failed"
        assert f"Variable {key}: " in airflow_home.log.read_text()


@pytest.mark.parametrize("given", [0, -1, timedelta(0), "30m", float("nan")], ids=str)
def test_a_wait_for_nothing_is_refused_where_it_is_written(given):
    """At parse, with what to write instead."""
    from flowauth_rotator.provider import FlowAPITokenSensor

    with pytest.raises(Misconfigured, match="`min_remaining` is"):
        FlowAPITokenSensor(task_id="wait", min_remaining=given)
