"""Commands for audiences and their roles."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowauth_rotator.server import Services
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import counted, show


@click.command("add-audience", cls=options.Command)
@click.argument("name", type=options.name)
@options.max_lifetime(required=True)
@options.latest_expiry
@options.opened
def add_audience(
    services: Services, name: str, max_lifetime_minutes: int, latest_expiry: int | None
) -> None:
    """Add a server that tokens are for.

    Its name is what FlowAPI expects as the audience of a token.

    \b
    Example:
      flowauth-rotator server add-audience TEST_SERVER --max-lifetime-minutes 10080
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines
    services.accounts.add_audience(name, Limit(max_lifetime_minutes, latest_expiry))
    click.echo(f"Added audience {name}.")


@click.command("set-audience", cls=options.Command)
@click.argument("name", type=options.name)
@options.changed_limits
@options.opened
def set_audience(
    services: Services,
    name: str,
    max_lifetime_minutes: int | None,
    latest_expiry: int | None,
    no_latest_expiry: bool,
) -> None:
    """Change the limits of an audience.

    They hold for every token that is issued from then on. Those that there are keep their expiry.

    \b
    Examples:
      flowauth-rotator server set-audience TEST_SERVER --max-lifetime-minutes 2880
      flowauth-rotator server set-audience TEST_SERVER --no-latest-expiry
    """  # noqa: D301
    limits = _changes(max_lifetime_minutes, latest_expiry, no_latest_expiry)
    if not limits:
        raise click.UsageError("Say what to change: a lifetime or a latest expiry.")
    services.accounts.set_audience(name, **limits)
    click.echo(f"Changed audience {name}.")


@click.command(cls=options.Command)
@options.as_json
@options.opened
def audiences(services: Services, as_json: bool) -> None:
    """List the audiences with their limits.

    \b
    Examples:
      flowauth-rotator server audiences
      flowauth-rotator server audiences --json
    """  # noqa: D301
    rows = (
        {"name": listed.audience.name, "roles": listed.roles, **vars(listed.audience.limit)}
        for listed in services.accounts.all_audiences()
    )
    show(rows, as_json=as_json, none="No audiences yet.")


@click.command("add-role", cls=options.Command)
@click.argument("name", type=options.name)
@click.option(
    "--audience", type=options.name, required=True, help="The server that it is a role of."
)
@click.option(
    "--scope",
    "scopes",
    type=options.name,
    multiple=True,
    required=True,
    help="What it permits; repeat it.",
)
@options.max_lifetime(required=True)
@options.latest_expiry
@options.opened
def add_role(
    services: Services,
    name: str,
    audience: str,
    scopes: Sequence[str],
    max_lifetime_minutes: int,
    latest_expiry: int | None,
) -> None:
    """Add a role: a set of scopes on one audience.

    \b
    Example:
      flowauth-rotator server add-role viewer --audience TEST_SERVER \\
          --scope get_results --scope run --max-lifetime-minutes 1440
    """  # noqa: D301
    services.accounts.add_role(name, audience, scopes, Limit(max_lifetime_minutes, latest_expiry))
    click.echo(f"Added role {name} to {audience}.")


@click.command("set-role", cls=options.Command)
@click.argument("name", type=options.name)
@options.role_audience
@click.option(
    "--scope",
    "scopes",
    type=options.name,
    multiple=True,
    help="What it permits, in place of all that it did; repeat it.",
)
@options.changed_limits
@options.opened
def set_role(
    services: Services,
    name: str,
    audience: str | None,
    scopes: Sequence[str],
    max_lifetime_minutes: int | None,
    latest_expiry: int | None,
    no_latest_expiry: bool,
) -> None:
    """Change the scopes or the limits of a role.

    They hold for every token that is issued from then on, also by renewal. Those that there are
    keep their scopes and their expiry.

    \b
    Examples:
      flowauth-rotator server set-role viewer --scope get_results --scope get_available_dates
      flowauth-rotator server set-role viewer --latest-expiry 2027-01-31T00:00:00Z
    """  # noqa: D301
    limits = _changes(max_lifetime_minutes, latest_expiry, no_latest_expiry)
    if not (scopes or limits):
        raise click.UsageError("Say what to change: scopes, a lifetime or a latest expiry.")
    services.accounts.set_role(name, audience, scopes=scopes, **limits)
    click.echo(f"Changed role {name}.")


@click.command("delete-role", cls=options.Command)
@click.argument("name", type=options.name)
@options.role_audience
@options.opened
def delete_role(services: Services, name: str, audience: str | None) -> None:
    """Delete a role, and take it from all who hold it.

    No token with it can be renewed from then on, whatever is added later under the same name;
    those that have been issued stay valid until they expire.

    \b
    Example:
      flowauth-rotator server delete-role viewer --audience TEST_SERVER
    """  # noqa: D301
    holders = services.accounts.delete_role(name, audience)
    click.echo(f"Deleted role {name}; {counted(len(holders), 'user')} held it.")


@click.command(cls=options.Command)
@click.option("--audience", type=options.name, help="Only the roles of this audience.")
@options.as_json
@options.opened
def roles(services: Services, audience: str | None, as_json: bool) -> None:
    """List the roles with scopes, limits and holders.

    The table shows the first of many scopes and holders; --json shows all.

    \b
    Examples:
      flowauth-rotator server roles
      flowauth-rotator server roles --audience TEST_SERVER --json
    """  # noqa: D301
    if audience is not None:
        services.accounts.named_audience(audience)
    rows = (
        {
            "name": listed.role.name,
            "audience": listed.audience,
            "scopes": listed.role.scopes,
            "users": listed.users,
            **vars(listed.role.limit),
        }
        for listed in services.accounts.all_roles()
        if audience in (None, listed.audience)
    )
    show(rows, as_json=as_json, none="No roles yet.")


def _changes(
    max_lifetime_minutes: int | None, latest_expiry: int | None, no_latest_expiry: bool
) -> dict[str, int | None]:
    """The limits that shall change, to what."""
    if no_latest_expiry and latest_expiry is not None:
        raise click.UsageError("--latest-expiry and --no-latest-expiry exclude each other.")
    given = {"max_lifetime_minutes": max_lifetime_minutes, "latest_expiry": latest_expiry}
    changes = {limit: value for limit, value in given.items() if value is not None}
    return changes | ({"latest_expiry": None} if no_latest_expiry else {})
