"""Every difference between generations of Airflow that its web server shows, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagRunAlreadyExists
from airflow.models import DagModel, DagRun
from sqlalchemy.exc import IntegrityError

from flowauth_rotator.provider.compat import AIRFLOW_2, XCom, for_this_airflow

if TYPE_CHECKING or not AIRFLOW_2:  # types are checked against Airflow 3
    from airflow.models.xcom import XComModel as XComRow
else:
    from airflow.models.xcom import BaseXCom as XComRow

__all__ = ["Pages", "XComRow", "asked_at", "asked_by", "is_there", "start_run", "value_of"]


def value_of(row: Any) -> Any:  # noqa: ANN401 - columns of an `XComRow`; JSON
    """What a task pushed, by way of the XCom backend that is configured."""
    return XCom.deserialize_value(row)


def asked_at(run: DagRun) -> datetime:
    """When somebody asked for a run."""
    asked: Any = run.queued_at or run.start_date
    return asked  # type: ignore[no-any-return]


class _Dags:
    def dag(self, dag_id: str) -> str:
        """A DAG."""
        return f"dags/{quote(dag_id, safe='')}"


class _Pages2(_Dags):
    """Where Airflow shows what, relative to its own address."""

    def run(self, dag_id: str, run_id: str) -> str:
        """A run."""
        return f"{self.dag(dag_id)}/grid?{urlencode({'dag_run_id': run_id})}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """What a task did, and its log."""
        which = {"task_id": task_id, "map_index": map_index, "tab": "logs"}
        return f"{self.run(dag_id, run_id)}&{urlencode(which)}"

    def variable(self, key: str) -> str:
        """A Variable."""
        return f"variable/list/?{urlencode({'_flt_3_key': key})}"

    def import_errors(self) -> str:
        """Why files of DAGs are broken."""
        return "home"


class _Pages3(_Dags):
    """Where Airflow shows what, relative to its own address."""

    def run(self, dag_id: str, run_id: str) -> str:
        """A run."""
        return f"{self.dag(dag_id)}/runs/{quote(run_id, safe='')}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """What a task did, and its log."""
        return f"{self.run(dag_id, run_id)}/tasks/{task_id}/mapped/{map_index}"

    def variable(self, key: str) -> str:
        """A Variable."""
        return f"variables?{urlencode({'name_pattern': key})}"

    def import_errors(self) -> str:
        """Why files of DAGs are broken."""
        return ""


Pages: Any = for_this_airflow(two=_Pages2, three=_Pages3)

if AIRFLOW_2:

    def is_there(dag: DagModel) -> bool:
        """Whether the file of the DAG still has it."""
        return bool(dag.is_active)  # type: ignore[attr-defined, unused-ignore]

    def asked_by(run: DagRun) -> str | None:  # noqa: ARG001
        """Who started a run; Airflow 2 knows it only in its audit log."""
        return None

    def start_run(
        dag_id: str,
        run_id: str,
        conf: dict[str, Any],
        *,
        user: str,  # noqa: ARG001
        now: datetime,
    ) -> None:
        """Start a run in somebody's name, unless there is one of this id."""
        for number in range(100):  # no two runs of a DAG may be of one moment
            if DagRun.find(dag_id=dag_id, run_id=run_id):
                return
            with suppress(DagRunAlreadyExists, IntegrityError):
                trigger_dag(  # type: ignore[call-arg, unused-ignore]
                    dag_id,
                    run_id=run_id,
                    conf=conf,
                    execution_date=now + timedelta(microseconds=number),
                    replace_microseconds=False,
                )

else:

    def is_there(dag: DagModel) -> bool:
        """Whether the file of the DAG still has it."""
        return not dag.is_stale

    def asked_by(run: DagRun) -> str | None:
        """Who started a run."""
        return run.triggering_user_name

    def start_run(
        dag_id: str, run_id: str, conf: dict[str, Any], *, user: str, now: datetime
    ) -> None:
        """Start a run in somebody's name, unless there is one of this id."""
        from airflow.utils.types import DagRunTriggeredByType

        with suppress(DagRunAlreadyExists, IntegrityError):
            trigger_dag(
                dag_id,
                run_id=run_id,
                conf=conf,
                run_after=now,
                triggered_by=DagRunTriggeredByType.REST_API,
                triggering_user_name=user,
            )
