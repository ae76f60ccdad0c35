"""The output for programs: an assessment as JSON values."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flowauth_rotator.monitoring.assessment import AssessedToken, Assessment, assess_dag
from flowauth_rotator.monitoring.service_names import find_collisions, service_name
from flowauth_rotator.monitoring.status import VERSION, RotationDagStatus


def render(assessment: Assessment) -> dict[str, Any]:
    """Return the assessment as JSON values; times are epoch seconds, durations seconds."""
    snapshot, thresholds = assessment.snapshot, assessment.thresholds
    return {
        "version": VERSION,
        "now": _seconds(snapshot.taken_at),
        "state": assessment.state.name,
        "thresholds": {
            "warning": _threshold(thresholds.warning),
            "critical": _threshold(thresholds.critical),
        },
        "issuer": {"url": snapshot.issuer, "trouble": snapshot.issuer_trouble},
        "agent": assessment.dags
        and {
            "state": assessment.dags.state.name,
            "sentence": assessment.dags.summary,
            "hint": assessment.dags.hint,
        },
        "agents": [_dag(dag, snapshot.taken_at) for dag in snapshot.rotation_dags or ()],
        "tokens": [_token(token) for token in assessment.tokens],
        "collisions": find_collisions(token.token.name for token in assessment.tokens),
    }


def _dag(dag: RotationDagStatus, now: datetime) -> dict[str, Any]:
    status = assess_dag(dag, now)
    return {
        "dag_id": dag.dag_id,
        "state": status.state.name,
        "condition": dag.condition,
        "sentence": status.summary,
        "hint": status.hint,
        "last_check_at": _seconds(dag.checked_at),
        "next_check_at": _seconds(dag.next_check_at),
        "deadline_at": _seconds(dag.deadline_at),
    }


def _token(assessed: AssessedToken) -> dict[str, Any]:
    token, validity = assessed.token, assessed.validity
    return {
        "name": token.name,
        "service": service_name(token.name),
        "state": assessed.status.state.name,
        "sentence": assessed.status.summary,
        "hint": assessed.status.hint,
        "place": token.place or None,
        "dag_id": token.dag_id,
        "outcome": token.last_check.outcome if token.last_check else None,
        "issued_at": _seconds(validity.issued_at if validity else None),
        "renew_at": _seconds(validity.renew_at if validity else None),
        "expires_at": _seconds(validity.expires_at if validity else None),
        "renewal_check_at": _seconds(token.renewal_check_at),
        "newest_issued_expires_at": _seconds(token.issued.expires_at if token.issued else None),
        "remaining": int(assessed.remaining.total_seconds()) if validity else None,
        "warning_below": int(assessed.warning.total_seconds()) if validity else None,
        "critical_below": int(assessed.critical.total_seconds()) if validity else None,
    }


def _threshold(value: float | timedelta) -> dict[str, Any]:
    if isinstance(value, timedelta):
        return {"seconds": round(value.total_seconds())}
    return {"of_renewal_window": value}


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp())
