"""Assess a rotation DAG: its condition, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.formatting import format_minute
from flowauth_rotator.monitoring.status import RotationDagStatus
from flowauth_rotator.monitoring.verdict import Verdict


class Condition(str, Enum):
    """The conditions of a rotation DAG."""

    OK = "ok"
    EMPTY = "empty"
    NEW = "new"
    FAILED = "failed"
    MISCONFIGURED = "misconfigured"
    LATE = "late"
    PAUSED = "paused"
    MISSING = "missing"
    BROKEN = "broken"

    __str__ = str.__str__

    @property
    def is_renewing(self) -> bool:
        """Whether the next check of the DAG renews tokens that are due."""
        renewing = (Condition.OK, Condition.EMPTY, Condition.NEW, Condition.MISCONFIGURED)
        return self in renewing

    @property
    def has_stopped(self) -> bool:
        """Whether the DAG has no next check until it or its file is changed."""
        return self in (Condition.PAUSED, Condition.MISSING, Condition.BROKEN)


@dataclass(frozen=True)
class AssessedDag:
    """A rotation DAG, its condition and its verdict."""

    dag: RotationDagStatus
    condition: Condition
    verdict: Verdict


def assess_dag(dag: RotationDagStatus, now: datetime) -> AssessedDag:
    """Return the condition of a rotation DAG, and the verdict on it."""
    condition, severity, hint = _find_condition(dag, now)
    return AssessedDag(dag, condition, Verdict(severity, _describe(dag, condition), hint))


def _find_condition(dag: RotationDagStatus, now: datetime) -> tuple[Condition, Severity, str]:
    """Return the condition, its severity and what to do; the first that holds counts."""
    is_late = dag.deadline_at is not None and now > dag.deadline_at
    critical, warning = Severity.CRITICAL, Severity.WARNING
    if dag.has_import_error:
        hint = "The DAG file has an import error: correct the file."
        return Condition.BROKEN, critical, hint
    if not dag.exists:
        hint = "The DAG does not exist: put its file back into the dags folder."
        return Condition.MISSING, critical, hint
    if dag.is_paused:
        return Condition.PAUSED, critical, "Unpause to resume."
    if dag.failure:
        return Condition.FAILED, critical if is_late else warning, str(dag.failure)
    if dag.checked_at is None:
        return Condition.NEW, warning, "The next run of the DAG checks its tokens."
    if is_late:
        hint = "Two checks were missed: check that the scheduler and a worker run."
        return Condition.LATE, critical, hint
    if dag.configuration_errors:
        return Condition.MISCONFIGURED, critical, " ".join(dag.configuration_errors)
    if dag.token_count == 0:
        return Condition.EMPTY, warning, "Add a token to the list of managed tokens."
    return Condition.OK, Severity.OK, ""


def _describe(dag: RotationDagStatus, condition: Condition) -> str:
    checked_at = format_minute(dag.checked_at) if dag.checked_at else ""
    last = f"last check {checked_at}" if checked_at else "no check yet"
    if condition is Condition.OK:
        following = f", next {format_minute(dag.next_check_at)}" if dag.next_check_at else ""
        return f"Last check {checked_at}{following}"
    if condition is Condition.NEW:
        return "First check pending"
    if condition is Condition.EMPTY:
        return f"No tokens are managed, {last}"
    if condition.has_stopped:
        return f"{condition.capitalize()}: tokens are not being renewed"
    return f"{condition.capitalize()}, {last}"
