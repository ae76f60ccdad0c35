"""What Airflow's database holds of the rotations, and of the tokens in use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
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
from sqlalchemy.sql import ColumnElement

from flowauth_rotator.agent.rotation import Check, check
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.assets import OUTCOME
from flowauth_rotator.provider.compat import unreadable
from flowauth_rotator.provider.managed_tokens import (
    LIST_VARIABLE,
    LONGEST_LABEL,
    LONGEST_RUN,
    LOST,
    TAG,
    ManagedToken,
    read_tokens,
)
from flowauth_rotator.provider.schedule import Schedule, deadline
from flowauth_rotator.provider.variable_store import VariableStore, key_of, place_of, token_in
from flowauth_rotator.provider.web.compat import XComRow, asked_at, asked_by, is_there, value_of
from flowauth_rotator.provider.web.managed import Agent, Attempt, Run

SURVEYS_READ = 8  # the last ones, since one of a run by hand may look at some tokens only
ATTEMPTS_READ = 2  # of each token, of those that ended well and of those that did not
STARTED_HERE = "renew-"  # begins the id of each run that was started from the page
SAID = {"managed": dict, "report": list, "failure": str}  # by surveys
SCHEDULED = "scheduled__"  # begins the id of each run of the schedule
PREFIX_LENGTH = len(STARTED_HERE) + 13
_IS_PUSHED_BY_IT = and_(
    XComRow.dag_id == TaskInstance.dag_id,
    XComRow.run_id == TaskInstance.run_id,
    XComRow.task_id == TaskInstance.task_id,
    XComRow.map_index == TaskInstance.map_index,
)


def read_agents(session: Session) -> list[Agent]:
    """All DAGs that keep tokens alive."""
    tagged = select(DagTag.dag_id).where(DagTag.name == TAG)
    dags = select(DagModel).where(DagModel.dag_id.in_(tagged)).order_by(DagModel.dag_id)
    return [_agent(session, dag) for dag in session.scalars(dags)]


def read_in_use(
    session: Session, tokens: Iterable[ManagedToken], now: datetime
) -> list[Check | RotatorError]:
    """Of each token what is in use and where it stands, or why nobody can tell."""
    tokens = list(tokens)
    keys = {token.variable for token in tokens}
    # Columns: a Variable that is loaded whole makes Airflow's masker learn its value, at a cost
    # that grows with the square of what it knows.
    columns = select(Variable.key, Variable._val, Variable.is_encrypted)
    stored = {row.key: row for row in session.execute(columns.where(Variable.key.in_(keys)))}
    found: list[Check | RotatorError] = []
    for token in tokens:
        variable = _StoredVariable(token.variable, stored.get(token.variable))
        try:
            found.append(check(variable, token.policy, now=now, name=token.name))
        except RotatorError as error:
            found.append(error)
    return found


def read_rotations(session: Session, dag_id: str) -> dict[str, dict[str, int]]:
    """How many rotations of each label ended with each outcome; unavailable, if without a report.

    Those that Airflow tries again are not counted before their last try: each try forgets what the
    one before it pushed, and a counter must not fall.
    """
    label: Any = TaskInstance.rendered_map_index
    ended = (
        select(label.label("label"), XComRow.key, func.count().label("ended"))
        .outerjoin(
            XComRow, and_(_IS_PUSHED_BY_IT, XComRow.key.startswith(OUTCOME, autoescape=True))
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
    for row in session.execute(ended):
        outcome = row.key.removeprefix(OUTCOME) if row.key else Outcome.UNAVAILABLE
        by_outcome = counts.setdefault(row.label, {})
        by_outcome[outcome] = by_outcome.get(outcome, 0) + row.ended
    return counts


def next_run_id(variable: str, last: Run | None) -> str:
    """The id of the run after the last one: two who have seen the same ask for the same run."""
    number = _number(last.run_id) + 1 if last else 1
    return f"{_prefix(variable)}{number}"


def _prefix(variable: str) -> str:
    """How the ids of the runs begin that were started from the page for a Variable's token."""
    return f"{STARTED_HERE}{hashlib.sha256(variable.encode()).hexdigest()[:12]}-"


def _number(run_id: str) -> int:
    return int(run_id[PREFIX_LENGTH:])


class _StoredVariable(VariableStore):
    """The same as the web server has it: a row of the database, which it only reads."""

    def __init__(self, key: str, row: Any) -> None:  # noqa: ANN401 - columns, or None
        super().__init__(key)
        self._row = row

    def read(self) -> Token:
        if self._row is None:
            return token_in(self.key, None)
        variable: Any = Variable()  # type: ignore[no-untyped-call]
        variable._val, variable.is_encrypted = self._row._val, self._row.is_encrypted
        value = variable.get_val()
        if value is None:
            raise unreadable(self.key)
        return token_in(self.key, value)


