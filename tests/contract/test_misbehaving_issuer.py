"""A misbehaving issuer as a real HTTP server: FlowAuth as deployed, and all that may go wrong.

The issuer is the model of `proofs.flowauth`, which is first held against the wire contract. A row
of the tables says what is otherwise than it should be, and how a rotation must end.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import logging
import random
import re
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from functools import partial

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pyotp import TOTP, random_base32

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.probe import Probe
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import PublicKey, Token, read_unverified
from proofs.flowapi import PATH, FlowApi
from proofs.flowauth import FlowAuth, Response, document, page, refusal, serve
from proofs.timer import InstantTimer
from tests.contract.test_wire import CONTRACT
from tests.contract.wire import Caller, Issuer, ask, fits

NAME = "AIRFLOW"
PASSWORD = "correct-horse-battery-staple"
ROLES = ("runner", "viewer")
SCOPES = {"viewer": ["get_available_dates", "get_results"], "runner": ["run"]}
POLICY = RotationPolicy()
ISSUERS = {"session": SessionIssuer, "bearer": BearerIssuer}

SIGNIN = re.compile("POST /signin")
SIGNOUT = re.compile("GET /signout")
SERVERS = re.compile("GET /tokens/servers")
LIST = re.compile("GET /tokens/tokens/1")
RENEWAL = re.compile(r"POST /tokens/(tokens/\d+/)?renew")


class Stage:
    """A misbehaving issuer, a token of an hour that it minted 45 minutes ago, and a store of it.

    Attributes:
        url: where the issuer answers.
        now: what all the clocks say.
        ahead: by how much the issuer's clock says more.
        flowauth: the issuer, as far as it behaves.
        misbehaviour: in what it does not.
        asked: every request so far, as "POST /signin".
        sign: makes a token of its claims.
        renews_by_token: whether it has the bundled server's route for that.
    """

    url: str

    def __init__(self, signing_key) -> None:
        self.now = datetime.now(timezone.utc).replace(microsecond=0)
        self.ahead = timedelta(0)
        self.sign = lambda claims: jwt.encode(claims, signing_key, algorithm="RS256")
        self.flowauth = FlowAuth(
            lambda: (self.now + self.ahead).timestamp(),
            lambda claims: self.sign(claims),
            password=PASSWORD,
            roles=SCOPES,
        )
        issued_at = self.now.timestamp() - 2700
        self.predecessor = Token(self.flowauth.mint(NAME, ROLES, 60, issued_at=issued_at))
        self.store = Store(self.predecessor)
        self.misbehaviour: tuple[Misbehaviour, ...] = ()
        self.asked: list[str] = []
        self.renews_by_token = True
        self._by_key: dict[str, Response] = {}

    @property
    def renewals(self) -> int:
        """How many requests for a renewal have arrived."""
        return sum(RENEWAL.fullmatch(request) is not None for request in self.asked)

    @property
    def minted(self) -> list:
        """The rows that were made on request."""
        return [row for row in self.flowauth.rows if row.made_by != "owner"]

    @property
    def secrets(self) -> str:
        """Every payload, every signature and the password; the longest shortened."""
        segments = [part for row in self.flowauth.rows for part in row.token.split(".")[1:]]
        pieces = [piece for part in segments for piece in (part[:10_000], part[-10_000:])]
        return "\n".join([*pieces, PASSWORD, self.flowauth.password])

    def answer(self, method, path, headers, body) -> Response:
        """Answer as FlowAuth does, where nothing else was agreed on."""
        self.asked.append(f"{method} {path}")

        def properly(**changed) -> Response:
            sent = headers | changed
            if path == "/tokens/renew" and self.renews_by_token:
                return self._renewed(sent, body)
            return self.flowauth.answer(method, path, sent, body)

        for part in self.misbehaviour:
            if part.concerns(self.asked):
                return part.answer(self, properly)
        return properly()

    def _renewed(self, headers, body) -> Response:
        """Renew the token that is presented, as the bundled server does: once for each key."""
        key, presented = headers["Idempotency-Key"], headers["Authorization"].split(" ")[1]
        if key in self._by_key:
            return self._by_key[key]
        row = next(row for row in self.flowauth.rows if row.token == presented)
        secret = {"username": self.flowauth.username, "password": self.flowauth.password}
        headers = {"Content-Type": "application/json"}
        signed_in = self.flowauth.answer("POST", "/signin", headers, json.dumps(secret).encode())
        cookies = dict(re.findall(r"^(.+?)=(.+?);", signed_in.headers["Set-Cookie"], re.MULTILINE))
        headers |= {"X-CSRF-Token": cookies["X-CSRF"], "Cookie": f"session={cookies['session']}"}
        answer = self.flowauth.answer("POST", f"/tokens/tokens/{row.id}/renew", headers, body)
        if answer.status == 200:
            replayed = {**answer.headers, "Idempotent-Replayed": "true"}
            self._by_key[key] = replace(answer, headers=replayed)
        return answer

    def rotate(
        self, kind="session", *, policy=POLICY, timeout=10, public_key=lambda: None, probe=None
    ):
        """One run; its outcome, and the report or the error. What must always hold is asserted."""
        timer = InstantTimer()
        asked_before, writes_before = self.renewals, len(self.store.descriptions)
        login = ("flowbot", PASSWORD) if kind == "session" else ()
        end: object
        with closing(ISSUERS[kind](self.url, *login, timeout=timeout)) as issuer:
            try:
                end = report = rotate(
                    *(self.store, issuer, policy),
                    now=self.now,
                    name=NAME,
                    public_key=public_key,
                    probe=probe,
                    timer=timer,
                )
                told = f"{report} {report!r} {report.to_json()}"
            except RotatorError as error:
                end, report = error, error.details
                told = "".join(traceback.format_exception(error))
                told += "".join(f"{link!r} {link} {vars(link)}" for link in chain(error))
            except Exception as error:  # noqa: BLE001 - its traceback would show all arguments
                place = traceback.extract_tb(error.__traceback__)[-1]
                pytest.fail(f"{type(error).__name__} at {place}", pytrace=False)
        assert all(0 < pause <= 30 for pause in timer.pauses)
        assert report.renewal_requests == self.renewals - asked_before
        assert all(self.store.descriptions)
        assert len(self.store.descriptions) - writes_before <= 1
        leaked = leaks(told, self.secrets)
        assert not leaked
        return str(end.outcome), end


class Store(MemoryStore):
    """A store that remembers what was written beside the token."""

    def __init__(self, token) -> None:
        super().__init__(token)
        self.descriptions: list[str] = []

    def write(self, token, description):
        self.descriptions.append(description)
        super().write(token, description)


def chain(error):
    """The error and all that it was raised in the course of, hidden or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def leaks(told: str, secrets: str) -> bool:
    """Whether 12 characters in a row of a secret stand in what was told."""
    runs = re.findall(r"[\w+/=-]{12,}", told)
    return any(run[at : at + 12] in secrets for run in runs for at in range(len(run) - 11))


