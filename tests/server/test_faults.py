"""Faults under load, as they happen: processes killed, the disk full, the database away.

Each test prints how long its fault was felt: `pytest -rP tests/server/test_faults.py`.
"""

from __future__ import annotations

import http.client
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from sqlalchemy import func, select, text

from demo.parts import WAIT_LIMIT, free_port, wait_until
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.schema import tokens
from flowauth_rotator.server.signing import compress_claims
from tests.conftest import AUDIENCE, PASSWORD, ROLES, USERNAME, prepare
from tests.external import PostgreSQL

pytestmark = pytest.mark.slow

SERVE = "import sys; from flowauth_rotator.server.commands import serve; serve(sys.argv[1:])"
DATABASES = ("SQLite", "PostgreSQL")  # behind the tests that use `database` or `app`
NAMES = ("T0", "T1", "T2", "T3")  # of the tokens of the clients
SCOPES = {"runner": ["run"], "viewer": ["get_available_dates", "get_results"]}
LARGE = 2**20  # bytes: more than any other file that the server writes
AT_ONCE = 0.001  # seconds between two looks: a fault follows as soon as its moment has come


class Serving:
    """`serve` with two workers, and a supervisor's hands on it."""

    def __init__(self, data_dir: Path, folder: Path) -> None:
        self.bind = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.bind}"
        self._command = [sys.executable, "-c", SERVE, "--data-dir", data_dir, "--bind", self.bind]
        # What a killed server leaves in TMPDIR is for pytest to sweep away.
        extra = {"RENEWAL_RATE_LIMIT": "1000000/second", "TMPDIR": str(folder)}
        self._environment = os.environ | extra
        self._logs = (folder / f"log-{number}" for number in itertools.count())
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and again whenever it ends, until it says that it serves."""
        wait_until(self._serves, "`serve` serves", interval=AT_ONCE)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=WAIT_LIMIT)

    def workers(self) -> list[psutil.Process]:
        """The worker processes, oldest first."""
        found = psutil.Process(self._process.pid).children()
        return sorted(found, key=psutil.Process.create_time)

    def kill_worker(self) -> None:
        """End the oldest worker as `kill -9` does, and wait for another in its place."""
        before = self.workers()
        before[0].kill()
        wait_until(
            lambda: has_ended(before[0]) and self._is_complete(), "a new worker", interval=AT_ONCE
        )

    def kill(self) -> list[psutil.Process]:
        """End the master as `kill -9` does, and return the workers that it leaves behind."""
        orphans = self.workers()
        self._process.kill()
        self._process.wait()
        return orphans

    def limit_files(self, size: int) -> None:
        """Let no process of it write beyond a size of a file: for it, the disk is full there."""
        for process in (psutil.Process(self._process.pid), *self.workers()):
            process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    def has_ended(self) -> bool:
        """Whether the master is no more."""
        return self._process.poll() is not None

    def _is_complete(self) -> bool:
        return sum(not has_ended(worker) for worker in self.workers()) == 2

    def _serves(self) -> bool:
        if self._process is None or self.has_ended():
            self._log = next(self._logs)
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, env=self._environment
                )
        return f" on {self.url}\n" in self._log.read_text()


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
    token: Token
    at: float = 0.0


class Client:
    """Renews its newest token, each with a key of its own.

    What is cut off or put off it asks for again with the same key; any other answer than the
    token or a proper 503 ends the test.
    """

    def __init__(self, url: str, first: Told) -> None:
        self.http = browser()
        self.url = url
        self.told = [first]
        self.put_off = self.cut_off = self.replayed = 0

    def renew_until(self, enough: threading.Event) -> None:
        while not enough.is_set():
            self.renew(str(len(self.told)))

    def renew(self, key: str) -> None:
        """Ask until there is a successor."""
        answers = []

        def is_answered() -> bool:
            answers.append(self._ask(self.told[-1].token, key))
            return answers[-1] is not None

        wait_until(is_answered, "a successor", interval=0.05)
        answer = answers[-1]
        self.replayed += "Idempotent-Replayed" in answer.headers
        found = answer.json()
        self.told.append(Told(key, found["id"], Token(found["token"]), time.monotonic()))

    def _ask(self, token: Token, key: str) -> requests.Response | None:
        headers = {"Authorization": f"Bearer {token.reveal()}", "Idempotency-Key": key}
        try:
            answer = self.http.post(f"{self.url}/tokens/renew", headers=headers, timeout=WAIT_LIMIT)
        except requests.RequestException:
            self.cut_off += 1
            return None
        if answer.status_code == 200:
            return answer
        check_put_off(answer)
        self.put_off += 1
        return None


def browser() -> requests.Session:
    """A client that makes a connection for each request, so that any worker may get it."""
    session = requests.Session()
    session.trust_env = False
    session.headers["Connection"] = "close"
    return session


def check_put_off(answer: requests.Response) -> None:
    """A 503 in the shape of all refusals, which says when to ask again."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json().keys() == {"code", "message"}
    assert answer.json()["code"] == 503
    assert int(answer.headers["Retry-After"]) >= 1


