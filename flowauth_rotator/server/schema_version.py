"""The version of the tables, kept by Alembic; the migrations themselves are in `migrations`."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import SetupError

FIRST = "0001"  # what version 0.1 of the package made, without writing down that it did


def newest() -> str:
    """The version that this program needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # noqa: S101 - the package has migrations
    return head


def current(database: Database) -> str | None:
    """The version that the database has, or None when it is empty."""
    with database.reading() as connection:
        return _version(connection)


def check(database: Database) -> None:
    """Make sure that the database has the version that this program needs.

    Raises:
        SetupError: It is older, newer or empty; says what to do.
    """
    found, needed = current(database), newest()
    _refuse_newer(found, needed)
    if found is None:
        raise SetupError(
            "The database has no tables: restore it from a backup, or run `flowauth-rotator "
            "server upgrade` to begin with an empty one."
        )
    if found != needed:
        raise SetupError(
            f"The database has tables of version {found}, this program needs {needed}: back it "
            "up, then run `flowauth-rotator server upgrade`."
        )


def upgrade(database: Database) -> tuple[str, str]:
    """Bring the tables to the newest version: all of it or, after a crash, nothing.

    Returns:
        The version before (0000 for an empty database) and after.

    Raises:
        SetupError: They are newer than this program; nothing was changed.
    """
    with database.migrating() as connection:
        config = _config()
        config.attributes["connection"] = connection
        before = _version(connection)
        _refuse_newer(before, newest())
        if before == FIRST:
            command.stamp(config, FIRST)
        command.upgrade(config, "head")
        return before or "0000", newest()


def _refuse_newer(found: str | None, known: str) -> None:
    if found is not None and found > known:
        raise SetupError(
            f"The database has tables of version {found}, this program knows {known}: "
            "install a newer flowauth-rotator."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "flowauth_rotator.server:migrations")
    return config


def _version(connection: Connection) -> str | None:
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and inspect(connection).has_table("tokens"):
        return FIRST
    return found
