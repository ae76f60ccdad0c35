"""Maintenance of a running server: prune tokens, rotate keys."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import and_, func, select

from flowauth_rotator.server import signing
from flowauth_rotator.server.data_dir import ENCRYPTION_KEYS, SIGNING_KEY
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import is_descendant
from flowauth_rotator.server.rate_limit import delete_expired_counters
from flowauth_rotator.server.schema import tokens
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.signing import Signer

_LIST_TOKENS = "List the tokens with: flowauth-rotator server tokens --all."

Progress = Callable[[int, int], object]  # called with the number done and the total


def prune(services: Services, *, now: int, progress: Progress = lambda _done, _total: None) -> int:
    """Drop the ciphertext of every token that has expired and can no longer be renewed.

    The rows stay: they are the history.

    Returns:
        The number of dropped ciphertexts.
    """
    expired_at = now - services.settings.renew_expired_grace
    with services.database.reading() as connection:
        total = services.history.count_ciphertexts(connection, expired_at)
    with services.database.writing() as connection:
        delete_expired_counters(connection, now)
    dropped = 0
    while dropped < total:
        with services.database.writing() as connection:
            batch = services.history.drop_expired(connection, expired_at)
        if not batch:
            break
        dropped += batch
        progress(dropped, total)
    return dropped


def revoke_token(services: Services, row_id: int, *, family: bool, now: int) -> list[int]:
    """Revoke a token and its descendants, or its whole family.

    Returns:
        The expiry of each token that was not revoked before, in seconds since the epoch.

    Raises:
        Refused: There is no token with this id.
    """
    history = services.history
    with services.database.writing() as connection:
        if history.find_row(connection, row_id) is None:
            raise Refused(404, f"There is no token with id {row_id}. {_LIST_TOKENS}")
        first = history.find_first_ancestor(connection, row_id) if family else row_id
        return history.revoke(connection, is_descendant(first), now)


def revoke_name(
    services: Services, username: str, name: str, audience: str | None, *, now: int
) -> list[int]:
    """Revoke every token of a user with a name, on one audience or on all.

    Returns:
        As by `revoke_token`.

    Raises:
        Refused: The user, the audience, or a token of the name does not exist.
    """
    owner = services.accounts.get_user(username)
    condition = and_(tokens.c.owner_id == owner.id, tokens.c.name == name)
    if audience is not None:
        audience_id = services.accounts.get_audience(audience).id
        condition = and_(condition, tokens.c.audience_id == audience_id)
    with services.database.writing() as connection:
        if connection.execute(select(tokens.c.id).where(condition).limit(1)).first() is None:
            place = f" on audience {audience!r}" if audience else ""
            message = f"User {username!r} has no token named {name!r}{place}. {_LIST_TOKENS}"
            raise Refused(404, message)
        return services.history.revoke(connection, condition, now)


def drop_unreadable(services: Services) -> int:
    """Drop the ciphertexts that no encryption key decrypts; create a missing key first.

    The tokens stay valid, and their holders can still renew them.

    Returns:
        The number of dropped ciphertexts.
    """
    if not services.directory.has_file(ENCRYPTION_KEYS):
        services.directory.add_encryption_key()
    total = last_id = 0
    while True:
        with services.database.writing() as connection:
            read, dropped, last_id = services.history.drop_unreadable(connection, after_id=last_id)
        if not read:
            return total
        total += dropped


def rotate_signing_key(services: Services, algorithm: str, *, now: int) -> Signer:
    """Replace the signing key.

    The old public key stays published until its last token expires. The new key is recorded in
    the database before its first use; a failure in between leaves the old one in use.
    """
    signer = Signer(signing.generate_key(algorithm))
    with services.database.writing() as connection:
        services.keyring.record(connection, signer, now)
    services.directory.replace_file(SIGNING_KEY, signing.encode_private_key(signer.key))
    return signer


def find_last_expiry(services: Services, kid: str, *, now: int) -> int | None:
    """Return the expiry of the last live token that a key has signed, or None."""
    last = select(func.max(tokens.c.expires_at)).where(tokens.c.kid == kid)
    with services.database.reading() as connection:
        expiry: int | None = connection.execute(last).scalar_one()
    return expiry if expiry is not None and expiry > now else None


def rotate_encryption_key(
    services: Services, *, progress: Progress = lambda _done, _total: None
) -> int:
    """Replace the encryption key, re-encrypt all stored tokens, and remove the old key.

    An interrupted rotation is finished instead of starting another. Running servers use the new
    key from their next transaction on, so that no later row is encrypted with the old key.

    Returns:
        The number of re-encrypted tokens.
    """
    if not services.directory.has_old_encryption_keys():
        services.directory.add_encryption_key()
    with services.database.reading() as connection:
        total = services.history.count_ciphertexts(connection)
    done = last_id = 0
    while True:
        with services.database.writing() as connection:
            batch, last_id = services.history.reencrypt(connection, after_id=last_id)
        if not batch:
            break
        done += batch
        progress(done, max(done, total))
    services.directory.drop_old_encryption_keys()
    return done
