"""Commands for tokens: mint a first token, list the history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from flowauth_rotator.server import Services
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import (
    Facts,
    create_private_file,
    format_epoch,
    print_rows,
)
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.issuing import IssuedToken


@click.command(cls=options.Command)
@click.option("--user", "username", type=options.NAME, required=True, help="Owner of the token.")
@click.option("--audience", type=options.NAME, required=True, help="Audience of the token.")
@click.option("--name", required=True, help="Name of the token; renewals keep it.")
@click.option(
    "--role",
    "roles",
    type=options.NAME,
    multiple=True,
    required=True,
    help="Role of the token; repeatable.",
)
@click.option(
    "--lifetime-minutes",
    type=options.parse_minutes,
    metavar="MINUTES",
    help="Lifetime in minutes, or like 12h or 7d; default: the longest permitted.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="New file for the token, which only you can read; default: standard output.",
)
@options.with_services
def mint(
    services: Services,
    username: str,
    audience: str,
    name: str,
    roles: Sequence[str],
    lifetime_minutes: int | None,
    output: Path | None,
) -> None:
    """Mint a first token.

    Standard output contains only the token. With --output, FILE contains only the token, without
    a line break.

    \b
    Example:
      flowauth-rotator server mint --user flowbot --audience TEST_SERVER \\
          --name AIRFLOW --role viewer --lifetime-minutes 60 --output flowapi.token
    """  # noqa: D301 - \b is click's mark for preformatted text

    def issue() -> IssuedToken:
        owner = services.accounts.get_user(username)
        server_id = services.accounts.get_audience(audience).id
        now = options.read_clock()
        return services.issuer.mint(owner, server_id, name, roles, lifetime_minutes, now=now)

    if output is None:
        click.echo(issue().token)
        return
    with create_private_file(output) as draft:  # first: a token that cannot be stored is lost
        issued = issue()
        draft.write_text(issued.token, encoding="ascii")
    click.echo(
        f"Wrote token {name!r} to {output}. It expires at {format_epoch(issued.expires_at)} UTC."
    )


@click.command(cls=options.Command)
@click.option("--all", "show_all", is_flag=True, help="List expired tokens too.")
@click.option(
    "--user", "username", type=options.NAME, help="User whose tokens to list; default: all."
)
@click.option("--name", help="Name of the tokens to list; default: all.")
@options.as_json
@options.with_services
def tokens(
    services: Services, show_all: bool, username: str | None, name: str | None, as_json: bool
) -> None:
    """List the tokens, without their text.

    By default only tokens that can still be renewed are listed.

    \b
    Examples:
      flowauth-rotator server tokens
      flowauth-rotator server tokens --name AIRFLOW --all
      flowauth-rotator server tokens --user flowbot --json
    """  # noqa: D301
    now = options.read_clock()
    owner_id = services.accounts.get_user(username).id if username else None
    expiring_after = None if show_all else now - services.settings.renew_expired_grace
    rows = (
        _row_to_facts(row, now)
        for row in services.issuer.iterate_rows(owner_id=owner_id, expiring_after=expiring_after)
        if name in (None, row.name)
    )
    empty = f"No {'' if show_all else 'renewable '}tokens"
    empty += f" named {name!r}" if name is not None else ""
    empty += f" of user {username!r}." if username else "."
    if not show_all:
        empty += " List expired tokens too with --all."
    elif name is not None:
        empty += " List the tokens of all names without --name."
    print_rows(rows, as_json=as_json, empty_message=empty)


def _row_to_facts(row: HistoryRow, now: int) -> Facts:
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
