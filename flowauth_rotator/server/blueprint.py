"""The routes of FlowAuth's wire contract: parse, call a rule, answer."""

from __future__ import annotations

import json
import logging
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, UnsupportedMediaType
from werkzeug.http import http_date

from flowauth_rotator.server import sessions
from flowauth_rotator.server.accounts import LONGEST_NAME, Accounts, Refused, User
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.issuing import Issued, Issuing

logger = logging.getLogger(__name__)

_ID = "<int(max=2147483647):{}>"
_SERVER = f"/tokens/tokens/{_ID.format('server_id')}"
_ROW = f"/tokens/tokens/{_ID.format('row_id')}"
_BEARER = re.compile(r"bearer +(?P<token>[\w.~+/=-]+)", re.ASCII | re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,200}")
_WITHOUT_CSRF = {"signin"}
_WITHOUT_SESSION = {"renew_presented"}


def create_blueprint(accounts: Accounts, issuing: Issuing, *, now: sessions.Clock) -> Blueprint:
    """The whole contract as one blueprint.

    The app that it is registered on needs a `secret_key`; `create_app` sets up everything.

    Args:
        accounts: Who may sign in.
        issuing: The rules of minting and renewal.
        now: The time of the current request in seconds since the epoch.
    """
    blueprint = Blueprint("flowauth_rotator", __name__)
    views = _Views(accounts, issuing, now)
    for method, rule, view in (
        ("POST", "/signin", views.signin),
        ("GET", "/is_signed_in", views.is_signed_in),
        ("GET", "/signout", views.signout),
        ("GET", "/version", views.version),
        ("GET", "/tokens/servers", views.servers),
        ("GET", _SERVER, views.tokens),
        ("POST", _SERVER, views.mint),
        ("POST", f"{_ROW}/renew", views.renew),
        ("POST", "/tokens/renew", views.renew_presented),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
    blueprint.before_request(views.check_csrf)
    blueprint.after_request(views.finish)
    blueprint.register_error_handler(Refused, _refusal)
    blueprint.register_error_handler(HTTPException, http_error)
    return blueprint


def http_error(error: HTTPException) -> Response:
    """An error of the framework in the shape of all others; its headers stay."""
    response = Response(headers=error.get_headers(request.environ))
    return _error(response, error.code or 500, error.description or error.name)


class _Views:
    """One method a route, and the two hooks around them."""

    def __init__(self, accounts: Accounts, issuing: Issuing, now: sessions.Clock) -> None:
        self._accounts = accounts
        self._issuing = issuing
        self._now = now

    def check_csrf(self) -> None:
        """Before each request that acts on behalf of a session."""
        if _view_name() not in _WITHOUT_CSRF | _WITHOUT_SESSION:
            sessions.check_csrf(self._now())

    def finish(self, response: Response) -> Response:
        """After each request: a fresh CSRF token, and no copy in any cache."""
        response.headers["Cache-Control"] = "no-store"
        if _view_name() not in _WITHOUT_SESSION:
            sessions.issue_csrf(response, self._now())
        elif response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def signin(self) -> Response:
        body = _json_object()
        if "username" not in body or "password" not in body:
            raise Refused(400, "Must supply username or password.")
        for field in ("username", "password"):
            if not isinstance(body[field], str):
                raise Refused(400, f"{field} must be a string.", field)
        g.actor = body["username"] if len(body["username"]) <= LONGEST_NAME else None
        sessions.start_session(self._accounts.sign_in(body["username"], body["password"]))
        _log("signed_in")
        return _signed_in()

    def is_signed_in(self) -> Response:
        self._user()
        return _signed_in()

    def signout(self) -> Response:
        self._user()
        sessions.end_session()
        _log("signed_out")
        return jsonify(logged_in=False)

    def version(self) -> Response:
        return jsonify(version=_version())

    def servers(self) -> Response:
        found = self._accounts.audiences_of(self._user())
        return jsonify([{"id": audience.id, "server_name": audience.name} for audience in found])

    def tokens(self, server_id: int) -> Response:
        rows = self._issuing.listing(self._user(), server_id)
        return jsonify([_listed(row, token) for row, token in rows])

    def mint(self, server_id: int) -> Response:
        user = self._user()
        body = _json_object()
        issued = self._issuing.mint(
            user,
            server_id,
            _token_name(body),
            _role_names(body),
            body.get("lifetime_minutes"),
            now=self._now(),
        )
        _log_issued("minted", issued)
        return jsonify(token=issued.token)

    def renew(self, row_id: int) -> Response:
        user = self._user()
        issued = self._issuing.renew(
            user,
            row_id,
            _json_object().get("lifetime_minutes"),
            idempotency_key=_idempotency_key(),
            now=self._now(),
        )
        return _renewed(issued)

    def renew_presented(self) -> Response:
        issued = self._issuing.renew_presented(
            _bearer_token(),
            _json_object().get("lifetime_minutes"),
            idempotency_key=_idempotency_key(),
            now=self._now(),
        )
        g.actor = issued.owner
        return _renewed(issued)

    def _user(self) -> User:
        """The signed-in user."""
        user_id = sessions.session_user_id()
        user = None if user_id is None else self._accounts.user(user_id)
        if user is None:
            raise Refused(401, "You are not signed in, or your session has expired.")
        g.actor = user.username
        return user


def _view_name() -> str:
    return (request.endpoint or "").rpartition(".")[2]


def _version() -> str:
    try:
        return version("flowauth-rotator")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _json_object() -> dict[str, Any]:
    """The JSON object that was sent; nothing at all counts as an empty one."""
    data = request.get_data()
    if not data:
        return {}
    if not request.is_json:
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Refused(400, "The body must be a JSON object.")
    return body


def _token_name(body: dict[str, Any]) -> str:
    name = body.get("name")
    if name is None:
        raise Refused(400, "No name.", "name")
    if not isinstance(name, str):
        raise Refused(400, "name must be a string.", "name")
    return name


def _role_names(body: dict[str, Any]) -> list[str]:
    roles = body.get("roles")
    if roles is None:
        raise Refused(400, "No roles.", "roles")
    if not (isinstance(roles, list) and all(_is_role(role) for role in roles)):
        raise Refused(400, 'roles must be a list of objects like {"name": "viewer"}.', "roles")
    return [role["name"] for role in roles]


def _is_role(role: object) -> bool:
    """Whether this names a role; what is longer is none, and is not for our log to repeat."""
    name = role.get("name") if isinstance(role, dict) else None
    return isinstance(name, str) and len(name) <= LONGEST_NAME


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Refused(400, "Idempotency-Key must be 1 to 200 printable ASCII characters.")
    return key


def _bearer_token() -> str:
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        raise Refused(401, "Present the current token: Authorization: Bearer <token>.")
    return match["token"]


def _signed_in() -> Response:
    """FlowAuth's three keys; this server has neither administrators nor a second factor."""
    return jsonify(logged_in=True, is_admin=False, require_two_factor_setup=False)


def _listed(row: HistoryRow, token: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "token": token,
        "expires": http_date(row.expires_at),
        "roles": [{"id": role.id, "name": role.name} for role in row.roles],
        "server_name": row.audience,
        "username": row.owner,
    }


def _renewed(issued: Issued) -> Response:
    _log_issued("replayed" if issued.replayed else "renewed", issued)
    response = jsonify(id=issued.row_id, token=issued.token)
    if issued.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _refusal(refused: Refused) -> Response:
    _log("refused", code=refused.code, reason=refused.message)
    return _error(Response(), refused.code, refused.message, refused.bad_field)


def _error(response: Response, code: int, message: str, bad_field: str | None = None) -> Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if bad_field is not None:
        body["bad_field"] = bad_field
    response.status_code = code
    response.content_type = "application/json"
    response.set_data(json.dumps(body))
    return response


def _log_issued(event: str, issued: Issued) -> None:
    _log(event, token_name=issued.name, row=issued.row_id, expires_at=issued.expires_at)


def _log(event: str, **facts: object) -> None:
    """One line: what happened, who asked, and the facts, each as JSON so that none breaks it."""
    facts = {"actor": g.get("actor"), "view": _view_name(), **(request.view_args or {}), **facts}
    logger.info("%s %s", event, " ".join(f"{key}={json.dumps(facts[key])}" for key in facts))
