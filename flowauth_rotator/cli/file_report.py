"""How the commands for a token in a file print a report, or an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flowauth_rotator.core.policy import State
    from flowauth_rotator.core.report import Report


def report_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the library's errors into one sentence, or the report as JSON, and exit code 1."""

    @wraps(command)
    def run(**arguments: Any) -> None:  # noqa: ANN401 - click's
        from flowauth_rotator.agent.stores import FileStore
        from flowauth_rotator.core.errors import RotatorError

        try:
            command(**arguments)
        except RotatorError as error:
            if arguments["as_json"] and arguments["file"]:
                store, now = FileStore(arguments["file"]), datetime.now(timezone.utc)
                report = error.report(name=store.name, place=store.place, checked_at=now)
                click.echo(json.dumps(report.to_json()))
            raise click.ClickException(str(error)) from None

    return run


def print_report(report: Report, *, state: State | None = None, as_json: bool) -> None:
    """What a person or a machine wants to know: where a token stands, or how a rotation ended."""
    from flowauth_rotator.core.clock import format_time

    if as_json:
        document = report.to_json()
        if state:
            document |= {"outcome": None, "state": state}
        click.echo(json.dumps(document))
        return
    lines = {
        report.place: f"{state or report.outcome}. {report.reason} {report.advice}".rstrip(),
        "name": report.name,
        "expires": report.successor_expires_at or report.predecessor_expires_at,
        "renewal due": report.renew_at,
        "clock": report.clock_warning or None,
        "old one until": report.predecessor_expires_at if report.successor_expires_at else None,
    }
    width = max(map(len, lines))
    for what, fact in lines.items():
        if fact is not None:
            text = format_time(fact) if isinstance(fact, datetime) else fact
            click.echo(f"{what:<{width}}  {text}")
