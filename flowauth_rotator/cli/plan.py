"""`flowauth-rotator plan`: show when each token will be renewed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from flowauth_rotator.cli.check import read_airflow
from flowauth_rotator.cli.file_report import report_errors
from flowauth_rotator.cli.options import airflow, as_json, ca_file, renew_before, scrape_token_file

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.errors import RotatorError
    from flowauth_rotator.core.policy import RotationPolicy
    from flowauth_rotator.monitoring.status import StatusDocument


def _render_error(error: RotatorError, store: FileStore, now: datetime) -> dict[str, Any]:
    """Return the JSON of a plan for a file whose token cannot be read."""
    from flowauth_rotator.monitoring import json_output
    from flowauth_rotator.monitoring.assessment import assess
    from flowauth_rotator.monitoring.status import StatusDocument, TokenStatus, build_event

    report = error.report(name=store.name, place=store.place, checked_at=now)
    token = TokenStatus(store.name, name_is_known=False, read_error=build_event(report))
    return json_output.render(assess(StatusDocument(dags=None, tokens=[token]), now))


@click.command(short_help="Show when tokens will be renewed.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@airflow
@scrape_token_file
@ca_file
@renew_before
@as_json
@report_errors(_render_error)
def plan(
    *,
    file: Path | None,
    airflow: str | None,
    scrape_token_file: IO[bytes] | None,
    ca_file: str | None,
    renew_before: float | timedelta,
    as_json: bool,
    now: datetime,
) -> None:
    """Show when the token in FILE, or each token of an Airflow, will be renewed.

    Without FILE, the command queries the Airflow of this environment, or the one at --airflow. It
    changes nothing. --renew-before applies to FILE; in Airflow each token has its own setting.

    \b
    Examples:
      flowauth-rotator plan
      flowauth-rotator plan --airflow https://airflow.example.org \\
          --scrape-token-file scrape.token
      flowauth-rotator plan flowapi.token
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.core.policy import RotationPolicy

    if file is None:
        document = read_airflow(airflow or "here", scrape_token_file, now, verify=ca_file or True)
    elif airflow or scrape_token_file:
        raise click.UsageError("FILE cannot be combined with --airflow or --scrape-token-file.")
    else:
        document = _read_file(file, RotationPolicy(renew_before=renew_before), now)
    _print_plan(document, now, as_json=as_json)


def _read_file(file: Path, policy: RotationPolicy, now: datetime) -> StatusDocument:
    """Return the status of the token in a file.

    Raises:
        RotatorError: it cannot be read.
    """
    from flowauth_rotator.agent.rotation import inspect_token
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.cli.sources import build_token_status
    from flowauth_rotator.monitoring.status import StatusDocument, build_event

    inspection = inspect_token(FileStore(file), policy, now=now)
    token, claims, report = inspection.token, inspection.claims, inspection.report
    status = replace(
        build_token_status(report.name, token, claims, inspection.decision),
        name_is_known=claims.token_name is not None,
        last_check=replace(build_event(report), fingerprint=token.fingerprint),
    )
    return StatusDocument(dags=None, tokens=[status])


def _print_plan(document: StatusDocument, now: datetime, *, as_json: bool) -> None:
    """Print a table in a terminal, and tab-separated lines in a pipe."""
    from rich.console import Console

    from flowauth_rotator.monitoring import json_output, terminal
    from flowauth_rotator.monitoring.assessment import assess

    assessment = assess(document, now)
    console = Console(highlight=False)
    if as_json:
        click.echo(json.dumps(json_output.render(assessment)))
    elif console.is_terminal:
        terminal.print_assessment(assessment, console)
    else:
        click.echo(terminal.render(assessment), nl=False)
