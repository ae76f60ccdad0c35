"""What those who watch are told of each managed token and DAG: the same facts that the page has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Told, Watched
from flowauth_rotator.provider.schedule import first_check, interval, two_checks
from flowauth_rotator.provider.variable_store import place_of
from flowauth_rotator.provider.web.managed import WELL, Agent, Managed

SWAPPED = (Outcome.ROTATED, Outcome.ADOPTED)

Rotations = Mapping[str, Mapping[str, int]]  # by the label of the task: how many had which outcome


def snapshot(
    agents: Sequence[Agent],
    tokens: Sequence[Managed],
    now: datetime,
    rotations: Mapping[str, Rotations],
) -> Snapshot:
    """All of it.

    Args:
        agents: the DAGs.
        tokens: their tokens, or some of them.
        now: an aware time.
        rotations: by DAG, the rotations that ended.
    """
    return Snapshot(
        taken_at=now,
        tokens=[watched(one, now, rotations.get(one.agent.dag_id, {})) for one in tokens],
        agents=[heartbeat(agent, now) for agent in agents],
        clock_skews=_clock_skews(tokens),
    )


def watched(one: Managed, now: datetime, rotations: Rotations | None = None) -> Watched:
    """One token."""
    life, check_at = None, None
    if isinstance(one.found, Check):
        claims, renew_at = one.found.claims, one.found.decision.renew_at
        life = Life(claims.issued_at, claims.expires_at, renew_at)
        check_at = first_check(one.agent.schedule, renew_at, one.agent.follows_at)
    swaps = (it.checked_at for it in _reports(one) if it.outcome in SWAPPED)
    return Watched(
        name=one.name,
        place=place_of(one.variable),
        dag_id=one.agent.dag_id,
        in_use=life,
        issued=_newest_issued(one),
        told=told_of(one, now),
        renewal_check_at=check_at,
        last_success_at=max(swaps, default=None),
        rotations=None if rotations is None else _rotations(one, rotations),
    )


def heartbeat(agent: Agent, now: datetime) -> Heartbeat:
    """One DAG."""
    condition, sentence = agent.condition(now)
    if condition == "ok" and agent.notices:
        condition, sentence = "misconfigured", " ".join(agent.notices)
    return Heartbeat(
        dag_id=agent.dag_id,
        condition=condition,
        sentence=sentence,
        checked_at=agent.checked_at,
        deadline_at=agent.late_at,
        next_check_at=agent.follows_at,
        interval=interval(agent.schedule, now),
        patience=two_checks(agent.schedule, agent.checked_at or now),
    )


def told_of(one: Managed, now: datetime) -> Told:
    """What there is to say of a token beside the time that it has left."""
    found, told = one.found, one.told
    if not isinstance(found, Check):
        hidden = told if told and told.outcome is Outcome.SHADOWED else None
        error = hidden or found
        return Told(error.outcome, error.severity, error.reason, error.advice)
    decision = found.decision
    if told and told.failed:
        word = decision.state if told.outcome is Outcome.HEALTHY else told.outcome
        return Told(word, told.severity, told.reason, told.advice)
    idle = decision.due and one.agent.condition(now)[0] not in WELL
    severity = Severity.WARNING if idle else Severity.OK
    return Told(decision.state, severity, decision.reason, told.advice if told else "")


def _reports(one: Managed) -> list[Report]:
    """Of its last rotations; not of those of another token in the same Variable."""
    return [it.report for it in one.attempts if it.report.name == one.name]


def _newest_issued(one: Managed) -> Life | None:
    """The newest token that the agent has seen at the issuer, since it first did."""
    seen = [
        (report.newest_issued_expires_at, report.checked_at)
        for report in _reports(one)
        if report.newest_issued_expires_at
    ]
    if not seen:
        return None
    newest = max(expires_at for expires_at, _ in seen)
    return Life(min(at for expires_at, at in seen if expires_at == newest), newest)


def _rotations(one: Managed, rotations: Rotations) -> dict[str, int]:
    """How many rotations of the token ended with each outcome, under any of its labels."""
    counts: dict[str, int] = {}
    for label in one.labels:
        for outcome, count in rotations.get(label, {}).items():
            counts[outcome] = counts.get(outcome, 0) + count
    return counts


def _clock_skews(tokens: Iterable[Managed]) -> dict[str, int]:
    """By connection, as the newest rotation found it."""
    measured = [
        (it.report.checked_at, one.token.flowauth_conn_id, it.report.clock_skew)
        for one in tokens
        for it in one.attempts
        if it.report.clock_skew is not None
    ]
    return {connection: skew for _, connection, skew in sorted(measured)}
