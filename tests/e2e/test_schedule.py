"""An Airflow with all its processes, left to itself."""

import itertools
import json
import time

import psutil
import pytest

from demo.parts import AirflowHome, PartFailed, wait_until
from flowauth_rotator.core.tokens import Token, read_unverified
from tests.e2e.deployment import DAGS, Deployment
from tests.e2e.pages import disable_sign_in, fetch_pages
from tests.e2e.search import parts_of


def kill_every_third(server, generations):
    """Kill the process of every third rotation, when its renewal is committed but not answered.

    `generations` says for each how many die: 1 is the process alone, 2 that and its parent.
    """
    app, killed, renewals = server.app.wsgi_app, [], itertools.count(1)

    def killing(environ, start_response):
        response = app(environ, start_response)
        if environ["PATH_INFO"].endswith("/renew") and next(renewals) % 3 == 0:
            ends = (int(environ["REMOTE_PORT"]), int(environ["SERVER_PORT"]))
            [pid] = {
                connection.pid
                for connection in psutil.net_connections("tcp")
                if connection.pid
                and connection.raddr
                and (connection.laddr.port, connection.raddr.port) == ends
            }
            process = psutil.Process(pid)
            for victim in reversed([process, *process.parents()][: next(generations)]):
                victim.kill()
            killed.append(pid)
        return response

    server.app.wsgi_app = killing
    return killed


def rotate_twenty(deployment, server, generations):
    """Have twenty tokens swapped that are due at once, and return all that there were."""
    killed = kill_every_third(server, generations)
    names = [f"TOKEN_{number}" for number in range(20)]
    issued_at = int(time.time()) - 2700
    old = {name: server.mint(name, issued_at=issued_at) for name in names}
    deployment.home.load("variables", old)
    deployment.connect(server)
    ended = "SELECT state FROM dag_run WHERE dag_id = 'twenty' AND end_date IS NOT NULL ORDER BY id"
    with deployment.running():
        wait_until(lambda: len(deployment.ask(ended)) >= 2, "two runs end")
    assert deployment.ask(ended)[1] == ("success",)
    assert len(killed) >= 6
    exported = deployment.home.folder / "exported.json"
    assert deployment.home.airflow("variables", "export", str(exported)) == 0
    tokens = list(old.values())
    variables = json.loads(exported.read_text())
    for name in names:
        variable = variables[name]
        first, second = server.rows(name)
        assert (first.issued_at, second.parent_id) == (issued_at, first.id)
        tokens.append(variable["value"] if isinstance(variable, dict) else variable)
        in_use = read_unverified(Token(tokens[-1]))
        assert (in_use.token_name, in_use.issued_at.timestamp()) == (name, second.issued_at)
    exported.unlink()
    return tokens


@pytest.fixture
def deployment(tmp_path, airflow_binaries, postgresql, airflow_database):
    """It rotates twenty tokens, with its metadata on PostgreSQL."""
    home = AirflowHome(tmp_path, airflow_binaries)
    database = postgresql.create(like=airflow_database)
    deployment = Deployment(home, DAGS / "twenty", database)
    yield deployment
    deployment.close()


@pytest.fixture
def small_deployment(tmp_path, airflow_binaries, request):
    """It rotates a token that tasks use, with its metadata on SQLite.

    Airflow 2 runs no tasks side by side on SQLite: there it is on PostgreSQL.
    """
    home, database = AirflowHome(tmp_path, airflow_binaries), None
    if home.version().startswith("2."):
        like = request.getfixturevalue("airflow_database")
        database = request.getfixturevalue("postgresql").create(like=like)
    deployment = Deployment(home, DAGS / "scheduled", database)
    yield deployment
    deployment.close()


def wait_for(deployment, dag_id, **states):
    """Wait until the tasks of a DAG have these states; none of them may fail."""
    found = {}

    def is_reached():
        found.update(deployment.states(dag_id))
        assert "failed" not in found.values()
        return found == states

    try:
        wait_until(is_reached, f"the tasks of {dag_id} are {states}")
    except PartFailed as error:
        raise PartFailed(f"{error} They are {found}.") from error


def list_token(renew_before):
    """Return the list Variable with one token."""
    return {
        "flowauth_rotator_tokens": [{"variable": "FLOWAPI_TOKEN", "renew_before": renew_before}]
    }


def test_the_schedule_swaps_a_token_that_becomes_due(small_deployment, renewal_server, flowapi):
    """The waiting task continues, and a task with the old token is never refused.

    It becomes due by another threshold once all processes run. No part of either token is in the
    database, in a log or on a page.
    """
    deployment, folder = small_deployment, small_deployment.home.folder.parent
    old = renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 2100)
    stored = {"FLOWAPI_TOKEN": old, "flowapi_url": flowapi} | list_token("1m")
    deployment.home.load("variables", stored)
    deployment.connect(renewal_server)
    disable_sign_in(deployment.home)
    with deployment.running() as url:
        wait_until(lambda: deployment.values_of("use", "first_status"), "the old token is in use")
        wait_for(deployment, "consumers", wait="deferred", use="running")
        assert len(renewal_server.rows("AIRFLOW")) == 1
        deployment.home.load("variables", list_token("25m"))
        wait_for(deployment, "consumers", wait="success", use="success")
        wait_for(deployment, "after_rotation", receive_event="success")
        runs = "SELECT state FROM dag_run WHERE dag_id = 'flowauth_token_rotation'"
        assert set(deployment.ask(runs)) <= {("success",), ("running",), ("queued",)}
        link = fetch_pages(url, deployment, folder / "pages")
    assert link.startswith(url)
    assert link.endswith("#FLOWAPI_TOKEN")
    assert deployment.values_of("use") == [[200]]
    first, second = renewal_server.rows("AIRFLOW")
    assert second.parent_id == first.id
    [event] = deployment.values_of("receive_event")
    assert (event["outcome"], event["successor_expires_at"]) == ("rotated", second.expires_at)
    new = deployment.home.variable()["value"]
    seen = {path.name for path in (folder / "pages").iterdir()}
    found = deployment.leaks("flowauth_token_rotation")
    assert "dag_run" in found
    assert len(found & seen) > len(seen) / 4
    assert deployment.leaks(*parts_of(old, new), renewal_server.password) == set()


def test_rotations_that_are_killed_are_ended_by_the_next_try(deployment, renewal_server):
    """Twenty tokens due at once, every third process killed: all swapped, none minted twice."""
    rotate_twenty(deployment, renewal_server, itertools.repeat(1))
