"""An Airflow that has the page, with all its processes, and people who come to see it."""

import contextlib
import itertools
import json
import re
import secrets
import subprocess
from pathlib import Path

import requests
from cryptography.fernet import Fernet

from demo.parts import ROOT, AirflowHome, free_port, wait_until
from tests.e2e.deployment import Deployment
from tests.page.browsing import Visitor, sign_in
from tests.page.proxy import proxy_to, serving

HERE = Path(__file__).parent
TIME_ZONE = "Asia/Kathmandu"  # of the UI; its times show that no other zone is used
# By name: the role of Airflow 3's simple auth manager, and that of Airflow 2.
PEOPLE = {
    "admin": ("admin", "Admin"),
    "colleague": ("admin", "Admin"),
    "reader": ("viewer", "Reader"),  # sees Variables, starts nothing
    "clerk": ("user", "User"),  # starts DAGs, sees no Variables
}
PROMPT = {  # what changes in its folder of DAGs Airflow notices soon; it reads no file in vain
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    # The only worker of Airflow 2's web server is not to wait for what a browser connected ahead.
    "AIRFLOW__WEBSERVER__WORKER_CLASS": "gthread",
}


class Site(Deployment):
    """An Airflow with the page, its DAGs in a folder of its own, and people who may come.

    Attributes:
        two: whether it is an Airflow 2.
        dags: the folder of its DAGs.
        seen: the folder that keeps what people were answered.
        url: its address while it runs, without a slash at the end.
    """

    def __init__(self, folder, binaries, database, browser, **settings):
        home = AirflowHome(folder, binaries)
        self.two = home.version().startswith("2.")
        self.dags, self.seen = folder / "dags", folder / "seen"
        self.dags.mkdir()
        self.seen.mkdir()
        self.url = ""
        self._browser = browser
        self._passwords = {name: secrets.token_urlsafe(12) for name in PEOPLE}
        self._signed_in = {}
        self._numbers = itertools.count()
        if not self.two:
            settings |= self._simple_users(folder)
        super().__init__(home, self.dags, database, **PROMPT, **settings)
        if self.two:
            self._make_users()
        self._fernet = Fernet(home.env["AIRFLOW__CORE__FERNET_KEY"])

    @staticmethod
    def needs_postgresql(binaries):
        """Whether this Airflow runs one task at a time on SQLite: Airflow 2 does."""
        return AirflowHome(Path(), binaries).version().startswith("2.")

    @contextlib.contextmanager
    def running(self, path=""):
        """Run its processes; with a path, behind a proxy that has it below that."""
        with contextlib.ExitStack() as parts:
            port, outside = free_port(), None
            if path:
                outside = f"http://127.0.0.1:{parts.enter_context(serving(proxy_to(port)))}{path}"
            self.url = parts.enter_context(self.home.running(port, outside))
            yield self

    @property
    def page(self):
        """The page's own address."""
        return f"{self.url}/flowauth-rotator/"

    def visitor(self, who=None, **options):
        """Somebody in a browser of their own: one of the users, or a stranger."""
        record = self.seen / f"visit{next(self._numbers)}"
        context = self._browser.new_context(
            storage_state=self._state(who),
            record_har_path=record,
            record_har_url_filter=re.compile(r"^(?!.*/static/)"),
            **options,
        )
        return Visitor(context, record, self.seen)

    def sign_in(self, page, who):
        """Fill in the form that is shown."""
        sign_in(page, who, self._passwords[who])

    def call(self, who, method, path, **options):
        """Ask Airflow as a browser of theirs would, without one; redirects are not followed."""
        cookies = {it["name"]: it["value"] for it in self._state(who)["cookies"]} if who else {}
        answer = requests.request(
            method,
            f"{self.url}/{path}",
            cookies=cookies,
            allow_redirects=False,
            timeout=60,
            **options,
        )
        (self.seen / f"call{next(self._numbers)}").write_bytes(answer.content)
        return answer

    def overview(self, who="admin"):
        """What the page's API says."""
        answer = self.call(who, "GET", "flowauth-rotator/api/tokens")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tokens(self, who="admin"):
        """What the page's API says of each token, by name."""
        return {token["name"]: token for token in self.overview(who)["tokens"]}

    def ask_to_renew(self, who, variable, **options):
        """Use the page's API to begin a renewal."""
        options = {"headers": {"X-Requested-With": "flowauth-rotator"}, "json": {}} | options
        return self.call(who, "POST", f"flowauth-rotator/api/tokens/{variable}/renew", **options)

    def pause(self, dag_id, paused=True):
        """Switch a DAG off, or on again."""
        path = f"api/{'v1' if self.two else 'v2'}/dags/{dag_id}"
        assert self.call("admin", "PATCH", path, json={"is_paused": paused}).status_code == 200

    def put_dag(self, dag_id, code):
        """Put a file into the folder of DAGs."""
        (self.dags / f"{dag_id}.py").write_text(code)

    def wait_for_checks(self, *dag_ids):
        """Wait until these DAGs have looked at their tokens and all that runs has ended."""

        def list_checked():
            return {dag["dag_id"] for dag in self.overview()["dags"] if dag["checked_at"]}

        wait_until(lambda: list_checked() >= set(dag_ids), "the DAGs check")
        under_way = "SELECT run_id FROM dag_run WHERE state IN ('queued', 'running')"
        wait_until(lambda: self.ask(under_way) == [], "the first checks end")

    def variable(self, key):
        """The value of a Variable, read from the database."""
        query = f"SELECT val, is_encrypted FROM variable WHERE key = '{key}'"
        [(value, encrypted)] = self.ask(query)
        return self._fernet.decrypt(value.encode()).decode() if encrypted else value

    def renewals(self, dag_id):
        """The ids of a DAG's runs that were started from the page."""
        runs = self.ask(f"SELECT run_id FROM dag_run WHERE dag_id = '{dag_id}' ORDER BY id")
        return [run for (run,) in runs if run.startswith("renew-")]

    def _state(self, who):
        """What a browser keeps of somebody who has signed in."""
        if who and who not in self._signed_in:
            context = self._browser.new_context()
            page = context.new_page()
            page.goto(f"{self.url}/{'login/' if self.two else 'auth/login'}")
            self.sign_in(page, who)
            self._signed_in[who] = context.storage_state()
            context.close()
        return self._signed_in.get(who)

    def _simple_users(self, folder):
        passwords = folder / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self._passwords))
        return {
            "PYTHONPATH": str(HERE / "auth"),
            "AIRFLOW__CORE__AUTH_MANAGER": "reading.ReadingAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
                f"{name}:{role}" for name, (role, _) in PEOPLE.items()
            ),
        }

    def _make_users(self):
        people = {name: (role, self._passwords[name]) for name, (_, role) in PEOPLE.items()}
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
