"""The routes: FlowAuth's wire contract, bearer renewal, health and metrics."""

from __future__ import annotations

import json
import logging
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
from flowauth_rotator.server.accounts import MAX_NAME, Limit, Role, User
from flowauth_rotator.server.counters import Counters
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.health import HealthViews, program_version
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.issuing import IssuedToken, IssuePlan
from flowauth_rotator.server.metrics import Metrics
from flowauth_rotator.server.request_context import (
    elapsed_seconds,
    read_client_address,
    request_context,
    view_name,
)
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.sessions import Session, Sessions

logger = logging.getLogger(__name__)

Clock = Callable[[], int]

MAX_BODY = 64 * 1024

_MAX_ID = 2**31 - 1
_BEARER = re.compile(r"bearer +(?P<token>[\w.~+/=-]+)", re.ASCII | re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,200}")
_WITHOUT_CSRF = {"signin"}
# Views for clients without cookies: no session and no CSRF token is created.
_WITHOUT_SESSION = {"renew_presented", "jwks", "openapi", "healthz", "readyz", "metrics"}


def make_blueprint(services: Services, clock: Clock, counters: Counters) -> Blueprint:
    """Create the blueprint with all routes.

    Args:
        services: The services of the server.
        clock: Returns seconds since the epoch; read once per request.
        counters: What the workers of the server count in.
    """
    blueprint = Blueprint("flowauth_rotator", __name__)
    metrics = Metrics(services, counters)
    views = _TokenViews(services, metrics, clock)
    health = HealthViews(services, metrics)
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
        ("GET", "/.well-known/jwks.json", health.jwks),
        ("GET", "/openapi.json", health.openapi),
        ("GET", "/healthz", health.healthz),
        ("GET", "/readyz", health.readyz),
        ("GET", "/metrics", health.metrics),
    ):
        blueprint.add_url_rule(rule, view_func=view, methods=[method])
    blueprint.record(views.record_mount)
    blueprint.before_request(views.start_request)
    blueprint.after_request(views.finish_request)
    error_responses.register_error_handlers(blueprint)
    return blueprint


