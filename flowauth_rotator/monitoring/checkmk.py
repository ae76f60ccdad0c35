"""The output for Checkmk: one line for each service, in the format of local checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from flowauth_rotator.core.report import Severity, most_severe
from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.formatting import format_percent, to_one_line
from flowauth_rotator.monitoring.plugin_codes import PLUGIN_CODES
from flowauth_rotator.monitoring.service_names import PREFIX, service_name
from flowauth_rotator.monitoring.token_assessment import AssessedToken
from flowauth_rotator.monitoring.verdict import Verdict

DAGS_SERVICE = "FlowAuth_Rotation_Agent"
ISSUER_SERVICE = "FlowAuth_Issuer"  # replaces it if only an issuer is queried
COMPUTED = "P"  # a state that Checkmk computes from the levels, which it then draws in graphs
LINE_BREAK = "\\n"  # these two characters; the text after the first one is shown as details


def render(assessment: Assessment, *, dags_service: str = DAGS_SERVICE) -> str:
    """Render a line for each name, and one for the rotation DAGs or the issuer.

    The format is `STATE "SERVICE" METRICS TEXT`, from Checkmk's documentation of local checks.
    Checkmk draws levels only with the state `P`, and computes the state from them: it is used while
    that is the severity. If names share a service name, the most severe token counts, and the last
    line is a warning.

    Args:
        assessment: the verdicts.
        dags_service: the service name of the rotation DAGs.
    """
    by_service: dict[str, list[AssessedToken]] = defaultdict(list)
    for token in assessment.by_severity:
        by_service[service_name(token.token.name)].append(token)
    lines = [_token_line(service, tokens[0]) for service, tokens in sorted(by_service.items())]
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
    unknown, critical = (
        str(PLUGIN_CODES[severity]) for severity in (Severity.UNKNOWN, Severity.CRITICAL)
    )
    lines = [_line(unknown, service_name(name), "-", message) for name in names]
    lines.append(_line(critical, service, "-", message))
    return "".join(f"{line}\n" for line in lines)


def _token_line(service: str, token: AssessedToken) -> str:
    state, metrics = str(PLUGIN_CODES[token.severity]), "-"
    if token.remaining is not None:
        used, *levels = map(format_percent, (token.used, *token.used_levels))
        remaining = int(token.remaining.total_seconds())
        metrics = f"used={used};{';'.join(levels)};0;100|remaining={remaining}"
        if sum(float(used) >= float(level) for level in levels) == PLUGIN_CODES[token.severity]:
            state = COMPUTED
    return _line(state, service, metrics, token.verdict.message, *token.details)


def _last_line(
    assessment: Assessment, shared: Mapping[str, Sequence[AssessedToken]], dags_service: str
) -> str:
    count = len(assessment.by_name)
    verdict = assessment.dags_verdict or Verdict(
        Severity.OK if count else Severity.WARNING,
        f"{assessment.document.issuer} responded; names of tokens: {count or 'none'}",
    )
    severity, text = verdict.severity, verdict.message
    if assessment.issuer_failure:
        severity = most_severe(severity, Severity.UNKNOWN)
        text = f"{text}; {assessment.issuer_failure}"
    if shared:
        severity = most_severe(severity, Severity.WARNING)
        text = f"{text}; service names that several tokens share: {len(shared)}"
    details = [verdict.hint, f"Thresholds: {assessment.thresholds}."]
    details += [
        f"{service.removeprefix(PREFIX)} is shared by "
        f"{' and '.join(repr(token.token.name) for token in tokens)}."
        for service, tokens in sorted(shared.items())
    ]
    service = ISSUER_SERVICE if assessment.dags is None else dags_service
    return _line(str(PLUGIN_CODES[severity]), service, "-", text, *details)


def _line(state: str, service: str, metrics: str, text: str, *details: str) -> str:
    text = to_one_line(text) or "No message."
    parts = [text, *filter(None, map(to_one_line, details))]
    return f'{state} "{service}" {metrics} {LINE_BREAK.join(parts)}'
