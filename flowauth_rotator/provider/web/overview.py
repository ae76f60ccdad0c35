"""What there is to say of each managed token and of the DAGs that keep them alive: pure rules.

All of it comes from three sources: the token in use, what the last checks and rotations reported,
and what the DAG is set to. No part of a token is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.errors import ExpiredToken, RotatorError
from flowauth_rotator.core.policy import State
from flowauth_rotator.core.report import Outcome, Report, Severity, clock
from flowauth_rotator.provider.tokens import ManagedToken
from flowauth_rotator.provider.web.compat import (
    dag_page,
    import_errors_page,
    run_page,
    task_page,
    variable_page,
)

NO_ROLES = "no roles recorded"  # in the words of FlowAuth (FlowKit pull request 7279)
GROUPS = ("active", "attention", "expired")
LOUDNESS = list(Severity)


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

    def condition(self, now: datetime) -> tuple[str, str]:
        """A word for how the agent is, and the sentences for it."""
        last = f"The last check was at {clock(self.checked_at)}." if self.checked_at else ""
        if not self.there and not self.broken:
            return "missing", f"The DAG is gone: put its file back into the dags folder. {last}"
        if self.broken:
            return "broken", f"Its file has an import error: mend the file. {last}"
        if self.paused:
            return "paused", f"It is paused, and nothing is renewed: unpause it. {last}"
        if self.failed_at:
            return "failed", f"The check at {clock(self.failed_at)} failed. {self.failure}"
        if not last:
            return "new", "It has not checked any token yet; its next run does."
        if self.late_at and now > self.late_at:
            return "late", f"Checks do not come: is the scheduler running? {last}"
        return "ok", last


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
        return self.token.name or self.variable

    @property
    def expires_at(self) -> datetime | None:
        """The expiry of the token in use."""
        return self.found.claims.expires_at if isinstance(self.found, Check) else None

    @property
    def attempt(self) -> Attempt | None:
        """Its last rotation."""
        return next(iter(self.agent.attempts.get(self.variable, ())), None)

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

    @property
    def told(self) -> Report | None:
        """The newest report about the token that is in use."""
        reports = [self.agent.reports.get(self.variable), self.attempt and self.attempt.report]
        known = [report for report in reports if report]
        newest = max(known, key=lambda report: report.checked_at, default=None)
        return newest if newest and self._is_of(newest) else None

    def _is_of(self, report: Report) -> bool:
        """Whether a report is about the token in use."""
        if self.expires_at is None:
            return report.predecessor_expires_at is None
        return self.expires_at in (report.predecessor_expires_at, report.successor_expires_at)


def document(
    agents: Sequence[Agent], tokens: Sequence[Managed], may_renew: set[str], now: datetime
) -> dict[str, Any]:
    """All that the page shows, as JSON values; times are epoch seconds.

    Args:
        agents: the DAGs.
        tokens: the tokens that the person may see.
        may_renew: the DAGs of which the person may start runs.
        now: an aware time.
    """
    rows = [row(one, tokens, may_renew, now) for one in tokens]
    return {
        "agents": [_agent(agent, now) for agent in agents],
        "notices": [notice for agent in agents for notice in agent.notices],
        "tokens": sorted(rows, key=lambda one: (GROUPS.index(one["group"]), one["name"])),
    }


def _agent(agent: Agent, now: datetime) -> dict[str, Any]:
    state, sentence = agent.condition(now)
    every = agent.schedule
    return {
        "dag_id": agent.dag_id,
        "url": import_errors_page() if state == "broken" else dag_page(agent.dag_id),
        "schedule": f"every {every}" if isinstance(every, timedelta) else every,
        "state": state,
        "sentence": sentence.strip(),
        "last_check_at": _seconds(agent.checked_at),
        "next_check_at": _seconds(_next_check(agent)),
    }


def _next_check(agent: Agent) -> datetime | None:
    running = agent.there and not (agent.broken or agent.paused)
    return agent.next_check_at if running else None


def row(
    one: Managed, tokens: Sequence[Managed], may_renew: set[str], now: datetime
) -> dict[str, Any]:
    """What the page shows of one token, as JSON values."""
    state, severity, reason, advice = standing(one, now)
    found = one.found if isinstance(one.found, Check) else None
    claims = found.claims if found else None
    expired = found is not None and found.decision.state is State.EXPIRED
    attention = severity is not Severity.OK
    attempts = one.agent.attempts.get(one.variable, [])
    issued = [
        time
        for attempt in attempts
        for time in (attempt.report.newest_issued_expires_at, attempt.report.successor_expires_at)
        if time
    ]
    return {
        "name": one.name,
        "variable": one.variable,
        "dag_id": one.agent.dag_id,
        "audience": claims.audience if claims else None,
        "user": claims.subject if claims else None,
        "roles": [
            {"name": role, "scopes": sorted(claims.scopes[role])} for role in sorted(claims.scopes)
        ]
        if claims
        else [],
        "state": state,
        "severity": severity,
        "group": "expired" if expired else "attention" if attention else "active",
        "reason": reason,
        "advice": advice,
        "issued_at": _seconds(claims.issued_at if claims else None),
        "renew_at": _seconds(found.decision.renew_at if found else None),
        "critical_at": _seconds(found.decision.critical_at if found else None),
        "expires_at": _seconds(one.expires_at),
        "next_check_at": _seconds(_next_check(one.agent)),
        "last_rotation": _last_rotation(one),
        "newest_issued_at_issuer": _seconds(max(issued, default=None)),
        "renewal": {
            **_obstacle(one, tokens, may_renew, now),
            "longest_minutes": next(
                (it.report.longest_minutes for it in attempts if it.report.longest_minutes), None
            ),
        },
        "run": _run(one),
        "error": _error(one),
    }


def standing(one: Managed, now: datetime) -> tuple[str, Severity, str, str]:
    """State, severity, reason and advice: of the token itself, and of what was told of it."""
    found, told = one.found, one.told
    if not isinstance(found, Check):
        return found.outcome, found.severity, found.reason, found.advice
    decision = found.decision
    loud = decision.state in (State.CRITICAL, State.EXPIRED)
    severity = Severity.CRITICAL if loud else Severity.OK
    if told and told.failed:
        state = decision.state if told.outcome is Outcome.HEALTHY else told.outcome
        severity = max(severity, told.severity, key=LOUDNESS.index)
        return state, severity, told.reason, told.advice
    advice = told.advice if told else ""
    if decision.due:
        word, sentence = one.agent.condition(now)
        if word in ("ok", "new"):
            advice = f"The next check renews it. {advice}".strip()
        else:
            advice = f"Nothing renews it. {sentence}"
            severity = max(severity, Severity.WARNING, key=LOUDNESS.index)
    return decision.state, severity, decision.reason, advice


def _last_rotation(one: Managed) -> dict[str, Any] | None:
    attempt = one.attempt
    if attempt is None:
        return None
    return {
        "outcome": attempt.report.outcome,
        "failed": attempt.report.failed,
        "at": _seconds(attempt.report.checked_at),
        "url": task_page(one.agent.dag_id, attempt.run_id, "rotate", attempt.map_index),
    }


def _obstacle(
    one: Managed, tokens: Sequence[Managed], may_renew: set[str], now: datetime
) -> dict[str, Any]:
    """Whether a renewal can be started; if not, why, and the way out."""
    dag_id, found = one.agent.dag_id, one.found
    word, sentence = one.agent.condition(now)
    why_not, way_out = "", None
    expired = found if isinstance(found, Check) and found.decision.state is State.EXPIRED else None
    failed = one.failed_attempt.report if one.failed_attempt else None
    to_variable = {"text": "Open the Variable", "url": variable_page(one.variable)}
    if Counter(other.variable for other in tokens)[one.variable] > 1:
        dags = " and ".join(it.agent.dag_id for it in tokens if it.variable == one.variable)
        why_not = f"It is managed by two DAGs, {dags}: take it out of one of them."
    elif dag_id not in may_renew:
        why_not = (
            f"You may not start runs of the DAG {dag_id}. "
            "An administrator can give you the permission to create them."
        )
    elif word in ("missing", "broken"):
        why_not = sentence
        way_out = {"text": "Open the DAG", "url": dag_page(dag_id)}
        if word == "broken":
            way_out = {"text": "See the import errors", "url": import_errors_page()}
    elif word == "paused":
        why_not = "The DAG is paused."
        way_out = {"text": "Unpause the DAG", "url": dag_page(dag_id)}
    elif isinstance(found, RotatorError):
        why_not, way_out = f"There is nothing to renew. {found.advice}".strip(), to_variable
    elif expired and failed and failed.outcome is Outcome.EXPIRED:
        why_not = f"It has expired, and the issuer renews it no more. {ExpiredToken.advice}"
        way_out = to_variable
    elif not found.claims.roles or (failed and NO_ROLES in failed.reason):
        why_not = f"The issuer has no roles recorded for it. {ExpiredToken.advice}"
        way_out = to_variable
    return {"possible": not why_not, "why_not": why_not, "way_out": way_out}


def _run(one: Managed) -> dict[str, Any] | None:
    run = one.run
    if run is None:
        return None
    return {
        "run_id": run.run_id,
        "state": run.state,
        "active": run.active,
        "asked_at": _seconds(run.asked_at),
        "asked_by": run.asked_by,
        "sentence": _progress(one, run),
        "url": run_page(one.agent.dag_id, run.run_id),
    }


def _progress(one: Managed, run: Run) -> str:
    """How far a renewal has come, or how it ended."""
    report = _report_of(one, run)
    if run.state == "queued":
        return "Waiting for the scheduler."
    if run.active:
        return "A try failed; it is tried again." if report and report.failed else "Renewing."
    if report:
        return report.reason
    return run.survey or "The run ended without a report; its log says why."


def _report_of(one: Managed, run: Run) -> Report | None:
    attempt = one.attempt
    return attempt.report if attempt and attempt.run_id == run.run_id else None


def _error(one: Managed) -> dict[str, Any] | None:
    """Why the last attempt failed, until there is another one or another token."""
    run, newest, attempt = one.run, one.attempt, one.failed_attempt
    since = newest is None or (run and newest.report.checked_at < run.asked_at)
    if run and since and run.state == "failed":
        return {
            "outcome": "failed",
            "reason": _progress(one, run),
            "advice": "",
            "at": _seconds(run.asked_at),
            "url": run_page(one.agent.dag_id, run.run_id),
        }
    if attempt is None:
        return None
    return {
        "outcome": attempt.report.outcome,
        "reason": attempt.report.reason,
        "advice": attempt.report.advice,
        "at": _seconds(attempt.report.checked_at),
        "url": task_page(one.agent.dag_id, attempt.run_id, "rotate", attempt.map_index),
    }


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp())