class _TokenViews:
    """One method per route, and the hooks before and after each request."""

    def __init__(self, services: Services, metrics: Metrics, clock: Clock) -> None:
        self._services = services
        self._accounts = services.accounts
        self._issuer = services.issuer
        self._listing = services.listing
        self._sessions = Sessions(services.directory.load_session_secret())
        self._metrics = metrics
        self._clock = clock
        self._prefix = ""

    def record_mount(self, state: BlueprintSetupState) -> None:
        """Store the services in the app and remember the URL prefix."""
        state.app.extensions["flowauth_rotator"] = self._services
        self._prefix = state.url_prefix or ""

    def start_request(self) -> None:
        """Load the session, and refuse an unsafe request without a CSRF token."""
        context = request_context()
        context.now = self._clock()
        request.max_content_length = MAX_BODY + 1  # one more, to detect a longer body
        view = view_name()
        if view not in _WITHOUT_SESSION:
            context.session = self._sessions.load(context.now)
            context.extends_session = context.session.user_id is None
            if view not in _WITHOUT_CSRF:
                self._sessions.require_csrf(context.session, context.now)
        if any(row_id > _MAX_ID for row_id in (request.view_args or {}).values()):
            raise NotFound

    def finish_request(self, response: Response) -> Response:
        """Set the cookies, forbid caching, count the response and log the request."""
        context, view = request_context(), view_name()
        response.headers["Cache-Control"] = "no-store"
        if context.session is not None:
            path = request.script_root + self._prefix or "/"
            self._sessions.save(
                response, context.session, context.now, path, extend=context.extends_session
            )
        elif response.status_code == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        if request.method != "OPTIONS":
            self._metrics.count_response(
                view, response.status_code, context.event, elapsed_seconds()
            )
        return access_log.log_request(response)

    def signin(self) -> Response:
        body = _parse_json_object()
        if "username" not in body or "password" not in body:
            raise Refused(400, "Must supply username or password.")
        for field in ("username", "password"):
            if not isinstance(body[field], str):
                raise Refused(400, f"{field} must be a string.", field)
        context = request_context()
        try:
            user = self._accounts.sign_in(
                *(body["username"], body["password"]),
                address=read_client_address(),
                now=context.now,
            )
        except Refused as refused:
            if refused.code == 401 and self._accounts.has_user(body["username"]):
                context.actor = body["username"]  # no other text, which could be a password
            raise
        context.actor = user.username
        context.session = Session.signed_in(user.id, user.password_number)
        context.extends_session = True
        context.event = "signed_in"
        return _build_sign_in_response()

    def is_signed_in(self) -> Response:
        self._require_user()
        return _build_sign_in_response()

    def signout(self) -> Response:
        self._require_user()
        context = request_context()
        self._accounts.end_session(_get_session(), now=context.now)
        context.session = Session.anonymous()
        context.event = "signed_out"
        return jsonify(logged_in=False)

    def version(self) -> Response:
        return jsonify(version=program_version())

    def servers(self) -> Response:
        audiences = self._accounts.list_user_audiences(self._require_user())
        return jsonify(
            [{"id": audience.id, "server_name": audience.name} for audience in audiences]
        )

    def roles(self, server_id: int) -> Response:
        self._require_user()
        return jsonify(_roles_to_json(server_id, self._accounts.list_roles_with_holders(server_id)))

    def tokens(self, server_id: int) -> Response:
        user = self._require_user()
        if _parse_all_flag():
            rows = self._listing.list_all(user, server_id)
            members = (_row_to_json(*row) for row in rows)
            return Response(_stream_json_list(members), mimetype="application/json")
        rows = self._listing.list_renewable(user, server_id, now=request_context().now)
        return jsonify([_row_to_json(*row) for row in rows])

    def mint(self, server_id: int) -> Response:
        user = self._require_user()
        body = _parse_json_object()
        issued = self._issuer.mint(
            user,
            server_id,
            _parse_token_name(body),
            _parse_role_names(body),
            body.get("lifetime_minutes"),
            is_requested=True,
            now=request_context().now,
        )
        _record_issue("minted", issued)
        return jsonify(token=issued.token)

    def renew(self, row_id: int) -> Response:
        user, body, now = self._require_user(), _parse_json_object(), request_context().now
        minutes, key = body.get("lifetime_minutes"), _parse_idempotency_key()
        if _parse_dry_run(body):
            return _build_rehearsal(self._issuer.rehearse(user, row_id, minutes, now=now))
        issued = self._issuer.renew(user, row_id, minutes, idempotency_key=key, now=now)
        return self._build_renewal_response(issued)

    def renew_presented(self) -> Response:
        token, body, now = _parse_bearer_token(), _parse_json_object(), request_context().now
        minutes, key = body.get("lifetime_minutes"), _parse_idempotency_key()
        if _parse_dry_run(body):
            return _build_rehearsal(self._issuer.rehearse_presented(token, minutes, now=now))
        issued = self._issuer.renew_presented(token, minutes, idempotency_key=key, now=now)
        return self._build_renewal_response(issued)

    def _build_renewal_response(self, issued: IssuedToken) -> Response:
        _record_issue("replayed" if issued.replayed else "renewed", issued)
        if issued.is_fork:
            self._metrics.count_fork()
            facts = {**request_context().facts, "client": read_client_address()}
            logger.warning("token_forked", extra={"facts": facts})
        response = jsonify(id=issued.row_id, token=issued.token)
        if issued.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    def _require_user(self) -> User:
        """Return the signed-in user, or refuse the request."""
        context = request_context()
        user = self._accounts.find_session_user(_get_session())
        context.extends_session = True
        if user is None:
            context.session = Session.anonymous()
            raise Refused(401, "You are not signed in, or your session has expired.")
        context.actor = user.username
        return user


def _get_session() -> Session:
    return request_context().session or Session.anonymous()


def _parse_all_flag() -> bool:
    try:
        value = request.args.get("all", "false")
    except UnicodeDecodeError:
        value = ""
    if value not in ("true", "false"):
        raise Refused(400, "all must be true or false.", "all")
    return value == "true"


def _read_body() -> bytes:
    """Read the complete body; a truncated one could be another valid request."""
    try:
        data = request.get_data()
    except HTTPException:
        raise
    except Exception:  # noqa: BLE001 - those of WSGI servers have no common base
        raise Refused(400, "The request body is incomplete.") from None
    if len(data) > MAX_BODY:
        raise RequestEntityTooLarge
    if len(data) < (request.content_length or 0):
        raise Refused(400, "The request body is incomplete.")
    return data