class Log(logging.Handler):
    """Keeps what is logged to itself, so that no failing test shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture
def log():
    """What the agent and its HTTP library log, at any level."""
    log = Log()
    loggers = [logging.getLogger(name) for name in ("flowauth_rotator", "urllib3")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(log)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    yield log
    for logger, (level, propagate) in zip(loggers, before, strict=True):
        logger.removeHandler(log)
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.fixture
def stage(signing_key, log):
    """An issuer on a socket; nothing that is logged meanwhile tells a secret."""
    stage = Stage(signing_key)
    with serve(stage.answer) as stage.url:
        yield stage
    leaked = leaks("\n".join(log.lines), stage.secrets)
    assert not leaked


@dataclass(frozen=True)
class Misbehaviour:
    """What is done instead of answering the requests of one kind, from one of them to another."""

    where: re.Pattern
    answer: Callable[[Stage, Callable[..., Response]], Response]
    first: int = 1
    last: int | None = None

    def concerns(self, asked: list[str]) -> bool:
        """Whether the latest request is one of them."""
        number = sum(self.where.fullmatch(request) is not None for request in asked)
        is_such = self.where.fullmatch(asked[-1]) is not None
        return is_such and self.first <= number <= (self.last or number)


always = Misbehaviour


def once(where, answer, *, times=1) -> Misbehaviour:
    return Misbehaviour(where, answer, last=times)


def instead(answer: Response):
    """Do nothing but answer this."""
    return lambda stage, properly: replace(answer, headers=dict(answer.headers))


def lost(answer: Response):
    """Do what is asked, and answer this."""

    def answered(stage, properly):
        properly()
        return replace(answer, headers=dict(answer.headers))

    return answered


def meanwhile(step: Callable[[FlowAuth], object]):
    """Something has happened by the time of the request."""

    def answered(stage, properly):
        step(stage.flowauth)
        return properly()

    return answered


def without_cookie(stage, properly):
    """The session has ended: the client's cookie is worth nothing any more."""
    return properly(Cookie="")


def row(**changes):
    """The row of the token in use is otherwise than it was."""

    def step(flowauth):
        flowauth.rows[0] = replace(flowauth.rows[0], **changes)

    return meanwhile(step)


def beside(name="OTHER", *, newer=False, **changes):
    """There is another row, of an hour ago; older than the one of the token in use, or newer."""

    def step(flowauth):
        first = flowauth.rows[0]
        flowauth.mint(name, ROLES, 60, issued_at=first.claims["iat"] - 900)
        row = flowauth.rows.pop()
        row = replace(row, id=row.id if newer else first.id - 1, **changes)
        flowauth.rows.insert(len(flowauth.rows) if newer else 0, row)

    return once(LIST, meanwhile(step))


def raw(*pieces: bytes) -> Response:
    """These bytes, as far as the client takes them, and then the end of the connection."""
    return endless(lambda: pieces)


def endless(pieces) -> Response:
    def send(connection):
        for piece in pieces():
            connection.sendall(piece)

    return Response(raw=send)


def drip():
    """A byte now and then, for as long as the client waits."""
    yield OK + b"Content-Length: 1000000\r\n\r\n"
    while True:
        time.sleep(0.005)
        yield b" "


def redirect(status: int, host: str | None = None):
    def answered(stage, properly):
        base = stage.url.replace("127.0.0.1", host or "127.0.0.1")
        return Response(status, {"Location": f"{base}/elsewhere"})

    return answered


def throttled(date: timedelta | None = None, **headers: str):
    """429, with a date so far from the issuer's own time, or with these headers."""

    def answered(stage, properly):
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if date is not None:
            said["Date"] = format_datetime(stage.now, usegmt=True)
            said["Retry-After"] = format_datetime(stage.now + date, usegmt=True)
        return replace(refusal(429, "Slowly."), headers=said)

    return answered


def signing(change: Callable[[dict, int], dict]):
    """The token is made of other claims; `change` is told the time."""

    def made(stage, properly):
        sign, now = stage.sign, int(stage.now.timestamp())
        stage.sign = lambda claims: sign(change(claims, now))
        try:
            return properly()
        finally:
            stage.sign = sign

    return made


def claiming(**claims):
    """The token claims this."""
    return signing(lambda said, now: {**said, **claims})


def timed(**offsets: int):
    """The token's times are so many seconds from now."""
    return signing(
        lambda said, now: {**said, **{name: now + offset for name, offset in offsets.items()}}
    )


def texted(change: Callable[[str], str]):
    """The token's text is made otherwise."""

    def made(stage, properly):
        sign = stage.sign
        stage.sign = lambda claims: change(sign(claims))
        try:
            return properly()
        finally:
            stage.sign = sign

    return made


def spelt(exp: str):
    """The token's `exp` is spelt like this, which may be no JSON."""

    def change(token: str) -> str:
        header, payload, signature = token.split(".")
        said = base64.urlsafe_b64decode(payload + "==").decode()
        odd = re.sub(r'"exp":\s*\d+', lambda _: f'"exp": {exp}', said)
        return ".".join([header, encoded(odd.encode()), signature])

    return texted(change)


def headed(header: dict, signature: str | None = None):
    """The token has another header, and its old signature or another."""

    def change(token: str) -> str:
        _, payload, old = token.split(".")
        head = encoded(json.dumps(header).encode())
        return ".".join([head, payload, old if signature is None else signature])

    return texted(change)


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def zipped(claims: dict, now: int) -> dict:
    """As FlowAuth does with many roles: JSON, gzip, base64 in lines."""
    content = gzip.compress(json.dumps(claims["user_claims"]).encode())
    return {**claims, "user_claims": base64.encodebytes(content).decode()}


def same_token(stage, properly):
    return document({"id": 1, "token": stage.predecessor.reveal()})


def reciting(stage, properly):
    """It mints, refuses, and recites both tokens."""
    new = json.loads(properly().content)["token"]
    return refusal(400, f"bad: {new} for '{stage.predecessor.reveal()}'")


