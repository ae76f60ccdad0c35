"""What the commands share: their options, the values of these, and one sentence for each error."""

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

from flowauth_rotator.server import Services
from flowauth_rotator.server.database import Busy
from flowauth_rotator.server.errors import Refused, SetupError
from flowauth_rotator.server.settings import DATA_DIR_VARIABLE, Settings
from flowauth_rotator.server.signing import ALGORITHMS

_TEN_YEARS = 10 * 366 * 24 * 60

P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., object])


def clock() -> int:
    """Seconds since the epoch."""
    return int(time.time())


def name(value: str) -> str:
    """A name of a user, role, audience or scope."""
    if re.fullmatch(r"\S{1,100}", value) and value.isprintable():
        return value
    raise click.BadParameter(f"{value!r} is not 1 to 100 printable characters without spaces.")


def moment(value: str) -> int:
    """A time to come, with its offset from UTC, as seconds since the epoch."""
    like = "like 2027-01-31T00:00:00Z"
    try:
        given = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time {like}.") from None
    if given.tzinfo is None:
        raise click.BadParameter(f"{value!r} has no time zone: write it {like}.")
    if given.timestamp() <= clock():
        raise click.BadParameter(f"{value!r} has passed already.")
    return int(given.timestamp())


def data_directory(value: str) -> Settings:
    """The data directory that is named, with the settings of the environment."""
    if not value:
        raise click.BadParameter("it is empty.")
    try:
        return Settings.load(value)
    except SetupError as error:  # click looks at the values before it invokes the command
        raise click.ClickException(str(error)) from None


class Command(click.Command):
    """A command whose refusals and failures are one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever reads has read enough: click ends in silence
            raise
        except (Refused, SetupError, Busy, DatabaseError, sqlite3.Error, OSError) as error:
            raise click.ClickException(_sentence(error)) from None


def _sentence(error: Exception) -> str:
    """What to tell a person, without the statement that a database has met an error in."""
    if isinstance(error, (Busy, DatabaseError, sqlite3.Error)):
        reason = " ".join(str(getattr(error, "orig", error)).split())
        return f"The database cannot be used ({reason})."
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'} cannot be used: {error.strerror or error}."
    return str(error)


def opened(command: Callable[Concatenate[Services, P], None]) -> Callable[P, None]:
    """Hand a command the opened data directory, which `--data-dir` names, and close it after."""
    return _handed(Services.open, command)


def assembled(command: Callable[Concatenate[Services, P], None]) -> Callable[P, None]:
    """As `opened`, but unchecked: for what mends a data directory that cannot be opened."""
    return _handed(Services.assemble, command)


def _handed(
    make: Callable[[Settings], Services], command: Callable[Concatenate[Services, P], None]
) -> Callable[P, None]:
    @data_dir
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        services = make(kwargs.pop("settings"))  # type: ignore[arg-type]  # of `data_dir`
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
    type=data_directory,
    help="The directory that holds the server's database and keys.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="For machines; times in epoch seconds."
)
minutes = click.IntRange(1, _TEN_YEARS)
latest_expiry = click.option(
    "--latest-expiry",
    type=moment,
    metavar="TIME",
    help="No token outlives this time, e.g. 2027-01-31T00:00:00Z.",
)
algorithm = click.Choice(ALGORITHMS)
role_audience = click.option(
    "--audience", type=name, help="Needed when several audiences have such a role."
)
password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


def max_lifetime(*, required: bool) -> Callable[[F], F]:
    """The option for the longest lifetime."""
    return click.option(
        "--max-lifetime-minutes",
        type=minutes,
        metavar="MINUTES",
        required=required,
        help="The longest lifetime of a token.",
    )


def changed_limits(command: F) -> F:
    """The options that change limits, each only when it is given."""
    command = click.option(
        "--no-latest-expiry", is_flag=True, help="Lift the limit that --latest-expiry set."
    )(command)
    return max_lifetime(required=False)(latest_expiry(command))


def read_password() -> str:
    """The first line of standard input."""
    line = sys.stdin.buffer.readline()
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.ClickException("The password is not UTF-8 text.") from None


def make_password() -> str:
    """A password that nobody guesses, short enough to be typed."""
    return secrets.token_urlsafe(18)
