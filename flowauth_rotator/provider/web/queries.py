"""The database queries for rotation DAGs, their runs and results, and the tokens in use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from airflow.models import DagModel, DagRun, Variable
from airflow.models.dag import DagTag
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement, Select

from flowauth_rotator.agent.rotation import Inspection, inspect_token
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.assets import OUTCOME_KEY_PREFIX
from flowauth_rotator.provider.compat import build_unreadable_error
from flowauth_rotator.provider.managed_tokens import (
    LIST_VARIABLE,
    LONGEST_LABEL,
    LONGEST_RUN,
    NO_REPORT,
    TAG,
    ManagedToken,
    parse_tokens,
)
from flowauth_rotator.provider.schedule import Schedule, compute_deadline
from flowauth_rotator.provider.variable_store import (
    VariableStore,
    format_place,
    parse_place,
    parse_value,
)
from flowauth_rotator.provider.web.compat import (
    XComRow,
    deserialize_value,
    get_request_time,
    get_requester,
    is_active,
)
from flowauth_rotator.provider.web.managed import Attempt, RotationDag, Run

SURVEYS_READ = 8  # the last ones, since a run may check a part of the tokens only
ATTEMPTS_READ = 2  # for each token, of the succeeded and of the failed ones
PAGE_RUN_PREFIX = "renew-"  # of the ids of runs that a user started from the page
SCHEDULED_RUN_PREFIX = "scheduled__"
PREFIX_LENGTH = len(PAGE_RUN_PREFIX) + 13
SURVEY_RESULT_TYPES = {"managed": dict, "report": list, "failure": str}  # by XCom key
_BELONGS_TO_TASK = and_(
    XComRow.dag_id == TaskInstance.dag_id,
    XComRow.run_id == TaskInstance.run_id,
    XComRow.task_id == TaskInstance.task_id,
    XComRow.map_index == TaskInstance.map_index,
)


def read_dags(session: Session) -> list[RotationDag]:
    """Return all rotation DAGs."""
    tagged = select(DagTag.dag_id).where(DagTag.name == TAG)
    dags = select(DagModel).where(DagModel.dag_id.in_(tagged)).order_by(DagModel.dag_id)
    return [_read_dag(session, dag) for dag in session.scalars(dags)]


def inspect_tokens(
    session: Session, tokens: Iterable[ManagedToken], now: datetime
) -> list[Inspection | RotatorError]:
    """Return the inspection of each token, or the error that prevented it."""
    tokens = list(tokens)
    keys = {token.variable for token in tokens}
    # Columns, since loading a whole Variable registers its value with Airflow's secrets masker,
    # whose cost grows with the square of the number of values.
    columns = select(Variable.key, Variable._val, Variable.is_encrypted)
    rows = {row.key: row for row in session.execute(columns.where(Variable.key.in_(keys)))}
    inspections: list[Inspection | RotatorError] = []
    for token in tokens:
        store = _StoredVariable(token.variable, rows.get(token.variable))
        try:
            inspections.append(inspect_token(store, token.policy, now=now, name=token.name))
        except RotatorError as error:
            inspections.append(error)
    return inspections


def count_rotations(session: Session, dag_id: str) -> dict[str, dict[str, int]]:
    """Count the ended rotations by task label and outcome; unavailable if without a report.

    A task that Airflow retries is not counted before its last attempt: each attempt clears the
    XComs of the one before it, and a counter must not fall.
    """
    label: Any = TaskInstance.rendered_map_index
    query = (
        select(label.label("label"), XComRow.key, func.count().label("count"))
        .outerjoin(
            XComRow,
            and_(_BELONGS_TO_TASK, XComRow.key.startswith(OUTCOME_KEY_PREFIX, autoescape=True)),
        )
        .where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.task_id == "rotate",
            or_(
                TaskInstance.state == "failed",
                and_(TaskInstance.state == "success", XComRow.key.is_not(None)),
            ),
            label.is_not(None),
        )
        .group_by(label, XComRow.key)
    )
    counts: dict[str, dict[str, int]] = {}
    for row in session.execute(query).mappings():
        key = row["key"]
        outcome = key.removeprefix(OUTCOME_KEY_PREFIX) if key else Outcome.UNAVAILABLE
        by_outcome = counts.setdefault(row["label"], {})
        by_outcome[outcome] = by_outcome.get(outcome, 0) + row["count"]
    return counts


def build_next_run_id(variable: str, last: Run | None) -> str:
    """Return the id of the run after `last`: the same for all requests that saw the same run."""
    number = _get_run_number(last.run_id) + 1 if last else 1
    return f"{_build_run_prefix(variable)}{number}"


def _build_run_prefix(variable: str) -> str:
    """Return the prefix of the ids of a Variable's runs that were started from the page."""
    return f"{PAGE_RUN_PREFIX}{hashlib.sha256(variable.encode()).hexdigest()[:12]}-"


