"""What is known of each managed token and of the DAGs that keep them alive: pure rules.

All of it comes from three sources: the token in use, what the last checks and rotations reported,
and what the DAG is set to. No part of a token is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.report import Outcome, Report
from flowauth_rotator.provider.managed_tokens import LONGEST_LABEL, ManagedToken

NO_ROLES = "no roles recorded"  # in the words of FlowAuth (FlowKit pull request 7279)
WELL = ("ok", "new")  # conditions of a DAG that renews what is due
UNREAD = (Outcome.MISCONFIGURED, Outcome.UNAVAILABLE)  # may end a rotation before it begins


@dataclass(frozen=True)
class Attempt:
    """A rotation that left a report.

    Attributes:
        run_id: of the DAG run.
        map_index: of its task `rotate`.
        report: what it told.
    """

    run_id: str
    map_index: int
    report: Report

    def is_before(self, run: Run) -> bool:
        """Whether it had begun when somebody asked for the run."""
        return self.report.checked_at < run.asked_at


@dataclass(frozen=True)
class Run:
    """A renewal that somebody started from the page.

    Attributes:
        run_id: of the DAG run.
        state: queued, running, success or failed.
        asked_at: when it was started.
        asked_by: by whom, where Airflow knows.
        survey: what its survey told of the token, or why it failed, if it came so far.
    """

    run_id: str
    state: str
    asked_at: datetime
    asked_by: str | None = None
    survey: str = ""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("queued", "running")


@dataclass(frozen=True)
class Agent:
    """A DAG that keeps tokens alive, and what it found and did, by Variable.

    Attributes:
        dag_id: the DAG.
        there: whether its file still has it.
        broken: whether its file has an import error.
        paused: whether it is paused.
        schedule: a cron expression, or the time from one check to the next; None while unknown.
        next_check_at: when its next run begins, if Airflow knows.
        late_at: when its last check is so old that two have been missed.
        checked_at: the end of its last check; None before the first.
        failed_at: when a check failed as a whole, if none has succeeded since.
        failure: why.
        tokens: the managed tokens.
        notices: what it said of entries of the list that stand for no token.
        reports: what the last check said of each.
        attempts: the last rotations of each, the newest first.
        runs: the last renewal of each that was started from the page.
    """

    dag_id: str
    there: bool = True
    broken: bool = False
    paused: bool = False
    schedule: str | timedelta | None = None
    next_check_at: datetime | None = None
    late_at: datetime | None = None
    checked_at: datetime | None = None
    failed_at: datetime | None = None
    failure: str = ""
    tokens: Sequence[ManagedToken] = ()
    notices: Sequence[str] = ()
    reports: dict[str, Report] = field(default_factory=dict)
    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    @property
    def follows_at(self) -> datetime | None:
        """When the next check comes, if one does."""
        runs = self.there and not (self.broken or self.paused)
        return self.next_check_at if runs else None

    def condition(self, now: datetime) -> tuple[str, str]:
        """A word for how the agent is, and what a person can do if it is not well."""
        if self.broken:
            return "broken", "Its file has an import error: mend the file."
        if not self.there:
            return "missing", "The DAG is gone: put its file back into the dags folder."
        if self.paused:
            return "paused", "It is paused, and nothing is renewed: unpause it."
        if self.failed_at:
            return "failed", f"The check at {format_time(self.failed_at)} failed. {self.failure}"
        if not self.checked_at:
            return "new", "It has not checked any token yet; its next run does."
        if self.late_at and now > self.late_at:
            return "late", "Checks do not come: is the scheduler running?"
        return "ok", ""


@dataclass(frozen=True)
class Managed:
    """One managed token.

    Attributes:
        agent: the DAG that keeps it alive.
        token: its settings.
        found: what is in use now, and where it stands; or why nobody can tell.
    """

    agent: Agent
    token: ManagedToken
    found: Check | RotatorError

    @property
    def variable(self) -> str:
        """The key of its Variable: what identifies it on the page."""
        return self.token.variable

    @property
    def name(self) -> str:
        """What people call it."""
        if isinstance(self.found, Check):
            return self.found.report.name
        read = [it.report.name for it in self.attempts if it.report.predecessor_expires_at]
        return self.token.name or next(iter(read), self.variable)

    @property
    def labels(self) -> set[str]:
        """What Airflow may call the tasks that rotate it."""
        return {text[:LONGEST_LABEL] for text in (self.name, self.variable)}

    @property
    def expires_at(self) -> datetime | None:
        """The expiry of the token in use."""
        return self.found.claims.expires_at if isinstance(self.found, Check) else None

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Its last rotations, the newest first."""
        return self.agent.attempts.get(self.variable, ())

    @property
    def attempt(self) -> Attempt | None:
        """Its last rotation."""
        return next(iter(self.attempts), None)

    @property
    def newest_issued_at(self) -> datetime | None:
        """The latest expiry that the agent has seen at the issuer."""
        reports = [attempt.report for attempt in self.attempts]
        seen = [report.newest_issued_expires_at for report in reports]
        return max((time for time in seen if time), default=None)

    @property
    def longest_minutes(self) -> int | None:
        """What the issuer granted when it was last asked for its maximum."""
        granted = (attempt.report.longest_minutes for attempt in self.attempts)
        return next((minutes for minutes in granted if minutes), None)

    @property
    def run(self) -> Run | None:
        """Its last renewal that was started from the page."""
        return self.agent.runs.get(self.variable)

    @property
    def failed_attempt(self) -> Attempt | None:
        """Its last rotation, if that failed and the same token is still in use."""
        attempt = self.attempt
        failed = attempt and attempt.report.failed and self._is_of(attempt.report)
        return attempt if failed else None

    def is_newer_than(self, run: Run) -> bool:
        """Whether it was issued after somebody asked for the run."""
        return isinstance(self.found, Check) and self.found.claims.issued_at > run.asked_at

    @property
    def is_gone(self) -> bool:
        """Whether it has expired, and the issuer has said that it renews it no more."""
        failed = self.failed_attempt
        return failed is not None and failed.report.outcome is Outcome.EXPIRED

    @property
    def has_no_roles(self) -> bool:
        """Whether it has no roles, or the issuer none of it on record."""
        failed = self.failed_attempt
        said = failed is not None and NO_ROLES in failed.report.reason
        return said or (isinstance(self.found, Check) and not self.found.claims.roles)

    @property
    def progress(self) -> str:
        """How far the renewal has come that was started from the page, or how it ended."""
        run = self.run
        if run is None:
            return ""
        report = next((it.report for it in self.attempts if it.run_id == run.run_id), None)
        if run.state == "queued":
            return "Waiting for the scheduler."
        if run.active and report:
            again = report.failed and report.outcome is Outcome.UNAVAILABLE
            return "A try failed; it is tried again." if again else "The run is ending."
        if run.active:
            return "Renewing."
        ended = report.reason if report else run.survey
        if run.state == "failed":
            return ended or "The run ended without a report; its log says why."
        return ended

    @property
    def told(self) -> Report | None:
        """The newest report about the token that is in use."""
        reports = [self.agent.reports.get(self.variable), self.attempt and self.attempt.report]
        known = [report for report in reports if report]
        newest = max(known, key=lambda report: report.checked_at, default=None)
        return newest if newest and self._is_of(newest) else None

    def _is_of(self, report: Report) -> bool:
        """Whether a report is about the token in use.

        One that failed before it could read the token is about that of its time, and one of a
        Variable that is shadowed about whatever is stored there.
        """
        if report.outcome is Outcome.SHADOWED:
            return True
        if not isinstance(self.found, Check):
            return report.predecessor_expires_at is None
        claims = self.found.claims
        if report.outcome in UNREAD and report.predecessor_expires_at is None:
            return claims.issued_at <= report.checked_at
        return claims.expires_at in (report.predecessor_expires_at, report.successor_expires_at)


def without_the_dead(agents: Sequence[Agent]) -> list[Agent]:
    """The same, but for DAGs that are gone and whose tokens others have taken over."""
    living = {token.variable for agent in agents if agent.there for token in agent.tokens}
    kept = []
    for agent in agents:
        alone = [token for token in agent.tokens if token.variable not in living]
        if agent.there or agent.broken:
            kept.append(agent)
        elif alone:
            kept.append(replace(agent, tokens=alone))
    return kept
