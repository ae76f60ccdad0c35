"""What Airflow's database holds of the rotations, and of the tokens in use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow.models import DagModel, DagRun, Variable
from airflow.models.dag import DagTag
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from flowauth_rotator.agent.rotation import Check, check
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Report
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.compat import cron_after, unreadable
from flowauth_rotator.provider.tokens import LIST_VARIABLE, TAG, ManagedToken, read_tokens
from flowauth_rotator.provider.variable import VariableStore, place_of, token_in
from flowauth_rotator.provider.web.compat import XComRow, asked_at, asked_by, is_there, value_of
from flowauth_rotator.provider.web.overview import Agent, Attempt, Run

SURVEYS_READ = 8  # the last ones, since one of a run by hand may look at some tokens only
ATTEMPTS_READ = 3  # of each token, since the last may have failed
STARTED_HERE = "renew-"  # begins the id of each run that was started from the page
PREFIX_LENGTH = len(STARTED_HERE) + 13
GRACE = timedelta(minutes=2)  # for a check to begin and to end


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
    rows = session.scalars(select(Variable).where(Variable.key.in_(keys)))
    stored = {row.key: row for row in rows}
    found: list[Check | RotatorError] = []
    for token in tokens:
        variable = _StoredVariable(token.variable, stored.get(token.variable))
        try:
            found.append(check(variable, token.policy, now=now, name=token.name))
        except RotatorError as error:
            found.append(error)
    return found


def next_run_id(variable: str, last: Run | None) -> str:
    """The id of the run after the last one: two who have seen the same ask for the same run."""
    number = int(last.run_id[PREFIX_LENGTH:]) + 1 if last else 1
    return f"{_prefix(variable)}{number}"


def _prefix(variable: str) -> str:
    """How the ids of the runs begin that were started from the page for a Variable's token."""
    return f"{STARTED_HERE}{hashlib.sha256(variable.encode()).hexdigest()[:12]}-"


class _StoredVariable(VariableStore):
    """The same as the web server has it: a row of the database, which it only reads."""

    def __init__(self, key: str, row: Any) -> None:  # noqa: ANN401 - a Variable, or None
        super().__init__(key)
        self._row = row

    def read(self) -> Token:
        value = self._row.get_val() if self._row else None
        if self._row and value is None:
            raise unreadable(self.key)
        return token_in(self.key, value)


@dataclass(frozen=True)
class _Said:
    """What a survey pushed.

    Attributes:
        run_id: of its run.
        key: managed (schedule and settings), report (of the tokens it kept) or failure (why).
        at: when.
        value: what.
    """

    run_id: str
    key: str
    at: datetime
    value: Any


def _agent(session: Session, dag: DagModel) -> Agent:
    said = _said_by_surveys(session, dag.dag_id)
    managed: dict[str, Any] = next((one.value for one in said if one.key == "managed"), {})
    checks = [one for one in said if one.key == "report"]
    checked_at = checks[0].at if checks else None
    failure = next((one for one in said if one.key == "failure"), None)
    if failure and checked_at and failure.at < checked_at:
        failure = None
    tokens, _ = read_tokens(json.dumps(managed.get("tokens", [])))
    schedule = managed.get("schedule")
    if isinstance(schedule, (int, float)):
        schedule = timedelta(seconds=schedule)
    reports: dict[str, Report] = {}
    for report in (report for one in checks for report in _reports(one.value)):
        reports.setdefault(_variable_of(report), report)
    return Agent(
        dag_id=dag.dag_id,
        there=is_there(dag),
        broken=bool(dag.has_import_errors),
        paused=bool(dag.is_paused),
        schedule=schedule,
        next_check_at=dag.next_dagrun_create_after,
        late_at=_late_at(schedule, checked_at) if checked_at else None,
        checked_at=checked_at,
        failed_at=failure.at if failure else None,
        failure=failure.value if failure else "",
        tokens=tokens,
        notices=[
            f"{report.reason} {report.advice}".strip()
            for report in (_reports(checks[0].value) if checks else ())
            if report.place == place_of(LIST_VARIABLE)
        ],
        reports=reports,
        attempts=_attempts(session, dag.dag_id),
        runs=_runs(session, dag.dag_id, [token.variable for token in tokens], said),
    )


