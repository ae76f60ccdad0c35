"""What is asked by machines about the server itself: keys, document, health, metrics."""

from __future__ import annotations

import hmac
import json
import logging
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from flask import Response, jsonify, request

from flowauth_rotator.server.errors import Refused, SetupError
from flowauth_rotator.server.metrics import CONTENT_TYPE, Metrics
from flowauth_rotator.server.request_context import request_context
from flowauth_rotator.server.services import Services

logger = logging.getLogger(__name__)

_OPENAPI = files("flowauth_rotator.server") / "openapi.json"


class Probes:
    """One method a route; none has a session or reads a body."""

    def __init__(self, services: Services, metrics: Metrics) -> None:
        self._services = services
        self._metrics = metrics

    def jwks(self) -> Response:
        """The public keys of all tokens alive (RFC 7517)."""
        with self._services.database.reading() as connection:
            keys = self._services.keyring.published(connection, request_context().now)
        return jsonify(keys=[key.jwk for key in keys])

    def openapi(self) -> Response:
        """The description of all this."""
        document = json.loads(_OPENAPI.read_text(encoding="utf-8"))
        document["info"]["version"] = program_version()
        return jsonify(document)

    def healthz(self) -> Response:
        """Whether a worker answers."""
        return jsonify(status="ok")

    def readyz(self) -> Response:
        """Whether a token could be issued now."""
        try:
            self._services.check()
        except SetupError as error:
            facts = {"reason": str(error)}
            logger.error("not_ready", extra={"facts": facts})  # noqa: TRY400 - told in a sentence
            raise Refused(503, "The database or a key cannot be used; see the log.") from None
        return jsonify(status="ok")

    def metrics(self) -> Response:
        """Counters and newest tokens, for who presents the data directory's token."""
        presented = request.headers.get("Authorization", "").encode()
        expected = f"Bearer {self._services.directory.metrics_token()}".encode()
        if not hmac.compare_digest(presented, expected):
            raise Refused(401, "Present what metrics.token holds: Authorization: Bearer <it>.")
        return Response(self._metrics.exposition(request_context().now), content_type=CONTENT_TYPE)


def program_version() -> str:
    """The version of this package."""
    try:
        return version("flowauth-rotator")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
