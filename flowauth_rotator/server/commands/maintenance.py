"""Commands for the data directory as a whole: made, brought up, backed up, kept small."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from flowauth_rotator.server import Services, Settings, SetupError, maintenance, signing
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import counted, progress, report
from flowauth_rotator.server.data_dir import DATABASE
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.services import upgrade as upgrade_data


@click.command(cls=options.Command)
@click.option(
    "--algorithm",
    type=options.algorithm,
    default=signing.DEFAULT_ALGORITHM,
    show_default=True,
    help="What tokens are signed with.",
)
@options.data_dir
def init(settings: Settings, algorithm: str) -> None:
    """Make a data directory.

    In it: the database, the signing key, the encryption key and the secrets for sessions and
    metrics. With DATABASE_URL the database is made there instead. Nothing that exists is ever
    overwritten.

    \b
    Examples:
      flowauth-rotator server init --data-dir /var/lib/flowauth-rotator
      flowauth-rotator server init --algorithm ES256
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines
    Services.make(settings, signing.generate_key(algorithm), now=options.clock())
    click.echo(f"Made {settings.data_dir}. Back it up: its keys cannot be made again.")


@click.command(cls=options.Command)
@options.as_json
@options.data_dir
def upgrade(settings: Settings, as_json: bool) -> None:
    """Bring a data directory up to this version.

    To be called after an upgrade of the package, with the server stopped. All of it happens or,
    when it fails, nothing.

    \b
    Example, with a backup before:
      flowauth-rotator server backup /var/backups/flowauth-rotator.db
      flowauth-rotator server upgrade
    """  # noqa: D301
    before, after = upgrade_data(settings, now=options.clock())
    sentence = f"Brought the tables from version {before} to {after}."
    if before == after:
        sentence = f"The tables have version {after} already: there was nothing to do."
    report(sentence, as_json=as_json, **{"from": before, "to": after})


@click.command(cls=options.Command)
@click.option(
    "--unreadable", is_flag=True, help="Drop, too, what no key decrypts: after a key was lost."
)
@options.as_json
@options.assembled
def prune(services: Services, unreadable: bool, as_json: bool) -> None:
    """Drop the texts of tokens that have expired.

    Their rows stay: they are the history. The server does the same each time that it starts.

    \b
    Examples:
      flowauth-rotator server prune
      flowauth-rotator server prune --unreadable
    """  # noqa: D301
    if unreadable:
        lost = maintenance.drop_unreadable(services)
        sentence = f"Gave up the text of {counted(lost, 'token')} that no key decrypts."
        report(sentence, as_json=as_json, dropped=lost)
        return
    services.check()
    with progress("Dropping") as advance:
        dropped = maintenance.prune(services, now=options.clock(), progress=advance)
    sentence = f"Dropped the text of {counted(dropped, 'expired token')}; every row stays."
    report(sentence, as_json=as_json, dropped=dropped)


@click.command(cls=options.Command)
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
@options.data_dir
def backup(settings: Settings, file: Path, as_json: bool) -> None:
    """Copy the database into FILE.

    The copy is of one moment, and the server goes on meanwhile. FILE must not exist; it is
    private to you, and empty until it is whole. It is of no use without the keys in the data
    directory: keep a copy of them too, in another place.

    \b
    Example:
      flowauth-rotator server backup /var/backups/flowauth-rotator.db
    """  # noqa: D301
    with (
        closing(_sqlite(settings)) as database,
        _new_file(file) as copy,
        progress("Copying") as advance,
    ):
        database.backup(copy, lambda left, total: advance(total - left, total))
    size = file.stat().st_size
    report(
        f"Copied the database into {file} ({size:,} bytes).\n"
        f"The keys in {settings.data_dir} belong with it: keep a copy of them too.",
        as_json=as_json,
        file=str(file),
        bytes=size,
    )


def _sqlite(settings: Settings) -> Database:
    """The database, of whatever version: one is backed up before it is upgraded."""
    if settings.database_url is not None:
        raise SetupError(
            f"The database is {settings.database_name}: back it up with pg_dump, and the keys in "
            f"{settings.data_dir} with it."
        )
    if not (settings.data_dir / DATABASE).is_file():
        settings.directory.check()
    return settings.database()


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """An empty private file, which takes its place at `path` once the block has filled it."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise click.ClickException(f"{path} cannot be made: {error.strerror}.") from None
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            filling = Path(folder, path.name)
            filling.touch(0o600)
            yield filling
            with filling.open("rb") as file:
                os.fsync(file.fileno())
            filling.replace(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise SetupError(f"{path} cannot be written: {error}; nothing is left of it.") from None
        raise
