"""`flowauth-rotator plan`: when each token will be renewed."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from flowauth_rotator.cli.check import in_airflow
from flowauth_rotator.cli.file_report import print_report, report_errors
from flowauth_rotator.cli.options import airflow, as_json, renew_before, scrape_token_file

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.snapshot import Snapshot


@click.command(short_help="Say when tokens will be renewed.")
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
) -> None:
    """Say when the token in FILE, or each that an Airflow keeps alive, will be renewed.

    Without FILE it asks the Airflow in whose environment it runs, or the one at --airflow. It
    changes nothing. --renew-before is for a file: in Airflow each token has its own.

    \b
    Examples:
      flowauth-rotator plan
      flowauth-rotator plan --airflow https://airflow.example.org \\
          --scrape-token-file scrape.token
      flowauth-rotator plan flowapi.token
    """  # noqa: D301 - \b is click's, for text to be left as it is
    now = datetime.now(timezone.utc)
    if file is None:
        _print_plan(in_airflow(airflow or "here", scrape_token_file, now), as_json=as_json)
        return
    if airflow or scrape_token_file:
        raise click.UsageError("Give a FILE or an Airflow to ask, not both.")
    from flowauth_rotator.agent.rotation import check
    from flowauth_rotator.agent.stores import FileStore
    from flowauth_rotator.core.policy import RotationPolicy

    policy = RotationPolicy(renew_before=renew_before)
    found = check(FileStore(file), policy, now=now)
    print_report(found.report, state=found.decision.state, as_json=as_json)


def _print_plan(snapshot: Snapshot, *, as_json: bool) -> None:
    """A table in a terminal, lines of columns with tabs between them in a pipe."""
    from rich.console import Console

    from flowauth_rotator.monitoring import json_output, terminal
    from flowauth_rotator.monitoring.assessment import assess

    assessment = assess(snapshot)
    console = Console(highlight=False)
    if as_json:
        click.echo(json.dumps(json_output.document(assessment)))
    elif console.is_terminal:
        terminal.show(assessment, console)
    else:
        click.echo(terminal.lines(assessment), nl=False)
