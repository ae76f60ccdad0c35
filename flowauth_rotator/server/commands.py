"""The renewal server's command line: the group `server`, and `serve`."""

from __future__ import annotations

import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click
from sqlalchemy.exc import DatabaseError

from flowauth_rotator.server import Parts, create_app
from flowauth_rotator.server.accounts import Limit, Refused
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.settings import DATA_DIR_VARIABLE, DataDirectoryError, Settings
from flowauth_rotator.server.signing import Signer

_TEN_YEARS = 10 * 366 * 24 * 60


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
    if given.timestamp() <= time.time():
        raise click.BadParameter(f"{value!r} has passed already.")
    return int(given.timestamp())


def address(value: str) -> str:
    """HOST:PORT, with an IPv6 host in brackets."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})", value)
    if match and 1 <= int(match[2]) <= 65535:
        return value
    raise click.BadParameter(f"{value!r} is not HOST:PORT, like 127.0.0.1:9091.")


def data_directory(value: str) -> Settings:
    """The data directory that is named."""
    if not value:
        raise click.BadParameter("it is empty.")
    return Settings.load(value)


class _Command(click.Command):
    """A command whose refusals are one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Refused, DataDirectoryError) as error:
            raise click.ClickException(str(error)) from None
        except DatabaseError as error:
            raise click.ClickException(f"The database cannot be used: {error.orig}.") from None


class _Group(click.Group):
    command_class = _Command


_data_dir_option = click.option(
    "--data-dir",
    "settings",
    envvar=DATA_DIR_VARIABLE,
    show_envvar=True,
    required=True,
    metavar="DIR",
    type=data_directory,
    help="The directory that holds the server's database and keys.",
)
_minutes = click.IntRange(1, _TEN_YEARS)
_max_lifetime_option = click.option(
    "--max-lifetime-minutes", type=_minutes, required=True, help="The longest lifetime of a token."
)
_latest_expiry_option = click.option(
    "--latest-expiry",
    type=moment,
    metavar="TIME",
    help="No token outlives this time, e.g. 2027-01-31T00:00:00Z.",
)
_role_audience_option = click.option(
    "--audience", type=name, help="Needed when several audiences have such a role."
)


@contextmanager
def _opened(settings: Settings) -> Iterator[Parts]:
    parts = Parts.open(settings)
    try:
        yield parts
    finally:
        parts.database.close()


