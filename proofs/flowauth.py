"""An issuer shaped like FlowAuth as deployed: a pure model of its answers, and a server of them.

Nothing in it is random and only its `clock` tells the time: whoever asks the same gets the same.
Unlike the bundled server it keeps FlowAuth's defects, since an agent must live with them.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pyotp import TOTP

SESSION_SECONDS = 1200  # idle
CSRF_SECONDS = 3600
LONGEST_SUM = 10**9  # minutes; beyond them Python's dates overflow, which FlowAuth does not catch

_TOKENS = re.compile(r"/tokens/tokens/(\d+)(/renew)?", re.ASCII)
_SESSION = re.compile(r"\bsession=(\d+)\.([01])\.(\d+)", re.ASCII)
_http_date = lru_cache(maxsize=64)(formatdate)


@dataclass(frozen=True)
class Response:
    """What comes back for one request.

    Attributes:
        status: the HTTP status.
        headers: by name; each cookie stands on a line of its own in `Set-Cookie`.
        content: the body.
        raw: if given, all that is done on the connection instead, before it is closed.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)
    raw: Callable[[socket.socket], None] | None = None


Answerer = Callable[[str, str, Mapping[str, str], bytes], Response]


def document(value: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def page(status: int, text: str = "") -> Response:
    """An answer in HTML, by default a page as the framework makes it."""
    text = text or f"<!doctype html>\n<title>{status} {HTTPStatus(status).phrase}</title>\n"
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def refusal(status: int, message: str, **more: object) -> Response:
    """A refusal on purpose."""
    return document({"code": status, "message": message, **more}, status)


@dataclass(frozen=True, eq=False)
class Row:
    """One token of the history; `made_by` is the request that made it, or "owner"."""

    id: int
    owner: str
    name: str
    roles: tuple[str, ...]
    token: str = field(repr=False)
    claims: dict[str, Any]
    made_by: str


@dataclass
class _Asked:
    """A request; of Flask's signed cookie the content stands there bare."""

    path: str
    number: int
    headers: Mapping[str, str]
    body: Any
    now: float
    session: int
    signed_in: bool


class FlowAuth:
    """FlowAuth with one server, one user who may sign in, and their history.

    Args:
        clock: seconds since the epoch.
        sign: makes the text of a token of its claims.
        audience: the name of the server.
        username: who may sign in.
        password: what they sign in with.
        roles: the scopes of each role, by its name; the user holds them all at first.
        first_id: the id of the first row.

    Attributes:
        longest_minutes: how long tokens may live, by the strictest of the server and its roles.
        latest_expiry: when all tokens must have expired, if ever.
        held: the roles that the user holds.
        rows: the history, oldest first; to change a row, put another in its place.
        totp: whose codes must come with the password, each once, if any.
        codes_used: those that have come.
        https: whether requests are taken for https ones, which need a Referer; they are, too, if a
            proxy says so in X-Forwarded-Proto.
        utc_offset: seconds by which the server's local time is ahead of UTC.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        sign: Callable[[dict[str, Any]], str],
        *,
        audience: str = "TEST_SERVER",
        username: str = "flowbot",
        password: str = "correct-horse-battery-staple",  # noqa: S107 - of a model
        roles: Mapping[str, list[str]],
        first_id: int = 1,
    ) -> None:
        self._clock, self._sign = clock, sign
        self.audience, self.username, self.password = audience, username, password
        self.roles, self.held = dict(roles), set(roles)
        self.rows: list[Row] = []
        self.longest_minutes: float = 7 * 24 * 60
        self.latest_expiry: float | None = None
        self.totp: TOTP | None = None
        self.codes_used: set[str] = set()
        self.https, self.utc_offset = False, 20700  # Kathmandu's
        self._role_ids = {name: number for number, name in enumerate(roles, 1)}
        self._sessions, self._last_id = 0, first_id - 1
        self._listed: dict[Row, bytes] = {}

    def mint(
        self,
        name: str,
        roles: Collection[str],
        lifetime_minutes: float | None = None,
        *,
        issued_at: float | None = None,
    ) -> str:
        """A token that the owner made by hand, by default now and for the maximum."""
        now = self._clock() if issued_at is None else issued_at
        expiry = self._maximum(now) if lifetime_minutes is None else now + lifetime_minutes * 60
        return self._issue(name, tuple(roles), now, expiry, "owner").token

    def delete_role(self, role: str) -> None:
        """An admin deletes a role: it vanishes from every row, and from who holds it."""
        del self.roles[role]
        self.held.discard(role)
        self.rows[:] = [
            replace(row, roles=tuple(name for name in row.roles if name != role))
            for row in self.rows
        ]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer one request, whose `headers` have their usual spelling."""
        asked = self._asked(path.partition("?")[0], headers, body)
        found = _TOKENS.fullmatch(asked.path)
        page_asked = f"/tokens/tokens/<id>{found[2] or ''}" if found else asked.path
        rule, asked.number = f"{method} {page_asked}", int(found[1]) if found else 0
        answer = self._turned_away(rule, asked) or _VIEWS[rule](self, asked)
        answer.headers["Date"] = _http_date(int(asked.now), usegmt=True)
        answer.headers["Set-Cookie"] = (
            f"session={asked.session}.{asked.signed_in:d}.{int(asked.now)}; HttpOnly; Path=/\n"
            f"X-CSRF={asked.session}.{int(asked.now)}; Path=/"
        )
        return answer

    def _asked(self, path: str, headers: Mapping[str, str], body: bytes) -> _Asked:
        now, said = self._clock(), None
        if headers.get("Content-Type", "").startswith("application/json"):
            with suppress(ValueError):
                said = json.loads(body)
        cookie = _SESSION.search(headers.get("Cookie", ""))
        if cookie and now - int(cookie[3]) <= SESSION_SECONDS:
            return _Asked(path, 0, headers, said, now, int(cookie[1]), cookie[2] == "1")
        self._sessions += 1
        return _Asked(path, 0, headers, said, now, self._sessions, signed_in=False)

    def _turned_away(self, rule: str, asked: _Asked) -> Response | None:
        """The answer to whom no view is shown."""
        if rule not in _VIEWS:
            is_other_method = any(view.endswith(f" {rule.partition(' ')[2]}") for view in _VIEWS)
            return page(405 if is_other_method else 404)
        if rule.startswith("POST /tokens/") and not self._has_csrf(asked):
            return page(401, "CSRF error")
        if rule not in ("POST /signin", "GET /version") and not asked.signed_in:
            return page(401)
        if rule.endswith("<id>") and asked.number != 1:  # there is one server
            return page(404)
        return None

    def _has_csrf(self, asked: _Asked) -> bool:
        session, _, made = asked.headers.get("X-CSRF-Token", "").partition(".")
        if session != str(asked.session) or not made.isdecimal():
            return False
        is_https = self.https or asked.headers.get("X-Forwarded-Proto") == "https"
        own = f"https://{asked.headers.get('Host', '')}"
        same = _origin(asked.headers.get("Referer", "")) == _origin(own)
        return asked.now - int(made) <= CSRF_SECONDS and (same or not is_https)

    def _signin(self, asked: _Asked) -> Response:
        said = asked.body if isinstance(asked.body, dict) else {}
        if (said.get("username"), said.get("password")) != (self.username, self.password):
            return refusal(401, "Incorrect username or password.")
        if self.totp:
            code = said.get("two_factor_code")
            if not code:
                return refusal(400, "Must supply a two-factor code.", need_two_factor=True)
            if code != self.totp.at(int(asked.now)) or code in self.codes_used:
                return refusal(401, "Code not valid.")
            self.codes_used.add(code)
        asked.signed_in = True
        return self._is_signed_in(asked)

    def _is_signed_in(self, _: _Asked) -> Response:
        return document({"is_admin": False, "logged_in": True, "require_two_factor_setup": False})

    def _signout(self, asked: _Asked) -> Response:
        asked.signed_in = False
        return document({"logged_in": False})

    def _version(self, _: _Asked) -> Response:
        return document({"version": "1.30.0"})

    def _servers(self, _: _Asked) -> Response:
        return document([{"id": 1, "server_name": self.audience}] if self.held else [])

    def _limits(self, _: _Asked) -> Response:
        latest = self.latest_expiry
        limits = {
            "longest_token_life_minutes": self.longest_minutes,
            "latest_token_expiry": latest and formatdate(latest + self.utc_offset, usegmt=True),
        }
        return document([{"name": role, **limits} for role in self.roles])

    def _list(self, _: _Asked) -> Response:
        rows = b",".join(self._json(row) for row in self.rows if row.owner == self.username)
        return Response(200, {"Content-Type": "application/json"}, b"[" + rows + b"]\n")

    def _json(self, row: Row) -> bytes:
        """A row as it is listed; kept, since it is asked for again and again."""
        if row not in self._listed:
            said = {
                "expires": formatdate(row.claims["exp"] + self.utc_offset, usegmt=True),
                "id": row.id,
                "name": row.name,
                "roles": [{"id": self._role_ids[name], "name": name} for name in row.roles],
                "server_name": self.audience,
                "token": row.token,
                "username": row.owner,
            }
            self._listed[row] = json.dumps(said).encode()
        return self._listed[row]

    def _mint(self, asked: _Asked) -> Response:
        said = asked.body if isinstance(asked.body, dict) else {}
        if "name" not in said or "roles" not in said:
            return refusal(400, "No roles." if "name" in said else "No name.")
        roles = tuple(role["name"] for role in said["roles"])
        if foreign := [role for role in roles if role not in self.held]:
            return refusal(401, f"Role '{foreign[0]}' is not permitted for the current user")
        expiry = self._expiry(asked.now, said, "expired")
        if isinstance(expiry, Response):
            return expiry
        if len(set(roles)) < len(roles):
            return document({"status": 400, "statusText": "Name already exists"}, 400)
        row = self._issue(said["name"], roles, asked.now, expiry, f"POST {asked.path}")
        return document({"token": row.token})

    def _renew(self, asked: _Asked) -> Response:
        row = next((row for row in reversed(self.rows) if row.id == asked.number), None)
        if row is None:
            return page(404)
        if row.owner != self.username:
            return refusal(401, "You can only renew your own tokens.")
        if not row.roles:
            words = "This token has no roles recorded against it and cannot be renewed; "
            return refusal(400, f"{words}mint a new token instead.", bad_field="token_id")
        if lost := sorted(set(row.roles) - self.held):
            words = "Cannot renew: the following roles are no longer assigned to you: "
            return refusal(401, words + ", ".join(lost))
        words = "cannot be renewed: maximum permitted expiry has already passed."
        expiry = self._expiry(asked.now, asked.body or {}, words)
        if isinstance(expiry, Response):
            return expiry
        row = self._issue(row.name, row.roles, asked.now, expiry, f"POST {asked.path}")
        return document({"id": row.id, "token": row.token})

    def _maximum(self, now: float) -> float:
        longest = now + self.longest_minutes * 60
        return longest if self.latest_expiry is None else min(longest, self.latest_expiry)

    def _expiry(self, now: float, said: object, cannot: str) -> float | Response:
        """When a token that is made now shall expire, or why none is made."""
        maximum = self._maximum(now)
        if maximum <= now:
            return refusal(401, f"Token for {self.username} {cannot}")
        if not isinstance(said, dict):
            return page(500)
        minutes = said.get("lifetime_minutes")
        if minutes is None:
            return maximum
        if not isinstance(minutes, int) or minutes <= 0:  # true is one minute
            words = "lifetime_minutes must be a positive integer"
            return refusal(400, words, bad_field="lifetime_minutes")
        if minutes > LONGEST_SUM:
            return page(500)
        if now + minutes * 60 >= maximum:
            words = "Requested lifetime exceeds the maximum permitted by the server and original "
            return refusal(400, f"{words}roles", bad_field="lifetime_minutes")
        return now + minutes * 60

    def _issue(
        self, name: str, roles: tuple[str, ...], now: float, expiry: float, made_by: str
    ) -> Row:
        self._last_id += 1
        claims = {
            "iat": int(now),
            "nbf": int(now),
            "exp": int(expiry),
            "jti": f"00000000-0000-4000-8000-{self._last_id:012x}",
            "sub": self.username,
            "aud": self.audience,
            "user_claims": {role: self.roles[role] for role in roles},
        }
        row = Row(self._last_id, self.username, name, roles, self._sign(claims), claims, made_by)
        self.rows.append(row)
        return row


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """What Flask-WTF compares of a Referer: no default port is filled in."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


_VIEWS: dict[str, Callable[[FlowAuth, _Asked], Response]] = {
    "POST /signin": FlowAuth._signin,
    "GET /signout": FlowAuth._signout,
    "GET /is_signed_in": FlowAuth._is_signed_in,
    "GET /version": FlowAuth._version,
    "GET /tokens/servers": FlowAuth._servers,
    "GET /user/roles/server/1": FlowAuth._limits,
    "GET /tokens/tokens/<id>": FlowAuth._list,
    "POST /tokens/tokens/<id>": FlowAuth._mint,
    "POST /tokens/tokens/<id>/renew": FlowAuth._renew,
}


@contextmanager
def serve(answerer: Answerer) -> Iterator[str]:
    """Answer on a free loopback port, whose base URL is given, until the block ends."""
    server = _Server(answerer)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Asks the answerer one thing at a time, and knows its connections: none outlives it."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, answerer: Answerer) -> None:
        self.answerer, self.lock = answerer, threading.Lock()
        self._connections: set[Any] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        if not isinstance(sys.exc_info()[1], OSError):  # which is a client that had enough
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        with self.server.lock:
            answer = self.server.answerer(self.command, self.path, headers, body)
        if answer.raw:
            self.close_connection = True
            answer.raw(self.connection)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            for line in value.splitlines():
                self.send_header(name, line)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_GET  # noqa: N815 - so the base class wants it

    def log_message(self, *_: object) -> None:
        """Nothing: whoever asks keeps count."""
