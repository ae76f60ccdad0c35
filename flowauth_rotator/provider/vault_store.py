"""A secret in HashiCorp Vault's or OpenBao's KV engine, version 2, as a store of a token."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from hvac.exceptions import Forbidden, InvalidRequest, Unauthorized

from flowauth_rotator.core.errors import (
    ConflictingWrite,
    Misconfigured,
    MissingToken,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.compat import build_vault_hook
from flowauth_rotator.provider.secret_store import SecretStore

T = TypeVar("T")
FIELD = "value"  # of the secret, in which Airflow's `VaultBackend` looks for a Variable
CONFLICT = "check-and-set"  # in Vault's message if another client wrote first; it has no code


class VaultStore(SecretStore):
    """A secret whose field `value` is the token; its other fields stay as they are.

    A write succeeds only if nobody has written the secret since it was read.
    """

    noun = "Vault secret"

    def read(self) -> Token:
        """Read the secret, and keep its version for the next write."""
        response = self._call("read", lambda: self._hook.get_secret_including_metadata(self.path))
        fields = response["data"]["data"] if response else {}
        if not str(fields.get(FIELD) or "").strip():
            problem = f"has no field `{FIELD}`" if response else "does not exist"
            raise MissingToken(f"{self.place} {problem}.")
        self._fields, self._version = fields, response["data"]["metadata"]["version"]
        return Token.strip(str(fields[FIELD]))

    def check_permission(self) -> None:
        """Ask Vault for the capabilities on the secret; a policy may not allow that question."""
        mount_point = self._hook.connection.schema or "secret"
        path = f"{mount_point}/data/{self.path}"
        try:
            answer = self._call(
                "write", lambda: self._hook.get_conn().sys.get_capabilities(paths=[path])
            )
        except Misconfigured:
            return
        if not {"update", "root"} & set(answer["data"][path]):
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

    def _call(self, action: str, call: Callable[[], T]) -> T:
        """Return the result of `call`; of its error only the type is shown."""
        failure: RotatorError
        try:
            return call()
        except RotatorError:
            raise
        except (Forbidden, Unauthorized):
            failure = self._refuse_access(action)
        except Exception as error:  # noqa: BLE001 - the hook may raise any error
            if isinstance(error, InvalidRequest) and CONFLICT in str(error):
                failure = ConflictingWrite(f"{self.place} was changed during the rotation.")
            else:
                failure = StoreUnavailable(
                    f"The request to {action} {self.place} failed with {type(error).__name__}."
                )
        raise failure
