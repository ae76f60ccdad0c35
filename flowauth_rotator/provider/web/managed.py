"""The managed tokens and their rotation DAGs, as the page and monitoring show them: pure rules.

The facts come from the token in use, the reports of the last checks and rotations, and the settings
of the DAG. They contain no part of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from flowauth_rotator.agent.rotation import Inspection
from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Outcome, Report
from flowauth_rotator.provider.managed_tokens import LONGEST_LABEL, ManagedToken

NO_ROLES = "no roles recorded"  # part of FlowAuth's message (FlowKit pull request 7279)
RENEWING_CONDITIONS = ("ok", "new")  # of a DAG that renews tokens when they are due
UNREAD_OUTCOMES = (Outcome.MISCONFIGURED, Outcome.UNAVAILABLE)  # possible before the token is read


@dataclass(frozen=True)
class Attempt:
    """A rotation that left a report.

    Attributes:
        run_id: the DAG run.
        map_index: the index of its mapped task `rotate`.
        report: the report.
    """

    run_id: str
    map_index: int
    report: Report

    def is_before(self, run: Run) -> bool:
        """Whether the rotation started before the run was requested."""
        return self.report.checked_at < run.requested_at


@dataclass(frozen=True)
class Run:
    """A DAG run that a user started from the page to renew a token.

    Attributes:
        run_id: its id.
        state: queued, running, success or failed.
        requested_at: when the user requested it.
        requested_by: the user, if Airflow records it.
        survey_reason: the message in the survey's report about the token, or of its failure.
    """

    run_id: str
    state: str
    requested_at: datetime
    requested_by: str | None = None
    survey_reason: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the run has not ended."""
        return self.state in ("queued", "running")


@dataclass(frozen=True)
class RotationDag:
    """A rotation DAG, with the results of its checks and rotations by Variable.

    Attributes:
        dag_id: the id of the DAG.
        exists: whether its file still defines it.
        has_import_error: whether its file cannot be imported.
        is_paused: whether it is paused.
        schedule: a cron expression, or the time between two checks; None if unknown.
        next_run_at: the start of its next run, if Airflow knows it.
        deadline_at: when two checks after the last one are missed; None if unknown.
        checked_at: the end of its last check; None before the first.
        failed_at: when a check failed as a whole, if none has succeeded since.
        failure: the message of that failure.
        tokens: the settings of its managed tokens.
        notices: messages about invalid entries of the list of tokens.
        reports: the report of each token in its last check.
        attempts: the last rotations of each token, the newest first.
        runs: the last run of each token that a user started from the page.
    """

    dag_id: str
    exists: bool = True
    has_import_error: bool = False
    is_paused: bool = False
    schedule: str | timedelta | None = None
    next_run_at: datetime | None = None
    deadline_at: datetime | None = None
    checked_at: datetime | None = None
    failed_at: datetime | None = None
    failure: str = ""
    tokens: Sequence[ManagedToken] = ()
    notices: Sequence[str] = ()
    reports: dict[str, Report] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    @property
    def next_check_at(self) -> datetime | None:
        """The time of the next check; None if there will be none."""
        will_run = self.exists and not (self.has_import_error or self.is_paused)
        return self.next_run_at if will_run else None

    def evaluate_condition(self, now: datetime) -> tuple[str, str]:
        """Return the condition of the DAG, and a hint for the operator unless it is ok."""
        if self.has_import_error:
            return "broken", "The DAG file has an import error: correct the file."
        if not self.exists:
            return "missing", "The DAG does not exist: put its file back into the dags folder."
        if self.is_paused:
            return "paused", "The DAG is paused and renews nothing: unpause it."
        if self.failed_at:
            return "failed", f"The check at {format_time(self.failed_at)} failed. {self.failure}"
        if not self.checked_at:
            return "new", "The DAG has not checked its tokens yet; its next run does."
        if self.deadline_at and now > self.deadline_at:
            return "late", "Two checks were missed: see whether the scheduler and a worker run."
        return "ok", ""


