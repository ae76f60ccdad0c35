"""The output for programs: a status document with the verdicts, as JSON values."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.dag_assessment import AssessedDag
from flowauth_rotator.monitoring.json_values import to_json
from flowauth_rotator.monitoring.service_names import find_collisions, service_name
from flowauth_rotator.monitoring.token_assessment import AssessedToken
from flowauth_rotator.monitoring.verdict import Verdict


def render(assessment: Assessment) -> dict[str, Any]:
    """Return the assessment as JSON values; times are epoch seconds, durations seconds.

    `StatusDocument.from_json` reads the facts in it again.
    """
    thresholds = assessment.thresholds
    return {
        **replace(assessment.document, dags=(), tokens=()).to_json(),
        "now": to_json(assessment.now),
        "severity": assessment.severity,
        "thresholds": {
            "warning": _render_threshold(thresholds.warning),
            "critical": _render_threshold(thresholds.critical),
        },
        "dags": None if assessment.dags is None else [render_dag(dag) for dag in assessment.dags],
        "tokens": [render_token(token) for token in assessment.tokens],
        "collisions": find_collisions(token.token.name for token in assessment.tokens),
    }


def render_dag(dag: AssessedDag) -> dict[str, Any]:
    """Return a rotation DAG as JSON values."""
    return {**to_json(dag.dag), "condition": dag.condition, **_render_verdict(dag.verdict)}


def render_token(token: AssessedToken) -> dict[str, Any]:
    """Return a token as JSON values."""
    is_known = token.remaining is not None
    return {
        **to_json(token.token),
        "service": service_name(token.token.name),
        "state": token.state,
        **_render_verdict(token.verdict),
        "forecast": token.forecast,
        "remaining": to_json(token.remaining),
        "warning_below": to_json(token.warning_below) if is_known else None,
        "critical_below": to_json(token.critical_below) if is_known else None,
    }


def _render_verdict(verdict: Verdict) -> dict[str, str]:
    return {
        "severity": verdict.severity,
        "message": verdict.message,
        "hint": verdict.hint,
    }


def _render_threshold(value: float | timedelta) -> dict[str, Any]:
    if isinstance(value, timedelta):
        return {"seconds": round(value.total_seconds())}
    return {"of_renewal_window": value}
