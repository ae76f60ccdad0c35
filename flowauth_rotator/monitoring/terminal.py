"""The output for people: a bar for the lifetime of each token, and what the next check will do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from flowauth_rotator.monitoring.assessment import (
    AssessedToken,
    Assessment,
    ServiceStatus,
    State,
)
from flowauth_rotator.monitoring.formatting import format_duration, format_minute, to_one_line

HEADERS = ("name", "state", "left", "renewal due", "details")
BAR_WIDTH = 24  # characters
COLORS = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.CRITICAL: "red",
    State.UNKNOWN: "magenta",
}


def render(assessment: Assessment) -> str:
    """Render a header and a line for each token, with tabs between the columns, for pipes."""
    table = [HEADERS, *((*_columns(token), _details(token)) for token in assessment.tokens)]
    if assessment.dags:
        table.append(
            ("rotation DAGs", assessment.dags.state.name, "", "", _dag_details(assessment.dags))
        )
    return "".join("\t".join(map(to_one_line, row)) + "\n" for row in table)


def print_assessment(assessment: Assessment, console: Console) -> None:
    """Print the same for people, with a bar of the used lifetime and `│` where renewal is due."""
    rows = [_columns(token) for token in assessment.tokens]
    widths = [max(map(len, column)) for column in zip(HEADERS[:4], *rows, strict=True)]
    if rows:
        console.print(_row(HEADERS[:4], widths, Text(f"{'life':{BAR_WIDTH}}")), style="dim")
    for token, row in zip(assessment.tokens, rows, strict=True):
        color = COLORS[token.status.state]
        console.print(_row(row, widths, Text("".join(_bar(token)), color), color))
        console.print(Padding(Text(_details(token)), (0, 0, 1, 2)))
    if assessment.dags:
        state = assessment.dags.state
        console.print(Text.assemble("rotation DAGs  ", (state.name, COLORS[state])))
        console.print(Padding(Text(_dag_details(assessment.dags)), (0, 0, 0, 2)))


def _columns(token: AssessedToken) -> tuple[str, str, str, str]:
    """Return name, state, time left and the time of the renewal."""
    name, state, validity = to_one_line(token.token.name), token.status.state.name, token.validity
    if validity is None:
        return name, state, "-", "-"
    left = format_duration(token.remaining) if token.remaining > timedelta(0) else "expired"
    return name, state, left, format_minute(validity.renew_at) if validity.renew_at else "-"


def _details(token: AssessedToken) -> str:
    """Return the message for the state, the forecast and the hint."""
    summary = token.status.summary.rstrip(".")
    return to_one_line(f"{summary[:1].upper()}{summary[1:]}. {token.forecast} {token.status.hint}")


def _dag_details(dags: ServiceStatus) -> str:
    return to_one_line(f"{dags.summary}. {dags.hint}")


def _row(row: Sequence[str], widths: Sequence[int], bar: Text, color: str = "") -> Text:
    name, state, left, due = (f"{text:<{width}}" for text, width in zip(row, widths, strict=True))
    return Text.assemble(name, "  ", (state, color), "  ", bar, "  ", left, "  ", due)


def _bar(token: AssessedToken) -> Iterator[str]:
    """Yield the cells of a bar: used lifetime is filled, and `│` is where the renewal is due."""
    validity = token.validity
    due = None
    if validity and validity.renew_at and validity.expires_at > validity.issued_at:
        lifetime = validity.expires_at - validity.issued_at
        due = round(BAR_WIDTH * ((validity.renew_at - validity.issued_at) / lifetime))
    for cell in range(BAR_WIDTH):
        if cell == due:
            yield "│"
        else:
            yield "█" if validity and cell < BAR_WIDTH * token.used else "·"
