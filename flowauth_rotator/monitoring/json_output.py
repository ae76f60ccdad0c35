"""The reading of programs: all states as JSON values."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flowauth_rotator.monitoring.assessment import Assessment, Judged, of_heartbeat
from flowauth_rotator.monitoring.service_names import collisions, service_name
from flowauth_rotator.monitoring.snapshot import VERSION


def document(assessment: Assessment) -> dict[str, Any]:
    """All of it; times are epoch seconds, durations seconds."""
    snapshot, thresholds = assessment.snapshot, assessment.thresholds
    agents = [(agent, of_heartbeat(agent, snapshot.taken_at)) for agent in snapshot.agents or ()]
    return {
        "version": VERSION,
        "now": _seconds(snapshot.taken_at),
        "state": assessment.state.name,
        "thresholds": {
            "warning": _threshold(thresholds.warning),
            "critical": _threshold(thresholds.critical),
        },
        "issuer": {"url": snapshot.issuer, "trouble": snapshot.issuer_trouble},
        "agent": assessment.agent
        and {
            "state": assessment.agent.state.name,
            "sentence": assessment.agent.sentence,
            "advice": assessment.agent.advice,
        },
        "agents": [
            {
                "dag_id": agent.dag_id,
                "state": verdict.state.name,
                "condition": agent.condition,
                "sentence": verdict.sentence,
                "advice": verdict.advice,
                "last_check_at": _seconds(agent.checked_at),
                "next_check_at": _seconds(agent.next_check_at),
                "deadline_at": _seconds(agent.deadline_at),
            }
            for agent, verdict in agents
        ],
        "tokens": [_token(one) for one in assessment.tokens],
        "collisions": collisions(one.token.name for one in assessment.tokens),
    }


def _token(one: Judged) -> dict[str, Any]:
    token, life = one.token, one.life
    return {
        "name": token.name,
        "service": service_name(token.name),
        "state": one.verdict.state.name,
        "sentence": one.verdict.sentence,
        "advice": one.verdict.advice,
        "place": token.place or None,
        "dag_id": token.dag_id,
        "outcome": token.told.word if token.told else None,
        "issued_at": _seconds(life.issued_at if life else None),
        "renew_at": _seconds(life.renew_at if life else None),
        "expires_at": _seconds(life.expires_at if life else None),
        "renewal_check_at": _seconds(token.renewal_check_at),
        "newest_issued_expires_at": _seconds(token.issued.expires_at if token.issued else None),
        "remaining": int(one.remaining.total_seconds()) if life else None,
        "warning_below": int(one.warning.total_seconds()) if life else None,
        "critical_below": int(one.critical.total_seconds()) if life else None,
    }


def _threshold(value: float | timedelta) -> dict[str, Any]:
    if isinstance(value, timedelta):
        return {"seconds": round(value.total_seconds())}
    return {"of_renewal_window": value}


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp())