def _get_run_number(run_id: str) -> int:
    return int(run_id[PREFIX_LENGTH:])


class _StoredVariable(VariableStore):
    """A Variable as a row of the database, for the web server, which only reads it."""

    def __init__(self, key: str, row: Any) -> None:  # noqa: ANN401 - columns, or None
        super().__init__(key)
        self._row = row

    def read(self) -> Token:
        if self._row is None:
            return parse_value(self.key, None)
        variable: Any = Variable()  # type: ignore[no-untyped-call]
        variable._val, variable.is_encrypted = self._row._val, self._row.is_encrypted
        value = variable.get_val()
        if value is None:
            raise build_unreadable_error(self.key)
        return parse_value(self.key, value)


@dataclass(frozen=True)
class SurveyResult:
    """An XCom that a survey pushed.

    Attributes:
        run_id: the run.
        key: managed (schedule and settings), report (of each token) or failure (the message).
        pushed_at: when.
        condition: selects its row in the database.
        session: the session of the database.
    """

    run_id: str
    key: str
    pushed_at: datetime
    condition: ColumnElement[bool]
    session: Session

    @cached_property
    def value(self) -> Any:  # noqa: ANN401 - JSON
        """The value, which may be long, loaded on first access; None if it cannot be read."""
        row = self.session.execute(select(XComRow.value).where(self.condition)).first()
        value = _read_value(row) if row else None
        return value if isinstance(value, SURVEY_RESULT_TYPES[self.key]) else None


def _read_dag(session: Session, dag: DagModel) -> RotationDag:
    checks = _read_survey_results(session, dag.dag_id, "report", SURVEYS_READ)
    failures = _read_survey_results(session, dag.dag_id, "failure", SURVEYS_READ)
    tokens, schedule = _read_settings(session, dag.dag_id)
    last_check = next((check for check in checks if check.value is not None), None)
    checked_at = last_check.pushed_at if last_check else None
    failure = _find_failure(failures, checked_at)
    reports = _find_last_reports(checks, {token.variable for token in tokens})
    variables = {token.name or token.variable: token.variable for token in tokens}
    variables |= {report.name: variable for variable, report in reports.items()}
    return RotationDag(
        dag_id=dag.dag_id,
        exists=is_active(dag),
        has_import_error=bool(dag.has_import_errors),
        is_paused=bool(dag.is_paused),
        schedule=schedule,
        next_run_at=dag.next_dagrun_create_after,
        deadline_at=_compute_deadline(session, dag.dag_id, schedule, checked_at),
        checked_at=checked_at,
        failed_at=failure.pushed_at if failure else None,
        failure=failure.value if failure else "",
        tokens=tokens,
        notices=_build_notices(last_check),
        reports=reports,
        attempts=_read_attempts(session, dag.dag_id, variables),
        runs=_read_runs(
            session, dag.dag_id, [token.variable for token in tokens], [*checks, *failures]
        ),
    )


