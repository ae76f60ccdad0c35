"""The output for Nagios and Icinga: a status line with performance data, then long output."""

from __future__ import annotations

from collections import Counter

from flowauth_rotator.core.report import Severity
from flowauth_rotator.core.text import quote
from flowauth_rotator.monitoring.assessment import AssessedToken, Assessment, Verdict
from flowauth_rotator.monitoring.formatting import format_percent, to_one_line


def render(assessment: Assessment) -> str:
    """Render the output of a plugin, whose exit code is that of the assessment's severity.

    It is about one token, about the rotation DAGs, or about everything: then the status line has
    the highest severity, and the long output a line for each token, the most severe first.
    """
    tokens, dags, failure = (
        assessment.by_severity,
        assessment.dags_verdict,
        assessment.issuer_failure,
    )
    lines = [f"{failure[0].upper()}{failure[1:]}."] if failure else []
    if dags is None and len(tokens) == 1:
        head = f"TOKEN {assessment.severity.name} - {_clause(tokens[0])}"
        data, lines = _token_data(tokens[0]), tokens[0].details + lines
    elif dags and not tokens:
        head, data = f"AGENT {assessment.severity.name} - {dags.message}", ""
        lines = [dags.hint, *lines]
    else:
        head, data = _summary(assessment, tokens, dags), _summary_data(tokens)
        if dags:
            lines.append(f"agent {dags.severity.name} - {dags.message}. {dags.hint}")
        lines += [
            f"{token.severity.name} - {_clause(token)}. {' '.join(token.details)}"
            for token in tokens
        ]
    lines.append(f"Thresholds: {assessment.thresholds}.")
    head = to_one_line(head)
    lines = [f"{head} | {data}" if data else head, *filter(None, map(to_one_line, lines))]
    return "".join(f"{line}\n" for line in lines)


def render_failure(message: str) -> str:
    """Render the output of a check that failed itself, with the severity UNKNOWN."""
    return f"TOKENS {Severity.UNKNOWN.name} - {to_one_line(message)}\n"


def _summary(assessment: Assessment, tokens: list[AssessedToken], dags: Verdict | None) -> str:
    counts = Counter(token.severity for token in tokens)
    numbers = ", ".join(
        f"{counts[severity]} {severity}" for severity in Severity if counts[severity]
    )
    clauses = [f"{len(tokens)} tokens: {numbers}" if tokens else "no tokens"]
    if dags:
        clauses.append(f"agent {dags.severity}")
    if tokens and tokens[0].severity is not Severity.OK:
        clauses.append(_clause(tokens[0]))
    elif dags and dags.severity is not Severity.OK:
        clauses.append(dags.message)
    return f"TOKENS {assessment.severity.name} - {'; '.join(clauses)}"


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