def reciting_the_password(stage, properly):
    return refusal(401, f"no: {stage.flowauth.password}, {stage.flowauth.password[3:]}")


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Attributes:
        name: what is otherwise than it should be.
        misbehaviour: the same in code.
        outcome: the word for how the rotation ends.
        renewals: how many requests for a renewal reach the issuer.
        swapped: whether the token that was minted last is in the store then, or the old one.
        minted: how many tokens were made.
        says: words of the message, for instance the issuer's.
        by_token: outcome and requests where the token is the credential, if they are others.
        options: what the run is given beside.
    """

    name: str
    misbehaviour: Misbehaviour | tuple[Misbehaviour, ...]
    outcome: str
    renewals: int
    swapped: bool | None = None
    minted: int | None = None
    says: str = ""
    by_token: tuple[str, int] | None = None
    options: dict | None = None

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Case {self.name}>"


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LOGIN_PAGE = page(200, "<!doctype html><title>Sign in</title><form></form>")
CSRF_ERROR = page(401, "CSRF error")
LOCKED = page(500)
SILENCE = Response(raw=lambda connection: connection.recv(1))  # until the client gives up
BOMB = gzip.compress(b" " * 10_000_000)
WRONG_PASSWORD = refusal(401, "Incorrect username or password.")
TOO_LONG = "Requested lifetime exceeds the maximum permitted by the server and original roles"
PASSED = "Token for flowbot cannot be renewed: maximum permitted expiry has already passed"
NO_ROLES = "This token has no roles recorded against it and cannot be renewed"
IMPATIENT = {"timeout": 1}
VERIFYING = {"public_key": True}

# What is said of FlowAuth's failures, and of sessions: met by who signs in.
SIGNING_IN = [
    Case("nothing is wrong", (), "rotated", 1),
    Case(
        "the password is wrong",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "password", "another-password"))),
        "refused",
        0,
        says="Sign-in of 'flowbot' failed: .* Incorrect username or password",
    ),
    Case(
        "the user is unknown",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "username", "ada"))),
        "refused",
        0,
        says="Incorrect username or password",
    ),
    Case(
        "a second factor is wanted",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "totp", TOTP(random_base32())))),
        "misconfigured",
        0,
        says="two-factor",
    ),
    Case(
        "a second factor is not right",
        always(SIGNIN, instead(refusal(401, "Code not valid."))),
        "refused",
        0,
        says="Code not valid",
    ),
    Case("the password is recited", always(SIGNIN, reciting_the_password), "refused", 0, says="no"),
    Case("signing in fails", always(SIGNIN, instead(LOCKED)), "unavailable", 0),
    Case("signing in fails once", once(SIGNIN, instead(LOCKED)), "rotated", 1),
    Case("signing in meets a page", always(SIGNIN, instead(LOGIN_PAGE)), "unavailable", 0),
    Case("signing in meets a 401 page", always(SIGNIN, instead(page(401))), "unavailable", 0),
    Case("signing in is redirected", always(SIGNIN, redirect(302)), "misconfigured", 0),
    Case("signing in is throttled", always(SIGNIN, throttled()), "unavailable", 0),
    Case(
        "signing in sets no cookie",
        always(SIGNIN, instead(document({"logged_in": True}))),
        "unavailable",
        0,
    ),
    Case("signing out fails", always(SIGNOUT, instead(LOCKED)), "rotated", 1),
    Case("signing out is not answered", always(SIGNOUT, instead(raw())), "rotated", 1),
    Case("CSRF error once", once(RENEWAL, instead(CSRF_ERROR)), "rotated", 2),
    Case(
        "CSRF error again, right after a sign-in",
        once(RENEWAL, instead(CSRF_ERROR), times=2),
        "misconfigured",
        2,
        says="FlowAuth sees another scheme or host",
    ),
    Case("not signed in, once", once(RENEWAL, instead(page(401))), "rotated", 2),
    Case("not signed in, for ever", always(RENEWAL, instead(page(401))), "unavailable", 6),
    Case("the session ends before the look", once(LIST, without_cookie), "rotated", 1),
    Case("the session ends before the renewal", once(RENEWAL, without_cookie), "rotated", 2),
    Case(
        "FlowAuth takes http for https",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "https", True))),
        "misconfigured",
        2,
        says="FlowAuth sees another scheme or host",
    ),
]

REFUSALS = [
    Case(
        "the row is another user's",
        once(RENEWAL, row(owner="ada")),
        "refused",
        1,
        says="You can only renew your own tokens",
    ),
    Case("the row has no roles", once(LIST, row(roles=())), "refused", 1, says=NO_ROLES),
    Case(
        "a role was revoked",
        once(RENEWAL, meanwhile(lambda flowauth: flowauth.held.discard("runner"))),
        "refused",
        1,
        says="no longer assigned to you: runner",
    ),
    Case(
        "both roles were revoked",
        once(RENEWAL, meanwhile(lambda flowauth: flowauth.held.clear())),
        "refused",
        1,
        says="no longer assigned to you: runner, viewer",
    ),
    Case(
        "no role at all is held",
        once(SIGNIN, meanwhile(lambda flowauth: flowauth.held.clear())),
        "refused",
        0,
        says="holds no role on server 'TEST_SERVER'",
    ),
    Case(
        "a cap has passed",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "latest_expiry", 1.0))),
        "refused",
        1,
        says=PASSED,
    ),
    Case(
        "a role permits no lifetime",
        once(SIGNIN, meanwhile(lambda flowauth: setattr(flowauth, "longest_minutes", 0))),
        "refused",
        1,
        says=PASSED,
    ),
    Case(
        "the lifetime is too long",
        (),
        "refused",
        1,
        says=f"{TOO_LONG}.*less one minute.*role 'viewer' has a maximum of 10080 minutes",
        options={"policy": RotationPolicy(lifetime_minutes=7 * 24 * 60)},
    ),
    Case(
        "the longest lifetime that can be asked for",
        (),
        "rotated",
        1,
        options={"policy": RotationPolicy(lifetime_minutes=7 * 24 * 60 - 1)},
    ),
    Case(
        "the lifetime is beyond all dates",
        (),
        "unavailable",
        3,
        says="responded with 500",
        options={"policy": RotationPolicy(lifetime_minutes=10**12)},
    ),
    Case(
        "the row is unknown",
        once(RENEWAL, meanwhile(lambda flowauth: flowauth.rows.clear())),
        "refused",
        1,
        says="responded with 404",
    ),
    Case(
        "the row is not listed",
        once(LIST, row(token="a.b.c")),
        "refused",
        0,
        says="has no renewable token matching this one",
    ),
    Case(
        "a UNIQUE violation",
        once(
            RENEWAL,
            instead(document({"status": 400, "statusText": "Name already exists"}, status=400)),
        ),
        "refused",
        1,
        says="responded with 400: Name already exists",
    ),
    Case(
        "a role was deleted",
        once(RENEWAL, meanwhile(lambda flowauth: flowauth.delete_role("runner"))),
        "rejected",
        1,
        minted=1,
        says="set of roles",
    ),
]

LISTS = [
    Case("a row holds an English sentence", beside(token="It was too long ago."), "rotated", 1),
    *(
        Case(f"an older row of the name holds {text[:9]!r}", beside(NAME, token=text), "rotated", 1)
        for text in ("It was too long ago.", "a.b.c", "x", "e30.e30.e30", "")
    ),
    Case(
        "a newer row of the name is no token",  # as after an answer of no use: asked anew later
        beside(NAME, newer=True, token="x"),
        "rejected",
        0,
        says="cannot be decoded",
    ),
    Case("a newer row of the name is empty", beside(NAME, newer=True, token=""), "rotated", 1),
    Case("a newer row has no roles", beside(newer=True, roles=()), "rotated", 1),
    Case("an older row of the name has no roles", beside(NAME, roles=()), "rotated", 1),
    *(
        Case(
            f"`expires` is {minutes} minutes off",
            once(
                SIGNIN,
                meanwhile(
                    lambda flowauth, minutes=minutes: setattr(flowauth, "utc_offset", minutes * 60)
                ),
            ),
            "rotated",
            1,
        )
        for minutes in (345, 0, -300)
    ),
    Case(
        "the rows are in no order",
        (
            *(beside(), beside(NAME)),
            once(LIST, meanwhile(lambda flowauth: random.Random(1).shuffle(flowauth.rows))),
        ),
        "rotated",
        1,
    ),
    *(
        Case(f"{what} fails once", once(where, instead(LOCKED)), "rotated", 1)
        for what, where in (("the list", LIST), ("the list of servers", SERVERS))
    ),
    *(
        Case(f"the list is {what}", always(LIST, instead(answer)), outcome, 0)
        for what, answer, outcome in (
            ("a 500", LOCKED, "unavailable"),
            ("a login page", LOGIN_PAGE, "unavailable"),
            ("no list", document({"rows": []}), "unavailable"),
            ("a list of numbers", document([1]), "unavailable"),
            ("without tokens", document([{"id": 1, "name": NAME}]), "unavailable"),
            ("without numbers", document([{"id": "x", "token": "a.b.c"}]), "unavailable"),
            ("cut", raw(OK + b'Content-Length: 50\r\n\r\n[{"id": 1'), "unavailable"),
            ("a gzip that is none", raw(OK + b"Content-Encoding: gzip\r\n\r\n[]"), "unavailable"),
            ("empty", document([]), "refused"),
            ("refused", refusal(403, "Go away."), "refused"),
        )
    ),
    Case("the list is redirected", always(LIST, redirect(302)), "misconfigured", 0),
    Case("the list is throttled", always(LIST, throttled()), "unavailable", 0),
    Case(
        "the list of servers is endless",
        always(SERVERS, instead(endless(lambda: [OK + b"\r\n", *[b" " * 65536] * 10]))),
        "unavailable",
        0,
    ),
    Case("the list of servers is a page", always(SERVERS, instead(LOGIN_PAGE)), "unavailable", 0),
    Case("no server is listed", always(SERVERS, instead(document([]))), "refused", 0),
]

UNREADABLE = {  # answers to a renewal that say nothing of what has become of it
    "a login page with 200": LOGIN_PAGE,
    "a 500": LOCKED,
    "a 500 without cookies": Response(500, {"Content-Type": "text/html"}, b"<h1>error</h1>"),
    "a 502": page(502),
    "a 503 in JSON": document({"message": "later"}, 503),
    "an empty 200": Response(200),
    "an empty object": document({}),
    "an id without a token": document({"id": 2}),
    "a token that is null": document({"id": 2, "token": None}),
    "a token that is empty": document({"id": 2, "token": ""}),
    "a token that is a number": document({"id": 2, "token": 12345678901234567890}),
    "a token that is a list": document({"id": 2, "token": ["a.b.c"]}),
    "a list": document(["a.b.c"]),
    "cut JSON": Response(200, {"Content-Type": "application/json"}, b'{"id": 2, "token": "eyJ'),
    "nothing": raw(),
    "no HTTP": raw(b"nothing of the kind\r\n\r\n"),
    "a cut head": raw(OK),
    "a cut body": raw(OK + b'Content-Length: 500\r\n\r\n{"id": 2, "token": "eyJ'),
    "a cut chunk": raw(OK + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"id": 2, "tok'),
    "a chunk of no length": raw(OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n"),
    "an endless body": endless(lambda: itertools.chain([OK + b"\r\n"], itertools.repeat(BOMB))),
    "a gzip bomb": Response(200, {"Content-Encoding": "gzip"}, BOMB),
    "a gzip bomb in a gzip": Response(200, {"Content-Encoding": "gzip, gzip"}, gzip.compress(BOMB)),
    "a gzip that is none": Response(200, {"Content-Encoding": "gzip"}, b"{}"),
}
WORDS = {  # what an operator reads of the answer, where it is not the same for all
    "an endless body": "larger than 65,536 bytes",
    "a gzip bomb": "Content-Encoding",
    "a gzip bomb in a gzip": "Content-Encoding",
    "a gzip that is none": "Content-Encoding",
}
ANSWERS = [
    *(
        Case(
            f"{name}, for ever",
            always(RENEWAL, instead(answer)),
            "unavailable",
            3,
            says=WORDS.get(name, ""),
        )
        for name, answer in UNREADABLE.items()
    ),
    *(
        Case(f"{name}, once", once(RENEWAL, instead(answer)), "rotated", 2)
        for name, answer in UNREADABLE.items()
    ),
    *(
        Case(
            f"{name}, when it was minted",
            once(RENEWAL, lost(answer)),
            "adopted",
            1,
            by_token=("rotated", 2),
        )
        for name, answer in UNREADABLE.items()
    ),
    *(
        Case(f"a {status} to {where}", always(RENEWAL, redirect(status, host)), "misconfigured", 1)
        for status in (301, 302, 303, 307, 308)
        for where, host in (("the same host", None), ("another host", "localhost"))
    ),
    Case(
        "a refusal that recites the tokens",
        once(RENEWAL, reciting),
        "refused",
        1,
        minted=1,
        says="responded with 400",
    ),
    *(
        Case(f"a refusal by {status}", always(RENEWAL, instead(page(status))), "refused", 1)
        for status in (400, 403, 409, 413, 415, 418, 422)
    ),
    *(
        Case(
            f"a page that is not there, {status}",
            always(RENEWAL, instead(page(status))),
            "refused",
            1,
            by_token=("misconfigured", 1),
        )
        for status in (404, 405)
    ),
]

TIMEOUTS = [
    *(
        Case(
            f"{name}, {what}",
            once(RENEWAL, how(answer)),
            outcome,
            renewals,
            options=IMPATIENT,
        )
        for name, answer in (
            ("silence", SILENCE),
            ("a dripping body", endless(drip)),
        )
        for what, how, outcome, renewals in (
            ("once", instead, "rotated", 2),
            ("when it was minted", lost, "adopted", 1),
        )
    ),
    Case("no sign-out", always(SIGNOUT, instead(SILENCE)), "rotated", 1, options=IMPATIENT),
]

WAIT_LIMIT = [
    *(
        Case(f"429, Retry-After: {what}", always(RENEWAL, answer), "unavailable", renewals)
        for what, answer, renewals in (
            ("missing", throttled(), 3),
            ("seconds", throttled(Retry_After="7"), 3),
            ("zero", throttled(Retry_After="0"), 3),
            ("half a minute", throttled(Retry_After="30"), 3),
            ("more than half a minute", throttled(Retry_After="31"), 1),
            ("negative", throttled(Retry_After="-7"), 3),
            ("ten years", throttled(Retry_After="315360000"), 1),
            ("a number of 400 digits", throttled(Retry_After="9" * 400), 1),
            ("infinity", throttled(Retry_After="inf"), 1),
            ("no number", throttled(Retry_After="nan"), 3),
            ("garbage", throttled(Retry_After="soon; or later"), 3),
            ("empty", throttled(Retry_After=""), 3),
            ("a date", throttled(timedelta(seconds=20)), 3),
            ("a date in the past", throttled(timedelta(days=-1)), 3),
            ("a date in ten years", throttled(timedelta(days=3650)), 1),
            ("a date, but of what", throttled(Retry_After="Mon, 23 Nov 2026 12:00:20 GMT"), 3),
        )
    ),
    Case("429 once", once(RENEWAL, throttled(Retry_After="7")), "rotated", 2),
    Case("429 twice", once(RENEWAL, throttled(), times=2), "rotated", 3),
]


def rejected(name, answer, says="", **options) -> Case:
    """A token that is never written."""
    return Case(name, always(RENEWAL, answer), "rejected", 1, minted=1, says=says, **options)


def useless(name, answer) -> Case:
    """A token that would not live longer than the one in use, of which 15 minutes are left."""
    return Case(name, always(RENEWAL, answer), "capped", 1, minted=1, says="too little")


TOKENS = [
    Case("the same token", always(RENEWAL, same_token), "rejected", 1, says="the same token"),
    useless("expired", timed(iat=-3600, nbf=-3600, exp=-60)),
    useless("about to expire", timed(exp=30)),
    useless("shorter", timed(exp=600)),
    useless("as long", timed(exp=900)),
    Case(
        "hardly longer",
        always(RENEWAL, timed(exp=960)),
        "capped",
        1,
        swapped=True,
        minted=1,
        says="too little",
    ),
    rejected(
        "a role added", claiming(user_claims={**SCOPES, "admin": ["everything"]}), "set of roles"
    ),
    rejected("a role dropped", claiming(user_claims={"viewer": []}), "set of roles"),
    rejected("a role changed", claiming(user_claims={"viewer": [], "Runner": []}), "set of roles"),
    rejected("no roles", claiming(user_claims={}), "set of roles"),
    rejected("roles that are no object", claiming(user_claims=["viewer"]), "user_claims"),
    Case(
        "other scopes of the same roles",
        always(RENEWAL, claiming(user_claims={"viewer": ["nothing"], "runner": []})),
        "rotated",
        1,
    ),
    Case("the same roles, zipped", always(RENEWAL, signing(zipped)), "rotated", 1),
    rejected("another sub", claiming(sub="ada"), "`sub`"),
    rejected("another aud", claiming(aud="PRODUCTION"), "`aud`"),
    rejected("several aud", claiming(aud=["TEST_SERVER", "PRODUCTION"]), "`aud`"),
    rejected("another iss", claiming(iss="ada"), "`iss`"),
    rejected("another name", claiming(token_name="OTHER"), "has another name|token name"),
    rejected("alg none, unsigned", headed({"alg": "none", "typ": "JWT"}, ""), "segments"),
    rejected("alg none", headed({"alg": "none", "typ": "JWT"}), "not signed"),
    rejected("alg HS256", headed({"alg": "HS256", "typ": "JWT"}), "family of algorithms"),
    rejected("no alg", headed({"typ": "JWT"}), "not signed|decode"),
    rejected("no segments", texted(lambda token: "welcome!"), "no JWT contains"),
    rejected("five segments", texted(lambda token: f"{token}.e30.e30"), "segments"),
    rejected("a Bearer prefix", texted(lambda token: f"Bearer {token}"), "Bearer"),
    rejected("line breaks", texted(lambda token: f"{token}\n"), "has a line break at position"),
    rejected(
        "a wrong signature",
        texted(lambda token: token[:-20] + "A" * 20),
        "signature",
        options=VERIFYING,
    ),
    Case("a right signature", (), "rotated", 1, options=VERIFYING),
    rejected("nbf ahead, beyond the leeway", timed(nbf=61), "not valid yet"),
    rejected("iat ahead, beyond the leeway", timed(iat=61), "not valid yet"),
    Case("nbf ahead, within the leeway", always(RENEWAL, timed(nbf=59)), "rotated", 1),
    Case("iat ahead, within the leeway", always(RENEWAL, timed(iat=59)), "rotated", 1),
    *(
        rejected(f"exp {exp[:12]}", spelt(exp), "`exp`|decode|years")
        for exp in ("1e11", "1.5", '"1"', "true", "-1", "0", "NaN", "1e400", "null", "[]", "{}")
    ),
    rejected("exp of 5,000 digits", spelt("9" * 5_000), "decode"),
    rejected("exp in milliseconds", spelt("4102444800000"), "milliseconds"),
    rejected(
        "exp of a million digits",
        spelt("9" * 1_000_000),
        "65,536",
        by_token=("unavailable", 3),
    ),
]


@pytest.fixture
def public_key(signing_key):
    """What verifies the issuer's tokens."""
    key = signing_key.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return partial(PublicKey, pem)


