"""The client of the server's figures: plain HTTP over connections that stay open.

It runs in a process of its own and costs as little as it can, since it shares the machine with
the server that it measures.
"""

from __future__ import annotations

import json
import math
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

THREADS = 4
_WARM_UP = 5  # renewals on each connection before the clock starts


class LoadFailed(Exception):
    """The server refused what it should have answered; the message says what."""


@dataclass(frozen=True)
class Start:
    """A token to begin with, and the id of its row."""

    row_id: int
    token: str


@dataclass(frozen=True)
class Account:
    """A client that has signed in at a server: the headers of its session, and its tokens."""

    port: int
    session: Mapping[str, str]
    server_id: int
    starts: Sequence[Start]


@dataclass(frozen=True)
class Load:
    """What the client saw.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: of each request, in seconds, since it was due.
        cpu: this process's share of one core.
    """

    seconds: float
    latencies: Sequence[float]
    cpu: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The seconds within which this share of the requests was answered."""
        return sorted(self.latencies)[math.ceil(share * len(self.latencies)) - 1]


class Connection:
    """One connection; http.client sends a request in one piece, with TCP_NODELAY."""

    def __init__(self, port: int) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """The JSON of the answer."""
        self._http.request(method, path, body, dict(headers))
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise LoadFailed(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class Chain(Connection):
    """One token, renewed again and again: each renewal is of the last one's successor."""

    def __init__(self, account: Account, start: Start, *, bearer: bool) -> None:
        super().__init__(account.port)
        self._session = account.session
        self._bearer = bearer
        self._row_id, self._token = start.row_id, start.token

    def renew(self) -> None:
        """As an agent does it: with an idempotency key, and for the longest lifetime."""
        if self._bearer:
            path, credential = "/tokens/renew", {"Authorization": f"Bearer {self._token}"}
        else:
            path, credential = f"/tokens/tokens/{self._row_id}/renew", dict(self._session)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": uuid4().hex,
            **credential,
        }
        answer = self.ask("POST", path, headers, b"{}")
        self._row_id, self._token = answer["id"], answer["token"]


def renew_steadily(
    account: Account,
    *,
    bearer: bool,
    seconds: float = math.inf,
    renewals: int = sys.maxsize,
    threads: int = THREADS,
) -> Load:
    """Run a closed loop: each thread sends its next request after a response, until the end."""

    def turn(chain: Chain, began: float) -> Iterator[float]:
        for _ in range(renewals // threads):
            sent = time.perf_counter()
            if sent - began >= seconds:
                return
            chain.renew()
            yield time.perf_counter() - sent

    return _loaded(account, bearer, threads, turn)


def renew_at(account: Account, *, bearer: bool, rate: float, seconds: float, seed: int) -> Load:
    """An open loop: renewals fall due at random moments, whether earlier ones are answered or not.

    A latency counts from the moment at which a renewal was due, so that waiting for a free
    connection is part of it. There is a connection for each token of the account.
    """
    due = iter(list(_moments(rate, seconds, random.Random(seed))))  # noqa: S311 - no secret

    def turn(chain: Chain, began: float) -> Iterator[float]:
        for moment in due:  # threads share it: each moment goes to one of them
            time.sleep(max(0.0, began + moment - time.perf_counter()))
            chain.renew()
            yield time.perf_counter() - began - moment

    return _loaded(account, bearer, len(account.starts), turn)


def flood_sign_ins(account: Account, *, seconds: float, clients: int = 24) -> Counter[int]:
    """Sign in with unknown names, each from another address; return the statuses."""
    began = time.perf_counter()

    def sign_in(_client: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        while time.perf_counter() - began < seconds:
            address = ".".join(str(random.randrange(256)) for _ in range(4))  # noqa: S311 - no secret
            headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
            body = json.dumps({"username": uuid4().hex, "password": "x"})
            http = HTTPConnection("127.0.0.1", account.port, timeout=60)
            with closing(http):
                http.request("POST", "/signin", body, headers)
                statuses[http.getresponse().status] += 1
        return statuses

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(sign_in, range(clients)), Counter())


@contextmanager
def unfinished_requests(account: Account, number: int) -> Iterator[None]:
    """Keep connections open whose clients have sent half of a body."""
    with ExitStack() as stack:
        for _ in range(number):
            address = ("127.0.0.1", account.port)
            connection = stack.enter_context(socket.create_connection(address, timeout=60))
            connection.sendall(
                b"POST /signin HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
            )
        yield


def list_active(account: Account, *, times: int) -> Load:
    """The list of active rows, time after time; the first one is not timed."""
    with closing(Connection(account.port)) as connection:
        path = f"/tokens/tokens/{account.server_id}"
        rows = connection.ask("GET", path, account.session)
        if len(rows) != len(account.starts):
            raise LoadFailed(f"{len(rows)} rows are listed, not the {len(account.starts)} active.")

        def turn() -> Iterator[float]:
            for _ in range(times):
                sent = time.perf_counter()
                connection.ask("GET", path, account.session)
                yield time.perf_counter() - sent

        return _timed(lambda _began: turn())


def _moments(rate: float, seconds: float, chance: random.Random) -> Iterator[float]:
    """A Poisson process: independent arrivals."""
    moment = chance.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += chance.expovariate(rate)


def _loaded(
    account: Account,
    bearer: bool,
    threads: int,
    turn: Callable[[Chain, float], Iterable[float]],
) -> Load:
    """One connection a thread, opened and warm before the clock starts."""
    with ExitStack() as stack:
        chains = [
            stack.enter_context(closing(Chain(account, start, bearer=bearer)))
            for start in account.starts[:threads]
        ]
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        list(pool.map(lambda chain: [chain.renew() for _ in range(_WARM_UP)], chains))

        def all_turns(began: float) -> Iterator[float]:
            for latencies in pool.map(lambda chain: list(turn(chain, began)), chains):
                yield from latencies

        return _timed(all_turns)


def _timed(latencies: Callable[[float], Iterable[float]]) -> Load:
    began, used = time.perf_counter(), time.process_time()
    seen = list(latencies(began))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return Load(seconds, seen, cpu / seconds)
