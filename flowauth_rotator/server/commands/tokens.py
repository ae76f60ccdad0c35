"""Commands for tokens: mint a first token, list the history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from flowauth_rotator.core.text import format_count
from flowauth_rotator.server import Services, maintenance
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import (
    Facts,
    create_private_file,
    format_epoch,
    print_result,
    print_rows,
)
from flowauth_rotator.server.history import HistoryRow, RowFilter
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
    help="Lifetime in minutes, or like 12h or 7d.  [default: the maximum]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="New file for the token, which only you can read.  [default: standard output]",
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
@click.option("--all", "show_all", is_flag=True, help="List expired and revoked tokens too.")
@click.option(
    "--user", "username", type=options.NAME, help="User whose tokens to list.  [default: all]"
)
@click.option("--name", help="Name of the tokens to list.  [default: all]")
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
    conditions = RowFilter(owner_id=owner_id, expiring_after=expiring_after, with_revoked=show_all)
    rows = (
        _row_to_facts(row, now)
        for row in services.listing.iterate_rows(conditions)
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


@click.command("revoke-token", cls=options.Command)
@click.argument("token_id", metavar="[ID]", type=click.IntRange(1), required=False)
@click.option("--family", is_flag=True, help="Revoke all tokens with the same first ancestor.")
@click.option("--name", help="Name of the tokens to revoke, with --user.")
@click.option("--user", "username", type=options.NAME, help="Owner of the name.")
@click.option("--audience", type=options.NAME, help="Audience of the name.  [default: all]")
@options.as_json
@options.with_services
def revoke_token(
    services: Services,
    token_id: int | None,
    family: bool,
    name: str | None,
    username: str | None,
    audience: str | None,
    as_json: bool,
) -> None:
    """Revoke tokens: they can no longer be renewed.

    ID revokes a token and all that were renewed from it, with --family also all that it was
    renewed from. --name and --user revoke all tokens of a name.

    FlowAPI verifies signatures only: a revoked token works there until it expires. To end it
    earlier, replace the signing key there and here.

    \b
    Examples:
      flowauth-rotator server revoke-token 12 --family
      flowauth-rotator server revoke-token --user flowbot --name AIRFLOW
    """  # noqa: D301
    now = options.read_clock()
    if token_id is not None and name is None and username is None and audience is None:
        revoked = maintenance.revoke_token(services, token_id, family=family, now=now)
    elif token_id is None and name is not None and username is not None and not family:
        revoked = maintenance.revoke_name(services, username, name, audience, now=now)
    else:
        raise click.UsageError(
            "Name tokens by ID, with or without --family; or by --user and --name."
        )
    live = [expiry for expiry in revoked if expiry > now]
    message = f"Revoked {format_count(len(revoked), 'token')}, which can no longer be renewed."
    if not revoked:
        message = "Nothing to revoke: these tokens are revoked already."
    if live:
        last = f"{format_epoch(max(live))} UTC"
        message += f"\nFlowAPI accepts revoked tokens until they expire, here until {last}."
    print_result(
        message,
        as_json=as_json,
        revoked=len(revoked),
        live=len(live),
        last_expires_at=max(live, default=None),
    )


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
        "state": _describe_state(row, now),
    }


def _describe_state(row: HistoryRow, now: int) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "live" if row.expires_at > now else "expired"
