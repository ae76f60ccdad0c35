"""The access log: one line for each request."""

from __future__ import annotations

import logging
import re
from functools import lru_cache

from flask import Response, current_app, request
from werkzeug.routing import Map

from flowauth_rotator.server.request_context import (
    elapsed_seconds,
    read_client_address,
    request_context,
    view_name,
)

logger = logging.getLogger(__name__)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
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
            "method": request.method if request.method in _METHODS else "...",
            "path": _hide_unknown_segments(request.path),
            "status": response.status_code,
            "ms": round(elapsed_seconds() * 1000, 1),
            "client": read_client_address(),
            "actor": context.actor,
            **context.facts,
        }
        level = logging.ERROR if response.status_code >= 500 else logging.INFO
        event = context.event or ("failed" if has_failed else "answered")
        logger.log(level, event, extra={"facts": facts})
    return response


def _hide_unknown_segments(path: str) -> str:
    """Keep the words of known routes, and numbers: any other may be a secret in the wrong place."""
    words = _list_words(current_app.url_map)
    return "/".join(
        segment if segment in words or re.fullmatch("[0-9]{1,10}", segment) else "..."
        for segment in path.split("/")
    )


@lru_cache(maxsize=8)
def _list_words(url_map: Map) -> frozenset[str]:
    rules = (rule.rule.split("/") for rule in url_map.iter_rules())
    return frozenset(word for words in rules for word in words if "<" not in word)
