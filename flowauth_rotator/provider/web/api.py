"""The requests of the page and of scrapers, independent of the web framework."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from airflow.utils.session import create_session

from flowauth_rotator.monitoring import json_output, prometheus
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import VERSION, StatusDocument
from flowauth_rotator.monitoring.token_assessment import AssessedToken
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.web import live_status, queries
from flowauth_rotator.provider.web.compat import Pages, get_time_zone, start_run
from flowauth_rotator.provider.web.live_status import LiveStatus
from flowauth_rotator.provider.web.overview import Overview
from flowauth_rotator.provider.web.page_runs import build_next_run_id
from flowauth_rotator.provider.web.runbooks import render_runbook

REQUESTED_WITH = "flowauth-rotator"
LONGEST_LIFETIME = 10 * 366 * 24 * 60  # minutes; an issuer's own limit is far below
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Viewer(Protocol):
    """The user who sends a request, as Airflow's auth manager knows them."""

    @property
    def name(self) -> str:
        """The name of the user in the audit log."""

    def may_read(self, variable: str | None = None) -> bool:
        """Whether the user may read this Variable, or Variables in general."""

    def may_read_dag(self, dag_id: str) -> bool:
        """Whether the user may read the DAG."""

    def may_renew(self, dag_id: str) -> bool:
        """Whether the user may start runs of the DAG."""


@dataclass
class ApiError(Exception):
    """A request that the API refuses or cannot complete.

    Attributes:
        code: the HTTP status.
        message: the reason, for the user, in a sentence or two.
    """

    code: int
    message: str

    @property
    def document(self) -> dict[str, Any]:
        """The body of the response."""
        return {"code": self.code, "message": self.message}


def list_tokens(viewer: Viewer, now: datetime) -> dict[str, Any]:
    """Return the document of `GET api/tokens`.

    Raises:
        ApiError: 403.
    """
    document = _read_overview(viewer, now).to_json()
    return {**document, "time_zone": get_time_zone()}


def get_runbook(name: str) -> str:
    """Return the HTML of `GET runbooks/{name}`.

    Raises:
        ApiError: 404.
    """
    page = render_runbook(name)
    if page is None:
        raise ApiError(404, "There is no runbook of this name.")
    return page


def renew_token(viewer: Viewer, name: str, body: object, now: datetime) -> dict[str, Any]:
    """Start a renewal or its rehearsal; return the document of `POST api/tokens/{name}/renew`.

    If a renewal or a rehearsal of the token is already active, return that one.

    Args:
        viewer: the user.
        name: the token's Variable or name.
        body: optionally the requested lifetime, the expiry of the token to renew, and whether only
            to rehearse the renewal.
        now: an aware time.

    Raises:
        ApiError: 400, 403, 404, 409 or 503.
    """
    minutes, expires_at, is_rehearsal = _parse_renewal(body)
    overview = _read_overview(viewer, now)
    token = _find_token(overview.assessment.tokens, name)
    row, last_run = overview.build_row(token), overview.status.find_run(token.token)
    dag_id, variable = row["dag_id"], row["variable"]
    if dag_id not in overview.renewable_dags:
        raise ApiError(403, row["renewal"]["why_not"])
    if not (last_run and last_run.is_active):
        _validate_request(row, expires_at)
        params: dict[str, Any] = {"names": [variable], "dry_run": True}
        if not is_rehearsal:
            _validate_lifetime(row, minutes)
            params = {"names": [variable], "force": True, "lifetime_minutes": minutes}
        run_id = build_next_run_id(variable, last_run)
        start_run(dag_id, run_id, params, user=viewer.name, now=now)
        overview = _read_overview(viewer, now)
        row = overview.build_row(_find_token(overview.assessment.tokens, variable))
        if row["run"] is None or row["run"]["run_id"] != run_id:
            raise ApiError(503, f"Airflow did not start a run of {dag_id}: try again.")
    return {"version": VERSION, "now": round(now.timestamp()), "token": row}


def render_metrics(viewer: Viewer | None, now: datetime) -> bytes:
    """Return the text of `GET metrics`, for a viewer or, with None, for the scraper.

    Raises:
        ApiError: 403.
    """
    return prometheus.render(assess(read_document(viewer, now), now))


def build_check_document(viewer: Viewer | None, now: datetime) -> dict[str, Any]:
    """Return the document of `GET api/check`, for a viewer or, with None, for the scraper.

    Raises:
        ApiError: 403.
    """
    return json_output.render(assess(read_document(viewer, now), now))


def reject_cross_site(get_header: Callable[[str], str | None]) -> None:
    """Reject a renewal that another site may have sent by the browser of a signed-in user.

    A browser sends a custom header to another site only if that site permits it.

    Args:
        get_header: returns the value of a request header, or None.

    Raises:
        ApiError: 403.
    """
    if get_header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise ApiError(403, "A renewal cannot be started from another site.")
    if get_header("X-Requested-With") != REQUESTED_WITH:
        raise ApiError(403, f"The header `X-Requested-With: {REQUESTED_WITH}` is missing.")


def is_scraper(authorization: str) -> bool:
    """Whether a request presents the scrape token of Airflow's configuration."""
    secret = conf.get("flowauth_rotator", "scrape_token", fallback="")
    expected = f"Bearer {secret}"
    return bool(secret) and hmac.compare_digest(authorization.encode(), expected.encode())


