"""Commands for the keys that sign tokens, and for those that encrypt them at rest."""

from __future__ import annotations

import click
from cryptography.fernet import InvalidToken

from flowauth_rotator.server import Services, maintenance
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import counted, moment, progress, report
from flowauth_rotator.server.data_dir import ENCRYPTION_KEYS
from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.server.signing import DEFAULT_ALGORITHM, Signer


@click.command("public-key", cls=options.Command)
@options.opened
def public_key(services: Services) -> None:
    """Print the public key of the tokens.

    In PEM form, of the key that signs now. All that are needed while an older key's tokens live
    are at the server's address /.well-known/jwks.json.

    \b
    Example:
      flowauth-rotator server public-key > flowauth-public-key.pem
    """  # noqa: D301 - click's mark for a paragraph that keeps its lines
    click.echo(services.keyring.current().public_pem, nl=False)


@click.command("rotate-signing-key", cls=options.Command)
@click.option(
    "--algorithm", type=options.algorithm, help="For the new key; without it, as the old one."
)
@options.as_json
@options.assembled
def rotate_signing_key(services: Services, algorithm: str | None, as_json: bool) -> None:
    """Sign with a new key from now on.

    The tokens of the old key stay valid and can be renewed: the server publishes both keys until
    the last of them has expired.

    Whoever verifies with one fixed public key, as FlowAPI does, refuses the new tokens until it
    has the new one, and the old tokens from then on. Keep the algorithm if you can: the agent
    of this package takes no successor that is signed with one of another kind.

    A signing key that is lost is replaced in the same way.

    Servers that share a PostgreSQL each sign with their own signing-key.pem: give all the new one.

    \b
    Examples:
      flowauth-rotator server rotate-signing-key
      flowauth-rotator server rotate-signing-key --algorithm ES256
    """  # noqa: D301
    old, now = _old_signer(services), options.clock()
    wanted = algorithm or (old.algorithm if old else DEFAULT_ALGORITHM)
    new = maintenance.rotate_signing_key(services, wanted, now=now)
    until = maintenance.published_until(services, old.kid, now=now) if old else None
    report(
        f"Tokens are now signed with key {new.kid} ({new.algorithm}).\n"
        f"{_fate(old, until)}\n"
        "Whoever verifies with a fixed public key needs the new one: "
        "`flowauth-rotator server public-key`.",
        as_json=as_json,
        kid=new.kid,
        algorithm=new.algorithm,
        old_kid=old.kid if old else None,
        old_published_until=until,
    )


@click.command("rotate-encryption-key", cls=options.Command)
@options.as_json
@options.opened
def rotate_encryption_key(services: Services, as_json: bool) -> None:
    """Encrypt all stored tokens with a new key.

    Then the old key is forgotten. When this is interrupted, both keys stay in use, and the next
    call finishes the work.

    Servers that share a PostgreSQL must share the file encryption.key too, or stand still until
    each has the new one.

    \b
    Example:
      flowauth-rotator server rotate-encryption-key
    """  # noqa: D301
    try:
        with progress("Encrypting anew") as advance:
            done = maintenance.rotate_encryption_key(services, progress=advance)
    except InvalidToken:
        raise services.directory.unusable(
            ENCRYPTION_KEYS, "lacks a key that some token was stored with"
        ) from None
    report(
        f"Encrypted {counted(done, 'token')} with a new key, and forgot the old one.\n"
        "Back up the database and encryption.key again: an older copy of either does not fit a "
        "newer one of the other.",
        as_json=as_json,
        encrypted=done,
    )


def _old_signer(services: Services) -> Signer | None:
    """The key until now, or None when it is lost."""
    try:
        return services.keyring.current()
    except SetupError:
        return None


def _fate(old: Signer | None, until: int | None) -> str:
    if old is None:
        return "The old key is lost; as long as its tokens live, its public half stays published."
    if until is None:
        return f"The old key {old.kid} has no living token and is no longer published."
    return (
        f"The old key {old.kid} stays published until {moment(until)} UTC, when its last token "
        "expires."
    )
