"""The metadata database of an older Airflow, carried to the newest."""

import sys
import time
from pathlib import Path

import pytest

from demo.parts import AirflowHome
from flowauth_rotator.core.tokens import Token


@pytest.fixture
def homes(tmp_path, airflow_binaries, postgresql):
    """An Airflow, and the newest with the same database and the same key."""
    newest = Path(sys.executable).parent
    homes = [
        AirflowHome(tmp_path / name, at)
        for name, at in (("old", airflow_binaries), ("new", newest))
    ]
    database = postgresql.create()
    for home in homes:
        home.use_postgresql(database)
        home.env["AIRFLOW__CORE__FERNET_KEY"] = homes[0].env["AIRFLOW__CORE__FERNET_KEY"]
    return homes


def mint_due(server, name):
    return server.mint(name, issued_at=int(time.time()) - 2700)


def test_an_upgraded_airflow_goes_on_rotating(homes, renewal_server):
    """What the older one has stored is read, renewed and swapped by the newer one."""
    old, new = homes
    first, second = mint_due(renewal_server, "OLD"), mint_due(renewal_server, "NEW")
    old.migrate()
    old.put_connection(renewal_server.url, renewal_server.username, renewal_server.password)
    old.put_token(first)
    assert old.run_dag()["outcome"] == "rotated"
    old.load("variables", {"FLOWAPI_TOKEN": second})
    new.migrate()
    assert Token(new.variable()["value"]) == Token(second)
    assert new.run_dag()["outcome"] == "rotated"
    assert Token(new.variable()["value"]) != Token(second)
    assert [row.parent_id for row in renewal_server.rows()] == [None, None, 1, 2]
