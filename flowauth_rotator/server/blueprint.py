"""The routes of FlowAuth's wire contract and a few more: parse, call a rule, answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Blueprint, Response, jsonify, request
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import (
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import http_date

from flowauth_rotator.server import access_log, error_responses
from flowauth_rotator.server.accounts import LONGEST_NAME, Role, User
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.health import Probes, program_version
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.issuing import Issued
from flowauth_rotator.server.metrics import Metrics
from flowauth_rotator.server.request_context import request_context, seconds, view_name
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.sessions import Session, Sessions

Clock = Callable[[], int]

LARGEST_BODY = 64 * 1024

_LARGEST_ID = 2**31 - 1
_BEARER = re.compile(r"bearer +(?P<token>[\w.~+/=-]+)", re.ASCII | re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,200}")
_WITHOUT_CSRF = {"signin"}
# What is asked by machines that keep no cookies: neither a session nor a CSRF token is made.
_WITHOUT_SESSION = {"renew_presented", "jwks", "openapi", "healthz", "readyz", "metrics"}


def make_blueprint(services: Services, clock: Clock) -> Blueprint:
    """The whole contract, and what tells of the server itself, as one blueprint.

    Args:
        services: The opened server.
        clock: Seconds since the epoch; read once a request.
    """
    blueprint = Blueprint("flowauth_rotator", __name__)
    metrics = Metrics(services)
    views, probes = _Views(services, metrics, clock), Probes(services, metrics)
    for method, rule, view in (
        ("POST", "/signin", views.signin),
        ("GET", "/is_signed_in", views.is_signed_in),
        ("GET", "/signout", views.signout),
        ("GET", "/version", views.version),
        ("GET", "/tokens/servers", views.servers),
        ("GET", "/user/roles/server/<int:server_id>", views.roles),
        ("GET", "/tokens/tokens/<int:server_id>", views.tokens),
        ("POST", "/tokens/tokens/<int:server_id>", views.mint),
        ("POST", "/tokens/tokens/<int:row_id>/renew", views.renew),
        ("POST", "/tokens/renew", views.renew_presented),
        ("GET", "/.well-known/jwks.json", probes.jwks),
        ("GET", "/openapi.json", probes.openapi),
        ("GET", "/healthz", probes.healthz),
        ("GET", "/readyz", probes.readyz),
        ("GET", "/metrics", probes.metrics),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
    blueprint.record(views.mounted)
    blueprint.before_request(views.begin)
    blueprint.after_request(views.finish)
    error_responses.handle_errors(blueprint)
    return blueprint


class _Views:
    """One method a route, and the hooks around them."""

    def __init__(self, services: Services, metrics: Metrics, clock: Clock) -> None:
        self._services = services
        self._accounts = services.accounts
        self._issuing = services.issuing
        self._sessions = Sessions(services.directory.session_secret())
        self._metrics = metrics
        self._clock = clock
        self._prefix = ""

    def mounted(self, state: BlueprintSetupState) -> None:
        """Once the blueprint has been registered on an app."""
        state.app.extensions["flowauth_rotator"] = self._services
        self._prefix = state.url_prefix or ""

    def begin(self) -> None:
        """Before each request: note its time and who speaks, and refuse it without CSRF token."""
        context = request_context()
        context.now = self._clock()
        request.max_content_length = LARGEST_BODY + 1  # what is longer still shows as too long
        view = view_name()
        if view not in _WITHOUT_SESSION:
            context.session = self._sessions.load(context.now)
            context.keeps_session = context.session.user_id is None
            if view not in _WITHOUT_CSRF:
                self._sessions.check_csrf(context.session, context.now)
        if any(number > _LARGEST_ID for number in (request.view_args or {}).values()):
            raise NotFound

    def finish(self, response: Response) -> Response:
        """After each request: the cookies, no copy in any cache, a line in the log."""
        context, view = request_context(), view_name()
        response.headers["Cache-Control"] = "no-store"
        if context.session is not None:
            path = request.script_root + self._prefix or "/"
            self._sessions.save(
                response, context.session, context.now, path, anew=context.keeps_session
            )
        elif response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if request.method != "OPTIONS":
            self._metrics.count(view, response.status_code, context.event, seconds())
        return access_log.finish(response)

    def signin(self) -> Response:
        body = _json_object()
        if "username" not in body or "password" not in body:
            raise Refused(400, "Must supply username or password.")
        for field in ("username", "password"):
            if not isinstance(body[field], str):
                raise Refused(400, f"{field} must be a string.", field)
        context = request_context()
        context.actor = body["username"] if len(body["username"]) <= LONGEST_NAME else None
        user = self._accounts.sign_in(
            body["username"], body["password"], address=request.remote_addr or "", now=context.now
        )
        context.session = Session.signed_in(user.id, user.password_number)
        context.keeps_session = True
        context.event = "signed_in"
        return _signed_in()

    def is_signed_in(self) -> Response:
        self._user()
        return _signed_in()

    def signout(self) -> Response:
        self._user()
        context = request_context()
        self._accounts.end(_session(), now=context.now)
        context.session = Session.anonymous()
        context.event = "signed_out"
        return jsonify(logged_in=False)

    def version(self) -> Response:
        return jsonify(version=program_version())

    def servers(self) -> Response:
        found = self._accounts.audiences_of(self._user())
        return jsonify([{"id": audience.id, "server_name": audience.name} for audience in found])

    def roles(self, server_id: int) -> Response:
        self._user()
        return jsonify(_listed_roles(server_id, self._accounts.roles_on(server_id)))

    def tokens(self, server_id: int) -> Response:
        user = self._user()
        if _asks_for_all():
            rows = self._issuing.full_listing(user, server_id)
            return Response(_json_list(_listed(*row) for row in rows), mimetype="application/json")
        rows = self._issuing.listing(user, server_id, now=request_context().now)
        return jsonify([_listed(*row) for row in rows])

    def mint(self, server_id: int) -> Response:
        user = self._user()
        body = _json_object()
        issued = self._issuing.mint(
            user,
            server_id,
            _token_name(body),
            _role_names(body),
            body.get("lifetime_minutes"),
            now=request_context().now,
        )
        _note_issued("minted", issued)
        return jsonify(token=issued.token)

    def renew(self, row_id: int) -> Response:
        user = self._user()
        issued = self._issuing.renew(
            user,
            row_id,
            _json_object().get("lifetime_minutes"),
            idempotency_key=_idempotency_key(),
            now=request_context().now,
        )
        return _renewed(issued)

    def renew_presented(self) -> Response:
        issued = self._issuing.renew_presented(
            _bearer_token(),
            _json_object().get("lifetime_minutes"),
            idempotency_key=_idempotency_key(),
            now=request_context().now,
        )
        return _renewed(issued)

    def _user(self) -> User:
        """The signed-in user."""
        context = request_context()
        user = self._accounts.user_of(_session())
        context.keeps_session = True
        if user is None:
            context.session = Session.anonymous()
            raise Refused(401, "You are not signed in, or your session has expired.")
        context.actor = user.username
        return user


def _session() -> Session:
    """Who speaks."""
    return request_context().session or Session.anonymous()


def _asks_for_all() -> bool:
    try:
        value = request.args.get("all", "false")
    except UnicodeDecodeError:
        value = ""
    if value not in ("true", "false"):
        raise Refused(400, "all must be true or false.", "all")
    return value == "true"


def _body() -> bytes:
    """The whole body: a part of one could ask for something else."""
    try:
        data = request.get_data()
    except HTTPException:
        raise
    except Exception:  # noqa: BLE001 - gunicorn's errors of a malformed body share no base
        raise Refused(400, "The body did not arrive whole.") from None
    if len(data) > LARGEST_BODY:
        raise RequestEntityTooLarge
    if len(data) < (request.content_length or 0):
        raise Refused(400, "The body did not arrive whole.")
    return data


def _json_object() -> dict[str, Any]:
    """The JSON object that was sent; nothing at all counts as an empty one."""
    data = _body()
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


def _listed_roles(server_id: int, held: list[tuple[Role, list[int]]]) -> list[dict[str, Any]]:
    """Roles as FlowAuth tells of them; scopes are numbered as they stand in the alphabet."""
    scopes = sorted({scope for role, _ in held for scope in role.scopes})
    number = {scope: index for index, scope in enumerate(scopes, start=1)}
    return [
        {
            "id": role.id,
            "name": role.name,
            "scopes": sorted(number[scope] for scope in role.scopes),
            "latest_token_expiry": (
                None if role.limit.latest_expiry is None else http_date(role.limit.latest_expiry)
            ),
            "longest_token_life_minutes": role.limit.max_lifetime_minutes,
            "server": server_id,
            "users": users,
        }
        for role, users in held
    ]


def _json_list(members: Iterable[object]) -> Iterator[str]:
    """A JSON list, a member at a time."""
    before = "["
    for member in members:
        yield before + json.dumps(member)
        before = ","
    yield "]" if before == "," else "[]"


def _renewed(issued: Issued) -> Response:
    _note_issued("replayed" if issued.replayed else "renewed", issued)
    response = jsonify(id=issued.row_id, token=issued.token)
    if issued.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _note_issued(event: str, issued: Issued) -> None:
    context = request_context()
    context.event = event
    context.actor = issued.owner
    context.facts = {
        "token_name": issued.name,
        "row": issued.row_id,
        "expires_at": issued.expires_at,
    }
