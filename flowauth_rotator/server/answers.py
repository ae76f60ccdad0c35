"""What every answer has in common: the one shape of an error, a name, and a line in the log."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Flask, Response, g, request
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from flowauth_rotator.server.database import Busy
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.sessions import Session

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_LONGEST_SEGMENT = 40  # of a path in the log: what is longer may be a token in a wrong place
_QUIET = {"healthz", "readyz", "metrics"}  # asked every few seconds: logged only when they fail


def handle_errors(scaffold: Blueprint | Flask) -> None:
    """Let each error of the blueprint, or of the whole app, be answered in the one shape."""
    for error, handler in _HANDLERS.items():
        scaffold.register_error_handler(error, handler)


def handle_elsewhere(app: Flask) -> None:
    """Answer and log what no route answers, an unknown path, as all else."""
    handle_errors(app)
    app.before_request(_begin)
    app.after_request(finish)


def view_name() -> str:
    """What is asked for, or nothing when no route has matched."""
    return (request.endpoint or "").rpartition(".")[2]


@dataclass
class Asked:
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


def asked() -> Asked:
    """The current request."""
    if "flowauth_rotator" not in g:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.flowauth_rotator = Asked(request_id, time.perf_counter())
    found: Asked = g.flowauth_rotator
    return found


def seconds() -> float:
    """How long the request has taken so far."""
    return time.perf_counter() - asked().began


def finish(response: Response) -> Response:
    """After a request: one line of what happened, who asked, and the facts.

    Never a query, a header or a body.
    """
    this = asked()
    response.headers["X-Request-ID"] = this.request_id
    failed = response.status_code >= 400
    if not this.is_logged and (failed or view_name() not in _QUIET):
        this.is_logged = True
        facts = {
            "request_id": this.request_id,
            "method": request.method,
            "path": _shown_path(),
            "status": response.status_code,
            "ms": round(seconds() * 1000, 1),
            "client": request.remote_addr,
            "actor": this.actor,
            **this.facts,
        }
        level = logging.ERROR if response.status_code >= 500 else logging.INFO
        event = this.event or ("failed" if failed else "answered")
        logger.log(level, event, extra={"facts": facts})
    return response


def _begin() -> None:
    asked()


def _shown_path() -> str:
    segments = request.path.split("/")
    return "/".join(
        quote(segment) if len(segment) <= _LONGEST_SEGMENT else "..." for segment in segments
    )


def _refusal(refused: Refused) -> Response:
    asked().event = "refused"
    asked().facts = {"reason": refused.message}
    return _error(Response(), refused)


def _http_error(error: HTTPException) -> Response:
    """An error of the framework in the shape of all others; its headers stay."""
    response = Response(headers=error.get_headers(request.environ))
    return _error(response, Refused(error.code or 500, error.description or error.name))


def _busy(error: Busy | DBAPIError | PoolTimeout) -> Response:
    asked().event = "busy"
    asked().facts = {"reason": " ".join(str(getattr(error, "orig", error)).split())}
    message = "The database cannot be used at the moment; try again."
    return _error(Response(), Refused(503, message, retry_after=1))


def _database_error(error: DBAPIError) -> Response:
    """A lost connection is as good as a busy one: the next attempt makes a new one."""
    if error.connection_invalidated:
        return _busy(error)
    logger.error("database_error", exc_info=error)
    return _error(Response(), Refused(500, "The server met an internal error; its log says more."))


_HANDLERS: dict[type[Exception], Callable[[Any], Response]] = {
    Refused: _refusal,
    HTTPException: _http_error,
    Busy: _busy,
    OperationalError: _busy,
    PoolTimeout: _busy,
    DBAPIError: _database_error,
}


def _error(response: Response, refused: Refused) -> Response:
    body: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.bad_field is not None:
        body["bad_field"] = refused.bad_field
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(refused.retry_after)
    if refused.code == 410:  # it is the key's answer that has gone, not a page
        response.headers["Idempotent-Replayed"] = "true"
    response.status_code = refused.code
    response.content_type = "application/json"
    response.set_data(json.dumps(body))
    return response
