"""FlowAPI as a probe meets it: a pure model of its answers to requests with a token.

Read from FlowAPI's code and that of its library, quart_jwt_extended: a request without a token, or
with one that has expired, is a 401; another signature, audience or start a 422; a token without the
scope a 403.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proofs.flowauth import Response, document

PATH = "/api/0/available_dates"


class FlowApi:
    """FlowAPI.

    Args:
        refuse: the status with which it refuses a token; None if it accepts it.
        has_scope: whether accepted tokens have the scope that the path needs.
    """

    def __init__(self, refuse: Callable[[str], int | None], *, has_scope: bool = True) -> None:
        self._refuse = refuse
        self._has_scope = has_scope

    def answer(self, method: str, path: str, headers: Mapping[str, str], _body: bytes) -> Response:
        """Answer a request."""
        if (method, path) != ("GET", PATH):
            return Response(404, {"Content-Type": "text/html"}, b"<title>404 Not Found</title>")
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            return document({"msg": "Missing Authorization Header"}, 401)
        if status := self._refuse(token):
            return document({"msg": "Signature verification failed"}, status)
        if not self._has_scope:
            return document({"msg": "User claims verification failed"}, 403)
        return document({"available_dates": {"calls": ["2016-01-01"]}})