def table():
    """Every row for who signs in; what is answered to a renewal also for who shows the token."""
    by_token = [*ANSWERS, *WAIT_LIMIT, *TOKENS]
    for case in [*SIGNING_IN, *REFUSALS, *LISTS, *TIMEOUTS, *by_token]:
        yield pytest.param(case, "session", id=f"{case}-session")
    for case in by_token:
        outcome, renewals = case.by_token or (case.outcome, case.renewals)
        yield pytest.param(
            replace(case, outcome=outcome, renewals=renewals), "bearer", id=f"{case}-bearer"
        )


@pytest.mark.parametrize(("case", "kind"), [*table()])
def test_misbehaviour(stage, case, kind, public_key):
    """A run ends as its row says, with so many requests, and with the right token in the store."""
    misbehaviour = case.misbehaviour
    stage.misbehaviour = misbehaviour if isinstance(misbehaviour, tuple) else (misbehaviour,)
    options = dict(case.options or {})
    if options.get("public_key"):
        options["public_key"] = public_key
    outcome, end = stage.rotate(kind, **options)
    assert (outcome, stage.renewals) == (case.outcome, case.renewals), end.message
    assert re.search(case.says, f"{end.message} {end.hint}")
    swapped = outcome in ("rotated", "adopted") if case.swapped is None else case.swapped
    assert len(stage.minted) == (swapped if case.minted is None else case.minted)
    expected = Token(stage.minted[-1].token) if swapped else stage.predecessor
    assert stage.store.token == expected
    assert not any("elsewhere" in request for request in stage.asked)


