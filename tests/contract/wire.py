"""The words in which the contract is stated: rows, answers, and who asks."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import get_args

import requests

JSON = "application/json"
CSRF_COOKIE = "X-CSRF"
CSRF_HEADER = "X-CSRF-Token"


@dataclass(frozen=True)
class Issuer:
    """A server that keeps the contract, and somebody who may sign in there."""

    url: str
    username: str
    password: str = field(repr=False)
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Response:
    """What is answered: a status and a body as `fits` reads it, and how long its token lives."""

    status: int
    body: object
    minutes: int | None = None


def refused(status: int, message: str | re.Pattern, bad_field: str | None = None) -> Response:
    """A refusal, in the one shape that there is."""
    about = {} if bad_field is None else {"bad_field": bad_field}
    return Response(status, {"code": status, "message": message} | about)


@dataclass(frozen=True)
class Row:
    """One row of the contract.

    Attributes:
        title: What the row says.
        request: Method and path; `{row}` is a token of the caller's, `{server}` its server.
        answer: What is answered.
        sends: The JSON body; none without it. `{username}`, `{password}`, `{role}` and a token's
            `{name}` are the caller's.
        text: A body that is not JSON, or not labelled so.
        labelled: The body's content type.
        headers: What is sent beside what a client sends; None leaves a header out.
        stranger: Asked by somebody who has not signed in.
        given: What the operator has done by then; such a row needs hands on the server.
        flowauth: What FlowAuth as deployed answers, where this row repairs it.
    """

    title: str
    request: str
    answer: Response
    sends: object = None
    text: str | None = None
    labelled: str = JSON
    headers: dict[str, str | None] = field(default_factory=dict)
    stranger: bool = False
    given: Callable | None = None
    flowauth: str | None = None

    def __str__(self) -> str:
        return self.title if self.flowauth is None else f"{self.title} (FlowAuth: {self.flowauth})"


class Caller:
    """A client of the contract, with cookies of its own, and a token of its own to ask about."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.username = issuer.username
        self.password = issuer.password
        self.role = issuer.roles[0]
        self.name = f"WIRE_{uuid.uuid4().hex}"  # of its own, since mints of one name are counted
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.headers["Referer"] = f"{issuer.url}/"  # needed over https

    def sign_in(self) -> requests.Response:
        body = {"username": self.username, "password": self.password}
        return self.ask("POST /signin", json=body)

    def ask(self, request: str, *, headers=None, **kwargs) -> requests.Response:
        """Ask one thing as FlowAuth's clients do, with the newest CSRF token, and stay there."""
        method, path = self.fill(request).split(" ")
        newest = {CSRF_HEADER: self.http.cookies.get(CSRF_COOKIE)}
        headers = newest | dict(self.http.headers) | (headers or {})
        url = self.issuer.url + path
        return self.http.request(
            method, url, headers=headers, timeout=30, allow_redirects=False, **kwargs
        )

    def fill(self, text: str) -> str:
        """Put the caller's own in the places of `{row}`, `{server}` and so on, fit for JSON too."""
        places = r"\{(row|server|username|password|role|name)\}"
        return re.sub(places, lambda place: json.dumps(str(getattr(self, place[1])))[1:-1], text)

    def mint(self) -> dict:
        """Mint, and find the new row in the list, as FlowAuth makes everyone do."""
        roles = [{"name": role} for role in self.issuer.roles]
        body = {"name": self.name, "roles": roles, "lifetime_minutes": 5}
        token = self.ask("POST /tokens/tokens/{server}", json=body).json()["token"]
        [row] = [row for row in self.rows() if row["token"] == token]
        return row

    def rows(self) -> list[dict]:
        """All of the caller's tokens on the server, by age."""
        rows = self.ask("GET /tokens/tokens/{server}?all=true").json()
        return sorted(rows, key=lambda row: row["id"])

    @cached_property
    def server(self) -> int:
        """The id of the first server where the caller holds a role."""
        return self.ask("GET /tokens/servers").json()[0]["id"]

    @cached_property
    def row(self) -> int:
        """The id of a token of the caller's: five minutes, with all of its roles."""
        return self.mint()["id"]


def ask(row: Row, caller: Caller) -> requests.Response:
    """Ask what a row asks."""
    text = row.text if row.sends is None else caller.fill(json.dumps(row.sends))
    headers = dict(row.headers)
    if text is not None:
        headers["Content-Type"] = row.labelled
    return caller.ask(row.request, data=text, headers=headers)


def fits(stated: object, value: object) -> bool:
    """Whether a JSON value is as stated.

    Stated is a type, a pattern of text, an object with just these keys, a list of at least one of
    a kind, the empty list, or the value itself. A bool is no int.
    """
    if isinstance(stated, type | UnionType):
        return type(value) in (get_args(stated) or (stated,))
    if isinstance(stated, re.Pattern):
        return isinstance(value, str) and stated.fullmatch(value) is not None
    if type(value) is not type(stated):
        return False
    if isinstance(stated, dict):
        same_keys = stated.keys() == value.keys()
        return same_keys and all(fits(kind, value[key]) for key, kind in stated.items())
    if isinstance(stated, list):
        return bool(stated) == bool(value) and all(fits(stated[0], item) for item in value)
    return value == stated
