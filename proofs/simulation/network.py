"""Between an agent and the issuer: whatever a network, a proxy or a busy server may do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import cache
from types import SimpleNamespace
from typing import Any

import jwt
import requests
import urllib3

from flowauth_rotator.agent.http import LARGEST_BODY, HttpClient
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import IssuerUnavailable
from proofs.flowapi import PATH
from proofs.flowauth import Response, document
from proofs.simulation.keys import forger, signer
from proofs.simulation.world import Process, World

TIMEOUT = 30.0
UNANSWERED: dict[str, Callable[[], Exception]] = {
    "refused connection": lambda: requests.ConnectionError(
        urllib3.exceptions.MaxRetryError(
            None,  # type: ignore[arg-type]
            "/",
            urllib3.exceptions.NewConnectionError(None, "refused"),  # type: ignore[arg-type]
        )
    ),
    "timeout": requests.ReadTimeout,
    "cut answer": lambda: requests.exceptions.ChunkedEncodingError("cut"),
}
PAGE = {"Content-Type": "text/html"}
STAND_INS: dict[str, Callable[[World], Response]] = {  # answers, by somebody else than the issuer
    "busy page": lambda _: Response(502, PAGE, b"<title>Bad gateway</title>"),
    "login page": lambda _: Response(200, PAGE, b"<title>Please sign in</title>"),
    "signed out": lambda _: Response(401, PAGE, b"<title>Unauthorized</title>"),
    "CSRF error": lambda _: Response(401, PAGE, b"CSRF error"),
    "throttled": lambda world: Response(
        429,
        {"Retry-After": world.random.choice(["1", "20", "3600", "-5", "soon", "1e9"])},
        b'{"code": 429, "message": "Too many requests."}',
    ),
    "no token": lambda _: Response(200, {}, b'{"id": 1}'),
}
KILLED = ("P5", "P6")  # the issuer, before its commit and after it
FORGED: dict[str, dict[str, Any]] = {  # answers with a token that is not what was asked for
    "other roles": {"user_claims": {"admin": ["everything"]}},
    "fewer roles": {"user_claims": {"viewer": ["get_results"]}},
    "other user": {"sub": "mallory"},
    "other audience": {"aud": "OTHER_SERVER"},
    "far future": {"iat": 4_000_000_000, "nbf": 4_000_000_000, "exp": 4_000_100_000},
    "expired": {"iat": 1_000_000_000, "nbf": 1_000_000_000, "exp": 1_000_100_000},
    "other key": {},
    "cut token": {},
}
BEFORE = ("refused connection", "timeout", *STAND_INS)  # the issuer never heard of it
AFTER = ("timeout", "cut answer", "busy page", "login page", "no token", "cut JSON")
COMMON = (
    *(("before", fault) for fault in BEFORE),
    *(("after", fault) for fault in AFTER),
    *(("late", "timeout"), ("twice", "delivered")),
)
FAULTS = (
    *COMMON,
    *(("after", fault) for fault in FORGED),
    *(("P5", "cut answer"), ("P6", "cut answer")),
)


def forged(fault: str, found: str) -> Response:
    """An answer with a token that would do but for one thing."""
    claims = jwt.decode(found, options={"verify_signature": False})
    claims |= {"exp": claims["exp"] + 40 * 86400, "iat": claims["iat"] + 1, **FORGED[fault]}
    key = forger() if fault == "other key" else signer()
    token = key.sign(claims)
    if fault == "cut token":
        token = token[: len(token) // 2]
    return document({"id": 99, "token": token})


@cache
def _session() -> requests.Session:
    """A session of no wire."""
    return requests.Session()


class Exchange:
    """One request on its way, and who asked.

    Attributes:
        process: whose request it is.
        run: the run of the rotation that it belongs to.
        is_late: whether the issuer gets it after the client has given up, or a second time.
    """

    def __init__(self, wire: SimulatedWire, method: str, path: str, body: object) -> None:
        self.process = wire.process
        self.run = wire.run
        self.method, self.path, self.body = method, path, body
        self.headers: Mapping[str, str] = {}
        self.is_late = False

    @property
    def is_renewal(self) -> bool:
        """Whether a token may be made of it."""
        return self.method == "POST" and self.path.endswith("/renew") and not self.is_rehearsal

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is in the place of a renewal, and must not make a token."""
        is_dry = isinstance(self.body, dict) and self.body.get("dry_run") is True
        return is_dry or self.path == "/tokens/tokens/0/renew"