DOWN, THROTTLED = page(503), Response(429, {"Retry-After": "1"}, b"{}")
OTHER_KEY, EXPIRED, ACCEPTED = document({}, 422), document({}, 401), document({})
NO_SCOPE, UNKNOWN = document({}, 403), page(404)
ENDLESS = endless(lambda: itertools.chain([OK + b"\r\n"], itertools.repeat(b" " * 100_000)))
ENCODED = Response(200, {"Content-Encoding": "gzip"}, BOMB)
BOTH = "FlowAPI accepts it and the predecessor"
REFUSED = "FlowAPI refuses it, and accepts the token in use"
UNTRIED = "Whether FlowAPI accepts it is not known"


@pytest.mark.parametrize(
    ("successor", "predecessor", "outcome", "severity", "is_stored", "says"),
    [
        pytest.param(*row, id=name)
        for name, *row in (
            ("both accepted", ACCEPTED, ACCEPTED, "rotated", "ok", True, BOTH),
            ("both without the scope", NO_SCOPE, NO_SCOPE, "rotated", "ok", True, BOTH),
            ("an unknown path", UNKNOWN, UNKNOWN, "rotated", "ok", True, BOTH),
            ("another key", OTHER_KEY, ACCEPTED, "rejected", "critical", False, REFUSED),
            ("a 401", EXPIRED, NO_SCOPE, "rejected", "critical", False, REFUSED),
            (
                *("both refused", OTHER_KEY, OTHER_KEY, "rotated", "critical", True),
                "FlowAPI refuses it, and the predecessor is refused, too",
            ),
            (
                *("refused, then down", OTHER_KEY, DOWN, "unavailable", "warning", False),
                "FlowAPI refuses it. Whether FlowAPI accepts the token in use is not known: ",
            ),
            (
                *("the predecessor refused", ACCEPTED, OTHER_KEY, "rotated", "warning", True),
                "refuses the predecessor before its expiry",
            ),
            (
                *("accepted, then down", ACCEPTED, DOWN, "rotated", "ok", True),
                "FlowAPI accepts it. Whether FlowAPI accepts the predecessor is not known: ",
            ),
            ("down", DOWN, DOWN, "rotated", "warning", True, f"{UNTRIED}: .* with 503"),
            ("throttled", THROTTLED, THROTTLED, "rotated", "warning", True, UNTRIED),
            ("silent", SILENCE, SILENCE, "rotated", "warning", True, UNTRIED),
            ("cut", raw(), raw(), "rotated", "warning", True, UNTRIED),
            ("endless", ENDLESS, ENDLESS, "rotated", "warning", True, f"{UNTRIED}: .* larger than"),
            ("encoded", ENCODED, ENCODED, "rotated", "warning", True, UNTRIED),
        )
    ],
)
def test_flowapi_is_asked_before_and_after_the_swap(
    stage, successor, predecessor, outcome, severity, is_stored, says
):
    """A successor that it refuses is not stored in place of a token that it accepts."""
    asked = []

    def answer(method, path, headers, body):
        asked.append((method, path))
        token = headers["Authorization"].removeprefix("Bearer ")
        answer = predecessor if token == stage.predecessor.reveal() else successor
        return replace(answer, headers=dict(answer.headers))

    with serve(answer) as url, closing(Probe(f"{url}{PATH}", timeout=2)) as probe:
        found, end = stage.rotate(probe=probe)
    assert (found, str(end.severity)) == (outcome, severity), end.message
    assert re.search(says, end.message)
    assert bool(end.hint) == (severity != "ok")
    assert set(asked) == {("GET", PATH)}
    assert len(stage.minted) == 1
    [minted] = [Token(row.token) for row in stage.minted]
    assert stage.store.token == (minted if is_stored else stage.predecessor)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_probe_takes_no_token_elsewhere(stage, status):
    """To no host but the one that the operator has named, whatever that answers."""
    elsewhere = []

    def listen(method, path, headers, _body):
        elsewhere.append((method, path, dict(headers)))
        return ACCEPTED

    with serve(listen) as other:
        moved = Response(status, {"Location": f"{other}/api/0/available_dates"})
        with serve(lambda *_: moved) as url, closing(Probe(f"{url}{PATH}")) as probe:
            outcome, end = stage.rotate(probe=probe)
    assert (outcome, str(end.severity)) == ("rotated", "warning")
    assert "redirects are not followed" in end.message
    assert elsewhere == []


