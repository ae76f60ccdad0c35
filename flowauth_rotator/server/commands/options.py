"""The options that the commands share, and how a command fails."""

from __future__ import annotations

import re
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import click
from sqlalchemy.exc import DatabaseError

from flowauth_rotator.core.durations import UNITS, parse_duration
from flowauth_rotator.core.text import decode_secret
from flowauth_rotator.server import Services
from flowauth_rotator.server.database import DatabaseBusy
from flowauth_rotator.server.errors import Refused, SetupError
from flowauth_rotator.server.settings import DATA_DIR_VARIABLE, Settings
from flowauth_rotator.server.signing import ALGORITHMS

_TEN_YEARS = 10 * 366 * 24 * 60

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])


def read_clock() -> int:
    """Return the seconds since the epoch."""
    return int(time.time())


class _Name(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """The name of a user, role, audience or scope."""

    name = "name"  # in the help

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name if it is valid."""
        if re.fullmatch(r"\S{1,100}", value) and value.isprintable():
            return value
        message = f"{value!r} is not 1 to 100 printable characters without spaces."
        raise click.BadParameter(message, ctx, param)


NAME = _Name()


def parse_future_time(value: str) -> int:
    """Parse a future time with a UTC offset as seconds since the epoch."""
    example = "2027-01-31T00:00:00Z"
    try:
        parsed = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time like {example}.") from None
    if parsed.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone: write it like {example}.")
    if parsed.timestamp() <= read_clock():
        raise click.BadParameter(f"{value!r} is in the past.")
    return int(parsed.timestamp())


def parse_minutes(value: str) -> int:
    """Parse a number of minutes, or a duration like 12h, as minutes."""
    text = value if value[-1:] in UNITS else f"{value}m"
    try:
        minutes, rest = divmod(parse_duration(text).total_seconds(), 60)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not a number of minutes like 1440, or a duration like 12h or 7d."
        ) from None
    if rest or not 1 <= minutes <= _TEN_YEARS:
        raise click.BadParameter(
            f"{value!r} is not a whole number of minutes from 1 to {_TEN_YEARS} (ten years)."
        )
    return int(minutes)


def load_settings(value: str) -> Settings:
    """Load the settings of the environment with this data directory."""
    if not value:
        raise click.BadParameter("the path is empty.")
    try:
        return Settings.load(value)
    except SetupError as error:  # click parses values before it invokes the command
        raise click.ClickException(str(error)) from None


class Command(click.Command):
    """A command that turns refusals and failures into one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader closed the pipe: click exits silently
            raise
        except (Refused, SetupError, DatabaseBusy, DatabaseError, sqlite3.Error, OSError) as error:
            raise click.ClickException(_format_error(error)) from None


def _format_error(error: Exception) -> str:
    """Return the message of an error, without the SQL statement that failed."""
    if isinstance(error, (DatabaseBusy, DatabaseError, sqlite3.Error)):
        reason = " ".join(str(getattr(error, "orig", error)).split())
        return f"The database is unusable ({reason})."
    if isinstance(error, OSError):
        return f"Cannot use {error.filename or 'a file'}: {error.strerror or error}."
    return error.operator_message if isinstance(error, Refused) else str(error)


def with_services(command: Callable[Concatenate[Services, P], None]) -> Callable[P, None]:
    """Add --data-dir to a command, and pass it the opened services."""
    return _with_services(Services.open, command)


def with_unverified_services(
    command: Callable[Concatenate[Services, P], None],
) -> Callable[P, None]:
    """Add --data-dir to a command that repairs a data directory which cannot be opened."""
    return _with_services(Services.build, command)


def _with_services(
    open_services: Callable[[Settings], Services],
    command: Callable[Concatenate[Services, P], None],
) -> Callable[P, None]:
    @data_dir
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        services = open_services(kwargs.pop("settings"))  # type: ignore[arg-type]  # of `data_dir`
        with closing(services.database):
            command(services, *args, **kwargs)

    return run


data_dir = click.option(
    "--data-dir",
    "settings",
    envvar=DATA_DIR_VARIABLE,
    show_envvar=True,
    required=True,
    metavar="DIR",
    type=load_settings,
    help="Data directory of the server.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON (times in epoch seconds)."
)
latest_expiry = click.option(
    "--latest-expiry",
    type=parse_future_time,
    metavar="TIME",
    help="Latest expiry of any token, e.g. 2027-01-31T00:00:00Z.",
)
algorithm = click.Choice(ALGORITHMS)
role_audience = click.option(
    "--audience",
    type=NAME,
    help="Audience of the role; required if several audiences have a role of this name.",
)
password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


def max_lifetime(*, required: bool) -> Callable[[F], F]:
    """Add the option for the maximum lifetime."""
    return click.option(
        "--max-lifetime-minutes",
        type=parse_minutes,
        metavar="MINUTES",
        required=required,
        help="Maximum lifetime of a token, in minutes, or like 12h or 7d.",
    )


def limit_changes(command: F) -> F:
    """Add the options that change limits."""
    command = click.option(
        "--no-latest-expiry", is_flag=True, help="Remove the limit set with --latest-expiry."
    )(command)
    return max_lifetime(required=False)(latest_expiry(command))


def read_password() -> str:
    """Read the password from the first line of standard input."""
    try:
        return decode_secret(sys.stdin.buffer.readline())
    except ValueError as error:
        raise click.ClickException(f"The input of --password-stdin {error}") from None


def generate_password() -> str:
    """Generate a random password."""
    return secrets.token_urlsafe(18)