@click.group(cls=_Group)
def server() -> None:
    """Set up the bundled renewal server, and look into it.

    \b
    Example, from nothing to a first token:
      export FLOWAUTH_ROTATOR_DATA_DIR=/var/lib/flowauth-rotator
      flowauth-rotator server init
      flowauth-rotator server add-audience TEST_SERVER --max-lifetime-minutes 10080
      flowauth-rotator server add-role viewer --audience TEST_SERVER \\
          --scope get_results --max-lifetime-minutes 1440
      flowauth-rotator server add-user flowbot
      flowauth-rotator server grant flowbot viewer
      flowauth-rotator server mint --user flowbot --audience TEST_SERVER \\
          --name AIRFLOW --role viewer
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines


@server.command()
@_data_dir_option
def init(settings: Settings) -> None:
    """Make a data directory.

    In it: the database, the signing key, the encryption key and the session secret. Nothing
    that exists is ever overwritten.

    \b
    Example:
      flowauth-rotator server init --data-dir /var/lib/flowauth-rotator
    """  # noqa: D301
    settings.initialise()
    click.echo(f"Made {settings.data_dir}. Back it up: its keys cannot be made again.")


@server.command("add-audience")
@click.argument("name", type=name)
@_max_lifetime_option
@_latest_expiry_option
@_data_dir_option
def add_audience(
    settings: Settings, name: str, max_lifetime_minutes: int, latest_expiry: int | None
) -> None:
    """Add a server that tokens are for.

    Its name is what FlowAPI expects as the audience of a token.

    \b
    Example:
      flowauth-rotator server add-audience TEST_SERVER --max-lifetime-minutes 10080
    """  # noqa: D301
    with _opened(settings) as parts:
        parts.accounts.add_audience(name, Limit(max_lifetime_minutes, latest_expiry))
    click.echo(f"Added audience {name}.")


@server.command("add-role")
@click.argument("name", type=name)
@click.option("--audience", type=name, required=True, help="The server that it is a role of.")
@click.option(
    "--scope",
    "scopes",
    type=name,
    multiple=True,
    required=True,
    help="What it permits; repeat it.",
)
@_max_lifetime_option
@_latest_expiry_option
@_data_dir_option
def add_role(
    settings: Settings,
    name: str,
    audience: str,
    scopes: Sequence[str],
    max_lifetime_minutes: int,
    latest_expiry: int | None,
) -> None:
    """Add a role: a named set of scopes on one audience.

    \b
    Example:
      flowauth-rotator server add-role viewer --audience TEST_SERVER \\
          --scope get_results --scope run --max-lifetime-minutes 1440
    """  # noqa: D301
    with _opened(settings) as parts:
        limit = Limit(max_lifetime_minutes, latest_expiry)
        parts.accounts.add_role(name, audience, scopes, limit)
    click.echo(f"Added role {name} to {audience}.")


@server.command("add-user")
@click.argument("username", type=name)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@_data_dir_option
def add_user(settings: Settings, username: str, password_stdin: bool) -> None:
    """Add somebody who may sign in.

    Without --password-stdin a password is made and shown once.

    \b
    Examples:
      flowauth-rotator server add-user flowbot
      flowauth-rotator server add-user flowbot --password-stdin < password.txt
    """  # noqa: D301
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else secrets.token_urlsafe(18)
    with _opened(settings) as parts:
        parts.accounts.add_user(username, password)
    click.echo(f"Added user {username}.")
    if not password_stdin:
        click.echo(f"Password, shown only this once: {password}")


@server.command()
@click.argument("username", type=name)
@click.argument("roles", type=name, nargs=-1, required=True)
@_role_audience_option
@_data_dir_option
def grant(settings: Settings, username: str, roles: Sequence[str], audience: str | None) -> None:
    """Give roles to a user.

    \b
    Example:
      flowauth-rotator server grant flowbot viewer runner
    """  # noqa: D301
    with _opened(settings) as parts:
        parts.accounts.grant(username, roles, audience)
    click.echo(f"{username} now holds {', '.join(roles)}.")


@server.command()
@click.argument("username", type=name)
@click.argument("roles", type=name, nargs=-1, required=True)
@_role_audience_option
@_data_dir_option
def revoke(settings: Settings, username: str, roles: Sequence[str], audience: str | None) -> None:
    """Take roles from a user.

    No token with one of them can be renewed from then on; those that have been issued stay
    valid until they expire.

    \b
    Example:
      flowauth-rotator server revoke flowbot runner
    """  # noqa: D301
    with _opened(settings) as parts:
        parts.accounts.revoke(username, roles, audience)
    click.echo(f"{username} no longer holds {', '.join(roles)}.")


@server.command()
@click.option("--user", "username", type=name, required=True, help="The owner of the token.")
@click.option("--audience", type=name, required=True, help="The server that the token is for.")
@click.option("--name", required=True, help="The token's name, which every renewal keeps.")
@click.option("--role", "roles", type=name, multiple=True, required=True, help="Repeat it.")
@click.option("--lifetime-minutes", type=_minutes, help="Without it: as long as permitted.")
@_data_dir_option
def mint(
    settings: Settings,
    username: str,
    audience: str,
    name: str,
    roles: Sequence[str],
    lifetime_minutes: int | None,
) -> None:
    """Issue a first token and print it.

    The token stands alone on standard output.

    \b
    Example:
      flowauth-rotator server mint --user flowbot --audience TEST_SERVER \\
          --name AIRFLOW --role viewer --lifetime-minutes 60 > token.jwt
    """  # noqa: D301
    with _opened(settings) as parts:
        owner = parts.accounts.named_user(username)
        server_id = parts.accounts.named_audience(audience).id
        now = int(time.time())
        issued = parts.issuing.mint(owner, server_id, name, roles, lifetime_minutes, now=now)
    click.echo(issued.token)


@server.command()
@click.option("--user", "username", type=name, help="Only the tokens of this user.")
@click.option("--json", "as_json", is_flag=True, help="For machines; times in epoch seconds.")
@_data_dir_option
def tokens(settings: Settings, username: str | None, as_json: bool) -> None:
    """List every token ever issued, never its text.

    \b
    Examples:
      flowauth-rotator server tokens
      flowauth-rotator server tokens --user flowbot --json
    """  # noqa: D301
    with _opened(settings) as parts:
        owner = parts.accounts.named_user(username) if username else None
        rows = parts.issuing.rows(owner)
    now = int(time.time())
    if as_json:
        click.echo(json.dumps([_facts(row, now) for row in rows], indent=2))
    elif rows:
        click.echo(_table([_facts(row, now) for row in rows]))
    else:
        click.echo("No tokens yet.")


@server.command("public-key")
@_data_dir_option
def public_key(settings: Settings) -> None:
    """Print the public key.

    In PEM form, for whoever verifies tokens.

    \b
    Example:
      flowauth-rotator server public-key > flowauth-public-key.pem
    """  # noqa: D301
    settings.check()
    click.echo(Signer(settings.signing_key()).public_pem, nl=False)


@click.command(cls=_Command)
@click.option(
    "--bind",
    type=address,
    metavar="HOST:PORT",
    default="127.0.0.1:9091",
    show_default=True,
    help="Where to listen.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes."
)
@_data_dir_option
def serve(settings: Settings, bind: str, workers: int) -> None:
    """Run the renewal server in the foreground.

    SIGTERM stops it once the requests at hand are answered, Ctrl-C at once.

    Put a reverse proxy with https in front of it before you bind it to more than this machine.

    \b
    Example:
      flowauth-rotator serve --data-dir /var/lib/flowauth-rotator --bind 127.0.0.1:9091
    """  # noqa: D301
    from flowauth_rotator.server.serving import Gunicorn

    with _opened(settings):
        settings.session_secret()
    _refuse_taken(bind)
    Gunicorn(
        load_app=lambda: create_app(settings.data_dir),
        bind=bind,
        workers=workers,
        on_ready=lambda: click.echo(f"Serving {settings.data_dir} on http://{bind}"),
    ).run()


def _refuse_taken(bind: str) -> None:
    """Say at once that an address cannot be had, where gunicorn would try for five seconds."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise click.ClickException(f"Cannot listen on {bind}: {error.strerror}.") from None


def _facts(row: HistoryRow, now: int) -> dict[str, Any]:
    return {
        "id": row.id,
        "parent": row.parent_id,
        "name": row.name,
        "user": row.owner,
        "audience": row.audience,
        "roles": [role.name for role in row.roles],
        "issued_at": row.issued_at,
        "expires_at": row.expires_at,
        "state": "live" if now < row.expires_at else "expired",
    }


def _table(tokens: Sequence[dict[str, Any]]) -> str:
    """Facts as aligned columns, with times for people."""
    columns = list(tokens[0])
    lines = [[_TITLES.get(column, column.upper()) for column in columns]]
    lines += [[_cell(column, facts[column]) for column in columns] for facts in tokens]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


_TITLES = {"issued_at": "ISSUED (UTC)", "expires_at": "EXPIRES (UTC)"}


def _cell(column: str, value: object) -> str:
    if column in _TITLES and isinstance(value, int):
        return f"{datetime.fromtimestamp(value, timezone.utc):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list):
        return ", ".join(value)
    return "-" if value is None else str(value)
