"""What commands print: tables for people, JSON for machines, and how far a long work has come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import click

Facts = Mapping[str, object]

_BATCH = 500
_TIMES = {
    "issued_at": "ISSUED (UTC)",
    "expires_at": "EXPIRES (UTC)",
    "latest_expiry": "LATEST EXPIRY (UTC)",
}
_SHOWN = 4  # of a long list in a table; JSON has all of it


def show(rows: Iterable[Facts], *, as_json: bool, none: str) -> None:
    """Print one row after the other, however many there are.

    Args:
        rows: The facts, of which each row has the same.
        as_json: For machines: an array of objects, one a line.
        none: What to tell people when there is no row.
    """
    for text in _array(rows) if as_json else _table(rows, none):
        click.echo(text, nl=False)


def report(sentence: str, *, as_json: bool, **facts: object) -> None:
    """Print what has been done: the sentence or, for machines, the facts as an object."""
    click.echo(json.dumps(facts) if as_json else sentence)


def moment(seconds: int) -> str:
    """A time for people, in UTC."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal, to be told how many are done of how many."""
    with ExitStack() as stack:
        bars: list[Any] = []

        def advance(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].length = total
            bars[0].update(done - bars[0].pos)

        yield advance if sys.stderr.isatty() else lambda _done, _total: None


def _array(rows: Iterable[Facts]) -> Iterator[str]:
    before = "["
    for facts in rows:
        yield f"{before}\n  {json.dumps(facts)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def _table(rows: Iterable[Facts], none: str) -> Iterator[str]:
    """Aligned columns; a batch can only make them wider than the one before."""
    rows = iter(rows)
    widths: Sequence[int] = ()
    while batch := list(islice(rows, _BATCH)):
        lines = [[_cell(fact, value) for fact, value in facts.items()] for facts in batch]
        if not widths:
            lines.insert(0, [_TIMES.get(fact, fact.replace("_", " ").upper()) for fact in batch[0]])
            widths = [0] * len(lines[0])
        columns = zip(widths, zip(*lines, strict=True), strict=True)
        widths = [max(width, *map(len, cells)) for width, cells in columns]
        yield "".join(_aligned(line, widths) for line in lines)
    if not widths:
        yield f"{none}\n"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
    return "  ".join(cells).rstrip() + "\n"


def _cell(fact: str, value: object) -> str:
    if fact in _TIMES and isinstance(value, int):
        return moment(value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_few(texts)}" for key, texts in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return _few(value) or "-"
    return "-" if value is None else str(value)


def _few(texts: Sequence[str]) -> str:
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
