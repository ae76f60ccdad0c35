"""The output for Checkmk: one line for each service, in the format of local checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from flowauth_rotator.monitoring.assessment import (
    AssessedToken,
    Assessment,
    ServiceStatus,
    State,
    most_severe,
)
from flowauth_rotator.monitoring.formatting import format_percent, to_one_line
from flowauth_rotator.monitoring.service_names import PREFIX, service_name

DAGS_SERVICE = "FlowAuth_Rotation_Agent"
ISSUER_SERVICE = "FlowAuth_Issuer"  # replaces it in an issuer's snapshot
LINE_BREAK = "\\n"  # these two characters; the text after the first one is shown as details


def render(assessment: Assessment, *, dags_service: str = DAGS_SERVICE) -> str:
    """Render a line for each token, and one for the rotation DAGs or the issuer.

    The format is `STATE "SERVICE" METRICS TEXT`, from Checkmk's documentation of local checks. If
    tokens share a service name, the most severe counts, and the last line is a warning.

    Args:
        assessment: the states.
        dags_service: the service name of the rotation DAGs.
    """
    by_service: dict[str, list[AssessedToken]] = defaultdict(list)
    for token in assessment.tokens:
        by_service[service_name(token.token.name)].append(token)
    lines = [_token_line(service, tokens) for service, tokens in sorted(by_service.items())]
    shared = {service: tokens for service, tokens in by_service.items() if len(tokens) > 1}
    lines.append(_last_line(assessment, shared, dags_service))
    return "".join(f"{line}\n" for line in lines)


def render_failure(message: str, names: Iterable[str] = (), *, service: str = DAGS_SERVICE) -> str:
    """Render the lines of a check that failed itself: CRITICAL, and UNKNOWN for each token.

    Args:
        message: the error.
        names: the names of the requested tokens.
        service: the critical service, of the rotation DAGs or of the issuer.
    """
    lines = [_line(State.UNKNOWN, service_name(name), "-", message) for name in names]
    lines.append(_line(State.CRITICAL, service, "-", message))
    return "".join(f"{line}\n" for line in lines)


def _token_line(service: str, tokens: Sequence[AssessedToken]) -> str:
    token = max(tokens, key=lambda each: each.status.state.rank)
    metrics = "-"
    if token.validity:
        levels = ";".join(map(format_percent, token.used_levels))
        remaining = int(token.remaining.total_seconds())
        metrics = f"used={format_percent(token.used)};{levels};0;100|remaining={remaining}"
    summary = token.status.summary
    text = summary[:1].upper() + summary[1:]
    return _line(token.status.state, service, metrics, text, *token.details)


def _last_line(
    assessment: Assessment, shared: Mapping[str, Sequence[AssessedToken]], dags_service: str
) -> str:
    count = len(assessment.tokens)
    status = assessment.dags or ServiceStatus(
        State.OK if count else State.WARNING,
        f"{assessment.snapshot.issuer} responded; names of tokens: {count or 'none'}",
    )
    state, text = status.state, status.summary
    if assessment.issuer_failure:
        state = most_severe(state, State.UNKNOWN)
        text = f"{text}; {assessment.issuer_failure}"
    if shared:
        state = most_severe(state, State.WARNING)
        text = f"{text}; service names that several tokens share: {len(shared)}"
    details = [status.hint, f"Thresholds: {assessment.thresholds}."]
    details += [
        f"{service.removeprefix(PREFIX)} is shared by "
        f"{' and '.join(repr(token.token.name) for token in tokens)}."
        for service, tokens in sorted(shared.items())
    ]
    service = ISSUER_SERVICE if assessment.dags is None else dags_service
    return _line(state, service, "-", text, *details)


def _line(state: State, service: str, metrics: str, text: str, *details: str) -> str:
    text = to_one_line(text) or state.name
    parts = [text, *filter(None, map(to_one_line, details))]
    return f'{state.value} "{service}" {metrics} {LINE_BREAK.join(parts)}'
