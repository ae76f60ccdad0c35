"""The reading of people: a bar for the life of each token, and what the next check will do."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from flowauth_rotator.monitoring.assessment import Assessment, Judged, State
from flowauth_rotator.monitoring.formatting import moment, one_line, span

HEADS = ("name", "state", "left", "renewal due", "why, and what next")
BAR = 24  # characters
COLOURS = {
    State.OK: "green",
    State.WARNING: "yellow",
    State.CRITICAL: "red",
    State.UNKNOWN: "magenta",
}


def lines(assessment: Assessment) -> str:
    """For programs: a line for each token, after one of heads, with tabs between the columns."""
    table = [HEADS, *((*_facts(one), _story(one)) for one in assessment.tokens)]
    if assessment.agent:
        table.append(("agent", assessment.agent.state.name, "", "", _agent(assessment)))
    return "".join("\t".join(map(one_line, row)) + "\n" for row in table)


def show(assessment: Assessment, console: Console) -> None:
    """For eyes: the same, with how much of each life has passed and `│` where renewal is due."""
    rows = [_facts(one) for one in assessment.tokens]
    widths = [max(map(len, column)) for column in zip(HEADS[:4], *rows, strict=True)]
    if rows:
        console.print(_row(HEADS[:4], widths, Text(f"{'life':{BAR}}")), style="dim")
    for one, row in zip(assessment.tokens, rows, strict=True):
        console.print(_row(row, widths, _bar(one), COLOURS[one.verdict.state]))
        console.print(Padding(Text(_story(one)), (0, 0, 1, 2)))
    if assessment.agent:
        colour = COLOURS[assessment.agent.state]
        console.print(Text.assemble("agent  ", (assessment.agent.state.name, colour)))
        console.print(Padding(Text(_agent(assessment)), (0, 0, 0, 2)))


def _facts(one: Judged) -> tuple[str, str, str, str]:
    """Name, state, time left, when due."""
    name, state = one_line(one.token.name), one.verdict.state.name
    if one.life is None:
        return name, state, "-", "-"
    left = span(one.remaining) if one.remaining.total_seconds() > 0 else "expired"
    return name, state, left, moment(one.life.renew_at) if one.life.renew_at else "-"


def _story(one: Judged) -> str:
    """Why it is in that state, and what will happen at the next check."""
    sentence = one.verdict.sentence
    why = f"{sentence[:1].upper()}{sentence[1:].rstrip('.')}."
    return one_line(f"{why} {one.outlook} {one.verdict.advice}")


def _agent(assessment: Assessment) -> str:
    agent = assessment.agent
    return one_line(f"{agent.sentence}. {agent.advice}") if agent else ""


def _row(row: tuple[str, ...], widths: list[int], bar: Text, colour: str = "") -> Text:
    name, state, left, due = (f"{text:<{width}}" for text, width in zip(row, widths, strict=True))
    return Text.assemble(name, "  ", (state, colour), "  ", bar, "  ", left, "  ", due)


def _bar(one: Judged) -> Text:
    """What has passed of the life is filled; the renewal window is to the right of `│`."""
    return Text("".join(_cells(one)), COLOURS[one.verdict.state])


def _cells(one: Judged) -> Iterator[str]:
    life = one.life
    due = None
    if life and life.renew_at and life.expires_at > life.issued_at:
        due = round(BAR * ((life.renew_at - life.issued_at) / (life.expires_at - life.issued_at)))
    for cell in range(BAR):
        if cell == due:
            yield "│"
        else:
            yield "█" if life and cell < BAR * one.used else "·"
