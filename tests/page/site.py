"""An Airflow that has the page, with all its processes, and people who come to see it."""

import contextlib
import json
import secrets
import subprocess
from pathlib import Path

from cryptography.fernet import Fernet

from demo.parts import ROOT, AirflowHome
from tests.e2e.deployment import Deployment

HERE = Path(__file__).parent
# By name: the role of Airflow 3's simple auth manager, and that of Airflow 2.
PEOPLE = {
    "admin": ("admin", "Admin"),
    "reader": ("viewer", "Reader"),  # sees Variables, starts nothing
    "clerk": ("user", "User"),  # starts DAGs, sees no Variables
}
PROMPT = {  # what is changed under its hands an Airflow is to notice soon
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3",
}


class Site(Deployment):
    """An Airflow with the page, its DAGs in a folder of its own, and users.

    Attributes:
        two: whether it is an Airflow 2.
        dags: the folder of its DAGs.
        passwords: of each user.
        url: its address while it runs, without a slash at the end.
    """

    def __init__(self, folder, binaries, postgresql, **settings):
        home = AirflowHome(folder, binaries)
        self.two = home.version().startswith("2.")
        self.dags = folder / "dags"
        self.dags.mkdir()
        self.passwords = {name: secrets.token_urlsafe(12) for name in PEOPLE}
        self.url = ""
        if not self.two:
            settings |= self._simple_users(folder)
        database = postgresql.create() if self.two else None
        here = {"AIRFLOW__CORE__DAGS_FOLDER": str(self.dags)}
        super().__init__(home, database, **PROMPT, **here, **settings)
        if self.two:
            self._make_users()
        self._fernet = Fernet(home.env["AIRFLOW__CORE__FERNET_KEY"])

    @contextlib.contextmanager
    def running(self):
        with super().running() as self.url:
            yield self.url

    @property
    def page(self):
        """The page's own address."""
        return f"{self.url}/flowauth-rotator/"

    def variable(self, key):
        """The value of a Variable, read from the database."""
        [(value, encrypted)] = self.ask(f"SELECT val, is_encrypted FROM variable WHERE key = '{key}'")
        return self._fernet.decrypt(value.encode()).decode() if encrypted else value

    def runs(self, dag_id):
        """State and type of each run of a DAG, oldest first."""
        return self.ask(f"SELECT state, run_type FROM dag_run WHERE dag_id = '{dag_id}' ORDER BY id")

    def _simple_users(self, folder):
        passwords = folder / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self.passwords))
        return {
            "PYTHONPATH": str(HERE / "auth"),
            "AIRFLOW__CORE__AUTH_MANAGER": "reading.ReadingAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, (role, _) in PEOPLE.items()
            ),
        }

    def _make_users(self):
        people = {name: (role, self.passwords[name]) for name, (_, role) in PEOPLE.items()}
        with self.home.log.open("a") as log:
            subprocess.run(
                [self.home.binaries / "python", HERE / "people.py"],
                env=self.home.env,
                cwd=ROOT,
                input=json.dumps(people),
                stdout=log,
                stderr=log,
                text=True,
                check=True,
            )
