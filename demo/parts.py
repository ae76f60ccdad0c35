"""A renewal server and an Airflow, each in a folder of its own, on the loopback interface."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet

from demo.names import DAG
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.settings import VARIABLES, Settings

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
USER = "flowbot"
AUDIENCE = "TEST_SERVER"
TOKEN_NAME = "AIRFLOW"  # noqa: S105 - a name
ROLES = {"runner": ["run", "get_results"], "viewer": ["get_results"]}
PAGE = "flowapi-tokens"
WAIT_LIMIT = 600  # seconds; long, since a busy machine is slow
PORTS = range(20_000, 32_000)  # below the ports of outgoing connections


class PartFailed(Exception):
    """A server, an Airflow or one of their commands failed; the message names its log."""


def prepare_process() -> None:
    """Handle SIGTERM like Ctrl-C, and connect to loopback addresses without a proxy."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


def clean_environment(**settings: str) -> dict[str, str]:
    """Return this environment without settings of an Airflow or a server, and with `settings`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "FLOWAUTH", "_AIRFLOW", "PYTHON"))
        and name not in VARIABLES
    }
    return {**inherited, "PATH": f"{BIN}{os.pathsep}{inherited.get('PATH', '')}", **settings}


def free_port() -> int:
    """Claim a free loopback port for this process until it ends.

    A UDP socket on the same number is the claim, which other callers of this function respect
    even before a server listens on the port. Nothing here serves UDP.
    """
    while True:
        port = random.choice(PORTS)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as claim:
                claim.bind(("127.0.0.1", port))
                claim.detach()  # it stays open as long as the process lives
            return port


def find_browser() -> str | None:
    """Find the path of a Chromium or a Chrome; one without windows takes half the CPU time."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def wait_until(is_met: Callable[[], bool], condition: str, *, interval: float = 0.2) -> None:
    """Call `is_met` every `interval` seconds until it is true.

    Raises:
        PartFailed: it was not true within `WAIT_LIMIT`.
    """
    deadline = time.monotonic() + WAIT_LIMIT
    while not is_met():
        if time.monotonic() > deadline:
            raise PartFailed(f"Timeout after {WAIT_LIMIT} s: waiting until {condition}.")
        time.sleep(interval)


