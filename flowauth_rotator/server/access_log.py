"""The access log: one line for each request."""

from __future__ import annotations

import logging
from urllib.parse import quote

from flask import Response, request

from flowauth_rotator.server.request_context import elapsed_seconds, request_context, view_name

logger = logging.getLogger(__name__)

_MAX_SEGMENT = 40  # a longer path segment may be a token in the wrong place
_QUIET_VIEWS = {"healthz", "readyz", "metrics"}  # polled: logged only when they fail


def log_request(response: Response) -> Response:
    """Log the request and set X-Request-ID; query, headers and body are never logged."""
    context = request_context()
    response.headers["X-Request-ID"] = context.request_id
    has_failed = response.status_code >= 400
    if not context.is_logged and (has_failed or view_name() not in _QUIET_VIEWS):
        context.is_logged = True
        facts = {
            "request_id": context.request_id,
            "method": request.method,
            "path": _shorten_path(request.path),
            "status": response.status_code,
            "ms": round(elapsed_seconds() * 1000, 1),
            "client": request.remote_addr,
            "actor": context.actor,
            **context.facts,
        }
        level = logging.ERROR if response.status_code >= 500 else logging.INFO
        event = context.event or ("failed" if has_failed else "answered")
        logger.log(level, event, extra={"facts": facts})
    return response


def _shorten_path(path: str) -> str:
    return "/".join(
        quote(segment) if len(segment) <= _MAX_SEGMENT else "..." for segment in path.split("/")
    )
