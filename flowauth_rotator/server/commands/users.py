"""Commands for users: their passwords, and the roles that they hold."""

from __future__ import annotations

from collections.abc import Sequence

import click

from flowauth_rotator.server import Services
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import show


@click.command("add-user", cls=options.Command)
@click.argument("username", type=options.name)
@options.password_stdin
@options.opened
def add_user(services: Services, username: str, password_stdin: bool) -> None:
    """Add somebody who may sign in.

    Without --password-stdin a password is made and shown once.

    \b
    Examples:
      flowauth-rotator server add-user flowbot
      flowauth-rotator server add-user flowbot --password-stdin < password.txt
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines
    password = options.read_password() if password_stdin else options.make_password()
    services.accounts.add_user(username, password)
    click.echo(f"Added user {username}.")
    _show_made(password, password_stdin)


@click.command("set-password", cls=options.Command)
@click.argument("username", type=options.name)
@options.password_stdin
@options.opened
def set_password(services: Services, username: str, password_stdin: bool) -> None:
    """Give a user another password.

    The old one no longer works, and whoever is signed in as that user has to sign in again.
    Without --password-stdin a password is made and shown once.

    Tokens can be renewed without a password: for somebody who leaves, revoke --all comes first.

    \b
    Examples:
      flowauth-rotator server set-password flowbot
      flowauth-rotator server set-password flowbot --password-stdin < password.txt
    """  # noqa: D301
    password = options.read_password() if password_stdin else options.make_password()
    services.accounts.set_password(username, password)
    click.echo(f"Changed the password of {username}; every session of theirs has ended.")
    _show_made(password, password_stdin)


@click.command(cls=options.Command)
@options.as_json
@options.opened
def users(services: Services, as_json: bool) -> None:
    """List the users with the roles that they hold.

    \b
    Examples:
      flowauth-rotator server users
      flowauth-rotator server users --json
    """  # noqa: D301
    rows = (
        {"name": listed.username, "roles": listed.roles} for listed in services.accounts.all_users()
    )
    show(rows, as_json=as_json, none="No users yet.")


@click.command(cls=options.Command)
@click.argument("username", type=options.name)
@click.argument("roles", type=options.name, nargs=-1, required=True)
@options.role_audience
@options.opened
def grant(services: Services, username: str, roles: Sequence[str], audience: str | None) -> None:
    """Give roles to a user.

    \b
    Example:
      flowauth-rotator server grant flowbot viewer runner
    """  # noqa: D301
    services.accounts.grant(username, roles, audience)
    click.echo(f"{username} now holds {', '.join(roles)}.")


@click.command(cls=options.Command)
@click.argument("username", type=options.name)
@click.argument("roles", type=options.name, nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every role on every audience.")
@options.role_audience
@options.opened
def revoke(
    services: Services, username: str, roles: Sequence[str], every: bool, audience: str | None
) -> None:
    """Take roles from a user.

    No token with one of them can be renewed from then on; those that have been issued stay
    valid until they expire.

    For somebody who leaves: revoke with --all, then change the password with set-password.

    \b
    Examples:
      flowauth-rotator server revoke flowbot runner
      flowauth-rotator server revoke flowbot --all
    """  # noqa: D301
    if every == bool(roles) or (every and audience):
        raise click.UsageError("Name the roles, or call it with --all and nothing else.")
    if every:
        roles = services.accounts.revoke_all(username)
    else:
        services.accounts.revoke(username, roles, audience)
    click.echo(f"{username} no longer holds {', '.join(roles) or 'any role, and held none'}.")


def _show_made(password: str, password_stdin: bool) -> None:
    if not password_stdin:
        click.echo(f"Password, shown only this once: {password}")
