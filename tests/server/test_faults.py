"""Faults under load, as they happen: processes killed, the disk full, the database away.

Each test prints how long its fault was felt: `pytest -rP tests/server/test_faults.py`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import requests
from sqlalchemy import func, select, text

from flowauth_rotator.server import Parts, Settings
from flowauth_rotator.server.schema import tokens
from flowauth_rotator.server.signing import compress_claims
from tests.conftest import AUDIENCE, PASSWORD, ROLES, USERNAME, PostgreSQL, prepare

SERVE = "import sys; from flowauth_rotator.server.commands import serve; serve(sys.argv[1:])"
DATABASES = ("SQLite", "PostgreSQL")  # behind the tests that use `database`
CLIENTS = 4
SCOPES = {"runner": ["run"], "viewer": ["get_available_dates", "get_results"]}
PATIENCE = 60  # seconds; nothing here asserts a time, but nothing waits for ever either


def until(met: Callable[[], bool], what: str, *, every: float = 0.01) -> None:
    """Wait for what has to come about."""
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, f"not in {PATIENCE} s: {what}"
        time.sleep(every)


class Serving:
    """`serve` with two workers, and a supervisor's hands on it."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.bind = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self.bind}"
        self._command = [sys.executable, "-c", SERVE, "--data-dir", data_dir, "--bind", self.bind]
        # The metrics of a killed server stay in TMPDIR, and are pytest's to sweep away.
        self._environment = os.environ | {
            "RENEWAL_RATE_LIMIT": "1000000/second",
            "TMPDIR": str(folder),
        }
        self._logs = (folder / f"log-{number}" for number in itertools.count())
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and again whenever it ends, until it says that it serves."""
        until(self._serves, "`serve` serves")

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(timeout=PATIENCE) == 0

    def workers(self) -> list[psutil.Process]:
        """The worker processes, oldest first."""
        found = psutil.Process(self._process.pid).children()
        return sorted(found, key=psutil.Process.create_time)

    def kill_worker(self) -> None:
        """End the oldest worker as `kill -9` does, and wait for another in its place."""
        before = self.workers()
        before[0].kill()
        until(lambda: len(set(self.workers()) - set(before)) == 1, "a new worker")
        until(lambda: len(self.workers()) == len(before), "as many workers as before")

    def kill(self) -> None:
        """End the master as `kill -9` does, and wait for its workers to notice."""
        orphans = self.workers()
        self._process.kill()
        self._process.wait()
        until(lambda: all(map(has_ended, orphans)), "no orphaned worker")

    def limit_files(self, size: int) -> None:
        """Let no worker write beyond a size of a file: to it, the disk is full there."""
        for worker in self.workers():
            worker.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def _serves(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._log = next(self._logs)
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, env=self._environment
                )
        return f"on {self.url}\n" in self._log.read_text()


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is no more, or only waits for its exit code to be read."""
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@dataclass(frozen=True)
class Told:
    """A token that a client was told of."""

    key: str | None
    row_id: int
    token: str = field(repr=False)
    at: float = 0.0


class Client:
    """Renews its newest token again and again, each with a key of its own.

    What is refused or cut off it asks for again with the same key; a refusal that is not the one
    with which a server asks for patience ends it.
    """

    def __init__(self, url: str, first: Told) -> None:
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Connection"] = "close"  # so that either worker may get each request
        self.url = url
        self.told = [first]
        self.refused = self.cut = self.replayed = 0

    def renew_until(self, enough: threading.Event) -> None:
        with self.http:
            while not enough.is_set():
                self.told.append(self._renewed(self.told[-1], f"{len(self.told)}"))

    def _renewed(self, newest: Told, key: str) -> Told:
        deadline = time.monotonic() + PATIENCE
        while (answer := self._ask(newest.token, key)) is None:
            assert time.monotonic() < deadline, f"no answer in {PATIENCE} s"
            time.sleep(0.05)
        self.replayed += "Idempotent-Replayed" in answer.headers
        return Told(key, answer.json()["id"], answer.json()["token"], time.monotonic())

    def _ask(self, token: str, key: str) -> requests.Response | None:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        try:
            answer = self.http.post(f"{self.url}/tokens/renew", headers=headers, timeout=PATIENCE)
        except requests.RequestException:
            self.cut += 1
            return None
        if answer.status_code == 200:
            return answer
        check_unavailable(answer)
        self.refused += 1
        return None


