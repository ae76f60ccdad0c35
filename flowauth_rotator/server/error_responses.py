"""The one shape of an error response."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, request
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from flowauth_rotator.server.access_log import finish
from flowauth_rotator.server.database import Busy
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.request_context import request_context

logger = logging.getLogger(__name__)


def handle_errors(scaffold: Blueprint | Flask) -> None:
    """Let each error of the blueprint, or of the whole app, be answered in the one shape."""
    for error, handler in _HANDLERS.items():
        scaffold.register_error_handler(error, handler)


def handle_elsewhere(app: Flask) -> None:
    """Answer and log what no route answers, an unknown path, as all else."""
    handle_errors(app)
    app.before_request(_begin)
    app.after_request(finish)


def _begin() -> None:
    request_context()


def _refusal(refused: Refused) -> Response:
    request_context().event = "refused"
    request_context().facts = {"reason": refused.message}
    return _error(Response(), refused)


def _http_error(error: HTTPException) -> Response:
    """An error of the framework in the shape of all others; its headers stay."""
    response = Response(headers=error.get_headers(request.environ))
    return _error(response, Refused(error.code or 500, error.description or error.name))


def _busy(error: Busy | DBAPIError | PoolTimeout) -> Response:
    request_context().event = "busy"
    request_context().facts = {"reason": " ".join(str(getattr(error, "orig", error)).split())}
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