class SimulatedWire(HttpClient):
    """The agent's wire with its real classes of answers, over no socket.

    Args:
        process: who asks.
        run: the run of the rotation, handed to the issuer.
        deliver: hands an exchange to the issuer, which answers it, unless it is down.
        fault_rate: how likely a fault of the network is at each exchange.
    """

    def __init__(
        self,
        process: Process,
        run: Any,  # noqa: ANN401 - what it is concerns the issuer alone
        deliver: Callable[[Exchange], Response | None],
        fault_rate: float,
    ) -> None:
        self.address, self.timeout = Address(self.where), TIMEOUT
        self.url, self._verify = self.address.url, True
        self.secrets, self.token = (), ""
        self.process, self.run = process, run
        self._deliver = deliver
        self._fault_rate = fault_rate
        session: Any = copy(_session())  # to make one takes longer
        session.deadline, session.cookies = SimpleNamespace(is_over=False, is_connecting=False), {}
        session.trust_env = False
        self._session = session
        self._monotonic = lambda: self.process.world.now

    where = "https://issuer.example"
    _has_responded = True  # there is no port to try

    def close(self) -> None:
        """Nothing is open."""

    def _exchange(
        self,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        max_bytes: int,
        lost: type[IssuerUnavailable],  # noqa: ARG002 - nothing here is endless
        timeout: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.run.has_asked = True
        exchange = Exchange(self, method, path, body)
        exchange.headers = {
            **(headers or {}),
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._session.cookies.items()),
            "Content-Type": "application/json",
        }
        process, world = self.process, self.process.world
        if exchange.is_renewal:
            process.point("P4")
        process.breathe()
        when, fault = "", ""
        if world.chance(self._fault_rate):
            when, fault = world.random.choice(FAULTS if exchange.is_renewal else COMMON)
            self.run.faults.append(f"{when} {fault}")
            world.count(f"killed at {when}" if when in KILLED else f"network: {fault}, {when}")
            world.say(process.name, f"{method} {path}: {fault}, {when}")
        answer = self._carried(exchange, when)
        process.breathe()
        process.point("P7" if exchange.is_renewal else "P3")
        if fault in UNANSWERED:
            if fault == "timeout":
                process.sleep(timeout)
            raise UNANSWERED[fault]()
        if fault in STAND_INS:
            answer = STAND_INS[fault](world)
        if fault in FORGED:
            answer = forged(fault, self.run.found)
        if answer is None:
            self.run.faults.append("issuer down")
            raise UNANSWERED["refused connection"]()
        said_no = answer.status in (400, 401, 404, 422) and answer.content.startswith(b"{")
        self.run.refusals += said_no and exchange.is_renewal and not fault
        content = answer.content
        if fault == "cut JSON":
            content = content[: world.random.randrange(len(content) or 1)]
        for line in answer.headers.get("Set-Cookie", "").splitlines():
            name, _, value = line.partition(";")[0].partition("=")
            self._session.cookies[name] = value
        assert len(content) <= max(max_bytes, LARGEST_BODY)  # noqa: S101
        return answer.status, answer.headers, content

    def _carried(self, exchange: Exchange, when: str) -> Response | None:
        """What the issuer answers, if it hears of it in time."""
        world = self.process.world
        if when == "before":
            return None
        if when == "late":
            exchange.is_late = True
            moment = world.now + world.random.choice((1, 31, 40, 400))
            world.at(moment, lambda: self._deliver(exchange))
            return None
        if when == "P5":
            exchange.headers = {**exchange.headers, "X-Dies": "before the commit"}
        answer = self._deliver(exchange)
        if when == "twice":
            exchange.is_late = True
            self._deliver(exchange)
        return answer


class ProbeWire(SimulatedWire):
    """An agent's wire to FlowAPI, which records for each token whether it was accepted."""

    where = f"https://flowapi.example{PATH}"

    def _exchange(
        self,
        method: str,
        path: str,
        *others: Any,  # noqa: ANN401 - as they come
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = others[1] or {}
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        self.run.trials += 1
        self.run.verdicts[token] = None
        verdict = "no answer"
        try:
            answer = super()._exchange(method, path, *others)
            if answer[0] in (200, 401, 403, 422):
                self.run.verdicts[token] = answer[0] in (200, 403)
                verdict = "accepted" if self.run.verdicts[token] else "refused"
        finally:
            self.process.world.count(f"FlowAPI: {verdict}")
        return answer
