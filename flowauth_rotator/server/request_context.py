"""What is known of the current request."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field

from flask import g, request

from flowauth_rotator.server.sessions import Session

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


@dataclass
class RequestContext:
    """What is known of the current request, kept apart from what an app may keep in `g`.

    Attributes:
        request_id: Its name, as the proxy in front gave it if it did.
        began: When it came in, by a stopwatch.
        now: When it came in, in seconds since the epoch.
        session: Who speaks, where that matters.
        keeps_session: Whether the session may go on for another while.
        actor: The name of the user, once known.
        event: What happened.
        facts: More for the log.
        is_logged: Whether its line has been written.
    """

    request_id: str
    began: float
    now: int = 0
    session: Session | None = None
    keeps_session: bool = False
    actor: str | None = None
    event: str = ""
    facts: dict[str, object] = field(default_factory=dict)
    is_logged: bool = False


def request_context() -> RequestContext:
    """The current request."""
    if "flowauth_rotator" not in g:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.flowauth_rotator = RequestContext(request_id, time.perf_counter())
    found: RequestContext = g.flowauth_rotator
    return found


def seconds() -> float:
    """How long the request has taken so far."""
    return time.perf_counter() - request_context().began


def view_name() -> str:
    """What is asked for, or nothing when no route has matched."""
    return (request.endpoint or "").rpartition(".")[2]
