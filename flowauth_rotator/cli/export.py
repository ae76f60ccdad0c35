"""`flowauth-rotator monitoring export`: the files for monitoring systems."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(short_help="Write out what is shipped for monitoring systems.")
def monitoring() -> None:
    """What is shipped for Prometheus, Checkmk, Nagios and Icinga."""


@monitoring.command(short_help="Write rules, checks, a dashboard and runbooks into a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--runbook-url", default="", help="Address of the folder that you put runbooks/ into."
)
@click.option("--force", is_flag=True, help="Overwrite what is different there.")
def export(*, folder: Path, runbook_url: str, force: bool) -> None:
    """Write rules, checks, a dashboard and runbooks into DIR.

    Links to runbooks are relative, or begin with the address that is given. What somebody has
    changed is not overwritten without --force.

    \b
    Examples:
      flowauth-rotator monitoring export monitoring
      flowauth-rotator monitoring export monitoring \\
          --runbook-url https://wiki.example.org/flowauth
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.monitoring.export import USES, NotWritten
    from flowauth_rotator.monitoring.export import export as write

    try:
        written = write(folder, runbook_url=runbook_url, force=force)
    except NotWritten as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from None
    paths = {top: str(folder / top) for top in written}
    width = max(map(len, paths.values()))
    for top, number in written.items():
        count = f"{number:>2} file{'s' if number > 1 else ' '}"
        click.echo(f"{paths[top]:<{width}}  {count}  {USES[top]}")
