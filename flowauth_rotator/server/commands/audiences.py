"""Commands for audiences and their roles."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowauth_rotator.core.text import format_count
from flowauth_rotator.server import Services
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import print_rows


@click.command("add-audience", cls=options.Command)
@click.argument("name", type=options.NAME)
@options.max_lifetime(required=True)
@options.latest_expiry
@options.with_services
def add_audience(
    services: Services, name: str, max_lifetime_minutes: int, latest_expiry: int | None
) -> None:
    """Add an audience: a server that accepts tokens.

    Its name must be the audience that FlowAPI expects in a token.

    \b
    Example:
      flowauth-rotator server add-audience TEST_SERVER --max-lifetime-minutes 10080
    """  # noqa: D301 - \b is click's mark for preformatted text
    services.accounts.add_audience(name, Limit(max_lifetime_minutes, latest_expiry))
    click.echo(f"Added audience {name!r}.")


@click.command("set-audience", cls=options.Command)
@click.argument("name", type=options.NAME)
@options.limit_changes
@options.with_services
def set_audience(
    services: Services,
    name: str,
    max_lifetime_minutes: int | None,
    latest_expiry: int | None,
    no_latest_expiry: bool,
) -> None:
    """Change the limits of an audience.

    The limits apply to new tokens. Existing tokens keep their expiry.

    \b
    Examples:
      flowauth-rotator server set-audience TEST_SERVER --max-lifetime-minutes 2880
      flowauth-rotator server set-audience TEST_SERVER --no-latest-expiry
    """  # noqa: D301
    limits = _collect_limits(max_lifetime_minutes, latest_expiry, no_latest_expiry)
    if not limits:
        raise click.UsageError(
            "Nothing to change: use --max-lifetime-minutes, --latest-expiry or --no-latest-expiry."
        )
    services.accounts.set_audience(name, **limits)
    click.echo(f"Changed audience {name!r}.")
    _print_overridden_limits(services, name)


@click.command("delete-audience", cls=options.Command)
@click.argument("name", type=options.NAME)
@options.with_services
def delete_audience(services: Services, name: str) -> None:
    """Delete an audience that has no roles and no tokens.

    \b
    Example:
      flowauth-rotator server delete-audience OLD_SERVER
    """  # noqa: D301
    services.accounts.delete_audience(name)
    click.echo(f"Deleted audience {name!r}.")


@click.command(cls=options.Command)
@options.as_json
@options.with_services
def audiences(services: Services, as_json: bool) -> None:
    """List the audiences with their limits.

    \b
    Examples:
      flowauth-rotator server audiences
      flowauth-rotator server audiences --json
    """  # noqa: D301
    rows = (
        {"name": summary.audience.name, "roles": summary.roles, **vars(summary.audience.limit)}
        for summary in services.accounts.list_audiences()
    )
    print_rows(rows, as_json=as_json, empty_message="No audiences.")


@click.command("add-role", cls=options.Command)
@click.argument("name", type=options.NAME)
@click.option("--audience", type=options.NAME, required=True, help="Audience of the role.")
@click.option(
    "--scope",
    "scopes",
    type=options.NAME,
    multiple=True,
    required=True,
    help="Scope of the role; repeatable.",
)
@options.max_lifetime(required=True)
@options.latest_expiry
@options.with_services
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
    click.echo(f"Added role {name!r} to audience {audience!r}.")
    _print_overridden_limits(services, audience, name)


@click.command("set-role", cls=options.Command)
@click.argument("name", type=options.NAME)
@options.role_audience
@click.option(
    "--scope",
    "scopes",
    type=options.NAME,
    multiple=True,
    help="Scope of the role, replacing all current scopes; repeatable.",
)
@options.limit_changes
@options.with_services
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

    The changes apply to new and renewed tokens. Existing tokens keep their scopes and expiry.

    \b
    Examples:
      flowauth-rotator server set-role viewer --scope get_results --scope get_available_dates
      flowauth-rotator server set-role viewer --latest-expiry 2027-01-31T00:00:00Z
    """  # noqa: D301
    limits = _collect_limits(max_lifetime_minutes, latest_expiry, no_latest_expiry)
    if not (scopes or limits):
        raise click.UsageError(
            "Nothing to change: use --scope, --max-lifetime-minutes, --latest-expiry or "
            "--no-latest-expiry."
        )
    services.accounts.set_role(name, audience, scopes=scopes, **limits)
    click.echo(f"Changed role {name!r}.")
    _print_overridden_limits(services, audience, name)


@click.command("delete-role", cls=options.Command)
@click.argument("name", type=options.NAME)
@options.role_audience
@options.with_services
def delete_role(services: Services, name: str, audience: str | None) -> None:
    """Delete a role, and remove it from all users.

    Existing tokens with this role stay valid until they expire, but can never be renewed, even
    if a new role gets the same name.

    \b
    Example:
      flowauth-rotator server delete-role viewer --audience TEST_SERVER
    """  # noqa: D301
    holders = services.accounts.delete_role(name, audience)
    click.echo(f"Deleted role {name!r}; {format_count(len(holders), 'user')} had it.")


@click.command(cls=options.Command)
@click.option("--audience", type=options.NAME, help="Audience to list.  [default: all]")
@options.as_json
@options.with_services
def roles(services: Services, audience: str | None, as_json: bool) -> None:
    """List the roles with scopes, limits and users.

    The table shows up to four scopes and users of a role; --json shows all.

    \b
    Examples:
      flowauth-rotator server roles
      flowauth-rotator server roles --audience TEST_SERVER --json
    """  # noqa: D301
    if audience is not None:
        services.accounts.get_audience(audience)
    rows = (
        {
            "name": summary.role.name,
            "audience": summary.audience,
            "scopes": summary.role.scopes,
            "users": summary.users,
            **vars(summary.role.limit),
        }
        for summary in services.accounts.list_roles()
        if audience in (None, summary.audience)
    )
    print_rows(rows, as_json=as_json, empty_message="No roles.")


def _print_overridden_limits(
    services: Services, audience: str | None, role: str | None = None
) -> None:
    """Print which roles permit longer lifetimes than their audience, whose limit applies.

    Args:
        services: The services of the server.
        audience: Only roles of this audience.
        role: Only roles of this name.
    """
    limits = {s.audience.name: s.audience.limit for s in services.accounts.list_audiences()}
    for summary in services.accounts.list_roles():
        own, upper = summary.role.limit.max_lifetime_minutes, limits[summary.audience]
        if (
            audience in (None, summary.audience)
            and role in (None, summary.role.name)
            and own > upper.max_lifetime_minutes
        ):
            click.echo(
                f"Role {summary.role.name!r} permits {own} minutes, audience {summary.audience!r} "
                f"only {upper.max_lifetime_minutes}: the shorter limit applies to each token."
            )


def _collect_limits(
    max_lifetime_minutes: int | None, latest_expiry: int | None, no_latest_expiry: bool
) -> dict[str, int | None]:
    """Return the limits to change, with their new values."""
    if no_latest_expiry and latest_expiry is not None:
        raise click.UsageError("--latest-expiry and --no-latest-expiry are mutually exclusive.")
    values = {"max_lifetime_minutes": max_lifetime_minutes, "latest_expiry": latest_expiry}
    changes = {limit: value for limit, value in values.items() if value is not None}
    return changes | ({"latest_expiry": None} if no_latest_expiry else {})
