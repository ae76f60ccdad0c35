"""The JSON document that the page shows: every managed token and every rotation DAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Protocol

from flowauth_rotator.agent.rotation import Inspection
from flowauth_rotator.core import policy
from flowauth_rotator.core.errors import ExpiredToken, RotatorError
from flowauth_rotator.monitoring.assessment import State, Thresholds, assess_token
from flowauth_rotator.provider.web.managed import (
    RENEWING_CONDITIONS,
    Attempt,
    InspectedToken,
    RotationDag,
)
from flowauth_rotator.provider.web.status import (
    build_check_result,
    build_dag_status,
    build_token_status,
)

GROUPS = ("active", "attention", "expired")

Link = dict[str, str]  # `text` and `url`


class Pages(Protocol):
    """The URLs of Airflow's pages, relative to Airflow's root."""

    def dag(self, dag_id: str) -> str:
        """Return the URL of a DAG."""

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the URL of a run."""

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        """Return the URL of a task and its log."""

    def variable(self, key: str) -> str:
        """Return the URL of a Variable."""

    def import_errors(self) -> str:
        """Return the URL of the import errors of DAG files."""


@dataclass(frozen=True)
class Overview:
    """The content of the page for one user.

    Attributes:
        dags: the DAGs that the user may see.
        tokens: the tokens that the user may see.
        renewable_dags: the ids of the DAGs whose runs the user may start.
        pages: the URLs of Airflow's pages.
        now: an aware time.
    """

    dags: Sequence[RotationDag]
    tokens: Sequence[InspectedToken]
    renewable_dags: set[str]
    pages: Pages
    now: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the overview as JSON values; times are epoch seconds."""
        rows = [self.build_row(token) for token in self.tokens]
        return {
            "agents": [self._build_dag(dag) for dag in self.dags],
            "notices": [notice for dag in self.dags for notice in dag.notices],
            "tokens": sorted(rows, key=lambda row: (GROUPS.index(row["group"]), row["name"])),
        }

    def build_row(self, token: InspectedToken) -> dict[str, Any]:
        """Return one token as JSON values."""
        result, state = build_check_result(token, self.now), self._assess_state(token)
        inspection = token.inspection if isinstance(token.inspection, Inspection) else None
        claims = inspection.claims if inspection else None
        decision = inspection.decision if inspection else None
        scopes = claims.scopes if claims else {}
        return {
            "name": token.name,
            "variable": token.variable,
            "dag_id": token.dag.dag_id,
            "audience": claims.audience if claims else None,
            "user": claims.subject if claims else None,
            "roles": [{"name": role, "scopes": sorted(scopes[role])} for role in sorted(scopes)],
            "state": result.outcome,
            "severity": state.name.lower(),
            "group": _choose_group(inspection, state),
            "message": result.message,
            "hint": f"{self._forecast(token)} {result.hint}".strip(),
            "issued_at": _to_seconds(claims.issued_at if claims else None),
            "renew_at": _to_seconds(decision.renew_at if decision else None),
            "critical_at": _to_seconds(decision.critical_at if decision else None),
            "expires_at": _to_seconds(token.expires_at),
            "next_check_at": _to_seconds(token.dag.next_check_at),
            "last_rotation": self._build_last_rotation(token),
            "newest_issued_at_issuer": _to_seconds(token.newest_issued_expires_at),
            "renewal": self._build_renewal(token),
            "run": self._build_run(token),
            "error": self._build_error(token),
        }

    def _assess_state(self, token: InspectedToken) -> State:
        """Return the state that monitoring shows for the token."""
        status = build_token_status(token, self.now)
        grace_period = build_dag_status(token.dag, self.now).grace_period
        assessed = assess_token(
            status, status.in_use, Thresholds(), self.now, grace_period=grace_period
        )
        return assessed.status.state

    def _forecast(self, token: InspectedToken) -> str:
        """Return whether a due token will be renewed, unless its last rotation failed."""
        is_due = isinstance(token.inspection, Inspection) and token.inspection.decision.due
        if not is_due or (token.current_report and token.current_report.failed):
            return ""
        condition, hint = token.dag.evaluate_condition(self.now)
        if condition in RENEWING_CONDITIONS:
            return "The next check renews the token."
        return f"The token is not being renewed. {hint}"

    @cached_property
    def _dags_by_variable(self) -> dict[str, list[str]]:
        dags: dict[str, list[str]] = {}
        for token in self.tokens:
            dags.setdefault(token.variable, []).append(token.dag.dag_id)
        return dags

    def _build_dag(self, dag: RotationDag) -> dict[str, Any]:
        condition, hint = dag.evaluate_condition(self.now)
        schedule = dag.schedule
        return {
            "dag_id": dag.dag_id,
            "url": self.pages.dag(dag.dag_id),
            "schedule": f"every {schedule}" if isinstance(schedule, timedelta) else schedule,
            "state": condition,
            "sentence": hint,
            "last_check_at": _to_seconds(dag.checked_at),
            "next_check_at": _to_seconds(dag.next_check_at),
        }

    def _build_last_rotation(self, token: InspectedToken) -> dict[str, Any] | None:
        attempt = token.last_attempt
        if attempt is None:
            return None
        return {
            "outcome": attempt.report.outcome,
            "failed": attempt.report.failed,
            "at": _to_seconds(attempt.report.checked_at),
            "url": self._build_task_url(token, attempt),
        }

    def _build_renewal(self, token: InspectedToken) -> dict[str, Any]:
        why_not, way_out = self._find_obstacle(token)
        return {
            "possible": not why_not,
            "why_not": why_not.strip(),
            "way_out": way_out,
            "usual_minutes": token.settings.lifetime_minutes,
            "longest_minutes": token.longest_minutes,
        }

    def _find_obstacle(self, token: InspectedToken) -> tuple[str, Link | None]:
        """Return why a renewal cannot be started, if so, and a link to the place to correct it."""
        dag_id = token.dag.dag_id
        condition, hint = token.dag.evaluate_condition(self.now)
        dag_ids = self._dags_by_variable[token.variable]
        open_variable = {"text": "Open the Variable", "url": self.pages.variable(token.variable)}
        if len(dag_ids) > 1:
            names = " and ".join(sorted(dag_ids))
            return f"Several DAGs manage the token, {names}: remove it from all but one.", None
        if dag_id not in self.renewable_dags:
            return f"You do not have the permission to create DAG runs of {dag_id}.", None
        if condition == "missing":
            return hint, None
        if condition == "broken":
            return hint, {"text": "See the import errors", "url": self.pages.import_errors()}
        if condition == "paused":
            link = {"text": "Unpause the DAG", "url": self.pages.dag(dag_id)}
            return "The DAG is paused.", link
        if isinstance(token.inspection, RotatorError):
            hint = token.inspection.hint
            return f"The Variable does not contain a token to renew. {hint}", open_variable
        if token.is_expired_for_good:
            message = "The token has expired, and the issuer no longer renews it."
            return f"{message} {ExpiredToken.hint}", open_variable
        if token.has_no_roles:
            message = "The issuer has no roles recorded for this token."
            return f"{message} {ExpiredToken.hint}", open_variable
        return "", None

    def _build_run(self, token: InspectedToken) -> dict[str, Any] | None:
        run = token.run
        if run is None:
            return None
        return {
            "run_id": run.run_id,
            "state": run.state,
            "active": run.is_active,
            "asked_at": _to_seconds(run.requested_at),
            "asked_by": run.requested_by,
            "sentence": token.progress,
            "url": self.pages.run(token.dag.dag_id, run.run_id),
        }

    def _build_error(self, token: InspectedToken) -> dict[str, Any] | None:
        """Return the failure of the last attempt, until another attempt or another token."""
        run, last, failed = token.run, token.last_attempt, token.failed_attempt
        is_last = last is None or (run is not None and last.is_before(run))
        if run and run.state == "failed" and is_last and not token.is_newer_than(run):
            return {
                "outcome": "failed",
                "message": token.progress,
                "hint": "",
                "at": _to_seconds(run.requested_at),
                "url": self.pages.run(token.dag.dag_id, run.run_id),
            }
        if failed is None:
            return None
        return {
            "outcome": failed.report.outcome,
            "message": failed.report.message,
            "hint": failed.report.hint,
            "at": _to_seconds(failed.report.checked_at),
            "url": self._build_task_url(token, failed),
        }

    def _build_task_url(self, token: InspectedToken, attempt: Attempt) -> str:
        return self.pages.task(token.dag.dag_id, attempt.run_id, "rotate", attempt.map_index)


def _choose_group(inspection: Inspection | None, state: State) -> str:
    if inspection and inspection.decision.state is policy.TokenState.EXPIRED:
        return "expired"
    return "active" if state is State.OK else "attention"


def _to_seconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp())