def _read_settings(session: Session, dag_id: str) -> tuple[list[ManagedToken], Schedule]:
    """Return the managed tokens and the schedule that the last survey read."""
    results = _read_survey_results(session, dag_id, "managed", 1)
    settings: dict[str, Any] = (results[0].value if results else None) or {}
    tokens, _ = parse_tokens(json.dumps(settings.get("tokens", [])))
    schedule = settings.get("schedule")
    if isinstance(schedule, (int, float)):
        schedule = timedelta(seconds=schedule)
    return tokens, schedule


def _find_failure(
    failures: Iterable[SurveyResult], checked_at: datetime | None
) -> SurveyResult | None:
    """Return the last failure of a scheduled check, if no check has succeeded since."""
    for failure in failures:
        if failure.run_id.startswith(SCHEDULED_RUN_PREFIX) and failure.value is not None:
            return None if checked_at and failure.pushed_at <= checked_at else failure
    return None


def _build_notices(check: SurveyResult | None) -> list[str]:
    """Return the messages of a check about invalid entries of the list Variable."""
    return [
        f"{report.message} {report.hint}".strip()
        for report in (_parse_reports(check.value) if check else ())
        if parse_place(report.place) == LIST_VARIABLE
    ]


def _compute_deadline(
    session: Session, dag_id: str, schedule: Schedule, checked_at: datetime | None
) -> datetime | None:
    """Return when two checks are missed; None if unknown.

    A run that is still active after its check delays later runs, up to the longest duration of a
    run. A run whose check has not ended does not count: it may wait for a worker for ever.
    """
    if checked_at is None:
        return None
    running = select(func.max(DagRun.start_date)).where(
        DagRun.dag_id == dag_id, DagRun.state == "running", DagRun.start_date <= checked_at
    )
    started_at = session.scalar(running)
    if started_at:
        checked_at = max(checked_at, started_at + LONGEST_RUN)
    return compute_deadline(schedule, checked_at)


def _read_survey_results(session: Session, dag_id: str, key: str, limit: int) -> list[SurveyResult]:
    """Return the last XComs of the surveys with this key, the newest first."""
    # The rows are selected first: in a row the timestamp follows the value, which may be long.
    primary_key = (XComRow.dag_run_id, XComRow.task_id, XComRow.map_index, XComRow.key)
    last = (
        select(*primary_key)
        .where(XComRow.dag_id == dag_id, XComRow.task_id == "survey", XComRow.key == key)
        .order_by(XComRow.dag_run_id.desc())
        .limit(limit)
        .subquery()
    )
    query = (
        select(XComRow.run_id, XComRow.timestamp, *primary_key)
        .join(last, and_(*(column == last.c[column.key] for column in primary_key)))
        .order_by(XComRow.dag_run_id.desc())
    )
    return [
        SurveyResult(
            row.run_id,
            row.key,
            row.timestamp,
            and_(*(column == row._mapping[column.key] for column in primary_key)),
            session,
        )
        for row in session.execute(query)
    ]


def _find_last_reports(checks: Iterable[SurveyResult], variables: set[str]) -> dict[str, Report]:
    """Return the last report of each of these Variables, reading as few checks as needed."""
    reports: dict[str, Report] = {}
    for check in checks:
        new = [document for document in check.value or () if _get_variable(document) not in reports]
        for report in _parse_reports(new):
            reports.setdefault(parse_place(report.place), report)
        if variables <= reports.keys():
            break
    return reports


def _read_attempts(
    session: Session, dag_id: str, variables: Mapping[str, str]
) -> dict[str, list[Attempt]]:
    """Return the last rotations of each token, by Variable, the newest first.

    The label of a task is the token's name, possibly cut off. A task that failed without a report
    gets a report that says so.

    Args:
        session: the session of the database.
        dag_id: the DAG.
        variables: the Variables by the names of their tokens.
    """
    by_label = {name[:LONGEST_LABEL]: variable for name, variable in variables.items()}
    attempts: dict[str, list[Attempt]] = {}
    for row in session.execute(_select_last_attempts(dag_id)):
        reports = list(_parse_reports([_read_value(row)])) if row.value is not None else []
        if not reports and row.started_at and row.label in by_label:
            reports = [
                Report(
                    row.label,
                    format_place(by_label[row.label]),
                    Outcome.UNAVAILABLE,
                    NO_REPORT,
                    row.started_at,
                    Severity.WARNING,
                )
            ]
        for report in reports:
            attempt = Attempt(row.run_id, row.map_index, report)
            attempts.setdefault(parse_place(report.place), []).append(attempt)
    return attempts


