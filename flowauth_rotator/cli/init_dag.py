"""The command that writes the file of the rotation DAG."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

FILE = "flowauth_token_rotation.py"


@click.command("init-dag", short_help="Write the DAG file to a dags folder of Airflow.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def init_dag(folder: Path) -> None:
    """Write the file of the rotation DAG to DIR, a dags folder of Airflow.

    An existing file in DIR is not overwritten.

    \b
    Example:
      flowauth-rotator init-dag ~/airflow/dags
    """  # noqa: D301 - \b is click's, for text to be left as it is
    from flowauth_rotator.atomic_file import replace_file

    content = (files("flowauth_rotator.provider") / "example_dags" / FILE).read_bytes()
    path = folder / FILE
    if path.exists():
        click.echo(f"{path} exists already; nothing was changed.")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, content, 0o666, apply_umask=True)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(f"Wrote {path}. Next, unpause the DAG {path.stem} in Airflow.")
