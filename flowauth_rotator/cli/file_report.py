"""Print the report, or the error, of a command for a token in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from flowauth_rotator.cli.options import name_options
from flowauth_rotator.tables import format_table

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.errors import RotatorError
    from flowauth_rotator.core.report import Report

    Command = Callable[..., None]
    RenderError = Callable[[RotatorError, FileStore, datetime], dict[str, Any]]


def render_error(error: RotatorError, store: FileStore, now: datetime) -> dict[str, Any]:
    """Return an error as the JSON of a report."""
    return error.report(name=store.name, place=store.place, checked_at=now).to_json()


def report_errors(render_error: RenderError = render_error) -> Callable[[Command], Command]:
    """Give a command `now`, and print errors of the library as a message, and as JSON for a file.

    Args:
        render_error: returns the JSON of an error.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**arguments: Any) -> None:  # noqa: ANN401 - click's
            from flowauth_rotator.agent.stores import FileStore
            from flowauth_rotator.core.errors import RotatorError

            now = datetime.now(timezone.utc)
            try:
                command(**arguments, now=now)
            except RotatorError as error:
                if arguments["as_json"] and arguments["file"]:
                    store = FileStore(arguments["file"])
                    click.echo(json.dumps(render_error(error, store, now)))
                raise click.ClickException(name_options(str(error))) from None

        return run

    return decorate


def print_report(report: Report, *, as_json: bool) -> None:
    """Print the report of a rotation or a rehearsal."""
    from flowauth_rotator.core.clock import format_time

    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    values = {
        report.place: f"{report.outcome}. {report.message} {report.hint}".rstrip(),
        "name": report.name,
        "expires": report.successor_expires_at or report.predecessor_expires_at,
        "renewal due": report.renew_at,
        "clock": report.clock_warning or None,
        "old token until": report.predecessor_expires_at if report.successor_expires_at else None,
    }
    rows = [
        (label, format_time(value) if isinstance(value, datetime) else value)
        for label, value in values.items()
        if value is not None
    ]
    for line in format_table(rows):
        click.echo(line)
