"""`flowauth-rotator monitoring export`: write the files for monitoring systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from flowauth_rotator.core.text import format_count
from flowauth_rotator.tables import format_table


@click.group(short_help="Export files for monitoring systems.")
def monitoring() -> None:
    """Export files for Prometheus, Grafana, Checkmk, Nagios and Icinga."""


@monitoring.command(short_help="Write rules, checks, a dashboard and runbooks to a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--runbook-url",
    metavar="URL",
    default="",
    help="URL of the folder where runbooks/ will be published.",
)
@click.option(
    "--grafana-url", metavar="URL", default="", help="URL of the Grafana with the dashboard."
)
@click.option(
    "--window",
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="How long an Airflow may be silent before an alert: ten scrape intervals.",
)
@click.option(
    "--job",
    "jobs",
    multiple=True,
    metavar="JOB",
    help="Prometheus job of an Airflow, to alert for as long as it is absent; repeatable.",
)
@click.option(
    "--severity",
    "severities",
    multiple=True,
    metavar="OURS=YOURS",
    help="Value of the label severity, such as warning=ticket; repeatable.",
)
@click.option("--force", is_flag=True, help="Overwrite files that differ.")
def export(
    *,
    folder: Path,
    runbook_url: str,
    grafana_url: str,
    window: str,
    jobs: Sequence[str],
    severities: Sequence[str],
    force: bool,
) -> None:
    """Write rules, checks, a dashboard and runbooks to DIR.

    The options are applied to all rules. Links to runbooks are relative, or begin with
    --runbook-url. Files in DIR that differ are not overwritten without --force.

    \b
    Examples:
      flowauth-rotator monitoring export monitoring
      flowauth-rotator monitoring export monitoring \\
          --runbook-url https://wiki.example.org/flowauth \\
          --grafana-url https://grafana.example.org --job airflow
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.core.durations import parse_duration
    from flowauth_rotator.monitoring.export import (
        PURPOSES,
        AlertSettings,
        ExportError,
        export_files,
    )

    try:
        settings = AlertSettings(
            runbook_url,
            grafana_url,
            parse_duration(window),
            jobs,
            {ours: yours for ours, _, yours in (each.partition("=") for each in severities)},
        )
        counts = export_files(folder, settings, force=force)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param_hint="--window") from None
    except ExportError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}."
        ) from None
    longest = max(counts.values(), default=0)
    rows = [
        (
            str(folder / top),
            " " * (len(str(longest)) - len(str(number))) + format_count(number, "file"),
            PURPOSES[top],
        )
        for top, number in counts.items()
    ]
    for line in format_table(rows):
        click.echo(line)