def _late_at(schedule: str | timedelta | None, checked_at: datetime) -> datetime | None:
    """When two checks have been missed, if anybody knows the schedule."""
    if isinstance(schedule, timedelta):
        return checked_at + 2 * schedule + GRACE
    with suppress(ValueError, TypeError):
        following = cron_after(str(schedule), checked_at)
        return cron_after(str(schedule), following + timedelta(seconds=1)) + GRACE
    return None


def _said_by_surveys(session: Session, dag_id: str) -> list[_Said]:
    """What the last surveys pushed, the newest first."""
    kinds = {"managed": dict, "report": list, "failure": str}
    pushed = (
        select(XComRow.run_id, XComRow.key, XComRow.timestamp, XComRow.value)
        .where(XComRow.dag_id == dag_id, XComRow.task_id == "survey", XComRow.key.in_(kinds))
        .order_by(XComRow.dag_run_id.desc())
        .limit(len(kinds) * SURVEYS_READ)
    )
    said = [
        _Said(row.run_id, row.key, row.timestamp, value_of(row)) for row in session.execute(pushed)
    ]
    return [one for one in said if isinstance(one.value, kinds[one.key])]


def _attempts(session: Session, dag_id: str) -> dict[str, list[Attempt]]:
    """The last reports of rotations, by Variable; Airflow labels each task with the name."""
    rank = func.row_number().over(
        partition_by=TaskInstance.rendered_map_index, order_by=XComRow.timestamp.desc()
    )
    ranked = (
        select(XComRow.dag_run_id, XComRow.map_index, rank.label("rank"))
        .join(
            TaskInstance,
            and_(
                TaskInstance.dag_id == XComRow.dag_id,
                TaskInstance.run_id == XComRow.run_id,
                TaskInstance.task_id == XComRow.task_id,
                TaskInstance.map_index == XComRow.map_index,
            ),
        )
        .where(XComRow.dag_id == dag_id, XComRow.task_id == "rotate", XComRow.key == "report")
        .subquery()
    )
    last = (
        select(XComRow.run_id, XComRow.map_index, XComRow.value)
        .join(
            ranked,
            and_(
                XComRow.dag_run_id == ranked.c.dag_run_id,
                XComRow.map_index == ranked.c.map_index,
            ),
        )
        .where(
            XComRow.task_id == "rotate",
            XComRow.key == "report",
            ranked.c.rank <= ATTEMPTS_READ,
        )
        .order_by(XComRow.timestamp.desc())
    )
    attempts: dict[str, list[Attempt]] = {}
    for pushed in session.execute(last):
        for report in _reports([value_of(pushed)]):
            attempt = Attempt(pushed.run_id, pushed.map_index, report)
            attempts.setdefault(_variable_of(report), []).append(attempt)
    return attempts


def _runs(
    session: Session, dag_id: str, variables: Iterable[str], said: Sequence[_Said]
) -> dict[str, Run]:
    """The last renewal of each Variable's token that was started from the page."""
    newest = (
        select(func.max(DagRun.id))
        .where(DagRun.dag_id == dag_id, DagRun.run_id.startswith(STARTED_HERE))
        .group_by(func.substr(DagRun.run_id, 1, PREFIX_LENGTH))
    )
    runs = session.scalars(select(DagRun).where(DagRun.id.in_(newest)))
    by_prefix = {run.run_id[:PREFIX_LENGTH]: run for run in runs}
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
        if one.run_id == run_id and one.key == "failure":
            return str(one.value)
        if one.run_id == run_id and one.key == "report":
            for report in _reports(one.value):
                if _variable_of(report) == variable:
                    return report.reason
    return ""


def _reports(documents: Iterable[Any]) -> Iterator[Report]:
    """The reports among them; one that another version wrote otherwise is none."""
    for one in documents:
        with suppress(TypeError, ValueError, KeyError, AttributeError):
            yield Report.from_json(one)


def _variable_of(report: Report) -> str:
    return report.place.removeprefix(place_of(""))