def _select_last_attempts(dag_id: str) -> Select[Any]:
    label: Any = TaskInstance.rendered_map_index
    started_at = func.coalesce(TaskInstance.start_date, TaskInstance.end_date)
    rank = func.row_number().over(
        partition_by=(label, TaskInstance.state), order_by=started_at.desc()
    )
    ranked = (
        select(
            TaskInstance.run_id,
            TaskInstance.map_index,
            label.label("label"),
            started_at.label("started_at"),
            XComRow.value,
            rank.label("rank"),
        )
        .outerjoin(XComRow, and_(_BELONGS_TO_TASK, XComRow.key == "report"))
        .where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.task_id == "rotate",
            or_(XComRow.key.is_not(None), TaskInstance.state == "failed"),
        )
        .subquery()
    )
    last = select(ranked).where(ranked.c.rank <= ATTEMPTS_READ)
    return last.order_by(ranked.c.started_at.desc())


def _read_runs(
    session: Session, dag_id: str, variables: Iterable[str], results: Sequence[SurveyResult]
) -> dict[str, Run]:
    """Return the last run of each Variable that a user started from the page."""
    page_runs = select(DagRun.id, DagRun.run_id).where(
        DagRun.dag_id == dag_id, DagRun.run_id.startswith(PAGE_RUN_PREFIX)
    )
    last: dict[str, tuple[int, int]] = {}  # by prefix: the highest number, and the row's id
    for row_id, run_id in session.execute(page_runs):
        if run_id[PREFIX_LENGTH:].isdecimal():
            prefix = run_id[:PREFIX_LENGTH]
            last[prefix] = max(last.get(prefix, (0, 0)), (_get_run_number(run_id), row_id))
    last_runs = select(DagRun).where(DagRun.id.in_([row_id for _, row_id in last.values()]))
    by_prefix = {run.run_id[:PREFIX_LENGTH]: run for run in session.scalars(last_runs)}
    return {
        variable: Run(
            run_id=run.run_id,
            state=str(run.state),
            requested_at=get_request_time(run),
            requested_by=get_requester(run),
            survey_reason=_find_survey_reason(run.run_id, variable, results),
        )
        for variable in variables
        if (run := by_prefix.get(_build_run_prefix(variable)))
    }


def _find_survey_reason(run_id: str, variable: str, results: Sequence[SurveyResult]) -> str:
    """Return the message in the report of a run's survey about a token, or of its failure."""
    for result in results:
        if result.run_id != run_id or result.value is None:
            continue
        if result.key == "failure":
            return str(result.value)
        if result.key == "report":
            for report in _parse_reports(result.value):
                if parse_place(report.place) == variable:
                    return report.message
    return ""


def _parse_reports(documents: Iterable[Any]) -> Iterator[Report]:
    """Return the reports, without those that another version wrote in another form."""
    for document in documents:
        with suppress(TypeError, ValueError, KeyError, AttributeError):
            yield Report.from_json(document)


def _get_variable(document: object) -> str | None:
    """Return the Variable of a report in JSON; None if the document is not a report."""
    place = document.get("place") if isinstance(document, dict) else None
    return parse_place(place) if isinstance(place, str) else None


def _read_value(row: Any) -> Any:  # noqa: ANN401 - columns of an XCom; JSON
    """Return the value that a task pushed; None if the XCom backend cannot read it."""
    with suppress(Exception):  # depends on the XCom backend
        return deserialize_value(row)
    return None
