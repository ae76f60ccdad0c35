"""Commands for the signing keys and the encryption keys."""

from __future__ import annotations

import click
from cryptography.fernet import InvalidToken

from flowauth_rotator.core.text import format_count
from flowauth_rotator.server import Services, maintenance
from flowauth_rotator.server.commands import options
from flowauth_rotator.server.commands.output import (
    format_epoch,
    print_result,
    show_progress,
)
from flowauth_rotator.server.data_dir import ENCRYPTION_KEYS
from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.server.signing import DEFAULT_ALGORITHM, Signer


@click.command("public-key", cls=options.Command)
@options.with_services
def public_key(services: Services) -> None:
    """Print the current public key in PEM format.

    The server's path /.well-known/jwks.json also has the older public keys, until their last
    tokens expire.

    \b
    Example:
      flowauth-rotator server public-key > flowauth-public-key.pem
    """  # noqa: D301 - \b is click's mark for preformatted text
    click.echo(services.keyring.current_signer().public_pem, nl=False)


@click.command("rotate-signing-key", cls=options.Command)
@click.option(
    "--algorithm",
    type=options.algorithm,
    help="Algorithm of the new key.  [default: that of the old key]",
)
@options.as_json
@options.with_unverified_services
def rotate_signing_key(services: Services, algorithm: str | None, as_json: bool) -> None:
    """Replace the signing key.

    Tokens of the old key stay valid and renewable: the server publishes both public keys until
    the last token of the old key expires.

    A verifier with one fixed public key, such as FlowAPI, refuses the new tokens until it gets
    the new key, and the old tokens afterwards. Keep the algorithm if possible: the rotation
    agent rejects a successor with another type of algorithm.

    This command also replaces a lost signing key.

    Servers that share a PostgreSQL database each read their own signing-key.pem: copy the new
    file to all of them.

    \b
    Examples:
      flowauth-rotator server rotate-signing-key
      flowauth-rotator server rotate-signing-key --algorithm ES256
    """  # noqa: D301
    old, now = _load_old_signer(services), options.read_clock()
    algorithm = algorithm or (old.algorithm if old else DEFAULT_ALGORITHM)
    new = maintenance.rotate_signing_key(services, algorithm, now=now)
    until = maintenance.find_last_expiry(services, old.kid, now=now) if old else None
    print_result(
        f"Tokens are now signed with key {new.kid} ({new.algorithm}).\n"
        f"{_describe_old_key(old, until)}\n"
        "Verifiers with a fixed public key need the new one: print it with "
        "`flowauth-rotator server public-key`.",
        as_json=as_json,
        kid=new.kid,
        algorithm=new.algorithm,
        old_kid=old.kid if old else None,
        old_published_until=until,
    )


@click.command("rotate-encryption-key", cls=options.Command)
@options.as_json
@options.with_services
def rotate_encryption_key(services: Services, as_json: bool) -> None:
    """Encrypt all stored tokens with a new key.

    Then the old key is removed. If the command is interrupted, both keys stay in use, and the
    next call finishes the work.

    Servers that share a PostgreSQL database must also share the file encryption.key, or be
    stopped until each has the new one.

    \b
    Example:
      flowauth-rotator server rotate-encryption-key
    """  # noqa: D301
    try:
        with show_progress("Encrypting") as update:
            done = maintenance.rotate_encryption_key(services, progress=update)
    except InvalidToken:
        raise services.directory.build_error(
            ENCRYPTION_KEYS, "lacks a key that encrypted some of the stored tokens"
        ) from None
    print_result(
        f"Encrypted {format_count(done, 'token')} with a new key, and removed the old key.\n"
        "Back up the database and encryption.key again: an older copy of one does not match a "
        "newer copy of the other.",
        as_json=as_json,
        encrypted=done,
    )


def _load_old_signer(services: Services) -> Signer | None:
    """Return the old key, or None if it is lost."""
    try:
        return services.keyring.current_signer()
    except SetupError:
        return None


def _describe_old_key(old: Signer | None, until: int | None) -> str:
    if old is None:
        return "The old key is lost; its public key stays published until its last token expires."
    if until is None:
        return f"The old key {old.kid} has no live tokens and is no longer published."
    return (
        f"The old key {old.kid} stays published until {format_epoch(until)} UTC, when its last "
        "token expires."
    )
