"""All differences between Airflow 2.10, 2.11 and 3.1 to 3.3, and all imports from Airflow.

The web server's part of the provider has a module like this of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from airflow import __version__

from flowauth_rotator.core.errors import MalformedToken, Misconfigured, StoreUnavailable


def find_version(distribution: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def check_common_compat(installed: str | None) -> None:
    """Check the version of a provider from which everything of Airflow 3 is imported.

    Raises:
        ImportError: it is older than 1.12, as in Airflow's images up to 3.1.5, or missing.
    """
    numbers = [int(part) for part in re.findall(r"\d+", installed or "")[:2]]
    if numbers < [1, 12]:
        raise ImportError(
            "flowauth-rotator needs apache-airflow-providers-common-compat 1.12 or later on "
            f"Airflow 3, and {installed or 'none'} is installed here. Install it in the image of "
            "all of Airflow's services: pip install "
            "'apache-airflow-providers-common-compat>=1.12'"
        )


AIRFLOW_2 = __version__.startswith("2.")

if not AIRFLOW_2:
    check_common_compat(find_version("apache-airflow-providers-common-compat"))

if TYPE_CHECKING or not AIRFLOW_2:  # types are checked against Airflow 3
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowPlugin,
        AirflowSensorTimeout,
        AirflowSkipException,
        Asset,
        AssetAlias,
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        Connection,
        Context,
        Param,
        Stats,
        TriggerRule,
        Variable,
        XCom,
        conf,
        dag,
        get_current_context,
        redact,
        task,
    )
    from airflow.sdk import timezone
    from airflow.sdk.log import mask_secret
else:
    from airflow.configuration import conf
    from airflow.datasets import Dataset as Asset
    from airflow.datasets import DatasetAlias as AssetAlias
    from airflow.decorators import dag, task
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
    from airflow.hooks.base import BaseHook
    from airflow.models import BaseOperator, Connection, Param, Variable, XCom
    from airflow.models.baseoperatorlink import BaseOperatorLink
    from airflow.operators.python import get_current_context
    from airflow.plugins_manager import AirflowPlugin
    from airflow.sensors.base import BaseSensorOperator
    from airflow.stats import Stats
    from airflow.utils import timezone
    from airflow.utils.context import Context
    from airflow.utils.log.secrets_masker import mask_secret, redact
    from airflow.utils.trigger_rule import TriggerRule

T = TypeVar("T")
PAGE = "flowapi-tokens"  # in the URLs of Airflow's pages

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowPlugin",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "Asset",
    "AssetAlias",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "Connection",
    "Context",
    "Param",
    "Stats",
    "TriggerRule",
    "Variable",
    "XCom",
    "build_form_widgets",
    "build_page_url",
    "build_secrets_manager_client",
    "build_time_trigger",
    "build_unreadable_error",
    "build_vault_hook",
    "compute_next_fire",
    "conf",
    "dag",
    "find_shadowing_backend",
    "get_current_context",
    "get_requested_at",
    "get_requester",
    "is_masked",
    "is_stored",
    "lists_every_variable",
    "mask_secret",
    "read_connection",
    "read_stored_variable",
    "read_variable",
    "redact",
    "select_for_airflow",
    "task",
    "update_asset",
    "write_stored_variable",
    "write_variable",
]


def select_for_airflow(*, airflow_2: T, airflow_3: T) -> T:
    """Return the value for the installed generation of Airflow."""
    return airflow_2 if AIRFLOW_2 else airflow_3


def read_connection(
    conn_id: str, conn_type: str = "flowauth", server: str = "the issuer"
) -> Connection:
    """Read a connection as the worker sees it.

    Airflow reports an outage as a missing connection; a further request, which fails in an outage,
    distinguishes the two.

    Raises:
        Misconfigured: the connection does not exist.
        StoreUnavailable: Airflow did not respond.
    """

    def get() -> Connection | None:
        try:
            return BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            _has_variable(conn_id)
            return None

    connection = _call_airflow(f"Reading connection {conn_id}", get)
    if connection is None:
        raise Misconfigured(
            f"Connection {conn_id} does not exist.",
            hint=f"Create it with the type `{conn_type}` and the address of {server} as its host.",
        )
    return connection


def build_vault_hook(conn_id: str) -> Any:  # noqa: ANN401 - of a provider that may be missing
    """Return the hook of a connection to Vault, whose engine must be of version 2.

    Raises:
        Misconfigured: the connection does not exist, or has another version of the engine.
        StoreUnavailable: Airflow did not respond.
    """
    from airflow.providers.hashicorp.hooks.vault import VaultHook

    read_connection(conn_id, "vault", "Vault")
    hook = VaultHook(conn_id)
    if hook.vault_client.kv_engine_version != 2:
        raise Misconfigured(
            f"Connection {conn_id} is to version 1 of Vault's KV engine.",
            hint="Use an engine of version 2, which writes a secret only if nobody else has.",
        )
    return hook


def build_secrets_manager_client(conn_id: str) -> Any:  # noqa: ANN401 - of boto3
    """Return the client of AWS Secrets Manager of a connection.

    Without that connection it has the credentials of the worker, such as a role of its machine.
    """
    from airflow.providers.amazon.aws.hooks.secrets_manager import SecretsManagerHook

    hook: Any = SecretsManagerHook
    return hook(aws_conn_id=conn_id).get_conn()


def read_variable(key: str) -> str | None:
    """Read a Variable as the worker sees it; None if it does not exist.

    Airflow reports an outage and a value that cannot be decrypted as a missing Variable; the list
    of keys distinguishes them.

    The list does not have every Variable for a task of a team: see `is_stored`.

    Raises:
        StoreUnavailable: Airflow did not respond.
        MalformedToken: the Variable exists, but cannot be decrypted or belongs to a team.
    """
    value = _call_airflow(f"Reading Variable {key}", lambda: _get_variable(key))
    if value is not None:
        return value
    if is_stored(key):
        if _has_teams() and lists_every_variable():
            raise MalformedToken(
                f"Variable {key} exists, but this task cannot read it: the Variable belongs to a "
                "team and the DAG does not, or Airflow cannot decrypt the value.",
                hint="Remove the team of the Variable, or store the token again.",
            )
        raise build_unreadable_error(key)
    return None


def build_unreadable_error(key: str) -> MalformedToken:
    """Return the error for a Variable that cannot be decrypted."""
    return MalformedToken(
        f"Variable {key} exists, but Airflow cannot decrypt it.",
        hint="If the Fernet key was changed, store the token again.",
    )


def is_stored(key: str) -> bool | None:
    """Whether Airflow's database contains a Variable with this key; None if that is unknown.

    It is unknown for a key that Airflow does not list for a task of a team.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    is_listed = _call_airflow(f"Listing Variable {key}", lambda: _has_variable(key))
    return is_listed or (False if lists_every_variable() else None)


