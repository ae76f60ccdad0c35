"""The output of the commands: tables or JSON, results, progress bars, and private files."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.tables import format_table

Facts = Mapping[str, object]

_TIME_HEADERS = {
    "issued_at": "ISSUED (UTC)",
    "expires_at": "EXPIRES (UTC)",
    "latest_expiry": "LATEST EXPIRY (UTC)",
}
_MAX_MEMBERS = 4  # of a list in a table; JSON has all of them


def print_rows(rows: Iterable[Facts], *, as_json: bool, empty_message: str) -> None:
    """Print rows as they are read, as a table or as JSON.

    Args:
        rows: The facts of each row; all rows have the same keys.
        as_json: Print an array with one object per line.
        empty_message: Replaces a table without rows.
    """
    for line in _format_json(rows) if as_json else _format_table(rows, empty_message):
        click.echo(line)


def print_result(message: str, *, as_json: bool, **facts: object) -> None:
    """Print the result of a command: the message, or the facts as JSON."""
    click.echo(json.dumps(facts) if as_json else message)


def format_epoch(seconds: int) -> str:
    """Format epoch seconds as a UTC time, without the zone."""
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"


def format_count(number: int, noun: str) -> str:
    """Format a number with its noun, in the plural if needed."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@contextmanager
def show_progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar if standard error is a terminal.

    Yields:
        A function to call with the number of finished items and the total.
    """
    with ExitStack() as stack:
        bars: list[Any] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].length = total
            bars[0].update(done - bars[0].pos)

        yield update if sys.stderr.isatty() else lambda _done, _total: None


@contextmanager
def create_private_file(path: Path) -> Iterator[Path]:
    """Create a file with mode 0600 that gets its content when the block ends.

    Until then `path` is empty; if the block raises, it is removed.

    Yields:
        The empty file to write, in a private directory beside `path`.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise SetupError(_describe_create_error(path, error)) from None
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder, path.name)
            draft.touch(0o600)
            yield draft
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise SetupError(f"Cannot write {path}: {error}; the file was removed.") from None
        raise


def _describe_create_error(path: Path, error: OSError) -> str:
    """Return why a file cannot be created, and what to do about it."""
    advice = "Choose another file."
    if path.is_dir() and not path.is_symlink():
        return f"Cannot create {path}: it is a directory. Name a new file in it."
    if isinstance(error, FileExistsError):
        advice = "An existing file is never overwritten: choose another name, or remove it first."
    elif isinstance(error, FileNotFoundError):
        advice = f"Create its directory first: mkdir -p {path.parent}"
    elif isinstance(error, PermissionError):
        advice = f"Choose a directory that you can write, instead of {path.parent}."
    return f"Cannot create {path}: {error.strerror}. {advice}"


def _format_json(rows: Iterable[Facts]) -> Iterator[str]:
    previous = None
    for facts in rows:
        yield "[" if previous is None else f"{previous},"
        previous = f"  {json.dumps(facts)}"
    yield from ["[]"] if previous is None else [previous, "]"]


def _format_table(rows: Iterable[Facts], empty_message: str) -> Iterator[str]:
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return iter([empty_message])
    headers = [_TIME_HEADERS.get(key, key.replace("_", " ").upper()) for key in first]
    cells = ([_format_cell(*item) for item in facts.items()] for facts in chain([first], rows))
    return format_table(cells, headers)


def _format_cell(key: str, value: object) -> str:
    if key in _TIME_HEADERS and isinstance(value, int):
        return format_epoch(value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_shorten(members)}" for name, members in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return _shorten(value) or "-"
    return "-" if value is None else str(value)


def _shorten(members: Sequence[str]) -> str:
    more = len(members) - _MAX_MEMBERS
    return ", ".join(members[:_MAX_MEMBERS]) + (f" and {more} more" if more > 0 else "")
