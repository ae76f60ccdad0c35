"""The output for Nagios and Icinga: a status line with performance data, then long output."""

from __future__ import annotations

from collections import Counter

from flowauth_rotator.monitoring.assessment import AssessedToken, Assessment, ServiceStatus, State
from flowauth_rotator.monitoring.formatting import format_percent, to_one_line


def render(assessment: Assessment) -> str:
    """Render the output of a plugin, whose exit code is the assessment's state.

    It is about one token, about the rotation DAGs, or about everything: then the status line has
    the most severe state, and the long output a line for each token.
    """
    tokens, dags = assessment.by_severity, assessment.dags
    lines = [f"{assessment.issuer_failure}."] if assessment.issuer_failure else []
    if dags is None and len(tokens) == 1:
        head = f"TOKEN {_token_line(tokens[0], assessment.state)}"
        data, lines = _token_data(tokens[0]), tokens[0].details + lines
    elif dags and not tokens:
        head, data = f"AGENT {_dags_line(dags, assessment.state)}", ""
        lines = [dags.hint, *lines]
    else:
        head, data = _summary(assessment), _summary_data(assessment)
        lines += [_token_line(token, token.status.state) for token in tokens]
        if dags:
            lines.append(f"agent {_dags_line(dags, dags.state)} {dags.hint}")
    lines.append(f"Thresholds: {assessment.thresholds}.")
    head = to_one_line(head)
    lines = [f"{head} | {data}" if data else head, *filter(None, map(to_one_line, lines))]
    return "".join(f"{line}\n" for line in lines)


def render_failure(message: str) -> str:
    """Render the output of a check that failed itself, with the state UNKNOWN."""
    return f"TOKENS {State.UNKNOWN.name} - {to_one_line(message)}\n"


def _summary(assessment: Assessment) -> str:
    tokens, dags = assessment.by_severity, assessment.dags
    counts = Counter(token.status.state for token in tokens)
    by_state = ", ".join(
        f"{counts[state]} {state.name.lower()}" for state in State if counts[state]
    )
    clauses = [f"{len(tokens)} tokens: {by_state}" if tokens else "no tokens"]
    if dags:
        clauses.append(f"agent {dags.state.name.lower()}")
    if tokens and tokens[0].status.state is not State.OK:
        clauses.append(_clause(tokens[0]))
    elif dags and dags.state is not State.OK:
        clauses.append(dags.summary)
    return f"TOKENS {assessment.state.name} - {'; '.join(clauses)}"


def _token_line(token: AssessedToken, state: State) -> str:
    return f"{state.name} - {_clause(token)}"


def _dags_line(dags: ServiceStatus, state: State) -> str:
    return f"{state.name} - {dags.summary}"


def _clause(token: AssessedToken) -> str:
    """Join name and summary, which is a sentence of its own for a token that cannot be read."""
    return f"{token.token.name!r}{'' if token.validity else ':'} {token.status.summary}"


def _summary_data(assessment: Assessment) -> str:
    """Return the number of tokens in each state, and the shortest remaining lifetime."""
    counts = Counter(token.status.state for token in assessment.tokens)
    data = [f"{state.name.lower()}={counts[state]}" for state in State]
    if remaining := [token.remaining for token in assessment.tokens if token.validity]:
        data.append(f"remaining={int(min(remaining).total_seconds())}s")
    return " ".join(data)


def _token_data(token: AssessedToken) -> str:
    """Return the remaining lifetime with its lower limits, and the used one with its upper ones."""
    if token.validity is None:
        return ""
    remaining, warning, critical = (
        int(duration.total_seconds())
        for duration in (token.remaining, token.warning, token.critical)
    )
    levels = ";".join(map(format_percent, token.used_levels))
    return (
        f"remaining={remaining}s;{warning}:;{critical}: "
        f"used={format_percent(token.used)}%;{levels};0;100"
    )