def test_a_successor_waits_at_the_issuer_until_flowapi_has_its_key(stage):
    """No check requests another one, and the first that finds it accepted stores it."""
    has_new_key = []

    def refuse(token):
        is_old = token == stage.predecessor.reveal()
        return None if is_old != bool(has_new_key) else 422

    with serve(FlowApi(refuse).answer) as url, closing(Probe(f"{url}{PATH}")) as probe:
        for _ in range(3):
            assert stage.rotate(probe=probe)[0] == "rejected"
            stage.now += timedelta(minutes=1)
        has_new_key.append(True)
        outcome, end = stage.rotate(probe=probe)
    assert (outcome, str(end.severity)) == ("adopted", "warning")
    assert "refuses the predecessor before its expiry" in end.message
    assert stage.renewals == 1


def test_a_token_that_has_expired_gives_way_whatever_flowapi_says(stage):
    """There is no access to lose."""
    stage.now += timedelta(minutes=16)
    refuse_all = FlowApi(lambda _: 422)
    with serve(refuse_all.answer) as url, closing(Probe(f"{url}{PATH}")) as probe:
        outcome, end = stage.rotate(probe=probe)
    assert (outcome, str(end.severity)) == ("rotated", "critical")
    assert "FlowAPI refuses it, and the predecessor has expired." in end.message