@dataclass(frozen=True)
class _Said:
    """What a survey pushed.

    Attributes:
        run_id: of its run.
        key: managed (schedule and settings), report (of the tokens it kept) or failure (why).
        at: when.
        which: the row of the database that holds what.
        session: of the database.
    """

    run_id: str
    key: str
    at: datetime
    which: ColumnElement[bool]
    session: Session

    @cached_property
    def value(self) -> Any:  # noqa: ANN401 - JSON
        """What; None if nobody can tell any more. Read when asked for: that of many is long."""
        row = self.session.execute(select(XComRow.value).where(self.which)).first()
        value = _value(row) if row else None
        return value if isinstance(value, SAID[self.key]) else None


def _agent(session: Session, dag: DagModel) -> Agent:
    checks = _said(session, dag.dag_id, "report", SURVEYS_READ)
    failures = _said(session, dag.dag_id, "failure", SURVEYS_READ)
    last = _said(session, dag.dag_id, "managed", 1)
    managed: dict[str, Any] = (last[0].value if last else None) or {}
    tokens, _ = read_tokens(json.dumps(managed.get("tokens", [])))
    schedule = managed.get("schedule")
    if isinstance(schedule, (int, float)):
        schedule = timedelta(seconds=schedule)
    check = next((one for one in checks if one.value is not None), None)
    checked_at = check.at if check else None
    failed = [one for one in failures if one.run_id.startswith(SCHEDULED)]
    failure = next((one for one in failed if one.value is not None), None)
    if failure and checked_at and failure.at <= checked_at:
        failure = None
    reports = _last_reports(checks, {token.variable for token in tokens})
    called = {token.name or token.variable: token.variable for token in tokens}
    called |= {report.name: variable for variable, report in reports.items()}
    return Agent(
        dag_id=dag.dag_id,
        there=is_there(dag),
        broken=bool(dag.has_import_errors),
        paused=bool(dag.is_paused),
        schedule=schedule,
        next_check_at=dag.next_dagrun_create_after,
        late_at=_late_at(session, dag.dag_id, schedule, checked_at),
        checked_at=checked_at,
        failed_at=failure.at if failure else None,
        failure=failure.value if failure else "",
        tokens=tokens,
        notices=[
            f"{report.reason} {report.advice}".strip()
            for report in (_reports(check.value) if check else ())
            if key_of(report.place) == LIST_VARIABLE
        ],
        reports=reports,
        attempts=_attempts(session, dag.dag_id, called),
        runs=_runs(session, dag.dag_id, [token.variable for token in tokens], [*checks, *failures]),
    )


def _late_at(
    session: Session, dag_id: str, schedule: Schedule, checked_at: datetime | None
) -> datetime | None:
    """When two checks have been missed, if anybody knows the schedule.

    A run that goes on after its check holds up those after it, for as long as a run may last. One
    whose check has not ended does not: it may wait for a worker that never comes.
    """
    if checked_at is None:
        return None
    running = select(func.max(DagRun.start_date)).where(
        DagRun.dag_id == dag_id, DagRun.state == "running", DagRun.start_date <= checked_at
    )
    began = session.scalar(running)
    if began:
        checked_at = max(checked_at, began + LONGEST_RUN)
    return deadline(schedule, checked_at)


def _said(session: Session, dag_id: str, key: str, most: int) -> list[_Said]:
    """What the last surveys pushed under this key, the newest first."""
    # Which they are is found first: in a row the time lies behind the value, which may be long.
    row_is = (XComRow.dag_run_id, XComRow.task_id, XComRow.map_index, XComRow.key)
    last = (
        select(*row_is)
        .where(XComRow.dag_id == dag_id, XComRow.task_id == "survey", XComRow.key == key)
        .order_by(XComRow.dag_run_id.desc())
        .limit(most)
        .subquery()
    )
    pushed = (
        select(XComRow.run_id, XComRow.timestamp, *row_is)
        .join(last, and_(*(column == last.c[column.key] for column in row_is)))
        .order_by(XComRow.dag_run_id.desc())
    )
    return [
        _Said(
            row.run_id,
            row.key,
            row.timestamp,
            and_(*(column == row._mapping[column.key] for column in row_is)),
            session,
        )
        for row in session.execute(pushed)
    ]


