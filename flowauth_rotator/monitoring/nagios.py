"""The output for Nagios and Icinga: a status line with performance data, then long output."""

from __future__ import annotations

from collections import Counter

from flowauth_rotator.core.report import Severity
from flowauth_rotator.core.text import format_count, quote
from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.formatting import format_percent, to_one_line
from flowauth_rotator.monitoring.token_assessment import AssessedToken


def render(assessment: Assessment) -> str:
    """Render the output of a plugin, whose exit code is that of the assessment's severity.

    It is about one token, about the rotation DAGs, or about everything: then the status line has
    the highest severity with its reason, and the long output a line for each token, the most severe
    first.
    """
    tokens, dags = assessment.by_severity, assessment.dags_verdict
    reasons, lines = _list_reasons(assessment), []
    clauses = [clause for _, clause in reasons]
    if dags is None and len(tokens) == 1:
        subject, data, lines = "TOKEN", _token_data(tokens[0]), tokens[0].details
    elif dags and not tokens:
        subject, data, lines = "AGENT", "", [dags.hint]
    else:
        subject, data = "TOKENS", _summary_data(tokens)
        clauses = [clause for severity, clause in reasons if severity is not Severity.OK]
        clauses = [_count(tokens), *([f"agent {dags.severity}"] if dags else []), *clauses]
        if dags:
            lines.append(f"agent {dags.severity.name} - {dags.message}. {dags.hint}")
        lines += [
            f"{token.severity.name} - {_clause(token)}. {' '.join(token.details)}"
            for token in tokens
        ]
    lines.append(f"Thresholds: {assessment.thresholds}.")
    head = to_one_line(f"{subject} {assessment.severity.name} - {'; '.join(clauses)}")
    lines = [f"{head} | {data}" if data else head, *filter(None, map(to_one_line, lines))]
    return "".join(f"{line}\n" for line in lines)


def render_failure(message: str) -> str:
    """Render the output of a check that failed itself, with the severity UNKNOWN."""
    return f"TOKENS {Severity.UNKNOWN.name} - {to_one_line(message)}\n"


def _list_reasons(assessment: Assessment) -> list[tuple[Severity, str]]:
    """Return a clause for the worst token, the DAGs and a failure, the most severe first."""
    reasons = [(token.severity, _clause(token)) for token in assessment.by_severity[:1]]
    if dags := assessment.dags_verdict:
        reasons.append((dags.severity, dags.message))
    if assessment.issuer_failure:
        reasons.append((Severity.UNKNOWN, assessment.issuer_failure))
    return sorted(reasons, key=lambda reason: -reason[0].rank)


def _count(tokens: list[AssessedToken]) -> str:
    counts = Counter(token.severity for token in tokens)
    numbers = ", ".join(
        f"{counts[severity]} {severity}" for severity in Severity if counts[severity]
    )
    return f"{format_count(len(tokens), 'token')}: {numbers}" if tokens else "no tokens"


def _clause(token: AssessedToken) -> str:
    return f"{quote(token.token.name)}: {token.verdict.message}"


def _summary_data(tokens: list[AssessedToken]) -> str:
    """Return the number of tokens of each severity, and the shortest remaining lifetime."""
    counts = Counter(token.severity for token in tokens)
    data = [f"{severity}={counts[severity]}" for severity in Severity]
    if remaining := [token.remaining for token in tokens if token.remaining is not None]:
        data.append(f"remaining={int(min(remaining).total_seconds())}s")
    return " ".join(data)


def _token_data(token: AssessedToken) -> str:
    """Return the remaining lifetime with its lower limits, and the used one with its upper ones."""
    if token.remaining is None:
        return ""
    remaining, warning, critical = (
        int(duration.total_seconds())
        for duration in (token.remaining, token.warning_below, token.critical_below)
    )
    levels = ";".join(map(format_percent, token.used_levels))
    return (
        f"remaining={remaining}s;{warning}:;{critical}: "
        f"used={format_percent(token.used)}%;{levels};0;100"
    )
