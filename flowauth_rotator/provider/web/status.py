"""The monitoring status of the managed tokens and their DAGs, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from flowauth_rotator.agent.rotation import Inspection
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.monitoring.status import (
    CheckResult,
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
)
from flowauth_rotator.provider.schedule import (
    compute_grace_period,
    compute_interval,
    find_first_check,
)
from flowauth_rotator.provider.variable_store import format_place
from flowauth_rotator.provider.web.managed import RENEWING_CONDITIONS, InspectedToken, RotationDag

SWAP_OUTCOMES = (Outcome.ROTATED, Outcome.ADOPTED)

RotationCounts = Mapping[str, Mapping[str, int]]  # by task label and outcome


def build_snapshot(
    dags: Sequence[RotationDag],
    tokens: Sequence[InspectedToken],
    now: datetime,
    rotations: Mapping[str, RotationCounts],
) -> Snapshot:
    """Build the snapshot for monitoring.

    Args:
        dags: the rotation DAGs.
        tokens: all or some of their tokens.
        now: an aware time.
        rotations: the number of ended rotations of each DAG.
    """
    return Snapshot(
        taken_at=now,
        tokens=[
            build_token_status(token, now, rotations.get(token.dag.dag_id, {})) for token in tokens
        ],
        rotation_dags=[build_dag_status(dag, now) for dag in dags],
        clock_skews=_collect_clock_skews(tokens),
    )


def build_token_status(
    token: InspectedToken, now: datetime, rotations: RotationCounts | None = None
) -> TokenStatus:
    """Build the status of one token."""
    validity, renewal_check_at = None, None
    if isinstance(token.inspection, Inspection):
        claims, renew_at = token.inspection.claims, token.inspection.decision.renew_at
        validity = Validity(claims.issued_at, claims.expires_at, renew_at)
        renewal_check_at = find_first_check(token.dag.schedule, renew_at, token.dag.next_check_at)
    swaps = (report.checked_at for report in _own_reports(token) if report.outcome in SWAP_OUTCOMES)
    return TokenStatus(
        name=token.name,
        place=format_place(token.variable),
        dag_id=token.dag.dag_id,
        in_use=validity,
        issued=_find_newest_issued(token),
        last_check=build_check_result(token, now),
        renewal_check_at=renewal_check_at,
        last_success_at=max(swaps, default=None),
        rotations=None if rotations is None else _count_rotations(token, rotations),
    )


def build_dag_status(dag: RotationDag, now: datetime) -> RotationDagStatus:
    """Build the status of one rotation DAG."""
    condition, hint = dag.evaluate_condition(now)
    if condition == "ok" and dag.notices:
        condition, hint = "misconfigured", " ".join(dag.notices)
    return RotationDagStatus(
        dag_id=dag.dag_id,
        condition=condition,
        hint=hint,
        checked_at=dag.checked_at,
        deadline_at=dag.deadline_at,
        next_check_at=dag.next_check_at,
        interval=compute_interval(dag.schedule, now),
        grace_period=compute_grace_period(dag.schedule, dag.checked_at or now),
    )


def build_check_result(token: InspectedToken, now: datetime) -> CheckResult:
    """Build the result of a token's last check, apart from its remaining lifetime."""
    inspection, report = token.inspection, token.current_report
    if not isinstance(inspection, Inspection):
        is_shadowed = report is not None and report.outcome is Outcome.SHADOWED
        source = report if report and is_shadowed else inspection
        return CheckResult(source.outcome, source.severity, source.message, source.hint)
    decision = inspection.decision
    if report and report.failed:
        outcome = decision.state if report.outcome is Outcome.HEALTHY else report.outcome
        return CheckResult(outcome, report.severity, report.message, report.hint)
    is_stuck = decision.due and token.dag.evaluate_condition(now)[0] not in RENEWING_CONDITIONS
    severity = Severity.WARNING if is_stuck else Severity.OK
    return CheckResult(decision.state, severity, decision.message, report.hint if report else "")


def _own_reports(token: InspectedToken) -> list[Report]:
    """Return the reports of its last rotations, without those of other tokens in its Variable."""
    reports = [attempt.report for attempt in token.attempts]
    return [report for report in reports if report.name == token.name]


def _find_newest_issued(token: InspectedToken) -> Validity | None:
    """Return the newest token that rotations have seen at the issuer, issued when first seen."""
    sightings = [
        (report.newest_issued_expires_at, report.checked_at)
        for report in _own_reports(token)
        if report.newest_issued_expires_at
    ]
    if not sightings:
        return None
    newest = max(expires_at for expires_at, _ in sightings)
    return Validity(min(at for expires_at, at in sightings if expires_at == newest), newest)


def _count_rotations(token: InspectedToken, rotations: RotationCounts) -> dict[str, int]:
    """Return the number of ended rotations by outcome, over all task labels of the token."""
    counts: dict[str, int] = {}
    for label in token.task_labels:
        for outcome, count in rotations.get(label, {}).items():
            counts[outcome] = counts.get(outcome, 0) + count
    return counts


def _collect_clock_skews(tokens: Iterable[InspectedToken]) -> dict[str, int]:
    """Return the clock skew in seconds that the newest rotation of each connection measured."""
    measurements = [
        (attempt.report.checked_at, token.settings.flowauth_conn_id, attempt.report.clock_skew)
        for token in tokens
        for attempt in token.attempts
        if attempt.report.clock_skew is not None
    ]
    return {connection: skew for _, connection, skew in sorted(measurements)}