def _last_reports(checks: Iterable[_Said], variables: set[str]) -> dict[str, Report]:
    """The last report of each of these Variables, as far back as is needed."""
    found: dict[str, Report] = {}
    for said in checks:
        new = [one for one in said.value or () if _variable_of(one) not in found]
        for report in _reports(new):
            found.setdefault(key_of(report.place), report)
        if variables <= found.keys():
            break
    return found


def _attempts(session: Session, dag_id: str, called: dict[str, str]) -> dict[str, list[Attempt]]:
    """The last rotations of each token, by Variable, the newest first.

    Airflow labels each task with the token's name, as far as it has room. A task that failed
    without a report stands as one that says so.

    Args:
        session: of the database.
        dag_id: the DAG.
        called: the Variables by the names of their tokens.
    """
    label: Any = TaskInstance.rendered_map_index
    began = func.coalesce(TaskInstance.start_date, TaskInstance.end_date)
    rank = func.row_number().over(partition_by=(label, TaskInstance.state), order_by=began.desc())
    ranked = (
        select(
            TaskInstance.run_id,
            TaskInstance.map_index,
            label.label("label"),
            began.label("began"),
            XComRow.value,
            rank.label("rank"),
        )
        .outerjoin(XComRow, and_(_IS_PUSHED_BY_IT, XComRow.key == "report"))
        .where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.task_id == "rotate",
            or_(XComRow.key.is_not(None), TaskInstance.state == "failed"),
        )
        .subquery()
    )
    last = select(ranked).where(ranked.c.rank <= ATTEMPTS_READ).order_by(ranked.c.began.desc())
    by_label = {name[:LONGEST_LABEL]: variable for name, variable in called.items()}
    attempts: dict[str, list[Attempt]] = {}
    for row in session.execute(last):
        told = list(_reports([_value(row)])) if row.value is not None else []
        if not told and row.began and row.label in by_label:
            place = place_of(by_label[row.label])
            told = [
                Report(row.label, place, Outcome.UNAVAILABLE, LOST, row.began, Severity.WARNING)
            ]
        for report in told:
            attempt = Attempt(row.run_id, row.map_index, report)
            attempts.setdefault(key_of(report.place), []).append(attempt)
    return attempts


def _runs(
    session: Session, dag_id: str, variables: Iterable[str], said: Sequence[_Said]
) -> dict[str, Run]:
    """The last renewal of each Variable's token that was started from the page."""
    started = select(DagRun.id, DagRun.run_id).where(
        DagRun.dag_id == dag_id, DagRun.run_id.startswith(STARTED_HERE)
    )
    last: dict[str, tuple[int, int]] = {}  # by prefix: the highest number, and the row
    for row_id, run_id in session.execute(started):
        if run_id[PREFIX_LENGTH:].isdecimal():
            prefix = run_id[:PREFIX_LENGTH]
            last[prefix] = max(last.get(prefix, (0, 0)), (_number(run_id), row_id))
    newest = select(DagRun).where(DagRun.id.in_([row_id for _, row_id in last.values()]))
    by_prefix = {run.run_id[:PREFIX_LENGTH]: run for run in session.scalars(newest)}
    return {
        variable: Run(
            run_id=run.run_id,
            state=str(run.state),
            asked_at=asked_at(run),
            asked_by=asked_by(run),
            survey=_survey_of(run.run_id, variable, said),
        )
        for variable in variables
        if (run := by_prefix.get(_prefix(variable)))
    }


def _survey_of(run_id: str, variable: str, said: Sequence[_Said]) -> str:
    """What the survey of a run told of a token, or why it failed."""
    for one in said:
        if one.run_id != run_id or one.value is None:
            continue
        if one.key == "failure":
            return str(one.value)
        if one.key == "report":
            for report in _reports(one.value):
                if key_of(report.place) == variable:
                    return report.reason
    return ""


def _reports(documents: Iterable[Any]) -> Iterator[Report]:
    """The reports among them; one that another version wrote otherwise is none."""
    for one in documents:
        with suppress(TypeError, ValueError, KeyError, AttributeError):
            yield Report.from_json(one)


def _variable_of(document: object) -> str | None:
    """The Variable that the report in a document is about; None if it is no report."""
    place = document.get("place") if isinstance(document, dict) else None
    return key_of(place) if isinstance(place, str) else None


def _value(row: Any) -> Any:  # noqa: ANN401 - columns of an XCom; JSON
    """What a task pushed; None if the XCom backend cannot tell any more."""
    with suppress(Exception):  # whatever backend there is
        return value_of(row)
    return None