@pytest.mark.parametrize(
    ("outcome", "misbehaviour"),
    [
        ("unavailable", always(LIST, instead(raw()))),
        ("unavailable", always(RENEWAL, instead(raw()))),
        ("misconfigured", once(RENEWAL, instead(CSRF_ERROR), times=2)),
        ("refused", always(LIST, meanwhile(lambda flowauth: flowauth.rows.clear()))),
    ],
    ids=["no history", "no renewal", "no CSRF token", "no row"],
)
def test_a_failure_shows_the_clock_of_the_responses_before_it(stage, outcome, misbehaviour):
    """The report has the clock skew, although the last request may have got no response."""
    stage.ahead, stage.misbehaviour = timedelta(minutes=2), (misbehaviour,)
    found, end = stage.rotate()
    assert found == outcome
    assert end.details.clock_skew == pytest.approx(120, abs=30)


def test_the_end_of_a_task_leaves_the_clock_of_the_responses_before_it(stage):
    """A timeout of the task while the history is on its way, after the sign-in."""

    class Ended(SessionIssuer):
        def _get_history(self, path):
            raise KeyboardInterrupt

    stage.ahead = timedelta(minutes=2)
    with (
        closing(Ended(stage.url, "flowbot", PASSWORD)) as issuer,
        pytest.raises(KeyboardInterrupt) as ended,
    ):
        rotate(stage.store, issuer, POLICY, now=stage.now)
    assert ended.value.details.clock_skew == pytest.approx(120, abs=30)


def test_a_rotation_forgets_the_clock_of_the_one_before(stage):
    """A response of an hour ago says nothing of the clocks now."""
    stage.ahead = timedelta(minutes=2)
    with closing(SessionIssuer(stage.url, "flowbot", PASSWORD)) as issuer:
        assert rotate(stage.store, issuer, POLICY, now=stage.now).clock_skew
        stage.misbehaviour = (always(re.compile(".*"), instead(raw())),)
        store = MemoryStore(stage.predecessor)
        with pytest.raises(RotatorError) as failed:
            rotate(store, issuer, POLICY, now=stage.now, timer=InstantTimer())
    assert failed.value.details.clock_skew is None


def test_flowauth_renews_no_token_by_itself(stage):
    """Asked in the bundled server's way it shows a page; the hint is to give a login."""
    stage.renews_by_token = False
    outcome, end = stage.rotate("bearer")
    assert (outcome, stage.renewals) == ("misconfigured", 1), end.message
    assert "login" in end.hint


def test_a_lost_answer_is_found_by_the_next_run(stage):
    """Minted, cut, and then no list: this run does not guess, and the next one adopts."""
    stage.misbehaviour = (
        once(RENEWAL, lost(raw())),
        Misbehaviour(LIST, instead(LOCKED), first=2, last=4),
    )
    assert stage.rotate()[0] == "unavailable"
    assert (stage.renewals, stage.store.token) == (1, stage.predecessor)
    stage.now += timedelta(minutes=5)
    assert stage.rotate()[0] == "adopted"
    [minted] = [Token(row.token) for row in stage.minted]
    assert (stage.renewals, stage.store.token) == (1, minted)


def test_half_of_the_answers_are_lost(stage):
    """Forty generations, every second answer cut after the mint: one row a generation."""
    for number in range(40):
        renewals = stage.renewals
        cut = Misbehaviour(RENEWAL, lost(raw()), first=renewals + 1, last=renewals + 1)
        stage.misbehaviour = (cut,) if number % 2 else ()
        assert stage.rotate()[0] == ("adopted" if number % 2 else "rotated")
        assert len(stage.minted) == stage.renewals == number + 1
        stage.now += timedelta(days=5)


def watch(stage, *, minutes: int, every: int = 2, **options):
    """Check again and again; what is in the store is never swapped for something worse."""
    outcomes = []
    for _ in range(0, minutes, every):
        held = read_unverified(stage.store.token).expires_at
        outcomes.append(stage.rotate(**options)[0])
        assert read_unverified(stage.store.token).expires_at >= held
        stage.now += timedelta(minutes=every)
    return outcomes


def mints_within(times, *, minutes: int) -> int:
    """The most mints within so many minutes."""
    period = timedelta(minutes=minutes)
    return max(
        (sum(first <= time < first + period for time in times) for first in times), default=0
    )


@pytest.fixture
def mint_times(stage):
    """When each token was made, whatever it says of itself."""
    times = []
    sign = stage.sign

    def timing(claims):
        times.append(stage.now)
        return sign(claims)

    stage.sign = timing
    return times


@pytest.mark.parametrize("kind", ISSUERS)
@pytest.mark.parametrize("seconds", [1, 30, 60, 300, 600, 899, 960, 1200, 1230])
def test_a_cap_is_no_loop(stage, mint_times, kind, seconds):
    """From 1 s to half a minute over the threshold: few mints before the expiry and after it."""
    stage.flowauth.longest_minutes = seconds / 60
    outcomes = watch(stage, minutes=90, kind=kind)
    assert set(outcomes) <= {"capped", "expired", "budget_exhausted", "healthy", "rotated"}
    assert mints_within(mint_times, minutes=60) <= 6


