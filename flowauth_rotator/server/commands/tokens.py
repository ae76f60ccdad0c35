"""Commands for tokens: the first of a name, and the history of all."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowauth_rotator.server import Services
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import Facts, show
from flowauth_rotator.server.history import HistoryRow


@click.command(cls=options.Command)
@click.option("--user", "username", type=options.name, required=True, help="The token's owner.")
@click.option(
    "--audience", type=options.name, required=True, help="The server that the token is for."
)
@click.option("--name", required=True, help="The token's name, which every renewal keeps.")
@click.option("--role", "roles", type=options.name, multiple=True, required=True, help="Repeat it.")
@click.option(
    "--lifetime-minutes",
    type=options.minutes,
    metavar="MINUTES",
    help="Without it: as long as permitted.",
)
@options.opened
def mint(
    services: Services,
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
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines
    owner = services.accounts.named_user(username)
    server_id = services.accounts.named_audience(audience).id
    now = options.clock()
    issued = services.issuing.mint(owner, server_id, name, roles, lifetime_minutes, now=now)
    click.echo(issued.token)


@click.command(cls=options.Command)
@click.option("--all", "every", is_flag=True, help="Every token ever issued.")
@click.option("--user", "username", type=options.name, help="Only the tokens of this user.")
@click.option("--name", help="Only the tokens of this name.")
@options.as_json
@options.opened
def tokens(
    services: Services, every: bool, username: str | None, name: str | None, as_json: bool
) -> None:
    """List the tokens, never their text.

    Without --all only those that can still be renewed: the others have expired.

    \b
    Examples:
      flowauth-rotator server tokens
      flowauth-rotator server tokens --name AIRFLOW --all
      flowauth-rotator server tokens --user flowbot --json
    """  # noqa: D301
    now = options.clock()
    owner_id = services.accounts.named_user(username).id if username else None
    renewable = None if every else now - services.settings.renew_expired_grace
    rows = (
        _facts(row, now)
        for row in services.issuing.each_row(owner_id=owner_id, expiring_after=renewable)
        if name in (None, row.name)
    )
    none = "No tokens." if every else "No token can be renewed; --all lists the others."
    show(rows, as_json=as_json, none=none)


def _facts(row: HistoryRow, now: int) -> Facts:
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
