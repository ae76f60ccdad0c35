"""The runbook and the Prometheus alert for the state of a token, which have the same names."""

from __future__ import annotations

from datetime import datetime, timedelta

from flowauth_rotator.core.policy import TokenState
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.dag_assessment import AssessedDag
from flowauth_rotator.monitoring.export import FILES
from flowauth_rotator.monitoring.forecast import expires_before_renewal
from flowauth_rotator.monitoring.token_assessment import (
    INVALID_SIGNATURE,
    AssessedToken,
    has_unused_successor,
)

FAILING = "FlowAuthRotationFailing"
STATES = frozenset(TokenState)


def list_runbooks() -> list[str]:
    """Return the names of all runbooks, with `README`, their index."""
    return sorted(path.stem for path in (FILES / "runbooks").glob("*.md"))


def read_runbook(name: str) -> str | None:
    """Return the Markdown text of a runbook; None if there is none of this name."""
    if name not in list_runbooks():
        return None
    return (FILES / "runbooks" / f"{name}.md").read_text()


def find_runbook(token: AssessedToken, dag: AssessedDag | None, now: datetime) -> str | None:
    """Return the name of the runbook for a token; None if it is OK or no runbook fits.

    Args:
        token: the token.
        dag: the rotation DAG that manages it; None if there is none.
        now: the time of the assessment.
    """
    remaining = token.remaining
    if token.severity is Severity.OK:
        return None
    if remaining is None:
        return None if token.state == "unknown" else "FlowAuthTokenMissing"
    if remaining <= timedelta(0):
        return "FlowAuthTokenExpired"
    if token.state == INVALID_SIGNATURE:
        return "FlowAuthTokenSignatureInvalid"
    if remaining < token.critical_below:
        return "FlowAuthTokenExpiryCritical"
    if expires_before_renewal(token.token, dag, now):
        return "FlowAuthRotationAgentStalled"
    if token.state not in STATES:
        return FAILING
    if dag and dag.condition.has_stopped:
        return "FlowAuthRotationAgentStalled"
    if remaining < token.warning_below:
        return "FlowAuthTokenExpiringSoon"
    if token.token.failed_rehearsal and token.state == TokenState.HEALTHY:
        return "FlowAuthTokenRehearsalFailing"
    if has_unused_successor(token.token, dag.dag if dag else None, now):
        return "FlowAuthTokenNotDeployed"
    if dag and not dag.condition.is_renewing:
        return "FlowAuthRotationAgentStalled"
    return None


def find_alert(token: AssessedToken, dag: AssessedDag | None, now: datetime) -> str | None:
    """Return the name of the alert of the bundled Prometheus rules that fires for a token.

    The alert for a failed rotation does not fire before the renewal is due. That for a DAG which
    has stopped fires once two checks are missed, that for a token which expires before its next
    check never.

    Args:
        token: the token.
        dag: the rotation DAG that manages it; None if there is none.
        now: the time of the assessment.
    """
    runbook, renew_at = find_runbook(token, dag, now), token.token.renew_at
    if runbook == FAILING and renew_at and now < renew_at:
        return None
    if runbook == "FlowAuthRotationAgentStalled":
        deadline = dag.dag.deadline_at if dag else None
        return runbook if deadline and deadline < now else None
    return runbook