USELESS = {
    "expired": timed(iat=-120, nbf=-120, exp=-60),
    "the same": same_token,
    "another user's": claiming(sub="ada"),
    "not signed": headed({"alg": "none"}),
    "no JWT": texted(lambda token: "welcome!"),
    "of a million digits": spelt("9" * 1_000_000),
    "not valid for a day": timed(iat=86400, nbf=86400, exp=90000),
    "refused": instead(refusal(400, "No.")),
}


@pytest.mark.parametrize("kind", ISSUERS)
@pytest.mark.parametrize("what", USELESS)
def test_useless_answers_are_no_loop(stage, mint_times, kind, what):
    """Before the expiry and after it the token in use stays; six mints an hour are the most."""
    stage.misbehaviour = (always(RENEWAL, USELESS[what]),)
    outcomes = watch(stage, minutes=60, every=5, kind=kind)
    assert stage.store.token == stage.predecessor
    assert not {"rotated", "adopted", "healthy"} & set(outcomes)
    assert mints_within(mint_times, minutes=60) <= 6


@pytest.mark.parametrize("kind", ISSUERS)
@pytest.mark.parametrize(("minutes", "exp"), [(5, 60), (10, 60), (60, 60), (60, -60), (120, 60)])
def test_a_backdated_cap_is_no_loop(stage, mint_times, kind, minutes, exp):
    """A minute's token that says it were older: few mints, as far as the history can tell."""
    seconds = minutes * 60
    stage.misbehaviour = (always(RENEWAL, timed(iat=-seconds, nbf=-seconds, exp=exp)),)
    outcomes = watch(stage, minutes=240, every=5, kind=kind)
    assert not {"rotated", "adopted", "healthy"} & set(outcomes)
    assert mints_within(mint_times, minutes=60 - minutes) <= 6
    assert len(mint_times) <= 24


@pytest.mark.parametrize("kind", ISSUERS)
def test_a_deleted_role_is_no_loop(stage, mint_times, kind):
    """It vanishes from the rows, and tokens with fewer roles are what is left: none is written."""
    stage.flowauth.delete_role("runner")
    assert set(watch(stage, minutes=60, every=5, kind=kind)) <= {"rejected", "budget_exhausted"}
    assert stage.store.token == stage.predecessor
    assert mints_within(mint_times, minutes=60) <= 6


@pytest.mark.parametrize("kind", ISSUERS)
@pytest.mark.parametrize("answer", [LOCKED, refusal(429, "Slowly."), raw()], ids=["500", "429", ""])
def test_an_issuer_that_is_down_for_a_day_is_not_stormed(stage, kind, answer):
    """Three requests a check are the most; when it is up again, the first check ends it."""
    stage.misbehaviour = (always(RENEWAL, instead(answer)),)
    assert set(watch(stage, minutes=24 * 60, every=30, kind=kind)) == {"unavailable"}
    assert stage.renewals <= 3 * 48
    stage.misbehaviour = ()
    assert stage.rotate(kind)[0] == "rotated"
    assert len(stage.minted) == 1


@pytest.mark.parametrize("part", range(3))
def test_a_leak_would_be_found(stage, part):
    """Twelve characters of a payload, of a signature or of the password, and not eleven."""
    secret = [*stage.predecessor.reveal().split(".")[1:], PASSWORD][part]
    found, missed = (leaks(f"x='{secret[7:end]}'", stage.secrets) for end in (19, 18))
    assert (found, missed) == (True, False)


def test_the_model_answers_the_same_to_the_same():
    """Nothing in it is random, so that a simulation can be repeated."""

    def run():
        flowauth = FlowAuth(lambda: 1.8e9, lambda claims: repr(claims), roles=SCOPES)
        flowauth.mint(NAME, ROLES)
        said = {"username": flowauth.username, "password": flowauth.password}
        headers = {"Content-Type": "application/json"}
        signed_in = flowauth.answer("POST", "/signin", headers, json.dumps(said).encode())
        session, csrf = re.findall("^.+?=(.+?);", signed_in.headers["Set-Cookie"], re.MULTILINE)
        headers |= {"Cookie": f"session={session}", "X-CSRF-Token": csrf}
        requests = ("POST /tokens/tokens/1/renew", "GET /tokens/tokens/1", "GET /signout")
        others = [flowauth.answer(*request.split(" "), headers, b"") for request in requests]
        return [signed_in, *others]

    first, second = run(), run()
    assert [answer.status for answer in first] == [200] * 4
    same = first == second
    assert same


class Hands:
    """An operator's hands on the model, as the rows of the contract want them."""

    def __init__(self, stage) -> None:
        self._stage, self._flowauth = stage, stage.flowauth

    @property
    def clock_offset(self) -> int:
        return 0

    @clock_offset.setter
    def clock_offset(self, seconds: int) -> None:
        self._stage.now += timedelta(seconds=seconds)

    def limit(self, role, *, minutes):
        self._flowauth.longest_minutes = minutes

    def revoke(self, role):
        self._flowauth.held.discard(role)

    def delete_role(self, role):
        self._flowauth.delete_role(role)

    def forget_roles(self, row_id):
        self._change(row_id, roles=())

    def add_user(self, username):
        """There is always somebody else."""

    def mint(self, name, username):
        self._flowauth.mint(name, ROLES)
        self._change(self._flowauth.rows[-1].id, owner=username)

    def rows(self, name):
        return [row for row in self._flowauth.rows if row.name == name]

    def _change(self, row_id, **changes):
        rows = self._flowauth.rows
        rows[:] = [replace(row, **changes) if row.id == row_id else row for row in rows]


def modelled(row) -> bool:
    """Whether an agent may meet it."""
    return not re.search("/user/|/tokens/servers/", row.request)


@pytest.mark.parametrize("row", [*filter(modelled, CONTRACT)], ids=str)
def test_the_model_answers_as_flowauth(stage, row):
    """Row by row of the wire contract, with what is said there of FlowAuth."""
    caller = Caller(Issuer(stage.url, "flowbot", stage.flowauth.password, ROLES))
    with closing(caller.http):
        if not row.stranger:
            caller.sign_in()
        if "{row}" in row.request:
            assert caller.row
        if row.given:
            row.given(Hands(stage), caller)
        answer = ask(row, caller)
    said = row.flowauth or ""
    status = int(said[:3]) if said[:1].isdigit() else row.answer.status
    kind = "text/html" if "HTML" in said or said == "text/html" else "application/json"
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (status, kind)
    as_stated = said or fits(row.answer.body, answer.json())
    assert as_stated
