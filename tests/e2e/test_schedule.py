"""An Airflow with all its processes, left to itself."""

import itertools
import json
import time
from pathlib import Path

import psutil
import psycopg
import pytest

from demo.parts import AirflowHome
from flowauth_rotator.core.tokens import Token, read_unverified
from tests.e2e.test_secrecy import leaks, parts_of

HERE = Path(__file__).parent
PATIENCE = 180  # seconds


class Deployment:
    """An Airflow on PostgreSQL whose executor runs tasks in processes of their own."""

    def __init__(self, home, database, **settings):
        self.home, self.database = home, database
        defaults = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
        }
        home.env |= on_postgresql(database) | defaults | settings
        home.set_up()

    def running(self):
        """Run all its processes until the block ends."""
        return self.home.running()

    def connect(self, server):
        """Make the connection to a renewal server."""
        connection = {"conn_type": "flowauth", "host": server.url, "login": server.username}
        connection["password"] = server.password
        self.home.load("connections", {"flowauth_default": connection})

    def ask(self, query):
        with psycopg.connect(self.database) as connection:
            return connection.execute(query).fetchall()

    def states(self, dag_id):
        """The state of each task of a DAG, of its first run."""
        query = f"SELECT task_id, state FROM task_instance WHERE dag_id = '{dag_id}'"
        return dict(self.ask(query))

    def answers(self, task_id):
        """What the tasks of this name have returned."""
        query = f"SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = 'return_value'"
        values = (value for (value,) in self.ask(query))
        return [json.loads(value) if isinstance(value, bytes) else value for value in values]

    def dump(self, folder):
        """Write down all that is in the database, a file for each table."""
        folder.mkdir(exist_ok=True)
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in self.ask(tables):
            (folder / table).write_text("\n".join(map(repr, self.ask(f'SELECT * FROM "{table}"'))))

    def leaks(self, *secrets):
        """The tables and files in which 12 characters in a row of a secret stand."""
        folder = self.home.folder.parent
        self.dump(folder / "database")
        return leaks(folder, *secrets)


def on_postgresql(database):
    """The settings of an Airflow whose metadata is in this database."""
    drivers = {"SQL_ALCHEMY_CONN": "psycopg2", "SQL_ALCHEMY_CONN_ASYNC": "psycopg"}
    return {
        f"AIRFLOW__DATABASE__{name}": database.replace("postgresql:", f"postgresql+{driver}:")
        for name, driver in drivers.items()
    }


def until(holds, what):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.5)


def kill_every_third(server, generations):
    """Kill the process of every third rotation, when its renewal is committed but not answered.

    `generations` says for each how many die: 1 is the process alone, 2 that and its parent.
    """
    app, killed, asked = server.app.wsgi_app, [], itertools.count(1)

    def killing(environ, start_response):
        answer = app(environ, start_response)
        if environ["PATH_INFO"].endswith("/renew") and next(asked) % 3 == 0:
            ends = (int(environ["REMOTE_PORT"]), int(environ["SERVER_PORT"]))
            [pid] = {
                it.pid
                for it in psutil.net_connections("tcp")
                if it.pid and it.raddr and (it.laddr.port, it.raddr.port) == ends
            }
            process = psutil.Process(pid)
            for victim in reversed([process, *process.parents()][: next(generations)]):
                victim.kill()
            killed.append(pid)
        return answer

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
        until(lambda: len(deployment.ask(ended)) >= 2, "two runs end")
    assert deployment.ask(ended)[1] == ("success",)
    assert len(killed) >= 6
    exported = deployment.home.folder / "exported.json"
    assert deployment.home.airflow("variables", "export", str(exported)) == 0
    tokens = list(old.values())
    for name, variable in json.loads(exported.read_text()).items():
        first, second = server.rows(name)
        assert (first.issued_at, second.parent_id) == (issued_at, first.id)
        tokens.append(variable["value"] if isinstance(variable, dict) else variable)
        in_use = read_unverified(Token(tokens[-1]))
        assert (in_use.token_name, in_use.issued_at.timestamp()) == (name, second.issued_at)
    exported.unlink()
    return tokens


@pytest.fixture
def deployment(tmp_path, airflow_binaries, postgresql):
    return Deployment(AirflowHome(tmp_path, airflow_binaries), postgresql.create())


def test_the_schedule_swaps_a_token_that_becomes_due(deployment, renewal_server, flowapi):
    """Without hands; who waits for it goes on, and who holds the old token is never refused."""
    due_in = 60
    old = renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 2400 + due_in)
    deployment.home.load("variables", {"FLOWAPI_TOKEN": old, "flowapi_address": flowapi})
    deployment.connect(renewal_server)
    with deployment.running():
        until(
            lambda: deployment.states("consumers") == {"wait": "deferred", "use": "running"},
            "a task waits, and another uses the token",
        )
        assert len(renewal_server.rows("AIRFLOW")) == 1
        until(
            lambda: deployment.states("consumers") == {"wait": "success", "use": "success"},
            "both tasks end well",
        )
        runs = "SELECT state FROM dag_run WHERE dag_id = 'flowauth_token_rotation'"
        assert set(deployment.ask(runs)) <= {("success",), ("running",), ("queued",)}
    assert deployment.answers("use") == [[200]]
    first, second = renewal_server.rows("AIRFLOW")
    assert second.parent_id == first.id
    new = deployment.home.variable()["value"]
    assert deployment.leaks("flowauth_token_rotation") >= {"dag_run"}
    assert deployment.leaks(*parts_of(old, new), renewal_server.password) == set()


def test_rotations_that_are_killed_are_ended_by_the_next_try(deployment, renewal_server):
    """Twenty tokens due at once, every third process killed: all swapped, none minted twice."""
    rotate_twenty(deployment, renewal_server, itertools.repeat(1))
