"""The metrics that Airflow sends to a real StatsD port."""

import contextlib
import json
import socket
import time

import pytest

from tests.provider.conftest import driven


@pytest.fixture
def statsd():
    """The port to which Airflow sends metrics."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as port:
        port.bind(("127.0.0.1", 0))
        port.settimeout(1)
        yield port


def received(port):
    lines = []
    with contextlib.suppress(TimeoutError):
        while True:
            lines += port.recv(65536).decode().splitlines()
    return lines


def test_each_outcome_is_counted(airflow, airflow_home, renewal_server, statsd):
    """Of a healthy token, a rotated token and a missing token."""
    for key, age in (("KEPT_TOKEN", 0), ("DUE_TOKEN", 2700)):
        token = renewal_server.mint(key, issued_at=int(time.time()) - age)
        airflow.put_variable(key=key, value=token, description=None)
    connection = {"conn_type": "flowauth", "host": renewal_server.url, "login": "flowbot"}
    connection["password"] = renewal_server.password
    tokens = [{"variable": key} for key in ("KEPT_TOKEN", "DUE_TOKEN", "NO_TOKEN")]
    metrics = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
    }
    with driven(airflow_home, **metrics) as sending:
        environment = {
            "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps(tokens),
            "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(connection),
        }
        sending.run(dag_id="managed", environment=environment)
        lines = received(statsd)
    counted = [line.partition("flowauth_rotator.")[2] for line in lines if "flowauth_rot" in line]
    assert sorted(counted) == ["checks.healthy:1|c", "checks.missing:1|c", "checks.rotated:1|c"]
