"""The state of the current request: id, time, session, and facts for its log line."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from ipaddress import ip_address

from flask import g, request

from flowauth_rotator.server.sessions import Session

# Some proxies give the port too: each connection would count as another client.
_HOST_AND_PORT = re.compile(
    r"(?P<v4>[0-9.]+):[0-9]+|\[(?P<v6>[0-9a-f:.]+)\](:[0-9]+)?", re.IGNORECASE
)
# 32 digits as of nginx, or a UUID: neither a token nor a password.
_REQUEST_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass
class RequestContext:
    """The state of one request, separate from what a host app keeps in `g`.

    Attributes:
        request_id: The id from the proxy's X-Request-ID header, or a new one.
        started: The reading of a monotonic clock when the request arrived.
        now: The time of arrival, in seconds since the epoch.
        session: The session; None if the route does not use sessions.
        extends_session: Whether the response extends the session's lifetime.
        actor: The user name, once known.
        event: The name of the event for the log.
        facts: Additional facts for the log.
        is_logged: Whether the log line was written.
    """

    request_id: str
    started: float
    now: int = 0
    session: Session | None = None
    extends_session: bool = False
    actor: str | None = None
    event: str = ""
    facts: dict[str, object] = field(default_factory=dict)
    is_logged: bool = False


def request_context() -> RequestContext:
    """Return the context of the current request; create it on first use."""
    if "flowauth_rotator" not in g:
        header = request.headers.get("X-Request-ID", "")
        request_id = header if _REQUEST_ID.fullmatch(header) else uuid.uuid4().hex
        g.flowauth_rotator = RequestContext(request_id, time.perf_counter())
    context: RequestContext = g.flowauth_rotator
    return context


def read_client_address() -> str:
    """Return the IP address of the client; an empty string if the proxy gives something else."""
    text = request.remote_addr or ""
    if match := _HOST_AND_PORT.fullmatch(text):
        text = match["v4"] or match["v6"]
    try:
        return str(ip_address(text.partition("%")[0]))  # without the name of an interface
    except ValueError:
        return ""


def elapsed_seconds() -> float:
    """Return the seconds since the request arrived."""
    return time.perf_counter() - request_context().started


def view_name() -> str:
    """Return the name of the matched view, or an empty string if no route matched."""
    return (request.endpoint or "").rpartition(".")[2]
