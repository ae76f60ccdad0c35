"""A secret in HashiCorp Vault's or OpenBao's KV engine, version 2, as a store of a token."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any

from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized

from flowauth_rotator.core.errors import (
    ConflictingWrite,
    Misconfigured,
    MissingToken,
    RotatorError,
)
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.compat import build_vault_hook
from flowauth_rotator.provider.secret_store import SecretStore

FIELD = "value"  # of the secret, in which Airflow's `VaultBackend` looks for a Variable
CONFLICT = "check-and-set"  # in Vault's message if another client wrote first; it has no code


class VaultStore(SecretStore):
    """A secret whose field `value` is the token; its other fields stay as they are.

    A write succeeds only if nobody has written the secret since it was read.
    """

    noun, extra = "Vault secret", "vault"

    def read(self) -> Token:
        """Read the secret, and keep its version for the next write."""
        response = self._call("read", lambda: self._hook.get_secret_including_metadata(self.path))
        if response:
            self._fields = response["data"]["data"]
            self._version = response["data"]["metadata"]["version"]
        else:
            self._fields, self._version = {}, self._call("read", self._find_deleted_version)
        value = str(self._fields.get(FIELD) or "").strip()
        if not value:
            problem = f"has no field `{FIELD}`" if response else "does not exist"
            raise MissingToken(f"{self.place} {problem}.")
        return Token.strip(value)

    def check_permission(self) -> None:
        """Ask Vault for the capabilities on the secret; a policy may not allow that question."""
        try:
            answer = self._call("write", self._request_capabilities)
        except Misconfigured:
            return
        if not {"update", "root"} & set(answer):
            raise self._refuse_access("write")

    def write(self, token: Token, description: str) -> None:  # noqa: ARG002 - a secret has none
        """Write the secret, unless it has another version than the one that was read."""
        secret = {**self._fields, FIELD: token.reveal()}
        self._call(
            "write",
            lambda: self._hook.create_or_update_secret(self.path, secret=secret, cas=self._version),
        )

    _fields: dict[str, Any] = {}  # noqa: RUF012 - replaced, never changed
    _version = 0  # of a secret that does not exist

    @cached_property
    def _hook(self) -> Any:  # noqa: ANN401 - VaultHook
        return build_vault_hook(self.conn_id)

    @property
    def _mount_point(self) -> str:
        return self._hook.connection.schema or "secret"

    def _request_capabilities(self) -> list[str]:
        path = f"{self._mount_point}/data/{self.path}"
        answer = self._hook.get_conn().sys.get_capabilities(paths=[path])
        capabilities: list[str] = answer["data"][path]
        return capabilities

    def _find_deleted_version(self) -> int:
        """Return the version of a secret whose last version was deleted; 0 if there is none."""
        try:
            self._hook.get_conn().secrets.kv.v2.read_secret_version(
                self.path, mount_point=self._mount_point, raise_on_deleted_version=True
            )
        except InvalidPath as error:
            with suppress(KeyError, TypeError):
                return int(error.json["data"]["metadata"]["version"])
        return 0

    def _explain(self, action: str, error: Exception) -> RotatorError | None:
        if isinstance(error, (Forbidden, Unauthorized)):
            return self._refuse_access(action)
        if isinstance(error, InvalidRequest) and CONFLICT in str(error):
            return ConflictingWrite(f"{self.place} was changed during the rotation.")
        return None
