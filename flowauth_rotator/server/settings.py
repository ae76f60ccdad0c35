"""What a deployment can set, and the opening of what it names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute, parse_many
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from flowauth_rotator.core.durations import parse_duration
from flowauth_rotator.server.data_dir import DATABASE, DataDirectory
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import SetupError

DATA_DIR_VARIABLE = "FLOWAUTH_ROTATOR_DATA_DIR"
METRICS_DIR_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Settings:
    """What a deployment has chosen.

    Attributes:
        data_dir: Where the server's secrets are and, for SQLite, its data.
        database_url: The PostgreSQL to use in place of SQLite.
        max_family_age: Seconds after which a token's descendants end, however often renewed.
        renew_expired_grace: Seconds for which an expired token can still be renewed by its owner.
        user_claims: How the roles stand in a token: as FlowAuth packs them, or as plain JSON.
        sign_in_limit: How often a sign-in may fail.
        renewal_limit: How often tokens of one name may be issued.
        trusted_proxies: How many reverse proxies stand in front.
        metrics_dir: Where the workers count together, for /metrics; see the documentation of
            prometheus-client on several processes. `serve` sets it.
    """

    data_dir: Path
    database_url: URL | None = None
    max_family_age: int = 400 * 24 * 3600
    renew_expired_grace: int = 0
    user_claims: Literal["compressed", "plain"] = "compressed"
    sign_in_limit: RateLimitItem = RateLimitItemPerMinute(10)  # noqa: RUF009 - immutable
    renewal_limit: RateLimitItem = RateLimitItemPerHour(60)  # noqa: RUF009
    trusted_proxies: int = 0
    metrics_dir: Path | None = None

    @classmethod
    def load(
        cls, data_dir: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """Take the data directory as given or else from the environment, and all else from there.

        Raises:
            SetupError: No data directory is named, or a variable cannot be understood.
        """
        named = data_dir or environ.get(DATA_DIR_VARIABLE)
        if not named:
            raise SetupError(f"No data directory is named: set {DATA_DIR_VARIABLE}.")
        given: dict[str, Any] = {
            field: parse(environ[variable], variable)
            for variable, (field, parse) in VARIABLES.items()
            if environ.get(variable)
        }
        return cls(Path(named).absolute(), **given)

    @property
    def directory(self) -> DataDirectory:
        """The data directory, unopened."""
        return DataDirectory(self.data_dir, with_database=self.database_url is None)

    def database(self) -> Database:
        """The database, not yet connected to."""
        if self.database_url is not None:
            return Database.postgresql(self.database_url)
        return Database.sqlite(self.data_dir / DATABASE)

    @property
    def database_name(self) -> str:
        """Where the database is, for a message: without its password."""
        if self.database_url is not None:
            return self.database_url.set(query={}).render_as_string(hide_password=True)
        return str(self.data_dir / DATABASE)


def _duration(value: str, variable: str) -> int:
    try:
        return round(parse_duration(value).total_seconds())
    except ValueError:
        raise SetupError(f"{variable}={value!r} is not a duration like 30m, 12h or 400d.") from None


def _rate(value: str, variable: str) -> RateLimitItem:
    try:
        [rate] = parse_many(value)
    except ValueError:
        raise SetupError(f"{variable}={value!r} is no rate like 10/minute or 60/hour.") from None
    return rate


def _claims_form(value: str, variable: str) -> str:
    if value not in ("compressed", "plain"):
        raise SetupError(f"{variable}={value!r} is neither compressed nor plain.")
    return value


def _count(value: str, variable: str) -> int:
    if not re.fullmatch(r"[0-9]", value):
        raise SetupError(f"{variable}={value!r} is no number from 0 to 9.")
    return int(value)


def _path(value: str, _variable: str) -> Path:
    return Path(value)


def _postgresql(value: str, variable: str) -> URL:
    """A URL of PostgreSQL; the message does not repeat it, since a password may be in it."""
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        raise SetupError(f"{variable} is not like postgresql://user:password@host/database.")
    return url


VARIABLES = {
    "DATABASE_URL": ("database_url", _postgresql),
    "MAX_FAMILY_AGE": ("max_family_age", _duration),
    "RENEW_EXPIRED_GRACE": ("renew_expired_grace", _duration),
    "USER_CLAIMS": ("user_claims", _claims_form),
    "SIGNIN_RATE_LIMIT": ("sign_in_limit", _rate),
    "RENEWAL_RATE_LIMIT": ("renewal_limit", _rate),
    "TRUSTED_PROXIES": ("trusted_proxies", _count),
    METRICS_DIR_VARIABLE: ("metrics_dir", _path),
}
