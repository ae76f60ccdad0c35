"""An Airflow with all its processes, left to itself."""

import json
import time
from pathlib import Path

import psycopg
import pytest

from demo.parts import AirflowHome
from tests.e2e.test_secrecy import leaks, parts_of

HERE = Path(__file__).parent
PATIENCE = 180  # seconds


class Deployment:
    """An Airflow on PostgreSQL whose LocalExecutor runs tasks in processes of their own."""

    def __init__(self, home, database):
        self.home, self.database = home, database
        driver = "psycopg2" if home.version().startswith("2.") else "psycopg"
        url = database.replace("postgresql:", f"postgresql+{driver}:")
        home.env |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
        }
        home.set_up()

    def load(self, what, document):
        """Import connections or Variables by the command line, from a file that is then removed."""
        path = self.home.folder / f"{what}.json"
        path.write_text(json.dumps(document))
        assert self.home.airflow(what, "import", str(path)) == 0
        path.unlink()

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
        folder.mkdir()
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        for (table,) in self.ask(tables):
            (folder / table).write_text("\n".join(map(repr, self.ask(f'SELECT * FROM "{table}"'))))


def until(holds, what):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        time.sleep(0.5)


@pytest.fixture
def deployment(tmp_path, airflow_binaries, postgresql):
    return Deployment(AirflowHome(tmp_path, airflow_binaries), postgresql.create())


def test_the_schedule_swaps_a_token_that_becomes_due(deployment, renewal_server, flowapi):
    """Without hands; a task that holds the old token all the while is never refused."""
    due_in = 60
    old = renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 2400 + due_in)
    deployment.load("variables", {"FLOWAPI_TOKEN": old, "flowapi_address": flowapi})
    connection = {
        "conn_type": "flowauth",
        "host": renewal_server.url,
        "login": renewal_server.username,
        "password": renewal_server.password,
    }
    deployment.load("connections", {"flowauth_default": connection})
    with deployment.home.running():
        until(
            lambda: deployment.states("consumers") == {"use": "running"},
            "a task uses the token",
        )
        assert len(renewal_server.rows("AIRFLOW")) == 1
        until(
            lambda: deployment.states("consumers") == {"use": "success"},
            "the task ends well",
        )
        runs = "SELECT state FROM dag_run WHERE dag_id = 'flowauth_token_rotation'"
        assert set(deployment.ask(runs)) <= {("success",), ("running",), ("queued",)}
    assert deployment.answers("use") == [[200]]
    first, second = renewal_server.rows("AIRFLOW")
    assert second.parent_id == first.id
    new = deployment.home.variable()["value"]
    secrets = [*parts_of(old, new), renewal_server.password]
    deployment.dump(deployment.home.folder.parent / "database")
    assert leaks(deployment.home.folder.parent, "flowauth_token_rotation") >= {"dag_run"}
    assert leaks(deployment.home.folder.parent, *secrets) == set()
