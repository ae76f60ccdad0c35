"""A secret in a backend, which Airflow looks up as a Variable, as a store of a token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from flowauth_rotator.core.errors import (
    Misconfigured,
    RotatorError,
    ShadowedStore,
    StoreUnavailable,
    TokenError,
)
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.variable_store import VariableStore

T = TypeVar("T")


class SecretStore(ABC):
    """A secret in a folder of a secrets backend, with the key of the Variable as its name.

    Attributes:
        noun: what people call such a secret.
        extra: the extra of this package that installs its Airflow provider.
        conn_id: the connection with which the secret is read and written.
        path: the path of the secret.
    """

    noun: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, key: str, conn_id: str, folder: str) -> None:
        self.key = self.name = key
        self.conn_id = conn_id
        self.path = f"{folder}/{key}" if folder else key
        self.place = f"{self.noun} {self.path}"

    @abstractmethod
    def read(self) -> Token:
        """Read the secret."""

    @abstractmethod
    def write(self, token: Token, description: str) -> None:
        """Write the secret."""

    @abstractmethod
    def check_permission(self) -> None:
        """Check that the connection may write the secret, without a change of it.

        Raises:
            Misconfigured: it may not.
        """

    def preflight(self) -> None:
        """Check that readers of the Variable get the secret, and that it can be written."""
        token = self.read()
        try:
            shown = VariableStore(self.key).read()
        except TokenError:
            shown = None
        if shown != token:
            raise ShadowedStore(
                f"Airflow does not return {self.place} as Variable {self.key}, so a write would "
                "have no effect for its readers.",
                hint="Set the secrets backend of the workers to look up Variables there, and "
                f"remove AIRFLOW_VAR_{self.key.upper()} from their environment.",
            )
        self.check_permission()

    @abstractmethod
    def _explain(self, action: str, error: Exception) -> RotatorError | None:
        """Return the error for what a library raised; None if it is not known."""

    def _call(self, action: str, call: Callable[[], T]) -> T:
        """Return the result of `call`; of an unknown error only the type is shown."""
        try:
            return call()
        except RotatorError:
            raise
        except ImportError:
            failure: RotatorError = Misconfigured(
                f"The Airflow provider that reads {self.place} is not installed.",
                hint=f"Install flowauth-rotator[{self.extra}] where Airflow's tasks run.",
            )
        except Exception as error:  # noqa: BLE001 - libraries of backends may raise any error
            failure = self._explain(action, error) or StoreUnavailable(
                f"The request to {action} {self.place} failed with {type(error).__name__}."
            )
        raise failure  # outside the block, so that it chains nothing that holds a secret

    def _refuse_access(self, action: str) -> Misconfigured:
        return Misconfigured(
            f"Connection {self.conn_id} has no permission to {action} {self.place}.",
            hint="Correct its credentials, or extend its policy.",
        )
