"""Commands for the data directory: create, upgrade, back up and prune it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from flowauth_rotator.server import Services, Settings, SetupError, maintenance, signing
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import (
    create_private_file,
    format_count,
    print_result,
    show_progress,
)
from flowauth_rotator.server.data_dir import DATABASE
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.services import upgrade_server


@click.command(cls=options.Command)
@click.option(
    "--algorithm",
    type=options.algorithm,
    default=signing.DEFAULT_ALGORITHM,
    show_default=True,
    help="Signature algorithm of the tokens.",
)
@options.data_dir
def init(settings: Settings, algorithm: str) -> None:
    """Create a data directory.

    It contains the database, the signing key, the encryption key and the secrets for sessions
    and metrics. With DATABASE_URL the tables are created there instead. Existing files and
    tables are never overwritten.

    \b
    Examples:
      flowauth-rotator server init --data-dir /var/lib/flowauth-rotator
      flowauth-rotator server init --algorithm ES256
    """  # noqa: D301 - \b is click's mark for preformatted text
    Services.create(settings, signing.generate_key(algorithm), now=options.read_clock())
    click.echo(f"Created {settings.data_dir}. Back it up: its keys cannot be recovered.")


@click.command(cls=options.Command)
@options.as_json
@options.data_dir
def upgrade(settings: Settings, as_json: bool) -> None:
    """Upgrade a data directory for this version.

    Run it after an upgrade of the package, with the server stopped. A failed upgrade changes
    nothing.

    \b
    Example, with a backup first:
      flowauth-rotator server backup /var/backups/flowauth-rotator.db
      flowauth-rotator server upgrade
    """  # noqa: D301
    before, after = upgrade_server(settings, now=options.read_clock())
    message = f"Upgraded the database schema from version {before} to {after}."
    if before == after:
        message = f"The database schema already has version {after}; nothing was changed."
    print_result(message, as_json=as_json, **{"from": before, "to": after})


@click.command(cls=options.Command)
@click.option(
    "--unreadable", is_flag=True, help="Drop stored tokens that no key decrypts (after key loss)."
)
@options.as_json
@options.with_unverified_services
def prune(services: Services, unreadable: bool, as_json: bool) -> None:
    """Drop the stored text of expired tokens.

    Their rows stay as the history. The server does the same at each start.

    \b
    Examples:
      flowauth-rotator server prune
      flowauth-rotator server prune --unreadable
    """  # noqa: D301
    if unreadable:
        dropped = maintenance.drop_unreadable(services)
        message = f"Dropped the text of {format_count(dropped, 'token')} that no key decrypts."
        print_result(message, as_json=as_json, dropped=dropped)
        return
    services.verify()
    with show_progress("Dropping") as update:
        dropped = maintenance.prune(services, now=options.read_clock(), progress=update)
    message = f"Dropped the text of {format_count(dropped, 'expired token')}; all rows stay."
    print_result(message, as_json=as_json, dropped=dropped)


@click.command(cls=options.Command)
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
@options.data_dir
def backup(settings: Settings, file: Path, as_json: bool) -> None:
    """Back up the SQLite database to FILE.

    The copy is a consistent snapshot; the server can keep running. FILE must not exist; only you
    can read it, and it is empty until the copy is complete. It is useless without the keys in
    the data directory: back them up too, in another place.

    \b
    Example:
      flowauth-rotator server backup /var/backups/flowauth-rotator.db
    """  # noqa: D301
    with (
        closing(_get_sqlite_database(settings)) as database,
        create_private_file(file) as copy,
        show_progress("Copying") as update,
    ):
        database.backup(copy, lambda left, total: update(total - left, total))
    size = file.stat().st_size
    print_result(
        f"Backed up the database to {file} ({size:,} bytes).\n"
        f"Back up the keys in {settings.data_dir} too: the copy is useless without them.",
        as_json=as_json,
        file=str(file),
        bytes=size,
    )


def _get_sqlite_database(settings: Settings) -> Database:
    """Return the database of any schema version, for a backup before an upgrade."""
    if settings.database_url is not None:
        raise SetupError(
            f"The database is {settings.database_name}: back it up with pg_dump, together with the "
            f"keys in {settings.data_dir}."
        )
    if not (settings.data_dir / DATABASE).is_file():
        settings.directory.verify_files()
    return settings.build_database()