@contextlib.contextmanager
def running(
    command: Sequence[str], *, env: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a group of its own, with its output in `log`, until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the group, and kill the processes that outlive its leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Wait until `url` responds without an error.

    Raises:
        PartFailed: the process ended, or did not respond within `WAIT_LIMIT`.
    """

    def is_healthy() -> bool:
        if process.poll() is not None:
            raise PartFailed(f"{name} did not start; see {log}")
        with contextlib.suppress(OSError):  # URLError is one
            urllib.request.urlopen(url, timeout=30).close()  # noqa: S310 - loopback
            return True
        return False

    wait_until(is_healthy, f"{name} responds; see {log}")


class RenewalServer:
    """The bundled server in `folder`, set up by its own commands.

    Attributes:
        url: its address.
        password: of the user `flowbot`, who holds all roles.
    """

    def __init__(self, folder: Path) -> None:
        self.log = folder / "server.log"
        self._data_dir = folder / "server"
        self._env = clean_environment(FLOWAUTH_ROTATOR_DATA_DIR=str(self._data_dir))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.password = secrets.token_urlsafe(18)

    def set_up(self) -> None:
        """Create keys, a user, an audience and roles."""
        self._run("server", "init")
        self._run("server", "add-audience", AUDIENCE, "--max-lifetime-minutes", "10080")
        for role, scopes in ROLES.items():
            options = [word for scope in scopes for word in ("--scope", scope)]
            self._run(
                *("server", "add-role", role, "--audience", AUDIENCE, *options),
                *("--max-lifetime-minutes", "1440"),
            )
        self._run("server", "add-user", USER, "--password-stdin", stdin=self.password)
        self._run("server", "grant", USER, *ROLES)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends."""
        command = [str(BIN / "flowauth-rotator"), "serve", "--bind", f"127.0.0.1:{self.port}"]
        with running([*command, "--workers", "2"], env=self._env, log=self.log) as process:
            wait_until_healthy(f"{self.url}/version", process, "The renewal server", self.log)
            yield

    def mint(self, minutes: int, *, age: float = 0) -> str:
        """Mint a first token with all roles, as if it were issued so many seconds ago."""
        services = Services.open(Settings.load(self._data_dir, self._env))
        try:
            user = services.accounts.get_user(USER)
            audience = services.accounts.get_audience(AUDIENCE)
            issued_at = int(time.time() - age)
            return services.issuer.mint(
                user, audience.id, TOKEN_NAME, list(ROLES), minutes, now=issued_at
            ).token
        finally:
            services.database.close()

    def public_key(self) -> str:
        """Return the public key (PEM) that verifies the tokens."""
        return self._run("server", "public-key")

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of all tokens of the user."""
        rows: list[dict[str, Any]] = json.loads(
            self._run("server", "tokens", "--all", "--user", USER, "--json")
        )
        return rows

    def renewal_requests(self) -> int:
        """Count the renewal requests in the server's log; a rehearsal has one for no row, 0."""
        pattern = r'"method": "POST", "path": "/tokens/(?:tokens/[1-9]\d*/)?renew"'
        return len(re.findall(pattern, self.log.read_text()))

    def _run(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(  # noqa: S603 - our own command
            [str(BIN / "flowauth-rotator"), *words],
            env=self._env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PartFailed(f"flowauth-rotator {' '.join(words[:2])} failed: {done.stderr}")
        return done.stdout


class AirflowHome:
    """An Airflow of its own in `folder`, with this checkout's dags and plugins.

    Attributes:
        binaries: the folder of its `airflow` and `python`.
    """

    def __init__(self, folder: Path, binaries: Path = BIN) -> None:
        self.binaries = binaries
        self.folder = folder / "airflow"
        self.log = folder / "airflow.log"
        self.env = clean_environment(
            AIRFLOW_HOME=str(self.folder),
            PATH=f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
            AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
            AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
            AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_urlsafe(32),
            AIRFLOW__API__SECRET_KEY=secrets.token_urlsafe(32),
        )

    def set_up(self) -> None:
        """Create the metadata database, an SQLite file."""
        self.folder.mkdir(parents=True)
        shutil.copy(migrated_database(self.binaries), self.folder / "airflow.db")

    def use_postgresql(self, url: str) -> None:
        """Keep the metadata in this PostgreSQL database instead of an SQLite file."""
        for setting, driver in (("CONN", "psycopg2"), ("CONN_ASYNC", "psycopg")):
            name = f"AIRFLOW__DATABASE__SQL_ALCHEMY_{setting}"
            self.env[name] = url.replace("postgresql:", f"postgresql+{driver}:")

    def migrate(self) -> None:
        """Migrate the metadata database to the schema of this Airflow."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.airflow("db", "migrate"):
            raise PartFailed(f"airflow db migrate failed; see {self.log}")

    def put_token(self, token: str) -> None:
        """Store a token in the Variable."""
        self._call_inside("put_token", token)

    def put_connection(self, url: str, login: str, password: str) -> None:
        """Store the connection to the issuer."""
        fields = {"host": url, "login": login, "password": password}
        self._call_inside("put_connection", fields)

    def load(self, kind: str, document: object) -> None:
        """Import `connections` or `variables` from a file, which is then removed."""
        path = self.folder / f"{kind}.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        failed = self.airflow(kind, "import", str(path))
        path.unlink()
        if failed:
            raise PartFailed(f"airflow {kind} import failed; see {self.log}")

    def run_dag(self) -> dict[str, Any]:
        """Run the DAG once, and return the result of its only token."""
        failed = self.airflow("dags", "test", DAG)
        result: dict[str, Any] | None = self._call_inside("last_result")
        if failed or result is None:
            raise PartFailed(f"A run of the DAG failed; see {self.log}")
        return result

    def variable(self) -> dict[str, str]:
        """Return the `value` and the `description` of the Variable."""
        variable: dict[str, str] = self._call_inside("variable")
        return variable

    @contextlib.contextmanager
    def running(self, port: int | None = None, base_url: str | None = None) -> Iterator[str]:
        """Run its processes until the block ends; yield the address of its page.

        Args:
            port: the port of its page; by default a free port.
            base_url: the external address of the page, if it differs.
        """
        port = port or free_port()
        url = base_url or f"http://127.0.0.1:{port}"
        inside = f"http://127.0.0.1:{port}{urlsplit(url).path}"
        two = self.version().startswith("2.")
        self.env |= {
            f"AIRFLOW__{'WEBSERVER' if two else 'API'}__BASE_URL": url,
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{inside}/execution/",
        }
        if two:  # on a busy machine its web server would end after two minutes
            self.env["AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT"] = "0"
        page, health = ("webserver", "health") if two else ("api-server", "api/v2/monitor/health")
        at = ["--port", str(port), "--workers", "1"]
        commands = [
            [page, *at, *(("--hostname", "127.0.0.1") if two else ("--host", "127.0.0.1"))],
            *([] if two else [["dag-processor"]]),
            ["scheduler", "--skip-serve-logs"],
            ["triggerer", "--skip-serve-logs"],
        ]
        with contextlib.ExitStack() as parts:
            for command in commands:
                log = self.folder.parent / f"{command[0]}.log"
                whole = [str(self.binaries / "airflow"), *command]
                process = parts.enter_context(running(whole, env=self.env, log=log))
                if command[0] == page:
                    wait_until_healthy(f"{inside}/{health}", process, f"Airflow's {page}", log)
            yield url

    def version(self) -> str:
        """Return Airflow's version."""
        code = "from importlib.metadata import version; print(version('apache-airflow'))"
        python = str(self.binaries / "python")
        return subprocess.check_output([python, "-c", code], text=True).strip()  # noqa: S603

    def airflow(self, *words: str) -> int:
        """Run an Airflow command, and return its exit code."""
        with self.log.open("ab") as log:
            return subprocess.run(  # noqa: S603 - our own command
                [str(self.binaries / "airflow"), *words],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            ).returncode

    def _call_inside(self, function: str, document: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call a function of demo.inside_airflow in this Airflow; secrets pass through pipes."""
        with self.log.open("ab") as log:
            done = subprocess.run(  # noqa: S603 - our own command
                [str(self.binaries / "python"), "-m", "demo.inside_airflow", function],
                env=self.env,
                cwd=ROOT,
                input=json.dumps(document).encode(),
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise PartFailed(f"Airflow's database could not be used; see {self.log}")
        return json.loads(done.stdout.splitlines()[-1])


def migrated_database(binaries: Path) -> Path:
    """Return the empty metadata database of an Airflow environment: an SQLite file to copy.

    It is created once for each environment, since a migration takes longer than most tests.
    """
    database = binaries.parent / "airflow.db"
    with (binaries.parent / "airflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            with tempfile.TemporaryDirectory(dir=binaries.parent) as folder:
                home = AirflowHome(Path(folder), binaries)
                home.migrate()
                (home.folder / database.name).replace(database)
    return database