def _parse_json_object() -> dict[str, Any]:
    """Parse the body as a JSON object; an empty body is an empty object."""
    data = _read_body()
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


def _parse_dry_run(body: dict[str, Any]) -> bool:
    value = body.get("dry_run", False)
    if not isinstance(value, bool):
        raise Refused(400, "dry_run must be true or false.", "dry_run")
    return value


def _parse_token_name(body: dict[str, Any]) -> str:
    name = body.get("name")
    if name is None:
        raise Refused(400, "No name.", "name")
    if not isinstance(name, str):
        raise Refused(400, "name must be a string.", "name")
    return name


def _parse_role_names(body: dict[str, Any]) -> list[str]:
    roles = body.get("roles")
    if roles is None:
        raise Refused(400, "No roles.", "roles")
    if not (isinstance(roles, list) and all(_names_role(role) for role in roles)):
        raise Refused(400, 'roles must be a list of objects like {"name": "viewer"}.', "roles")
    return [role["name"] for role in roles]


def _names_role(role: object) -> bool:
    """Return whether this names a role; long names are refused before the log repeats them."""
    name = role.get("name") if isinstance(role, dict) else None
    return isinstance(name, str) and len(name) <= MAX_NAME


def _parse_idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Refused(400, "Idempotency-Key must be 1 to 200 printable ASCII characters.")
    return key


def _parse_bearer_token() -> str:
    match = _BEARER.fullmatch(request.headers.get("Authorization", ""))
    if match is None:
        raise Refused(401, "Send the current token as Authorization: Bearer <token>.")
    return match["token"]


def _build_sign_in_response() -> Response:
    """Return FlowAuth's three keys; this server has no administrators and no second factor."""
    return jsonify(logged_in=True, is_admin=False, require_two_factor_setup=False)


def _row_to_json(row: HistoryRow, token: str) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "token": token,
        "expires": http_date(row.expires_at),
        "roles": [{"id": role.id, "name": role.name} for role in row.roles],
        "server_name": row.audience,
        "username": row.owner,
    }


def _roles_to_json(
    server_id: int, roles_with_holders: list[tuple[Role, list[int]]]
) -> list[dict[str, Any]]:
    """Convert roles to FlowAuth's format; scopes are numbered in alphabetical order."""
    scopes = sorted({scope for role, _ in roles_with_holders for scope in role.scopes})
    scope_ids = {scope: index for index, scope in enumerate(scopes, start=1)}
    return [
        {
            "id": role.id,
            **_limit_to_json(role.name, role.limit),
            "scopes": sorted(scope_ids[scope] for scope in role.scopes),
            "server": server_id,
            "users": users,
        }
        for role, users in roles_with_holders
    ]


def _build_rehearsal(plan: IssuePlan) -> Response:
    """Return what a renewal would be issued for, with the limits that apply."""
    context = request_context()
    context.event, context.actor = "rehearsed", plan.owner
    context.facts = {"token_name": plan.row.name, "row": plan.row.parent_id}
    return jsonify(
        name=plan.row.name,
        expires=http_date(plan.row.expires_at),
        roles=[{"id": role.id, **_limit_to_json(role.name, role.limit)} for role in plan.roles],
        server=_limit_to_json(plan.audience, plan.limit),
    )


def _limit_to_json(name: str, limit: Limit) -> dict[str, Any]:
    """Convert the limit of a role or an audience to FlowAuth's format."""
    return {
        "name": name,
        "latest_token_expiry": limit.latest_expiry and http_date(limit.latest_expiry),
        "longest_token_life_minutes": limit.max_lifetime_minutes,
    }


def _stream_json_list(members: Iterable[object]) -> Iterator[str]:
    separator = "["
    for member in members:
        yield separator + json.dumps(member)
        separator = ","
    yield "]" if separator == "," else "[]"


def _record_issue(event: str, issued: IssuedToken) -> None:
    context = request_context()
    context.event = event
    context.actor = issued.owner
    context.facts = {
        "token_name": issued.name,
        "row": issued.row_id,
        "expires_at": issued.expires_at,
    }
