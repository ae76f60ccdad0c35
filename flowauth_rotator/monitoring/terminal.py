"""The output for people: a bar for the lifetime of each token, and what the next check will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.formatting import format_minute, to_one_line
from flowauth_rotator.monitoring.token_assessment import AssessedToken, rank_token
from flowauth_rotator.monitoring.verdict import Verdict

HEADERS = ("name", "severity", "left", "renewal due", "details")
BAR_WIDTH, SHORTEST_BAR = 24, 8  # cells
BAR_CELLS = ("█", "·", "│")  # used, left, due
ASCII_CELLS = ("#", ".", "|")  # of a terminal that has no others
COLORS = {
    Severity.OK: "green",
    Severity.WARNING: "yellow",
    Severity.CRITICAL: "red",
    Severity.UNKNOWN: "magenta",
}


def render(assessment: Assessment) -> str:
    """Render a header and a line for each token, with tabs between the columns, for pipes."""
    table = [HEADERS, *((*_columns(token), _describe(token)) for token in _sort(assessment))]
    if dags := assessment.dags_verdict:
        table.append(("rotation DAGs", dags.severity.name, "", "", _describe_dags(dags)))
    return "".join("\t".join(map(to_one_line, row)) + "\n" for row in table)


def print_assessment(assessment: Assessment, console: Console) -> None:
    """Print the same for people, with a bar of the used lifetime and `│` where renewal is due.

    If the terminal is too narrow for the longest name, each name has a line of its own.
    """
    tokens = _sort(assessment)
    rows = [[_replace(text, console.encoding) for text in _columns(token)] for token in tokens]
    widths = [max(map(cell_len, column)) for column in zip(HEADERS[:4], *rows, strict=True)]
    room = console.width - sum(widths) - 2 * len(widths)  # two blanks after each column
    if has_name_lines := room < SHORTEST_BAR:
        room += widths[0]
        widths[0] = 0
    bar_width = max(SHORTEST_BAR, min(BAR_WIDTH, room))
    can_draw = all(_replace(cell, console.encoding) == cell for cell in BAR_CELLS)
    cells = BAR_CELLS if can_draw else ASCII_CELLS

    def print_row(row: Sequence[str], bar: str, color: str = "", style: str = "") -> None:
        name, severity, left, due = map(set_cell_size, row, widths)
        if has_name_lines:
            console.print(Text(row[0]), style=style)
        parts = (name, "  ", (severity, color), "  ", (bar, color), "  ", left, "  ", due)
        console.print(Text.assemble(*parts), style=style)

    if rows:
        print_row(HEADERS[:4], f"{'life':{bar_width}}", style="dim")
    for token, row in zip(tokens, rows, strict=True):
        print_row(row, _build_bar(token, bar_width, cells), COLORS[token.severity])
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


def _sort(assessment: Assessment) -> list[AssessedToken]:
    return sorted(assessment.tokens, key=rank_token)


def _build_bar(token: AssessedToken, width: int, cells: Sequence[str]) -> str:
    """Return a bar: the used lifetime, the rest, and a mark where the renewal is due."""
    used, rest, mark = cells
    issued_at, renew_at, expires_at = (
        token.token.issued_at,
        token.token.renew_at,
        token.token.expires_at,
    )
    filled = 0 if token.remaining is None else math.ceil(width * token.used)
    bar = used * filled + rest * (width - filled)
    if issued_at and renew_at and expires_at and expires_at > issued_at:
        due = round(width * ((renew_at - issued_at) / (expires_at - issued_at)))
        if 0 <= due < width:
            bar = bar[:due] + mark + bar[due + 1 :]
    return bar


def _replace(text: str, encoding: str) -> str:
    """Replace what an encoding does not have by `?`, which may be narrower."""
    return text.encode(encoding, "replace").decode(encoding)