def lists_every_variable() -> bool:
    """Whether the list of keys that Airflow returns to this task has all Variables it can read.

    With `[core] multi_team`, a task of a team can read and write the Variables of its team and
    those without a team. The list has those of its team alone (`get_variable_keys` in
    airflow/api_fastapi/execution_api/routes/variables.py, Airflow 3.3).
    """
    if AIRFLOW_2:
        return True
    try:
        run: Any = get_current_context()["dag_run"]
    except RuntimeError:  # in a callback
        run = None
    if hasattr(run, "team_name"):
        return bool(run.team_name is None)
    return not _has_teams()


def _has_teams() -> bool:
    return not AIRFLOW_2 and conf.getboolean("core", "multi_team", fallback=False)


def is_masked(key: str) -> bool:
    """Whether Airflow treats a Variable with this key as a secret, and masks its value."""
    return bool(redact("shown", key) != "shown")


def find_shadowing_backend(key: str) -> str | None:
    """Return the secrets backend in which this worker finds the key before Airflow's database.

    Raises:
        StoreUnavailable: a backend did not respond.
    """

    def find() -> str | None:
        for backend in _list_backends_before_database():
            if backend.get_variable(key=key) is not None:
                return type(backend).__name__
        return None

    return _call_airflow(f"Looking for Variable {key} in the secrets backends", find)


