"""The settings of a deployment, from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from flowauth_rotator.core.durations import parse_duration
from flowauth_rotator.server.data_dir import DATABASE, DataDirectory
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.server.rate_limit import Rate

DATA_DIR_VARIABLE = "FLOWAUTH_ROTATOR_DATA_DIR"


@dataclass(frozen=True)
class Settings:
    """The settings of a deployment.

    Attributes:
        data_dir: The directory of the server's secrets and, for SQLite, its data.
        database_url: The PostgreSQL database that replaces SQLite.
        max_family_age: Maximum seconds from the first mint to the expiry of any descendant.
        renew_expired_grace: Seconds after expiry in which the owner can still renew a token.
        bearer_renewal: Whether a token can be renewed by presenting it.
        user_claims: The format of a token's roles: compressed as by FlowAuth, or plain JSON.
        sign_in_limit: The rate limit of failed sign-ins.
        renewal_limit: The rate limit of issued tokens, for each name.
        trusted_proxies: The number of reverse proxies in front of the server.
    """

    data_dir: Path
    database_url: URL | None = None
    max_family_age: int = 400 * 24 * 3600
    renew_expired_grace: int = 0
    bearer_renewal: bool = True
    user_claims: Literal["compressed", "plain"] = "compressed"
    sign_in_limit: Rate = Rate.parse("10/minute")  # noqa: RUF009 - immutable
    renewal_limit: Rate = Rate.parse("60/hour")  # noqa: RUF009
    trusted_proxies: int = 0

    @classmethod
    def load(
        cls, data_dir: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """Read the settings from the environment, except a data directory that is given.

        Raises:
            SetupError: The data directory is not set, or a variable is invalid.
        """
        path = data_dir or environ.get(DATA_DIR_VARIABLE)
        if not path:
            raise SetupError(f"The data directory is not configured: set {DATA_DIR_VARIABLE}.")
        values: dict[str, Any] = {
            field: parse(environ[variable], variable)
            for variable, (field, parse) in VARIABLES.items()
            if environ.get(variable)
        }
        return cls(Path(path).absolute(), **values)

    @property
    def directory(self) -> DataDirectory:
        """The data directory; no file is read yet."""
        return DataDirectory(self.data_dir, with_database=self.database_url is None)

    def build_database(self) -> Database:
        """Build the database object; it does not connect yet."""
        if self.database_url is not None:
            return Database.postgresql(self.database_url)
        return Database.sqlite(self.data_dir / DATABASE)

    @property
    def database_name(self) -> str:
        """The address of the database for messages, without the password."""
        if self.database_url is not None:
            return self.database_url.set(query={}).render_as_string(hide_password=True)
        return str(self.data_dir / DATABASE)


def _parse_duration(value: str, variable: str) -> int:
    try:
        return round(parse_duration(value).total_seconds())
    except ValueError:
        raise SetupError(f"{variable}={value!r} is not a duration like 30m, 12h or 400d.") from None


def _parse_rate(value: str, variable: str) -> Rate:
    try:
        return Rate.parse(value)
    except ValueError:
        raise SetupError(f"{variable}={value!r} is not a rate like 10/minute or 60/hour.") from None


def _parse_claims_format(value: str, variable: str) -> str:
    if value not in ("compressed", "plain"):
        raise SetupError(f"{variable}={value!r} is not compressed or plain.")
    return value


def _parse_switch(value: str, variable: str) -> bool:
    if value not in ("on", "off"):
        raise SetupError(f"{variable}={value!r} is not on or off.")
    return value == "on"


def _parse_count(value: str, variable: str) -> int:
    if not re.fullmatch(r"[0-9]", value):
        raise SetupError(f"{variable}={value!r} is not a number from 0 to 9.")
    return int(value)


def _parse_postgresql(value: str, variable: str) -> URL:
    """Parse a PostgreSQL URL; the message omits the value, which may contain a password."""
    example = "a URL like postgresql://user:password@host/database"
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise SetupError(f"{variable} is not {example}.") from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SetupError(
            f"{variable} is a {url.get_backend_name()} URL, but only PostgreSQL is supported: set "
            f"{example}, or unset it to use SQLite in the data directory."
        )
    return url


VARIABLES = {
    "DATABASE_URL": ("database_url", _parse_postgresql),
    "MAX_FAMILY_AGE": ("max_family_age", _parse_duration),
    "RENEW_EXPIRED_GRACE": ("renew_expired_grace", _parse_duration),
    "BEARER_RENEWAL": ("bearer_renewal", _parse_switch),
    "USER_CLAIMS": ("user_claims", _parse_claims_format),
    "SIGNIN_RATE_LIMIT": ("sign_in_limit", _parse_rate),
    "RENEWAL_RATE_LIMIT": ("renewal_limit", _parse_rate),
    "TRUSTED_PROXIES": ("trusted_proxies", _parse_count),
}
