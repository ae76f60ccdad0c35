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
    """The log has the expiry and the required lifetime."""
    put(airflow, renewal_server, f"ENOUGH_{mode}", minutes_left=40)
    assert wait(airflow, mode, f"ENOUGH_{mode}") == "success"
    log = airflow_home.log.read_text()
    assert f"The token in Variable ENOUGH_{mode} expires at 20" in log
    assert "required: 30 min." in log


@MODES
def test_a_token_that_is_too_short_lived_is_waited_for_in_vain(
    airflow, airflow_home, renewal_server, mode
):
    """The sensor fails with AirflowSensorTimeout."""
    put(airflow, renewal_server, f"SHORT_{mode}", minutes_left=10)
    before = airflow_home.log.read_text().count("AirflowSensorTimeout")
    assert wait(airflow, mode, f"SHORT_{mode}") == "failed"
    assert airflow_home.log.read_text().count("AirflowSensorTimeout") > before


@MODES
def test_a_missing_or_unreadable_token_is_logged_and_waited_for(airflow, airflow_home, mode):
    """Each poke logs the problem."""
    airflow.put_variable(key=f"ODD_{mode}", value="no token", description=None)
    for key in (f"NONE_{mode}", f"ODD_{mode}"):
        assert wait(airflow, mode, key) == "failed"
        assert f"Variable {key}: " in airflow_home.log.read_text()


@pytest.mark.parametrize("given", [0, -1, timedelta(0), "30m", float("nan")], ids=str)
def test_an_invalid_min_remaining_is_refused(given):
    """When the DAG file is parsed."""
    from flowauth_rotator.provider import FlowAPITokenSensor

    with pytest.raises(Misconfigured, match="`min_remaining` is"):
        FlowAPITokenSensor(task_id="wait", min_remaining=given)


def test_an_error_of_a_store_is_waited_for(tmp_path, monkeypatch):
    """Also one that its class does not handle, whose text may be a secret."""
    from flowauth_rotator.provider import FlowAPITokenSensor

    (tmp_path / "unsound.py").write_text(
        "class Store:\n"
        "    place = 'the shelf'\n"
        "    def __init__(self, key): ...\n"
        "    def read(self): raise KeyError('hunter2')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sensor = FlowAPITokenSensor(task_id="wait", min_remaining=60, store="unsound.Store")
    assert sensor.poke({}) is False