def read_document(viewer: Viewer | None, now: datetime) -> StatusDocument:
    """Return the status of the DAGs and tokens that a viewer may see, or, with None, of all.

    Raises:
        ApiError: 403.
    """
    if viewer is None:
        return _read_status(now).document
    status, _ = _read_visible_status(viewer, now)
    return status.document


def _read_overview(viewer: Viewer, now: datetime) -> Overview:
    status, renewable_dags = _read_visible_status(viewer, now)
    status = status.select_scheduled_dags(viewer.may_read_dag)
    return Overview(status, assess(status.document, now), renewable_dags, Pages())


def _read_visible_status(viewer: Viewer, now: datetime) -> tuple[LiveStatus, set[str]]:
    """Return the status that a viewer may see, and the DAGs whose runs the viewer may start."""
    if not viewer.may_read():
        raise ApiError(403, "You do not have the permission to read Variables.")
    status = _read_status(now)
    dags, tokens = status.document.dags or (), status.document.tokens
    readable = [token for token in tokens if viewer.may_read(token.variable)]
    renewable_dags = {dag.dag_id for dag in dags if viewer.may_renew(dag.dag_id)}
    visible_dags = renewable_dags | {token.dag_id or "" for token in readable}
    return status.select(readable, visible_dags), renewable_dags


def _read_status(now: datetime) -> LiveStatus:
    """Return the status of all DAGs and tokens.

    Runs are read before documents, and Variables last: the results of a run that has ended are in
    the document, and the token that it stored is in the Variable.
    """
    with create_session() as session:
        dags = queries.read_dags(session)
        runs = queries.read_page_runs(session, [dag.dag_id for dag in dags])
        scheduled_dags = queries.read_scheduled_dags(session)
        document = queries.read_documents(session, [dag.dag_id for dag in dags], now)
        document = live_status.add_dags(document, dags, now)
        keys = {token.variable for token in document.tokens if token.variable}
        status = live_status.add_tokens(document, queries.read_tokens(session, keys), now)
    return replace(status, runs=runs, scheduled_dags=scheduled_dags)


def _find_token(tokens: Sequence[AssessedToken], name: str) -> AssessedToken:
    """Return the token in the Variable of this key, or else the token of this name."""
    matches = [each for each in tokens if each.token.variable == name] or [
        each for each in tokens if each.token.name == name
    ]
    if not matches:
        raise ApiError(404, "No managed token has this name or this Variable.")
    if len(matches) > 1 and matches[0].token.variable != name:
        keys = " and ".join(sorted(each.token.variable or "" for each in matches))
        raise ApiError(409, f"Several tokens have this name: use one of their Variables, {keys}.")
    return matches[0]


def _parse_renewal(body: object) -> tuple[int | None, int | None, bool]:
    """Return the requested lifetime in minutes and the expiry of the token to renew, if given.

    The third value is whether only to rehearse the renewal.
    """
    if body is None:
        body = {}
    if not isinstance(body, dict) or set(body) - {"lifetime_minutes", "expires_at", "dry_run"}:
        raise ApiError(
            400,
            "The body is not a JSON object of `lifetime_minutes`, `expires_at` and `dry_run` "
            "alone.",
        )
    minutes, expires_at = body.get("lifetime_minutes"), body.get("expires_at")
    is_rehearsal = body.get("dry_run", False)
    if minutes is not None and not (type(minutes) is int and 1 <= minutes <= LONGEST_LIFETIME):
        raise ApiError(400, f"`lifetime_minutes` is not an integer from 1 to {LONGEST_LIFETIME}.")
    if expires_at is not None and type(expires_at) is not int:
        raise ApiError(400, "`expires_at` is not an integer of epoch seconds.")
    if not isinstance(is_rehearsal, bool):
        raise ApiError(400, "`dry_run` is not true or false.")
    if is_rehearsal and minutes is not None:
        raise ApiError(
            400,
            "A rehearsal is of the lifetime that the token is set to: leave out "
            "`lifetime_minutes`.",
        )
    return minutes, expires_at, is_rehearsal


def _validate_request(row: dict[str, Any], expires_at: int | None) -> None:
    """Refuse a request that cannot succeed, or that is about a token not in use any more."""
    if not row["renewal"]["possible"]:
        raise ApiError(409, row["renewal"]["why_not"])
    if expires_at not in (None, row["expires_at"]):
        raise ApiError(409, f"The token was renewed in the meantime. {row['message']}")


def _validate_lifetime(row: dict[str, Any], minutes: int | None) -> None:
    """Refuse a lifetime that cannot be granted, as far as the limits are known."""
    shortest, longest = row["renewal"]["shortest_minutes"], row["renewal"]["longest_minutes"]
    lifetime = minutes or row["renewal"]["usual_minutes"]
    if lifetime and shortest and lifetime < shortest:
        raise ApiError(
            400,
            f"A token of {lifetime} minutes would not expire later than the token in use: "
            f"request at least {shortest} minutes.",
        )
    if minutes and longest and minutes > longest >= (shortest or 0):
        raise ApiError(
            400,
            f"The issuer granted {longest} minutes when it was last asked for its maximum: request "
            f"at most {longest}, or leave out `lifetime_minutes` to request the maximum.",
        )
