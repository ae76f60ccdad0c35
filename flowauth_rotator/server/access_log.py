"""One log line for each request."""

from __future__ import annotations

import logging
from urllib.parse import quote

from flask import Response, request

from flowauth_rotator.server.request_context import request_context, seconds, view_name

logger = logging.getLogger(__name__)

_LONGEST_SEGMENT = 40  # of a path in the log: what is longer may be a token in a wrong place
_QUIET = {"healthz", "readyz", "metrics"}  # asked every few seconds: logged only when they fail


def finish(response: Response) -> Response:
    """After a request: one line of what happened, who asked, and the facts.

    Never a query, a header or a body.
    """
    context = request_context()
    response.headers["X-Request-ID"] = context.request_id
    failed = response.status_code >= 400
    if not context.is_logged and (failed or view_name() not in _QUIET):
        context.is_logged = True
        facts = {
            "request_id": context.request_id,
            "method": request.method,
            "path": _shown_path(),
            "status": response.status_code,
            "ms": round(seconds() * 1000, 1),
            "client": request.remote_addr,
            "actor": context.actor,
            **context.facts,
        }
        level = logging.ERROR if response.status_code >= 500 else logging.INFO
        event = context.event or ("failed" if failed else "answered")
        logger.log(level, event, extra={"facts": facts})
    return response


def _shown_path() -> str:
    segments = request.path.split("/")
    return "/".join(
        quote(segment) if len(segment) <= _LONGEST_SEGMENT else "..." for segment in segments
    )