class Load:
    """Clients that renew at once, and the history as the operator sees it from outside."""

    def __init__(self, server: Serving, services: Services) -> None:
        self.services = services
        self.clients = [Client(server.url, self._mint(name)) for name in NAMES]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Renew all the time; in the end every client gets the answer that it waits for."""
        enough = threading.Event()
        with ThreadPoolExecutor(len(NAMES)) as pool:
            self._running = [pool.submit(client.renew_until, enough) for client in self.clients]
            try:
                self.goes_on()
                yield
            finally:
                enough.set()
            for renewing in self._running:
                renewing.result()

    def goes_on(self) -> None:
        """Wait until each client has been told of some more tokens."""
        self._each(lambda client: len(client.told), 5, "renewals go on")

    def is_put_off(self) -> None:
        """Wait until each client has been answered 503 once more."""
        self._each(lambda client: client.put_off, 1, "renewals are put off")

    def commits(self) -> None:
        """Wait for one more renewal to be committed; perhaps it has not been answered yet."""
        before = self.newest()
        wait_until(lambda: self.newest() > before, "a commit", interval=AT_ONCE)

    def newest(self) -> int:
        """The id of the newest row."""
        with self.services.database.reading() as connection:
            return connection.execute(select(func.max(tokens.c.id))).scalar_one()

    def cut_off(self) -> int:
        """How often a connection was refused, or ended without an answer."""
        return sum(client.cut_off for client in self.clients)

    def put_off(self) -> int:
        """How often a client was answered 503."""
        return sum(client.put_off for client in self.clients)

    def tell(self, what: str, since: float) -> None:
        """Print how long after a moment somebody was told of a token again."""
        moments = (told.at for client in self.clients for told in client.told)
        print(f"{what}: first answer after {min(at for at in moments if at > since) - since:.2f} s")

    def check(self, claims_of: Callable[[str], dict]) -> None:
        """Each token that was told of is in the history, once, in its line of descent, whole."""
        self.services.database.close()  # its connections may not have outlived the fault
        own = select(tokens).where(tokens.c.name.in_(NAMES))
        with self.services.database.reading() as connection:
            kept = {row.id: row for row in connection.execute(own)}
        rows = {row.id: row for row in list(self.services.listing.iterate_rows()) if row.id in kept}
        for client in self.clients:
            for before, after in itertools.pairwise(client.told):
                row = kept[after.row_id]
                assert (row.parent_id, row.idempotency_key) == (before.row_id, after.key)
                revealed = Token(self.services.history.reveal(rows[after.row_id]))
                assert revealed == after.token
        assert len(kept) == sum(len(client.told) for client in self.clients)
        for row in rows.values():
            claims = claims_of(self.services.history.reveal(row))
            assert claims == claims_in(row, kept[row.id].jti)

    def __str__(self) -> str:
        told = sum(len(client.told) - 1 for client in self.clients)
        replayed = sum(client.replayed for client in self.clients)
        pauses = [
            after.at - before.at
            for client in self.clients
            for before, after in itertools.pairwise(client.told[1:])
        ]
        return (
            f"{told} renewals, {self.put_off()} times put off, {self.cut_off()} times cut off "
            f"(after {replayed} commits); the longest pause {max(pauses, default=0):.2f} s"
        )

    def _each(self, count: Callable[[Client], int], more: int, what: str) -> None:
        enough = [(client, count(client) + more) for client in self.clients]

        def is_met() -> bool:
            for renewing in self._running:
                if renewing.done():
                    renewing.result()  # or what has ended it
            return all(count(client) >= number for client, number in enough)

        wait_until(is_met, what, interval=AT_ONCE)

    def _mint(self, name: str) -> Told:
        owner = self.services.accounts.get_user(USERNAME)
        now = int(time.time())
        issued = self.services.issuer.mint(owner, 1, name, ROLES, None, now=now)
        return Told(None, issued.row_id, Token(issued.token))


def claims_in(row, jti: str) -> dict[str, object]:
    """What the token of a row has to say."""
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


def log_of(data_dir: Path) -> int:
    """The size of SQLite's write-ahead log."""
    return (data_dir / "history.db-wal").stat().st_size


def mint_expired(services: Services) -> None:
    """Leave something to prune: a token that has expired since the workers began."""
    owner, an_hour_ago = services.accounts.get_user(USERNAME), int(time.time()) - 3600
    services.issuer.mint(owner, 1, "OLD", ROLES, 30, now=an_hour_ago)


