"""An Airflow with all its processes, and the content of its database."""

import json
from pathlib import Path

import sqlalchemy

from tests.e2e.search import leaks

DAGS = Path(__file__).parent / "dags"


class Deployment:
    """An Airflow whose executor runs the tasks of a folder of DAGs in processes of their own.

    Its metadata is in a PostgreSQL `database`, which is migrated already, or without one in an
    SQLite file of its own.
    """

    def __init__(self, home, dags, database=None, **settings):
        self.home = home
        home.set_up()
        if database:
            home.use_postgresql(database)
        defaults = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
        }
        home.env |= defaults | settings
        url = database or f"sqlite:///{home.folder}/airflow.db"
        self._engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    def running(self):
        """Run all its processes until the block ends."""
        return self.home.running()

    def connect(self, server):
        """Make the connection to a renewal server."""
        connection = {"conn_type": "flowauth", "host": server.url, "login": server.username}
        connection["password"] = server.password
        self.home.load("connections", {"flowauth_default": connection})

    def ask(self, query):
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def states(self, dag_id):
        """The state of each task of a DAG, of its first run."""
        query = f"SELECT task_id, state FROM task_instance WHERE dag_id = '{dag_id}'"
        return dict(self.ask(query))

    def values_of(self, task_id, key="return_value"):
        """Return the values with this key in XCom that the tasks with this id have pushed."""
        query = f"SELECT value FROM xcom WHERE task_id = '{task_id}' AND key = '{key}'"
        values = (value for (value,) in self.ask(query))
        return [json.loads(value) if isinstance(value, (bytes, str)) else value for value in values]

    def dump(self, folder):
        """Write the content of the database, a file for each table."""
        folder.mkdir(exist_ok=True)
        for table in sqlalchemy.inspect(self._engine).get_table_names():
            (folder / table).write_text("\n".join(map(repr, self.ask(f'SELECT * FROM "{table}"'))))

    def leaks(self, *secrets):
        """Return the tables and files that contain 12 consecutive characters of a secret."""
        folder = self.home.folder.parent
        self.dump(folder / "database")
        return leaks(folder, *secrets)

    def close(self):
        self._engine.dispose()