def write_variable(key: str, value: str, description: str) -> None:
    """Write a Variable to Airflow's database.

    Raises:
        StoreUnavailable: the write failed or may have failed.
    """
    _call_airflow(f"Writing Variable {key}", lambda: _set_variable(key, value, description))


def read_stored_variable(key: str) -> str | None:
    """Read a Variable without this worker's environment and secrets backends.

    Returns:
        Its value; None if it does not exist or cannot be decrypted.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    return _call_airflow(f"Reading Variable {key}", lambda: _get_stored_variable(key))


def write_stored_variable(key: str, value: str, description: str) -> None:
    """Write a Variable without a look into this worker's environment and secrets backends.

    Raises:
        StoreUnavailable: the write failed or may have failed.
    """
    _call_airflow(f"Writing Variable {key}", lambda: _put_variable(key, value, description))


def build_form_widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `conn-fields` of the extra as the widgets that Airflow 2 requires.

    Each has a single line: in a text area, Airflow 2 marks a text that is not JSON as an error.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import PasswordField, StringField

    widgets = {}
    for name, field in fields.items():
        secret = field["schema"].get("format") == "password"
        kind, widget = (
            (PasswordField, BS3PasswordFieldWidget) if secret else (StringField, BS3TextFieldWidget)
        )
        widgets[name] = kind(field["label"], description=field["description"], widget=widget())
    return widgets


@lru_cache(maxsize=4096)
def compute_next_fire(expression: str, time: datetime) -> datetime:
    """Return when a cron expression, or a preset such as `@daily`, fires at or after a time in UTC.

    Raises:
        ValueError: the expression is neither.
    """
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronTriggerTimetable

    run = CronTriggerTimetable(expression, timezone="UTC").next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(timezone.coerce_datetime(time), None, catchup=True),
    )
    if run is None:
        raise ValueError(f"{expression!r} never fires")
    return run.run_after


if AIRFLOW_2:

    def build_page_url(key: str) -> str:
        """Return the URL of the page at the token in a Variable."""
        base = conf.get("webserver", "base_url").rstrip("/")
        return f"{base}/{PAGE}/#{quote(key)}"

    def build_time_trigger(time: datetime) -> Any:  # noqa: ANN401 - a trigger, of either generation
        """Return a trigger that fires at this time."""
        from airflow.triggers.temporal import (  # type: ignore[import-not-found, unused-ignore]
            DateTimeTrigger,
        )

        return DateTimeTrigger(time)

    def update_asset(context: Context, alias: AssetAlias, asset: Asset, extra: Any) -> None:  # noqa: ANN401 - JSON
        """Have Airflow update an asset through its alias when the task has succeeded.

        Without effect if Airflow has not registered the alias, as in `airflow dags test` of a new
        DAG: the update would fail the task.
        """
        from airflow.models.dataset import (  # type: ignore[import-not-found, unused-ignore]
            DatasetAliasModel,
        )
        from airflow.utils.session import create_session

        with create_session() as session:
            is_known = session.query(DatasetAliasModel.id).filter_by(name=alias.name).first()
        if is_known:
            context["outlet_events"][alias].add(asset, extra=extra)

    def get_requested_at(context: Context) -> datetime:
        """Return when an operator or the schedule requested this run."""
        run: Any = context["dag_run"]
        requested_at: datetime = run.queued_at or run.start_date
        return requested_at

    def get_requester(context: Context) -> str | None:  # noqa: ARG001
        """Return None: Airflow 2 records the user who started a run only in its audit log."""
        return None

    def _get_variable(key: str) -> str | None:
        try:
            return str(Variable.get(key))
        except KeyError:
            return None

    def _set_variable(key: str, value: str, description: str) -> None:
        Variable.set(key, value, description=description)

    _put_variable = _set_variable

    def _get_stored_variable(key: str) -> str | None:
        from airflow.secrets.metastore import MetastoreBackend

        value: str | None = MetastoreBackend().get_variable(key)
        return value

    def _has_variable(key: str) -> bool:
        from airflow.models import Variable as Row
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.query(Row.id).filter_by(key=key).first() is not None

    def _list_backends_before_database() -> Iterator[Any]:
        from airflow.configuration import ensure_secrets_loaded
        from airflow.secrets.metastore import MetastoreBackend

        return takewhile(
            lambda backend: not isinstance(backend, MetastoreBackend), ensure_secrets_loaded()
        )

else:

    def build_page_url(key: str) -> str:
        """Return the URL of the page at the token in a Variable."""
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/plugin/{PAGE}#{quote(key)}"

    def build_time_trigger(time: datetime) -> Any:  # noqa: ANN401 - a trigger, of either generation
        """Return a trigger that fires at this time."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        return DateTimeTrigger(time)

    def update_asset(context: Context, alias: AssetAlias, asset: Asset, extra: Any) -> None:  # noqa: ANN401 - JSON
        """Have Airflow update an asset through its alias when the task has succeeded."""
        context["outlet_events"][alias].add(asset, extra=extra)

    def get_requested_at(context: Context) -> datetime:
        """Return when an operator or the schedule requested this run."""
        requested_at: datetime = context["dag_run"].run_after
        return requested_at

    def get_requester(context: Context) -> str | None:
        """Return the user who started this run; None for the schedule, and on Airflow 3.1."""
        name: str | None = getattr(context["dag_run"], "triggering_user_name", None)
        return name

    def _get_variable(key: str) -> str | None:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

        try:
            return str(Variable.get(key))
        except AirflowRuntimeError as error:
            if error.error.error is ErrorType.VARIABLE_NOT_FOUND:
                return None
            raise

    def _put_variable(key: str, value: str, description: str) -> None:
        from airflow.sdk.execution_time import comms, task_runner

        message = comms.PutVariable(key=key, value=value, description=description)
        task_runner.SUPERVISOR_COMMS.send(message)

    def _get_stored_variable(key: str) -> str | None:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time import comms, task_runner

        response = task_runner.SUPERVISOR_COMMS.send(comms.GetVariable(key=key))
        if not isinstance(response, comms.ErrorResponse):
            return str(response.value)  # type: ignore[union-attr]
        if response.error is ErrorType.VARIABLE_NOT_FOUND:
            return None
        raise AirflowRuntimeError(response)

    if hasattr(Variable, "keys"):

        def _set_variable(key: str, value: str, description: str) -> None:
            Variable.set(key, value, description=description)

        def _has_variable(key: str) -> bool:
            return key in Variable.keys(prefix=key)

    else:  # 3.1 and 3.2 cannot list keys, and their `Variable` does not report an outage
        _set_variable = _put_variable

        def _has_variable(key: str) -> bool:
            from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
            from airflow.sdk.execution_time import comms, task_runner

            response = task_runner.SUPERVISOR_COMMS.send(comms.GetVariable(key=key))
            if not isinstance(response, comms.ErrorResponse):
                return True
            if response.error is ErrorType.VARIABLE_NOT_FOUND:
                return False
            raise AirflowRuntimeError(response)

    def _list_backends_before_database() -> Iterator[Any]:
        from airflow.sdk.execution_time.secrets.execution_api import ExecutionAPISecretsBackend
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        return takewhile(
            lambda backend: not isinstance(backend, ExecutionAPISecretsBackend),
            ensure_secrets_backend_loaded(),
        )


def _call_airflow(action: str, call: Callable[[], T]) -> T:
    """Return the result of `call`; of an error, only the type is shown, as it may quote a value.

    Raises:
        StoreUnavailable: `call` failed.
    """
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - a secrets backend may raise any error
        kind = type(error).__name__
    raise StoreUnavailable(
        f"{action} failed with {kind}.",
        hint="The task is retried; if the error persists, see the log of Airflow's API server.",
    )