def check_file(path: Path) -> None:
    """SQLite itself finds nothing wrong with its file."""
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
    services = Services.open(Settings.load(data_dir))
    load = Load(server, services)
    yield load
    print(load)
    try:
        load.check(claims_of)
    finally:
        services.database.close()
    if (data_dir / "history.db").exists():
        check_file(data_dir / "history.db")


@pytest.fixture
def read(server) -> Callable[[str], requests.Response]:
    """Ask for a page as flowbot, signed in before the fault."""
    reader = browser()
    credentials = {"username": USERNAME, "password": PASSWORD}
    assert reader.post(f"{server.url}/signin", json=credentials, timeout=WAIT_LIMIT).ok
    return lambda path: reader.get(f"{server.url}{path}", timeout=WAIT_LIMIT)


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_worker_killed_under_load_costs_no_token(server, load):
    """Killed again and again: another takes its place, and each key gets one successor."""
    with load.applied():
        for kills in itertools.count(1):
            load.commits()
            killed_at = time.monotonic()
            server.kill_worker()
            load.goes_on()
            load.tell("a worker killed", killed_at)
            if kills >= 10 and load.cut_off() >= 2:
                break


@pytest.mark.slow
def test_an_answer_lost_with_all_workers_is_given_again_by_the_next(server, load, read):
    """Committed and not told: the same key gets the same successor from processes born later."""
    client, before = load.clients[0], load.newest()
    bearer = f"Bearer {client.told[0].token.reveal()}"
    headers = {"Authorization": bearer, "Idempotency-Key": "lost"}
    with closing(http.client.HTTPConnection(server.bind)) as connection:
        connection.request("POST", "/tokens/renew", headers=headers)
        wait_until(lambda: load.newest() > before, "a commit", interval=AT_ONCE)
        kill_workers(server, read)
    client.renew("lost")
    assert client.replayed == 1


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_master_killed_under_load_leaves_nothing_in_the_way_of_the_next(server, load):
    """Its workers end by themselves, and `serve` goes on with the same data directory."""
    with load.applied():
        killed_at = time.monotonic()
        orphans = server.kill()
        server.start()
        wait_until(
            lambda: all(map(has_ended, orphans)), "no worker of the old master", interval=AT_ONCE
        )
        ended_at = time.monotonic()
        load.goes_on()
        print(f"the master killed: another serves after {ended_at - killed_at:.2f} s")
    assert load.cut_off() > 0


@pytest.mark.slow
def test_a_full_disk_puts_renewals_off_until_there_is_space(server, load, read, data_dir):
    """SQLite's log cannot grow: tokens can still be read, and nothing is half written."""
    with load.applied():
        wait_until(lambda: log_of(data_dir) > LARGE, "a large log", interval=AT_ONCE)
        server.limit_files(log_of(data_dir))
        load.is_put_off()
        assert read("/tokens/tokens/1").status_code == 200
        assert read("/readyz").status_code == 200
        load.is_put_off()
        server.limit_files(psutil.RLIM_INFINITY)
        space_at = time.monotonic()
        load.goes_on()
        load.tell("the disk full", space_at)


@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_locked_database_puts_renewals_off_until_it_is_unlocked(load, read):
    """Another process writes for ten seconds: who only reads is answered all the same."""
    with load.applied():
        with load.services.database.writing():
            locked_at = time.monotonic()
            assert read("/tokens/tokens/1").status_code == 200
            load.is_put_off()
            while time.monotonic() < locked_at + 10:
                assert read("/tokens/tokens/1").status_code == 200
                time.sleep(0.1)
        unlocked_at = time.monotonic()
        load.goes_on()
        load.tell("the database locked", unlocked_at)


@pytest.fixture
def own_postgresql(tmp_path, data_dir, signing_key, cheap_hasher, monkeypatch):
    """A PostgreSQL that nobody else needs, prepared as `data_dir`, which goes with it."""
    postgresql = PostgreSQL(tmp_path / "postgresql")
    monkeypatch.setenv("DATABASE_URL", postgresql.create())
    shutil.rmtree(data_dir)
    prepare(Settings.load(data_dir), signing_key, cheap_hasher)
    yield postgresql
    postgresql.end()


