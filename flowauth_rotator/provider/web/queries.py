"""The database queries: rotation DAGs, runs from the page, status documents, tokens in use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from airflow.models import DagModel, DagRun, TaskInstance, Variable
from airflow.models.dag import DagTag
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring.status import (
    Event,
    InvalidStatus,
    RotationDagStatus,
    StatusDocument,
    merge,
)
from flowauth_rotator.provider.assets import ASSET_SCHEME
from flowauth_rotator.provider.compat import build_unreadable_error
from flowauth_rotator.provider.managed_tokens import TAG
from flowauth_rotator.provider.status_variable import KEY_PREFIX, build_key
from flowauth_rotator.provider.variable_store import VariableStore, parse_value
from flowauth_rotator.provider.web.compat import (
    get_request_time,
    get_requester,
    is_active,
    select_scheduled_dags,
)
from flowauth_rotator.provider.web.page_runs import (
    PREFIX,
    PREFIX_LENGTH,
    PageRun,
    find_step,
    is_run_id,
)

PageRuns = dict[tuple[str, str], PageRun]  # by DAG and by the prefix of a Variable's run ids


def read_dags(session: Session) -> list[RotationDagStatus]:
    """Return the live facts of all rotation DAGs, also of those whose file is gone."""
    tagged = select(DagTag.dag_id).where(DagTag.name == TAG)
    rows = session.scalars(select(DagModel).where(DagModel.dag_id.in_(tagged)))
    return [_build_dag(row) for row in rows]


def read_page_runs(session: Session, dag_ids: Collection[str]) -> PageRuns:
    """Return the last run of each Variable and DAG that a user started from the page."""
    rank = func.row_number().over(
        partition_by=(DagRun.dag_id, func.substr(DagRun.run_id, 1, PREFIX_LENGTH)),
        order_by=DagRun.id.desc(),
    )
    ranked = (
        select(DagRun.id, rank.label("rank"))
        .where(DagRun.dag_id.in_(dag_ids), DagRun.run_id.startswith(PREFIX))
        .subquery()
    )
    last = select(ranked.c.id).where(ranked.c.rank == 1)
    runs = {
        (run.dag_id, run.run_id[:PREFIX_LENGTH]): PageRun(
            run_id=run.run_id,
            state=str(run.state),
            requested_at=get_request_time(run),
            requested_by=get_requester(run),
            is_rehearsal=bool(run.conf and run.conf.get("dry_run")),
        )
        for run in session.scalars(select(DagRun).where(DagRun.id.in_(last)))
        if is_run_id(run.run_id)
    }
    return _add_steps(session, runs)


def read_scheduled_dags(session: Session) -> dict[str, list[str]]:
    """Return the ids of the DAGs that are scheduled on the asset of a token, by its URI."""
    dag_ids: dict[str, list[str]] = {}
    for uri, dag_id in session.execute(select_scheduled_dags(ASSET_SCHEME)):
        dag_ids.setdefault(uri, []).append(dag_id)
    return dag_ids


def read_documents(session: Session, dag_ids: Collection[str], now: datetime) -> StatusDocument:
    """Return the status documents of all rotation DAGs as one.

    A document that is not of this version is left out. One that cannot be decrypted is a failure of
    its DAG.

    Args:
        session: the session.
        dag_ids: the rotation DAGs that Airflow knows.
        now: an aware time.
    """
    condition = Variable.key.startswith(KEY_PREFIX, autoescape=True)
    by_key = {build_key(dag_id): dag_id for dag_id in dag_ids}
    documents = []
    for row in _select_variables(session, condition):
        text = _decrypt(row)
        if text is None and row.key in by_key:
            documents.append(_build_unreadable_document(by_key[row.key], row.key, now))
        with suppress(InvalidStatus):
            document = _load_document(text or "")
            if _is_key_of(row.key, document):  # and not a copy of another DAG's document
                documents.append(document)
    return merge(documents)


def _build_unreadable_document(dag_id: str, key: str, now: datetime) -> StatusDocument:
    failure = Event(
        now,
        Outcome.UNAVAILABLE,
        Severity.WARNING,
        f"Variable {key}, which has the status of the tokens, cannot be decrypted.",
        "Give the web server and the workers the same `fernet_key`. If the key was changed, the "
        "next check stores the status again.",
    )
    return StatusDocument([RotationDagStatus(dag_id, failure=failure)])


def read_tokens(session: Session, keys: Collection[str]) -> dict[str, VariableStore]:
    """Return the Variables with these keys as stores; one that does not exist is empty."""
    rows = {row.key: row for row in _select_variables(session, Variable.key.in_(keys))}
    return {key: _StoredVariable(key, rows.get(key)) for key in keys}


class _StoredVariable(VariableStore):
    """A Variable as a row of the database, for the web server, which only reads it."""

    def __init__(self, key: str, row: Any) -> None:  # noqa: ANN401 - columns, or None
        super().__init__(key)
        self._row = row

    def read(self) -> Token:
        if self._row is None:
            return parse_value(self.key, None)
        value = _decrypt(self._row)
        if value is None:
            raise build_unreadable_error(self.key)
        return parse_value(self.key, value)


def _add_steps(session: Session, runs: PageRuns) -> PageRuns:
    """Return the runs with the steps that the active ones are at."""
    active = {key: run for key, run in runs.items() if run.is_active}
    if not active:
        return runs
    states: dict[tuple[str, str], dict[str, list[str | None]]] = defaultdict(dict)
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.state)
    condition = (
        TaskInstance.dag_id.in_({dag_id for dag_id, _ in active}),
        TaskInstance.run_id.in_({run.run_id for run in active.values()}),
    )
    for dag_id, run_id, task_id, state in session.execute(select(*columns).where(*condition)):
        states[dag_id, run_id].setdefault(task_id, []).append(state)
    steps = {
        (dag_id, prefix): replace(
            run, step="queued" if run.state == "queued" else find_step(states[dag_id, run.run_id])
        )
        for (dag_id, prefix), run in active.items()
    }
    return {**runs, **steps}


def _build_dag(dag: DagModel) -> RotationDagStatus:
    status = RotationDagStatus(
        dag.dag_id,
        exists=is_active(dag),
        is_paused=bool(dag.is_paused),
        has_import_error=bool(dag.has_import_errors),
    )
    next_check_at = dag.next_dagrun_create_after if status.is_scheduled else None
    return replace(status, next_check_at=next_check_at)


def _select_variables(session: Session, condition: ColumnElement[bool]) -> Iterator[Any]:
    # Columns, since loading a whole Variable registers its value with Airflow's secrets masker,
    # whose cost grows with the square of the number of values.
    columns = select(Variable.key, Variable._val, Variable.is_encrypted)
    yield from session.execute(columns.where(condition))


@lru_cache(maxsize=16)
def _load_document(text: str) -> StatusDocument:
    """Parse a status document, once until its DAG has written another one."""
    return StatusDocument.load(text)


def _decrypt(row: Any) -> str | None:  # noqa: ANN401 - columns
    """Return the value of a Variable; None if it cannot be decrypted."""
    variable: Any = Variable()  # type: ignore[no-untyped-call]
    variable._val, variable.is_encrypted = row._val, row.is_encrypted
    value: str | None = variable.get_val()
    return value


def _is_key_of(key: str, document: StatusDocument) -> bool:
    return [build_key(dag.dag_id) for dag in document.dags or ()] == [key]
