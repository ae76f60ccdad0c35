"""`flowauth-rotator monitoring export`: write the files for monitoring systems."""

from __future__ import annotations

from pathlib import Path

import click

from flowauth_rotator.tables import format_table


@click.group(short_help="Export files for monitoring systems.")
def monitoring() -> None:
    """Bundled files for Prometheus, Grafana, Checkmk, Nagios and Icinga."""


@monitoring.command(short_help="Write rules, checks, a dashboard and runbooks to a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--runbook-url", default="", help="URL of the folder where runbooks/ will be published."
)
@click.option("--force", is_flag=True, help="Permission to overwrite files that differ.")
def export(*, folder: Path, runbook_url: str, force: bool) -> None:
    """Write rules, checks, a dashboard and runbooks to DIR.

    Links to runbooks are relative, or begin with --runbook-url. Files in DIR that differ are not
    overwritten without --force.

    \b
    Examples:
      flowauth-rotator monitoring export monitoring
      flowauth-rotator monitoring export monitoring \\
          --runbook-url https://wiki.example.org/flowauth
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.monitoring.export import PURPOSES, ExportError, export_files

    try:
        counts = export_files(folder, runbook_url=runbook_url, force=force)
    except ExportError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(
            f"{error.filename} cannot be written: {error.strerror}."
        ) from None
    rows = [
        (str(folder / top), f"{number:>2} file{'s' if number > 1 else ''}", PURPOSES[top])
        for top, number in counts.items()
    ]
    for line in format_table(rows):
        click.echo(line)
