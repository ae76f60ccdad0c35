"""`flowauth-rotator plan`: show when each token will be renewed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from flowauth_rotator.cli.check import take_airflow_snapshot
from flowauth_rotator.cli.file_report import print_report, report_errors
from flowauth_rotator.cli.options import airflow, as_json, renew_before, scrape_token_file

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.status import Snapshot


@click.command(short_help="Show when tokens will be renewed.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@airflow
@scrape_token_file
@renew_before
@as_json
@report_errors
def plan(
    *,
    file: Path | None,
    airflow: str | None,
    scrape_token_file: IO[bytes] | None,
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
    if file is None:
        snapshot = take_airflow_snapshot(airflow or "here", scrape_token_file, now)
        _print_plan(snapshot, as_json=as_json)
        return
    if airflow or scrape_token_file:
        raise click.UsageError("FILE cannot be combined with --airflow or --scrape-token-file.")
    from flowauth_rotator.agent.rotation import inspect_token
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.policy import RotationPolicy

    policy = RotationPolicy(renew_before=renew_before)
    inspection = inspect_token(FileStore(file), policy, now=now)
    print_report(inspection.report, state=inspection.decision.state, as_json=as_json)


def _print_plan(snapshot: Snapshot, *, as_json: bool) -> None:
    """Print a table in a terminal, and tab-separated lines in a pipe."""
    from rich.console import Console

    from flowauth_rotator.monitoring import json_output, terminal
    from flowauth_rotator.monitoring.assessment import assess

    assessment = assess(snapshot)
    console = Console(highlight=False)
    if as_json:
        click.echo(json.dumps(json_output.render(assessment)))
    elif console.is_terminal:
        terminal.print_assessment(assessment, console)
    else:
        click.echo(terminal.render(assessment), nl=False)
