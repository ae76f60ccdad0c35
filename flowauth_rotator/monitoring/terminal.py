"""The output for people: a bar for the lifetime of each token, and what the next check will do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.assessment import AssessedToken, Assessment, Verdict
from flowauth_rotator.monitoring.formatting import format_minute, to_one_line

HEADERS = ("name", "severity", "left", "renewal due", "details")
BAR_WIDTH = 24  # characters
COLORS = {
    Severity.OK: "green",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "red",
    Severity.UNKNOWN: "magenta",
}


def render(assessment: Assessment) -> str:
    """Render a header and a line for each token, with tabs between the columns, for pipes."""
    table = [HEADERS, *((*_columns(token), _describe(token)) for token in assessment.tokens)]
    if dags := assessment.dags_verdict:
        table.append(("rotation DAGs", dags.severity.name, "", "", _describe_dags(dags)))
    return "".join("\t".join(map(to_one_line, row)) + "\n" for row in table)


def print_assessment(assessment: Assessment, console: Console) -> None:
    """Print the same for people, with a bar of the used lifetime and `│` where renewal is due."""
    rows = [_columns(token) for token in assessment.tokens]
    widths = [max(map(len, column)) for column in zip(HEADERS[:4], *rows, strict=True)]
    if rows:
        console.print(_row(HEADERS[:4], widths, Text(f"{'life':{BAR_WIDTH}}")), style="dim")
    for token, row in zip(assessment.tokens, rows, strict=True):
        color = COLORS[token.severity]
        console.print(_row(row, widths, Text("".join(_bar(token)), color), color))
        console.print(Padding(Text(_describe(token)), (0, 0, 1, 2)))
    if dags := assessment.dags_verdict:
        console.print(Text.assemble("rotation DAGs  ", (dags.severity.name, COLORS[dags.severity])))
        console.print(Padding(Text(_describe_dags(dags)), (0, 0, 0, 2)))


def _columns(token: AssessedToken) -> tuple[str, str, str, str]:
    """Return name, severity, remaining lifetime and the time of the renewal."""
    name, severity, remaining = to_one_line(token.token.name), token.severity.name, token.remaining
    if remaining is None:
        return name, severity, "-", "-"
    left = format_duration(remaining) if remaining > timedelta(0) else "expired"
    renew_at = token.token.renew_at
    return name, severity, left, format_minute(renew_at) if renew_at else "-"


def _describe(token: AssessedToken) -> str:
    return to_one_line(f"{token.verdict.message}. {' '.join(token.details)}")


def _describe_dags(dags: Verdict) -> str:
    return to_one_line(f"{dags.message}. {dags.hint}")


def _row(row: Sequence[str], widths: Sequence[int], bar: Text, color: str = "") -> Text:
    name, severity, left, due = (
        f"{text:<{width}}" for text, width in zip(row, widths, strict=True)
    )
    return Text.assemble(name, "  ", (severity, color), "  ", bar, "  ", left, "  ", due)


def _bar(token: AssessedToken) -> Iterator[str]:
    """Yield the cells of a bar: used lifetime is filled, and `│` is where the renewal is due."""
    issued_at, renew_at, expires_at = (
        token.token.issued_at,
        token.token.renew_at,
        token.token.expires_at,
    )
    due = None
    if issued_at and renew_at and expires_at and expires_at > issued_at:
        due = round(BAR_WIDTH * ((renew_at - issued_at) / (expires_at - issued_at)))
    for cell in range(BAR_WIDTH):
        if cell == due:
            yield "│"
        else:
            yield "█" if token.remaining is not None and cell < BAR_WIDTH * token.used else "·"
