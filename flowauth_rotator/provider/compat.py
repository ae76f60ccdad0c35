"""Every difference between generations of Airflow, and nothing else.

Runs on Airflow 2.10, 2.11 and 3.1 to 3.3. Elsewhere in this room nothing of Airflow is imported
but from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from airflow import __version__

from flowauth_rotator.core.errors import MalformedToken, Misconfigured, StoreUnavailable

AIRFLOW_2 = __version__.startswith("2.")

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
PAGE = "flowapi-tokens"  # in the addresses of Airflow's pages

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
    "asked_at",
    "conf",
    "cron_after",
    "dag",
    "for_this_airflow",
    "form_widgets",
    "get_current_context",
    "hiding_backend",
    "is_hidden",
    "is_stored",
    "mask_secret",
    "read_connection",
    "read_variable",
    "redact",
    "task",
    "tokens_page",
    "trigger_at",
    "unreadable",
    "update_asset",
    "write_variable",
]


def for_this_airflow(*, two: T, three: T) -> T:
    """What fits the generation of Airflow that runs."""
    return two if AIRFLOW_2 else three


def read_connection(conn_id: str) -> Connection:
    """A connection as the worker sees it.

    An outage looks like a missing connection; a question that fails in an outage tells them apart.

    Raises:
        Misconfigured: there is none.
        StoreUnavailable: Airflow did not answer.
    """

    def get() -> Connection | None:
        try:
            return BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            _has_variable(conn_id)
            return None

    connection = _answer(f"Reading connection {conn_id}", get)
    if connection is None:
        raise Misconfigured(
            f"There is no connection {conn_id}.",
            advice="Create it with the issuer's address as its host.",
        )
    return connection


def read_variable(key: str) -> str | None:
    """A Variable as the worker sees it; None if there is none.

    An outage and a value that cannot be decrypted both look like a missing Variable; the list of
    keys tells them apart.

    Raises:
        StoreUnavailable: Airflow did not answer.
        MalformedToken: the Variable exists, but cannot be read.
    """
    value = _answer(f"Reading Variable {key}", lambda: _value_of(key))
    if value is not None:
        return value
    if is_stored(key):
        raise unreadable(key)
    return None


def unreadable(key: str) -> MalformedToken:
    """The error of a Variable that cannot be decrypted."""
    return MalformedToken(
        f"Variable {key} exists, but Airflow cannot read it.",
        advice="If the Fernet key was changed, store the token again.",
    )


def is_stored(key: str) -> bool:
    """Whether Airflow's database has a Variable of this key, whatever else defines it.

    Raises:
        StoreUnavailable: Airflow did not answer.
    """
    return _answer(f"Listing Variable {key}", lambda: _has_variable(key))


def is_hidden(key: str) -> bool:
    """Whether Airflow takes a Variable of this key for a secret, and shows its value to nobody."""
    return bool(redact("shown", key) != "shown")


def hiding_backend(key: str) -> str | None:
    """The secrets backend on this worker that answers for the key before Airflow's database.

    Raises:
        StoreUnavailable: a backend did not answer.
    """

    def look() -> str | None:
        for backend in _backends_before_the_database():
            if backend.get_variable(key=key) is not None:
                return type(backend).__name__
        return None

    return _answer(f"Looking for Variable {key} in the secrets backends", look)


def write_variable(key: str, value: str, description: str) -> None:
    """Write a Variable to Airflow's database.

    Raises:
        StoreUnavailable: it failed, or nobody knows whether it did.
    """
    _answer(f"Writing Variable {key}", lambda: _set_variable(key, value, description))


def form_widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `conn-fields` says of a connection's extra, as Airflow 2 asks a hook for.

    All are of one line: in one of several, Airflow 2 marks all that is no JSON as an error.
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
def cron_after(expression: str, moment: datetime) -> datetime:
    """When a schedule of this cron expression, or of a word of Airflow's, next fires, in UTC.

    Raises:
        ValueError: it is neither.
    """
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronTriggerTimetable

    fires = CronTriggerTimetable(expression, timezone="UTC").next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(timezone.coerce_datetime(moment), None, catchup=True),
    )
    if fires is None:
        raise ValueError(f"{expression!r} never fires")
    return fires.run_after


if AIRFLOW_2:

    def tokens_page(key: str) -> str:
        """Where a person sees the token in a Variable."""
        base = conf.get("webserver", "base_url").rstrip("/")
        return f"{base}/{PAGE}/#{quote(key)}"

    def trigger_at(moment: datetime) -> Any:  # noqa: ANN401 - a trigger, of either generation
        """What ends a deferral at this time."""
        from airflow.triggers.temporal import (  # type: ignore[import-not-found, unused-ignore]
            DateTimeTrigger,
        )

        return DateTimeTrigger(moment)

    def update_asset(context: Context, alias: AssetAlias, asset: Asset, extra: Any) -> None:  # noqa: ANN401 - JSON
        """Have Airflow update an asset through its alias when the task has succeeded.

        Not where Airflow does not know the alias, as in a test of a DAG that it has not parsed yet:
        it would fail the task.
        """
        from airflow.models.dataset import (  # type: ignore[import-not-found, unused-ignore]
            DatasetAliasModel,
        )
        from airflow.utils.session import create_session

        with create_session() as session:
            known = session.query(DatasetAliasModel.id).filter_by(name=alias.name).first()
        if known:
            context["outlet_events"][alias].add(asset, extra=extra)

    def asked_at(context: Context) -> datetime:
        """When somebody, or the schedule, asked for this run."""
        run: Any = context["dag_run"]
        asked: datetime = run.queued_at or run.start_date
        return asked

    def _value_of(key: str) -> str | None:
        try:
            return str(Variable.get(key))
        except KeyError:
            return None

    def _set_variable(key: str, value: str, description: str) -> None:
        Variable.set(key, value, description=description)

    def _has_variable(key: str) -> bool:
        from airflow.models import Variable as Row
        from airflow.utils.session import create_session

        with create_session() as session:
            return session.query(Row.id).filter_by(key=key).first() is not None

    def _backends_before_the_database() -> Iterator[Any]:
        from airflow.configuration import ensure_secrets_loaded
        from airflow.secrets.metastore import MetastoreBackend

        return takewhile(lambda it: not isinstance(it, MetastoreBackend), ensure_secrets_loaded())

else:

    def tokens_page(key: str) -> str:
        """Where a person sees the token in a Variable."""
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/plugin/{PAGE}#{quote(key)}"

    def trigger_at(moment: datetime) -> Any:  # noqa: ANN401 - a trigger, of either generation
        """What ends a deferral at this time."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        return DateTimeTrigger(moment)

    def update_asset(context: Context, alias: AssetAlias, asset: Asset, extra: Any) -> None:  # noqa: ANN401 - JSON
        """Have Airflow update an asset through its alias when the task has succeeded."""
        context["outlet_events"][alias].add(asset, extra=extra)

    def asked_at(context: Context) -> datetime:
        """When somebody, or the schedule, asked for this run."""
        asked: datetime = context["dag_run"].run_after
        return asked

    def _value_of(key: str) -> str | None:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

        try:
            return str(Variable.get(key))
        except AirflowRuntimeError as error:
            if error.error.error is ErrorType.VARIABLE_NOT_FOUND:
                return None
            raise

    if hasattr(Variable, "keys"):

        def _set_variable(key: str, value: str, description: str) -> None:
            Variable.set(key, value, description=description)

        def _has_variable(key: str) -> bool:
            return key in Variable.keys(prefix=key)

    else:  # 3.1 and 3.2 list no keys, and their `Variable` hides an outage

        def _set_variable(key: str, value: str, description: str) -> None:
            from airflow.sdk.execution_time import comms, task_runner

            message = comms.PutVariable(key=key, value=value, description=description)
            task_runner.SUPERVISOR_COMMS.send(message)

        def _has_variable(key: str) -> bool:
            from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
            from airflow.sdk.execution_time import comms, task_runner

            answer = task_runner.SUPERVISOR_COMMS.send(comms.GetVariable(key=key))
            if not isinstance(answer, comms.ErrorResponse):
                return True
            if answer.error is ErrorType.VARIABLE_NOT_FOUND:
                return False
            raise AirflowRuntimeError(answer)

    def _backends_before_the_database() -> Iterator[Any]:
        from airflow.sdk.execution_time.secrets.execution_api import ExecutionAPISecretsBackend
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        return takewhile(
            lambda it: not isinstance(it, ExecutionAPISecretsBackend),
            ensure_secrets_backend_loaded(),
        )


def _answer(doing: str, ask: Callable[[], T]) -> T:
    """What `ask` answers; whatever it raises is told by its type alone, and is no context."""
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - what a secrets backend raises is its own affair
        kind = type(error).__name__
    raise StoreUnavailable(
        f"{doing} failed with {kind}.",
        advice="It is tried again; if it stays so, see the log of Airflow's API server.",
    )