def check_unavailable(answer: requests.Response) -> None:
    """A 503 in the shape of all refusals, which says when to ask again."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"code", "message"}
    assert answer.json()["code"] == 503
    assert int(answer.headers["Retry-After"]) >= 1


class Load:
    """Four clients that renew at once, and the history as the operator sees it from outside."""

    def __init__(self, server: Serving, parts: Parts) -> None:
        self.parts = parts
        self.clients = [Client(server.url, self._mint(f"T{n}")) for n in range(CLIENTS)]

    def _mint(self, name: str) -> Told:
        owner = self.parts.accounts.named_user(USERNAME)
        now = int(time.time())
        issued = self.parts.issuing.mint(owner, 1, name, ROLES, None, now=now)
        return Told(None, issued.row_id, issued.token)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Renew all the time; in the end every client gets the answer that it waits for."""
        enough = threading.Event()
        with ThreadPoolExecutor(CLIENTS) as pool:
            running = [pool.submit(client.renew_until, enough) for client in self.clients]
            try:
                self.goes_on()
                yield
            finally:
                enough.set()
            for client in running:
                client.result()

    def goes_on(self, at_least: int = 5) -> None:
        """Wait until each client has been told of some more tokens."""
        before = [len(client.told) for client in self.clients]
        until(
            lambda: all(
                len(client.told) >= count + at_least
                for client, count in zip(self.clients, before, strict=True)
            ),
            "renewals go on",
        )

    def is_refused(self) -> None:
        """Wait until each client has been refused once more."""
        before = [client.refused for client in self.clients]
        until(
            lambda: all(
                client.refused > count for client, count in zip(self.clients, before, strict=True)
            ),
            "renewals are refused",
        )

    def commits(self) -> None:
        """Wait until a renewal has been committed, and perhaps not been answered yet."""
        before = self._newest()
        until(lambda: self._newest() > before, "a commit", every=0)

    def _newest(self) -> int:
        with self.parts.database.reading() as connection:
            return connection.execute(select(func.max(tokens.c.id))).scalar_one()

    def cut(self) -> int:
        """How often an answer was cut off or a connection refused."""
        return sum(client.cut for client in self.clients)

    def first_answer(self, since: float) -> str:
        """How long after a moment somebody was told of a token again."""
        moments = (told.at for client in self.clients for told in client.told)
        return f"first answer after {min(at for at in moments if at > since) - since:.2f} s"

    def __str__(self) -> str:
        told = sum(len(client.told) - 1 for client in self.clients)
        refused = sum(client.refused for client in self.clients)
        replayed = sum(client.replayed for client in self.clients)
        pauses = (
            after.at - before.at
            for client in self.clients
            for before, after in itertools.pairwise(client.told[1:])
        )
        return (
            f"{told} renewals, {refused} refused, {self.cut()} cut off ({replayed} of them had "
            f"been committed), longest pause of a client {max(pauses):.2f} s"
        )

    def check(self, claims_of: Callable[[str], dict]) -> None:
        """Each token that was told of is in the history, once, in its line of descent, whole."""
        with self.parts.database.reading() as connection:
            kept = {row.id: row for row in connection.execute(select(tokens))}
        history = {row.id: row for row in self.parts.issuing.rows()}
        for client in self.clients:
            for before, after in itertools.pairwise(client.told):
                row = kept[after.row_id]
                assert (row.parent_id, row.idempotency_key) == (before.row_id, after.key)
                assert self.parts.history.reveal(history[row.id]) == after.token
        assert len(kept) == sum(len(client.told) for client in self.clients)
        for row in history.values():
            claims = claims_of(self.parts.history.reveal(row))
            assert claims == claims_in(row, kept[row.id].jti)


def claims_in(row, jti: str) -> dict[str, object]:
    """What the token of a row must say."""
    return {
        "iat": row.issued_at,
        "nbf": row.issued_at,
        "exp": row.expires_at,
        "jti": jti,
        "sub": row.owner,
        "aud": AUDIENCE,
        "user_claims": compress_claims({role.name: SCOPES[role.name] for role in row.roles}),
        "token_name": row.name,
    }


