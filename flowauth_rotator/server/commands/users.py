"""Commands for users: their passwords and roles."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowauth_rotator.server import Services
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import print_rows


@click.command("add-user", cls=options.Command)
@click.argument("username", type=options.NAME)
@options.password_stdin
@options.with_services
def add_user(services: Services, username: str, password_stdin: bool) -> None:
    """Add a user.

    Without --password-stdin, a password is generated and shown once.

    \b
    Examples:
      flowauth-rotator server add-user flowbot
      flowauth-rotator server add-user flowbot --password-stdin < password.txt
    """  # noqa: D301 - \b is click's mark for preformatted text
    password = options.read_password() if password_stdin else options.generate_password()
    services.accounts.add_user(username, password)
    click.echo(f"Added user {username!r}.")
    _show_generated(password, password_stdin)


@click.command("set-password", cls=options.Command)
@click.argument("username", type=options.NAME)
@options.password_stdin
@options.with_services
def set_password(services: Services, username: str, password_stdin: bool) -> None:
    """Replace the password of a user.

    All sessions of the user end. Without --password-stdin, a password is generated and shown
    once.

    Tokens can be renewed without a password: when a user leaves, run revoke --all first.

    \b
    Examples:
      flowauth-rotator server set-password flowbot
      flowauth-rotator server set-password flowbot --password-stdin < password.txt
    """  # noqa: D301
    password = options.read_password() if password_stdin else options.generate_password()
    services.accounts.set_password(username, password)
    click.echo(f"Changed the password of user {username!r}; all sessions of the user have ended.")
    _show_generated(password, password_stdin)


@click.command("delete-user", cls=options.Command)
@click.argument("username", type=options.NAME)
@options.with_services
def delete_user(services: Services, username: str) -> None:
    """Delete a user who never had a token.

    A user with tokens stays in the history: run revoke --all and set-password instead.

    \b
    Example:
      flowauth-rotator server delete-user trainee
    """  # noqa: D301
    services.accounts.delete_user(username)
    click.echo(f"Deleted user {username!r}.")


@click.command(cls=options.Command)
@options.as_json
@options.with_services
def users(services: Services, as_json: bool) -> None:
    """List the users with their roles.

    \b
    Examples:
      flowauth-rotator server users
      flowauth-rotator server users --json
    """  # noqa: D301
    rows = (
        {"name": summary.username, "roles": summary.roles}
        for summary in services.accounts.list_users()
    )
    print_rows(rows, as_json=as_json, empty_message="No users.")


@click.command(cls=options.Command)
@click.argument("username", type=options.NAME)
@click.argument("roles", type=options.NAME, nargs=-1, required=True)
@options.role_audience
@options.with_services
def grant(services: Services, username: str, roles: Sequence[str], audience: str | None) -> None:
    """Give roles to a user.

    \b
    Example:
      flowauth-rotator server grant flowbot viewer runner
    """  # noqa: D301
    services.accounts.grant(username, roles, audience)
    click.echo(f"User {username!r} now has: {', '.join(roles)}.")


@click.command(cls=options.Command)
@click.argument("username", type=options.NAME)
@click.argument("roles", type=options.NAME, nargs=-1)
@click.option(
    "--all", "revoke_everything", is_flag=True, help="Revoke every role on every audience."
)
@options.role_audience
@options.with_services
def revoke(
    services: Services,
    username: str,
    roles: Sequence[str],
    revoke_everything: bool,
    audience: str | None,
) -> None:
    """Revoke roles of a user.

    Existing tokens with these roles stay valid until they expire, but cannot be renewed.

    When a user leaves, run revoke --all, then change the password with set-password.

    \b
    Examples:
      flowauth-rotator server revoke flowbot runner
      flowauth-rotator server revoke flowbot --all
    """  # noqa: D301
    if revoke_everything == bool(roles) or (revoke_everything and audience):
        raise click.UsageError("Name the roles to revoke, or use --all without any other option.")
    if revoke_everything:
        roles = services.accounts.revoke_all(username)
    else:
        services.accounts.revoke(username, roles, audience)
    click.echo(f"Revoked from user {username!r}: {', '.join(roles) or 'no roles'}.")


def _show_generated(password: str, password_stdin: bool) -> None:
    if not password_stdin:
        click.echo(f"Password (shown only once): {password}")
