"""HashiCorp Vault's KV engine, version 2, as an HTTP client meets it.

Built from the documentation of Vault's API: KV secrets engine (version 2), `auth/token/lookup-self`
and `sys/capabilities-self`. It has one token, one engine at `secret/` and no leases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proofs.flowauth import Response, document

DATA = "/v1/secret/data/"


@dataclass
class Vault:
    """Vault.

    Attributes:
        token: what a client must present.
        secrets: by path, the fields of each version of a secret, the first version first; None for
            a version that was deleted.
        capabilities: what the token's policy allows on a secret.
        before_write: called before each write.
    """

    token: str
    secrets: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ("create", "read", "update")
    before_write: Callable[[], object] = lambda: None

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Answer a request."""
        if headers.get("X-Vault-Token") != self.token:
            return document({"errors": ["permission denied"]}, 403)
        request = json.loads(body or b"{}")
        if path == "/v1/auth/token/lookup-self":
            return document({"data": {"policies": ["airflow"]}})
        if path == "/v1/sys/capabilities-self":
            by_path = {each: list(self.capabilities) for each in request["paths"]}
            return document({"data": by_path, **by_path})
        if not path.startswith(DATA):
            return document({"errors": ["no handler for route"]}, 404)
        secret = path.removeprefix(DATA)
        return self._read(secret) if method == "GET" else self._write(secret, request)

    def _read(self, secret: str) -> Response:
        if "read" not in self.capabilities:
            return document({"errors": ["permission denied"]}, 403)
        versions = self.secrets.get(secret)
        if not versions:
            return document({"errors": []}, 404)
        fields = versions[-1]
        deleted_at = "2026-11-29T12:00:00.123456789Z" if fields is None else ""
        metadata = {"version": len(versions), "destroyed": False, "deletion_time": deleted_at}
        status = 404 if fields is None else 200
        return document({"data": {"data": fields, "metadata": metadata}}, status)

    def _write(self, secret: str, request: Mapping[str, Any]) -> Response:
        if "update" not in self.capabilities:
            return document({"errors": ["permission denied"]}, 403)
        self.before_write()
        versions = self.secrets.setdefault(secret, [])
        expected = request.get("options", {}).get("cas")
        if expected is not None and expected != len(versions):
            message = "check-and-set parameter did not match the current version"
            return document({"errors": [message]}, 400)
        versions.append(request["data"])
        return document({"data": {"version": len(versions)}})
