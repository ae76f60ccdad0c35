"""What the page and the scrapers ask for, whatever web framework carries it."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from airflow.utils.session import create_session

from flowauth_rotator.monitoring import prometheus
from flowauth_rotator.monitoring.snapshot import Snapshot
from flowauth_rotator.provider.compat import conf
from flowauth_rotator.provider.web import managed, queries
from flowauth_rotator.provider.web.compat import Pages, start_run
from flowauth_rotator.provider.web.managed import Agent, Managed
from flowauth_rotator.provider.web.overview import Overview
from flowauth_rotator.provider.web.snapshot import snapshot

VERSION = 1  # of the JSON
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
    """The person who asks, as Airflow's auth manager knows them."""

    @property
    def name(self) -> str:
        """What the audit log calls them."""

    def may_read(self, variable: str | None = None) -> bool:
        """Whether they may read this Variable, or Variables at all."""

    def may_renew(self, dag_id: str) -> bool:
        """Whether they may start runs of the DAG."""


@dataclass
class Denied(Exception):
    """A request that is not granted.

    Attributes:
        code: the HTTP status.
        message: a sentence or two for the person who asked.
    """

    code: int
    message: str

    @property
    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"code": self.code, "message": self.message}


def tokens(viewer: Viewer, now: datetime) -> dict[str, Any]:
    """The document of `GET api/tokens`.

    Raises:
        Denied: 403.
    """
    shown = _seen(viewer, now).document()
    return {"version": VERSION, "now": round(now.timestamp()), **shown}


def renew(viewer: Viewer, called: str, body: object, now: datetime) -> dict[str, Any]:
    """Start a renewal; the document of `POST api/tokens/{name}/renew`.

    Whoever asks while a renewal of the token is under way gets that one.

    Args:
        viewer: who asks.
        called: the token's Variable or name.
        body: the lifetime that is asked for, and the expiry of the token that is to be renewed.
        now: an aware time.

    Raises:
        Denied: 400, 403, 404, 409 or 503.
    """
    minutes, expires_at = _asked(body)
    seen = _seen(viewer, now)
    one = _called(seen.tokens, called)
    row = seen.row(one)
    if one.agent.dag_id not in seen.may_renew:
        raise Denied(403, row["renewal"]["why_not"])
    if not (one.run and one.run.active):
        if not row["renewal"]["possible"]:
            raise Denied(409, row["renewal"]["why_not"])
        if expires_at not in (None, row["expires_at"]):
            raise Denied(409, f"It was renewed meanwhile. {row['reason']}")
        asked = minutes or one.token.lifetime_minutes
        if asked and now.timestamp() + 60 * asked <= row["expires_at"]:
            raise Denied(400, f"The token in use lives longer than {asked} more minutes.")
        run_id = queries.next_run_id(one.variable, one.run)
        params = {"names": [one.variable], "force": True, "lifetime_minutes": minutes}
        start_run(one.agent.dag_id, run_id, params, user=viewer.name, now=now)
        seen = _seen(viewer, now)
        row = seen.row(_called(seen.tokens, called))
        if row["run"] is None or row["run"]["run_id"] != run_id:
            raise Denied(503, "Airflow did not start the run; try again.")
    return {"version": VERSION, "now": round(now.timestamp()), "token": row}


def exposition(viewer: Viewer | None, now: datetime) -> bytes:
    """The text of `GET metrics`, for a viewer or, with none, for who has the scrape token.

    Raises:
        Denied: 403.
    """
    return prometheus.exposition(watched(viewer, now))


def state(viewer: Viewer | None, now: datetime) -> dict[str, Any]:
    """The document of `GET api/check`, for the same.

    Raises:
        Denied: 403.
    """
    return watched(viewer, now).to_json()


def check_origin(header: Callable[[str], str | None]) -> None:
    """Let no other site have somebody's browser start a renewal.

    A custom header needs the consent of this site before a browser sends it from another one.

    Args:
        header: gives the value of a header, or None.

    Raises:
        Denied: 403.
    """
    if header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise Denied(403, "A renewal cannot be started from another site.")
    if header("X-Requested-With") != REQUESTED_WITH:
        raise Denied(403, f"The header `X-Requested-With: {REQUESTED_WITH}` is missing.")


def is_scraper(authorization: str) -> bool:
    """Whether a request carries the scrape token of Airflow's configuration."""
    secret = conf.get("flowauth_rotator", "scrape_token", fallback="")
    wanted = f"Bearer {secret}"
    return bool(secret) and hmac.compare_digest(authorization.encode(), wanted.encode())


def watched(viewer: Viewer | None, now: datetime) -> Snapshot:
    """What the viewer may see, or, with none, all that there is to watch."""
    if viewer:
        seen = _seen(viewer, now)
        agents, tokens = seen.agents, seen.tokens
    else:
        agents, tokens = _read(now)
    with create_session() as session:
        rotations = {it.dag_id: queries.read_rotations(session, it.dag_id) for it in agents}
    return snapshot(agents, tokens, now, rotations)


def _seen(viewer: Viewer, now: datetime) -> Overview:
    """What the viewer may see."""
    if not viewer.may_read():
        raise Denied(
            403, "You may not see FlowAPI tokens: the permission to read Variables is missing."
        )
    agents, managed = _read(now)
    tokens = [one for one in managed if viewer.may_read(one.variable)]
    may_renew = {agent.dag_id for agent in agents if viewer.may_renew(agent.dag_id)}
    theirs = may_renew | {one.agent.dag_id for one in tokens}
    agents = [agent for agent in agents if agent.dag_id in theirs]
    return Overview(agents, tokens, may_renew, Pages(), now)


def _read(now: datetime) -> tuple[list[Agent], list[Managed]]:
    """The DAGs and all tokens.

    What is in use is read last: whoever finds no renewal under way sees what the last one did.
    """
    with create_session() as session:
        agents = managed.without_the_dead(queries.read_agents(session))
        tokens = [(agent, token) for agent in agents for token in agent.tokens]
        found = queries.read_in_use(session, [token for _, token in tokens], now)
    return agents, [Managed(*one, what) for one, what in zip(tokens, found, strict=True)]


def _called(managed: Sequence[Managed], called: str) -> Managed:
    """The token in the Variable of this key, or of this name."""
    fitting = [one for one in managed if one.variable == called] or [
        one for one in managed if one.name == called
    ]
    if not fitting:
        raise Denied(404, "There is no token of this name or in a Variable of this key.")
    if len(fitting) > 1 and fitting[0].variable != called:
        keys = " and ".join(sorted(one.variable for one in fitting))
        raise Denied(409, f"Several tokens have this name: say which Variable, {keys}.")
    return fitting[0]


def _asked(body: object) -> tuple[int | None, int | None]:
    """Lifetime in minutes and expiry of the token to renew, as far as they are given."""
    if body is None:
        body = {}
    if not isinstance(body, dict) or set(body) - {"lifetime_minutes", "expires_at"}:
        raise Denied(400, "The body is no JSON object of `lifetime_minutes` and `expires_at`.")
    minutes, expires_at = body.get("lifetime_minutes"), body.get("expires_at")
    if minutes is not None and not (type(minutes) is int and 1 <= minutes <= LONGEST_LIFETIME):
        raise Denied(400, "`lifetime_minutes` is not a whole number of minutes from 1 on.")
    if expires_at is not None and type(expires_at) is not int:
        raise Denied(400, "`expires_at` is not a whole number of seconds.")
    return minutes, expires_at