@dataclass(frozen=True)
class InspectedToken:
    """A managed token and the result of its inspection.

    Attributes:
        dag: its rotation DAG.
        settings: its settings.
        inspection: the inspection of the token in use, or the error that prevented it.
    """

    dag: RotationDag
    settings: ManagedToken
    inspection: Inspection | RotatorError

    @property
    def variable(self) -> str:
        """The key of its Variable, which identifies the token on the page."""
        return self.settings.variable

    @property
    def name(self) -> str:
        """The issuer's name of the token, or its last known name, or else its Variable."""
        if isinstance(self.inspection, Inspection):
            return self.inspection.report.name
        reports = [attempt.report for attempt in self.attempts]
        names = [report.name for report in reports if report.predecessor_expires_at]
        return self.settings.name or next(iter(names), self.variable)

    @property
    def task_labels(self) -> set[str]:
        """The labels that its rotation tasks may have in Airflow."""
        return {text[:LONGEST_LABEL] for text in (self.name, self.variable)}

    @property
    def expires_at(self) -> datetime | None:
        """The expiry of the token in use."""
        inspection = self.inspection
        return inspection.claims.expires_at if isinstance(inspection, Inspection) else None

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Its last rotations, the newest first."""
        return self.dag.attempts.get(self.variable, ())

    @property
    def last_attempt(self) -> Attempt | None:
        """Its last rotation."""
        return next(iter(self.attempts), None)

    @property
    def newest_issued_expires_at(self) -> datetime | None:
        """The latest expiry that a rotation has seen at the issuer."""
        expiries = [attempt.report.newest_issued_expires_at for attempt in self.attempts]
        return max((expiry for expiry in expiries if expiry), default=None)

    @property
    def longest_minutes(self) -> int | None:
        """The lifetime that the issuer granted for the last request without a lifetime."""
        lifetimes = (attempt.report.longest_minutes for attempt in self.attempts)
        return next((minutes for minutes in lifetimes if minutes), None)

    @property
    def run(self) -> Run | None:
        """Its last run that a user started from the page."""
        return self.dag.runs.get(self.variable)

    @property
    def failed_attempt(self) -> Attempt | None:
        """Its last rotation, if that failed and the same token is still in use."""
        attempt = self.last_attempt
        failed = attempt and attempt.report.failed and self._is_current(attempt.report)
        return attempt if failed else None

    def is_newer_than(self, run: Run) -> bool:
        """Whether the token in use was issued after the run was requested."""
        inspection = self.inspection
        return isinstance(inspection, Inspection) and inspection.claims.issued_at > run.requested_at

    @property
    def is_expired_for_good(self) -> bool:
        """Whether the token has expired and the issuer has refused to renew it."""
        failed = self.failed_attempt
        return failed is not None and failed.report.outcome is Outcome.EXPIRED

    @property
    def has_no_roles(self) -> bool:
        """Whether the token contains no roles, or the issuer has none on record for it."""
        failed, inspection = self.failed_attempt, self.inspection
        if failed is not None and NO_ROLES in failed.report.message:
            return True
        return isinstance(inspection, Inspection) and not inspection.claims.roles

    @property
    def progress(self) -> str:
        """The progress or the result of the run that a user started from the page."""
        run = self.run
        if run is None:
            return ""
        reports = (attempt.report for attempt in self.attempts if attempt.run_id == run.run_id)
        report = next(reports, None)
        if run.state == "queued":
            return "Waiting for the scheduler."
        if run.is_active and report:
            will_retry = report.failed and report.outcome is Outcome.UNAVAILABLE
            return "The attempt failed; Airflow retries it." if will_retry else "The run is ending."
        if run.is_active:
            return "Renewing."
        result = report.message if report else run.survey_reason
        if run.state == "failed":
            return result or "The run ended without a report; see its log."
        return result

    @property
    def current_report(self) -> Report | None:
        """The newest report about the token in use."""
        last_attempt = self.last_attempt
        candidates = [self.dag.reports.get(self.variable), last_attempt and last_attempt.report]
        reports = [report for report in candidates if report]
        newest = max(reports, key=lambda report: report.checked_at, default=None)
        return newest if newest and self._is_current(newest) else None

    def _is_current(self, report: Report) -> bool:
        """Whether a report is about the token in use.

        A report from before the token could be read is about the token of that time. A report of a
        shadowed Variable is about the Variable, whatever it contains.
        """
        if report.outcome is Outcome.SHADOWED:
            return True
        if not isinstance(self.inspection, Inspection):
            return report.predecessor_expires_at is None
        claims = self.inspection.claims
        if report.outcome in UNREAD_OUTCOMES and report.predecessor_expires_at is None:
            return claims.issued_at <= report.checked_at
        return claims.expires_at in (report.predecessor_expires_at, report.successor_expires_at)


def drop_replaced_dags(dags: Sequence[RotationDag]) -> list[RotationDag]:
    """Return the DAGs without missing ones, except for tokens that no other DAG manages."""
    managed = {token.variable for dag in dags if dag.exists for token in dag.tokens}
    remaining = []
    for dag in dags:
        unmanaged = [token for token in dag.tokens if token.variable not in managed]
        if dag.exists or dag.has_import_error:
            remaining.append(dag)
        elif unmanaged:
            remaining.append(replace(dag, tokens=unmanaged))
    return remaining
