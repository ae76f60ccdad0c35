"""The version of the database schema, managed by Alembic; see `migrations`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import SetupError

if TYPE_CHECKING:
    from alembic.config import Config  # at run time only to upgrade: it costs a third of a command

FIRST_VERSION = "0001"  # created by version 0.1 of the package, which did not store the version

_VERSION = text("SELECT version_num FROM alembic_version")


@cache
def required_version() -> str:
    """Return the version that this program requires: that of the last migration."""
    scripts = (files("flowauth_rotator.server.migrations") / "versions").iterdir()
    return max(script.name for script in scripts if script.name[0].isdigit())[:4]


def read_version(database: Database) -> str | None:
    """Return the version of the database, or None if it is empty."""
    with database.reading() as connection:
        return _read_version(connection)


def verify_version(database: Database) -> None:
    """Verify that the database has the version that this program requires.

    Raises:
        SetupError: The version is older or newer, or the database is empty.
    """
    version, required = read_version(database), required_version()
    _refuse_newer(version, required)
    if version is None:
        raise SetupError(
            "The database has no tables: restore it from a backup, or run `flowauth-rotator "
            "server upgrade` to start with empty tables."
        )
    if version != required:
        raise SetupError(
            f"The database schema has version {version}, this program requires {required}: back "
            "up the database, then run `flowauth-rotator server upgrade`."
        )


def upgrade_schema(database: Database) -> tuple[str, str]:
    """Upgrade the schema to the required version, in one transaction.

    Returns:
        The versions before (0000 for an empty database) and after.

    Raises:
        SetupError: The schema is newer than this program; nothing was changed.
    """
    from alembic import command

    with database.migrating() as connection:
        config = _build_config()
        config.attributes["connection"] = connection
        before = _read_version(connection)
        _refuse_newer(before, required_version())
        if before == FIRST_VERSION:
            command.stamp(config, FIRST_VERSION)
        command.upgrade(config, "head")
        return before or "0000", required_version()


def _refuse_newer(version: str | None, required: str) -> None:
    if version is not None and version > required:
        raise SetupError(
            f"The database schema has version {version}, this program supports {required}: "
            "install a newer flowauth-rotator."
        )


def _build_config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "flowauth_rotator.server:migrations")
    return config


def _read_version(connection: Connection) -> str | None:
    tables = inspect(connection)
    if tables.has_table("alembic_version"):
        version: str | None = connection.execute(_VERSION).scalar()
        if version is not None:
            return version
    return FIRST_VERSION if tables.has_table("tokens") else None
