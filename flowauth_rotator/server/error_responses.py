"""Error responses: every error as JSON with `code`, `message` and perhaps `bad_field`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, request
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from flowauth_rotator.server.access_log import log_request
from flowauth_rotator.server.database import DatabaseBusy
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.request_context import request_context

logger = logging.getLogger(__name__)


def register_error_handlers(scaffold: Blueprint | Flask) -> None:
    """Let the blueprint or the app answer every error as JSON."""
    for error, handler in _HANDLERS.items():
        scaffold.register_error_handler(error, handler)


def handle_unmatched_requests(app: Flask) -> None:
    """Answer and log requests that match no route, such as an unknown path."""
    register_error_handlers(app)
    app.before_request(_start_context)
    app.after_request(log_request)


def _start_context() -> None:
    request_context()


def _handle_refusal(refused: Refused) -> Response:
    request_context().event = "refused"
    request_context().facts = {"reason": refused.reason}
    return _build_response(Response(), refused)


def _handle_http_error(error: HTTPException) -> Response:
    """Turn an error of the framework into JSON; its headers stay."""
    response = Response(headers=error.get_headers(request.environ))
    return _build_response(response, Refused(error.code or 500, error.description or error.name))


def _handle_busy(error: DatabaseBusy | DBAPIError | PoolTimeout) -> Response:
    request_context().event = "busy"
    request_context().facts = {"reason": " ".join(str(getattr(error, "orig", error)).split())}
    message = "The database is temporarily unavailable; try again."
    return _build_response(Response(), Refused(503, message, retry_after=1))


def _handle_database_error(error: DBAPIError) -> Response:
    """Treat a lost connection like a busy database: a retry opens a new connection."""
    if error.connection_invalidated:
        return _handle_busy(error)
    logger.error("database_error", exc_info=error)
    return _build_response(Response(), Refused(500, "Internal server error; see the server's log."))


_HANDLERS: dict[type[Exception], Callable[[Any], Response]] = {
    Refused: _handle_refusal,
    HTTPException: _handle_http_error,
    DatabaseBusy: _handle_busy,
    OperationalError: _handle_busy,
    PoolTimeout: _handle_busy,
    DBAPIError: _handle_database_error,
}


def _build_response(response: Response, refused: Refused) -> Response:
    body: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.bad_field is not None:
        body["bad_field"] = refused.bad_field
    if refused.retry_after is not None:
        response.headers["Retry-After"] = str(refused.retry_after)
    if refused.code == 410:  # distinguishes an expired replay from a missing page
        response.headers["Idempotent-Replayed"] = "true"
    response.status_code = refused.code
    response.content_type = "application/json"
    response.set_data(json.dumps(body))
    return response