@pytest.mark.slow
def test_a_postgresql_restarted_under_load_costs_no_token(own_postgresql, load, read):
    """Stopped and started, then crashed and recovered: nobody has to restart the server."""
    with load.applied():
        own_postgresql.stop()
        load.is_put_off()
        check_put_off(read("/tokens/tokens/1"))
        assert read("/readyz").status_code == 503
        assert read("/healthz").status_code == 200
        own_postgresql.start()
        started_at = time.monotonic()
        load.goes_on()
        load.tell("PostgreSQL restarted", started_at)
        load.services.database.close()
        with load.services.database.reading() as connection:
            crashing = connection.execute(ONE_OF_ITS_PROCESSES).scalar_one()
        crashed_at, before = time.monotonic(), load.put_off()
        psutil.Process(crashing).kill()  # whereupon it ends all others, and reads its log
        wait_until(lambda: load.put_off() > before, "somebody is put off", interval=AT_ONCE)
        load.goes_on()
        load.tell("PostgreSQL crashed", crashed_at)


@pytest.mark.slow
def test_workers_killed_while_postgresql_is_away_are_replaced(own_postgresql, server, load, read):
    """One fault on top of another does not need hands either."""
    with load.applied():
        pass
    own_postgresql.stop()
    kill_workers(server, read)
    own_postgresql.start()
    assert not server.has_ended()
    with load.applied():
        pass


@pytest.mark.slow
def test_workers_killed_while_the_disk_is_full_are_replaced(server, load, read, data_dir):
    """Even when they would begin with dropping an expired text, which they cannot do now."""
    with load.applied():
        wait_until(lambda: log_of(data_dir) > LARGE, "a large log", interval=AT_ONCE)
    mint_expired(load.services)
    server.limit_files(log_of(data_dir))
    kill_workers(server, read)
    assert not server.has_ended()
    server.limit_files(psutil.RLIM_INFINITY)
    with load.applied():
        pass


def kill_workers(server: Serving, read: Callable[[str], requests.Response]) -> None:
    """Kill all workers, and wait until the next ones answer or the master gives up."""
    for worker in server.workers():
        worker.kill()

    def is_decided() -> bool:
        with suppress(requests.RequestException):
            return read("/healthz").ok
        return server.has_ended()

    wait_until(is_decided, "new workers", interval=AT_ONCE)


ONE_OF_ITS_PROCESSES = text(
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() LIMIT 1"
)
PAGES = (
    "/tokens/servers",
    "/tokens/tokens/1",
    "/tokens/tokens/1?all=true",
    "/user/roles/server/1",
    "/.well-known/jwks.json",
    "/openapi.json",
    "/version",
    "/healthz",
    "/readyz",
    "/is_signed_in",
    "/signout",
)


@pytest.mark.parametrize(("seconds", "session"), [(60, 200), (3600, 401)])
def test_a_clock_set_back_costs_at_most_a_new_sign_in(flowbot, clock, seconds, session):
    """A session as old as it may be, counted in the other direction, is as good as no session."""
    flowbot.minted()
    clock.advance(seconds=-seconds)
    assert flowbot.get("/is_signed_in").status_code == session
    assert flowbot.sign_in().status_code == 200
    assert [flowbot.get(page).status_code for page in PAGES] == [200] * len(PAGES)


@pytest.mark.parametrize("seconds", [60, 3600])
def test_a_clock_set_back_leaves_renewal_as_it_is(flowbot, clock, services, claims_of, seconds):
    """Old answers are given again byte for byte, new ones are of now, and history only grows."""
    row = flowbot.minted()
    by_id, by_token = flowbot.renew(row["id"], key="id"), flowbot.renew_presented(row["token"])
    history = list(services.listing.iterate_rows())
    clock.advance(seconds=-seconds)
    flowbot.sign_in()
    again = flowbot.renew(row["id"], key="id")
    same = again.data == by_id.data
    assert (again.status_code, same) == (200, True)
    from_the_future = by_token.json["token"]
    renewed = flowbot.renew_presented(from_the_future)
    assert claims_of(renewed.json["token"])["iat"] == clock.now < claims_of(from_the_future)["iat"]
    assert claims_of(flowbot.renew(row["id"]).json["token"])["iat"] == clock.now
    assert flowbot.mint().status_code == 200
    assert list(services.listing.iterate_rows())[: len(history)] == history
    assert len(list(services.listing.iterate_rows())) == len(history) + 3


def test_a_clock_set_back_locks_nobody_out_for_longer_than_the_window(flowbot, clock):
    """Sixty tokens of a name an hour, ten failed sign-ins a minute: that long, and no longer."""
    row = flowbot.minted()
    while flowbot.renew(row["id"]).status_code == 200:
        pass
    while flowbot.sign_in(password="wrong").status_code == 401:
        pass
    clock.advance(seconds=-3600)
    assert int(flowbot.sign_in().headers.get("Retry-After", 0)) <= 60
    clock.advance(seconds=61)
    assert flowbot.sign_in().status_code == 200
    assert int(flowbot.renew(row["id"]).headers.get("Retry-After", 0)) <= 3600
