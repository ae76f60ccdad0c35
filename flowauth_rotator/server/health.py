"""Views for machines: public keys, OpenAPI document, health checks and metrics."""

from __future__ import annotations

import hmac
import json
import logging
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from flask import Response, jsonify, request

from flowauth_rotator.server.errors import Refused, SetupError
from flowauth_rotator.server.metrics import CONTENT_TYPE, Metrics
from flowauth_rotator.server.request_context import request_context
from flowauth_rotator.server.services import Services

logger = logging.getLogger(__name__)

_OPENAPI = files("flowauth_rotator.server") / "openapi.json"


class HealthViews:
    """One method per route; none uses a session or reads a body."""

    def __init__(self, services: Services, metrics: Metrics) -> None:
        self._services = services
        self._metrics = metrics

    def jwks(self) -> Response:
        """Return the public keys of all live tokens (RFC 7517)."""
        with self._services.database.reading() as connection:
            keys = self._services.keyring.list_published(connection, request_context().now)
        return jsonify(keys=[key.jwk for key in keys])

    def openapi(self) -> Response:
        """Return the OpenAPI document."""
        document = json.loads(_OPENAPI.read_text(encoding="utf-8"))
        document["info"]["version"] = program_version()
        return jsonify(document)

    def healthz(self) -> Response:
        """Answer, to show that a worker is running."""
        return jsonify(status="ok")

    def readyz(self) -> Response:
        """Verify that a token could be issued now."""
        try:
            self._services.verify()
        except SetupError as error:
            facts = {"reason": str(error)}
            logger.error("not_ready", extra={"facts": facts})  # noqa: TRY400 - the message suffices
            raise Refused(503, "The database or a key is unusable; see the server's log.") from None
        return jsonify(status="ok")

    def metrics(self) -> Response:
        """Return the metrics to a client with the token in metrics.token."""
        header = request.headers.get("Authorization", "").encode()
        expected = f"Bearer {self._services.directory.load_metrics_token()}".encode()
        if not hmac.compare_digest(header, expected):
            raise Refused(
                401, "Send the content of metrics.token as Authorization: Bearer <token>."
            )
        return Response(self._metrics.render(request_context().now), content_type=CONTENT_TYPE)


@cache
def program_version() -> str:
    """Return the version of this package."""
    try:
        return version("flowauth-rotator")
    except PackageNotFoundError:  # run from a checkout without installation
        return "unknown"
