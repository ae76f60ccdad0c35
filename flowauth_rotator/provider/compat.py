"""Every difference between generations of Airflow, and nothing else.

Runs on Airflow 3.3. Elsewhere in this room nothing of Airflow is imported but from here.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowPlugin,
    BaseHook,
    BaseOperator,
    Context,
    TriggerRule,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.log import mask_secret

from flowauth_rotator.core.errors import MalformedToken, StoreUnavailable

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowPlugin",
    "BaseHook",
    "BaseOperator",
    "Context",
    "TriggerRule",
    "dag",
    "get_current_context",
    "hiding_backend",
    "is_stored",
    "mask_secret",
    "read_variable",
    "task",
    "write_variable",
]


def read_variable(key: str) -> str | None:
    """A Variable as the worker sees it; None if there is none.

    On Airflow 3 an outage and a value that cannot be decrypted both look like a missing Variable;
    the list of keys tells them apart.

    Raises:
        StoreUnavailable: Airflow did not answer.
        MalformedToken: the Variable exists, but cannot be read.
    """
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

    try:
        value = Variable.get(key)
    except AirflowRuntimeError as error:
        if error.error.error is not ErrorType.VARIABLE_NOT_FOUND:
            raise _unavailable("Reading", key, error) from None
    except Exception as error:  # noqa: BLE001 - what a secrets backend raises is its own affair
        raise _unavailable("Reading", key, error) from None
    else:
        return str(value)
    if is_stored(key):
        raise MalformedToken(
            f"Variable {key} exists, but Airflow cannot read it.",
            advice="If the Fernet key was changed, store the token again.",
        )
    return None


def is_stored(key: str) -> bool:
    """Whether Airflow's database has a Variable of this key, whatever else defines it.

    Raises:
        StoreUnavailable: Airflow did not answer.
    """
    from airflow.sdk import Variable

    try:
        return key in Variable.keys(prefix=key)
    except Exception as error:  # noqa: BLE001 - any failure means that it cannot be known
        raise _unavailable("Listing", key, error) from None


def hiding_backend(key: str) -> str | None:
    """The secrets backend on this worker that answers for the key before Airflow's database.

    Raises:
        StoreUnavailable: a backend did not answer.
    """
    from airflow.sdk.execution_time.secrets.execution_api import ExecutionAPISecretsBackend
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    for backend in ensure_secrets_backend_loaded():
        if isinstance(backend, ExecutionAPISecretsBackend):
            return None
        try:
            hidden = backend.get_variable(key=key) is not None
        except Exception as error:  # noqa: BLE001 - what a secrets backend raises is its own affair
            raise _unavailable("Looking for", key, error) from None
        if hidden:
            return type(backend).__name__
    return None


def write_variable(key: str, value: str, description: str) -> None:
    """Write a Variable to Airflow's database.

    Raises:
        StoreUnavailable: it failed, or nobody knows whether it did.
    """
    from airflow.sdk import Variable

    try:
        Variable.set(key, value, description=description)
    except Exception as error:  # noqa: BLE001 - the text may hold the value
        raise _unavailable("Writing", key, error) from None


def _unavailable(doing: str, key: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{doing} Variable {key} failed with {type(error).__name__}.",
        advice="See the log of Airflow's API server.",
    )