def check_file(path: Path) -> None:
    """SQLite itself finds nothing wrong with the file."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.fixture
def server(data_dir, tmp_path) -> Iterator[Serving]:
    serving = Serving(data_dir, tmp_path)
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture
def load(server, data_dir, claims_of) -> Iterator[Load]:
    """Load whose whole history is looked at in the end."""
    parts = Parts.open(Settings.load(data_dir))
    load = Load(server, parts)
    yield load
    print(load)
    load.check(claims_of)
    parts.database.close()
    if (data_dir / "history.db").exists():
        check_file(data_dir / "history.db")


@pytest.fixture
def reader(server) -> Iterator[Callable[[str], requests.Response]]:
    """Ask for a page as flowbot, signed in before the fault."""
    with requests.Session() as http:
        http.trust_env = False
        http.headers["Connection"] = "close"
        credentials = {"username": USERNAME, "password": PASSWORD}
        assert http.post(f"{server.url}/signin", json=credentials, timeout=PATIENCE).ok
        yield lambda path: http.get(f"{server.url}{path}", timeout=PATIENCE)


@pytest.mark.usefixtures("database")
def test_a_worker_killed_under_load_costs_no_token(server, load):
    """Killed again and again: another takes its place, and each key gets one successor."""
    with load.applied():
        for kills in itertools.count(1):
            load.commits()
            killed_at = time.monotonic()
            server.kill_worker()
            load.goes_on()
            print(f"a worker killed: {load.first_answer(killed_at)}")
            if kills >= 6 and load.cut() >= 2:
                break


@pytest.mark.usefixtures("database")
def test_a_master_killed_under_load_leaves_nothing_that_hinders_the_next(server, load):
    """Its workers end by themselves, and `serve` goes on with the same data directory."""
    with load.applied():
        for _ in range(2):
            killed_at = time.monotonic()
            server.kill()
            print(
                f"the master killed: its workers ended after {time.monotonic() - killed_at:.2f} s"
            )
            server.start()
            load.goes_on()
            print(f"the master killed: {load.first_answer(killed_at)}")
    assert load.cut() > 0


def test_a_full_disk_refuses_renewals_until_there_is_space_again(server, load, reader, data_dir):
    """No write beyond the size that the log has reached: tokens can be read, and none is lost."""
    log = data_dir / "history.db-wal"
    with load.applied():
        until(lambda: log.stat().st_size > 2**20, "a log larger than all other files")
        server.limit_files(log.stat().st_size)
        load.is_refused()
        assert reader("/tokens/tokens/1").status_code == 200
        assert reader("/readyz").status_code == 200
        load.is_refused()
        server.limit_files(psutil.RLIM_INFINITY)
        space_at = time.monotonic()
        load.goes_on()
    print(f"the disk full: {load.first_answer(space_at)}")


@pytest.mark.usefixtures("database")
def test_a_locked_database_refuses_renewals_until_it_is_unlocked(load, reader):
    """Another process writes for ten seconds: whoever reads does not notice."""
    with load.applied():
        with load.parts.database.writing():
            until_then = time.monotonic() + 10
            while time.monotonic() < until_then:
                assert reader("/tokens/tokens/1").status_code == 200
                time.sleep(0.1)
            load.is_refused()
        unlocked_at = time.monotonic()
        load.goes_on()
    print(f"the database locked: {load.first_answer(unlocked_at)}")


@pytest.fixture
def own_postgresql(tmp_path, data_dir, signing_key, cheap_hasher, monkeypatch):
    """A PostgreSQL that nobody else needs, behind a server of its own."""
    postgresql = PostgreSQL(tmp_path / "postgresql")
    monkeypatch.setenv("DATABASE_URL", postgresql.create())
    shutil.rmtree(data_dir)
    prepare(Settings.load(data_dir), signing_key, cheap_hasher)
    yield postgresql
    postgresql.end()


def test_a_postgresql_restarted_under_load_costs_no_token(own_postgresql, load, reader):
    """Renewals are refused, or cut off, while it is away; nobody has to restart the server."""
    with load.applied():
        for _ in range(2):
            own_postgresql.stop()
            load.is_refused()
            check_unavailable(reader("/tokens/tokens/1"))
            own_postgresql.start()
            started_at = time.monotonic()
            load.goes_on()
            print(f"PostgreSQL restarted: {load.first_answer(started_at)}")


def test_a_postgresql_that_crashes_under_load_costs_no_token(own_postgresql, load):
    """One of its processes is killed: it ends all others and recovers from its log."""
    with load.applied():
        for _ in range(3):
            with load.parts.database.reading() as connection:
                victim = connection.execute(_SOME_BACKEND).scalar_one()
            killed_at = time.monotonic()
            psutil.Process(victim).kill()
            load.goes_on()
            print(f"PostgreSQL crashed: {load.first_answer(killed_at)}")
            load.parts.database.close()
    assert load.cut() == 0


_SOME_BACKEND = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() LIMIT 1"
)
