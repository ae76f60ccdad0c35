"""Every difference between Airflow generations in the web server, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from airflow.api.common.trigger_dag import trigger_dag
from airflow.exceptions import DagRunAlreadyExists
from airflow.models import DagModel, DagRun
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from flowauth_rotator.provider.compat import AIRFLOW_2, conf, select_for_airflow

__all__ = [
    "Pages",
    "get_request_time",
    "get_requester",
    "get_time_zone",
    "is_active",
    "select_scheduled_dags",
    "start_run",
]


def get_request_time(run: DagRun) -> datetime:
    """Return the time at which a run was requested."""
    time: Any = run.queued_at or run.start_date
    return time  # type: ignore[no-any-return]


def get_time_zone() -> str | None:
    """Return the time zone of Airflow's UI by its configuration; None if it is not known."""
    section = select_for_airflow(airflow_2="webserver", airflow_3="api")
    name = conf.get(section, "default_ui_timezone", fallback="") or conf.get(
        "core", "default_timezone", fallback=""
    )
    if name.lower() == "utc":
        return "UTC"
    try:
        return ZoneInfo(name).key
    except (KeyError, OSError, ValueError):  # also for `system`
        return None


class _CommonPages:
    def dag(self, dag_id: str) -> str:
        """Return the URL of a DAG."""
        return f"dags/{quote(dag_id, safe='')}"


class _Airflow2Pages(_CommonPages):
    """The URLs of Airflow's pages, relative to Airflow's root."""

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the URL of a run."""
        return f"{self.dag(dag_id)}/grid?{urlencode({'dag_run_id': run_id})}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Return the URL of a task and its log."""
        query = {"task_id": task_id, "map_index": map_index, "tab": "logs"}
        return f"{self.run(dag_id, run_id)}&{urlencode(query)}"

    def variable(self, key: str) -> str:
        """Return the URL of a Variable."""
        return f"variable/list/?{urlencode({'_flt_3_key': key})}"

    def import_errors(self) -> str:
        """Return the URL of the import errors of DAG files."""
        return "home"


class _Airflow3Pages(_CommonPages):
    """The URLs of Airflow's pages, relative to Airflow's root."""

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the URL of a run."""
        return f"{self.dag(dag_id)}/runs/{quote(run_id, safe='')}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Return the URL of a task and its log."""
        url = f"{self.run(dag_id, run_id)}/tasks/{task_id}"
        return f"{url}/mapped/{map_index}" if map_index >= 0 else url

    def variable(self, key: str) -> str:
        """Return the URL of a Variable."""
        return f"variables?{urlencode({'name_pattern': key})}"

    def import_errors(self) -> str:
        """Return the URL of the import errors of DAG files."""
        return ""


Pages: Any = select_for_airflow(airflow_2=_Airflow2Pages, airflow_3=_Airflow3Pages)

if AIRFLOW_2:

    def is_active(dag: DagModel) -> bool:
        """Whether the DAG file still defines the DAG."""
        return bool(dag.is_active)  # type: ignore[attr-defined, unused-ignore]

    def select_scheduled_dags(prefix: str) -> Any:  # noqa: ANN401 - a query, typed by version
        """Return the query of the URIs of assets with this prefix, and of the DAGs on them."""
        from airflow.models.dataset import (  # type: ignore[import-not-found, unused-ignore]
            DagScheduleDatasetReference,
            DatasetModel,
        )

        return (
            select(DatasetModel.uri, DagScheduleDatasetReference.dag_id)
            .join(
                DagScheduleDatasetReference,
                DagScheduleDatasetReference.dataset_id == DatasetModel.id,
            )
            .join(DagModel, DagModel.dag_id == DagScheduleDatasetReference.dag_id)
            .where(DatasetModel.uri.startswith(prefix), DagModel.is_active)  # type: ignore[attr-defined, unused-ignore]
            .order_by(DagScheduleDatasetReference.dag_id)
        )

    def get_requester(run: DagRun) -> str | None:  # noqa: ARG001
        """Return None: Airflow 2 records the user who started a run only in its audit log."""
        return None

    def start_run(
        dag_id: str,
        run_id: str,
        conf: dict[str, Any],
        *,
        user: str,  # noqa: ARG001
        now: datetime,
    ) -> None:
        """Start a run on behalf of a user, unless a run with this id exists."""
        for number in range(100):  # two runs of a DAG may not have the same logical date
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

    def is_active(dag: DagModel) -> bool:
        """Whether the DAG file still defines the DAG."""
        return not dag.is_stale

    def select_scheduled_dags(prefix: str) -> Any:  # noqa: ANN401 - a query, typed by version
        """Return the query of the URIs of assets with this prefix, and of the DAGs on them."""
        from airflow.models.asset import AssetModel, DagScheduleAssetReference

        return (
            select(AssetModel.uri, DagScheduleAssetReference.dag_id)
            .join(DagScheduleAssetReference, DagScheduleAssetReference.asset_id == AssetModel.id)
            .join(DagModel, DagModel.dag_id == DagScheduleAssetReference.dag_id)
            .where(AssetModel.uri.startswith(prefix), ~DagModel.is_stale)
            .order_by(DagScheduleAssetReference.dag_id)
        )

    def get_requester(run: DagRun) -> str | None:
        """Return the user who started a run."""
        return run.triggering_user_name

    def start_run(
        dag_id: str, run_id: str, conf: dict[str, Any], *, user: str, now: datetime
    ) -> None:
        """Start a run on behalf of a user, unless a run with this id exists."""
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
