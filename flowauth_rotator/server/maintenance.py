"""What an operator does to a server from time to time, while it runs."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import func, select

from flowauth_rotator.server import rate_limit, signing
from flowauth_rotator.server.data_dir import ENCRYPTION_KEYS, SIGNING_KEY
from flowauth_rotator.server.schema import tokens
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.signing import Signer

Progress = Callable[[int, int], object]  # called with how many are done, of how many


def prune(services: Services, *, now: int, progress: Progress = lambda _done, _total: None) -> int:
    """Drop the text of every token that has expired and can no longer be renewed.

    The rows stay: they are the history.

    Returns:
        How many texts were dropped.
    """
    expired_at = now - services.settings.renew_expired_grace
    with services.database.reading() as connection:
        total = services.history.count_texts(connection, expired_at)
    with services.database.writing() as connection:
        rate_limit.forget_passed(connection, now)
    dropped = 0
    while dropped < total:
        with services.database.writing() as connection:
            some = services.history.drop_expired(connection, expired_at)
        if not some:
            break
        dropped += some
        progress(dropped, total)
    return dropped


def drop_unreadable(services: Services) -> int:
    """Give up the texts that no encryption key decrypts; without any key, make one first.

    The tokens stay valid, and whoever has them can still renew them.

    Returns:
        How many texts were dropped.
    """
    if not services.directory.has(ENCRYPTION_KEYS):
        services.directory.add_encryption_key()
    dropped = last = 0
    while True:
        with services.database.writing() as connection:
            some, lost, last = services.history.drop_unreadable(connection, following=last)
        if not some:
            return dropped
        dropped += lost


def rotate_signing_key(services: Services, algorithm: str, *, now: int) -> Signer:
    """Sign with a new key from now on.

    The old one stays published until the last token that it has signed has expired. The database
    knows the new key before the first token is signed with it; whatever fails in between leaves
    the old one in use.
    """
    signer = Signer(signing.generate_key(algorithm))
    with services.database.writing() as connection:
        services.keyring.record(connection, signer, now)
    services.directory.replace(SIGNING_KEY, signing.private_pem(signer.key))
    return signer


def published_until(services: Services, kid: str, *, now: int) -> int | None:
    """When the last token that a key has signed expires, or None when none is alive."""
    last = select(func.max(tokens.c.expires_at)).where(tokens.c.kid == kid)
    with services.database.reading() as connection:
        until: int | None = connection.execute(last).scalar_one()
    return until if until is not None and until > now else None


def rotate_encryption_key(
    services: Services, *, progress: Progress = lambda _done, _total: None
) -> int:
    """Encrypt with a new key from now on, and all that is stored, too; then forget the old one.

    A rotation that was interrupted is finished, and none begun. Running servers take up the new
    key with their next transaction, so that nothing is encrypted with the old one behind the pass.

    Returns:
        How many texts were encrypted anew.
    """
    if not services.directory.has_old_encryption_keys():
        services.directory.add_encryption_key()
    with services.database.reading() as connection:
        total = services.history.count_texts(connection)
    done = last = 0
    while True:
        with services.database.writing() as connection:
            some, last = services.history.encrypt_anew(connection, following=last)
        if not some:
            break
        done += some
        progress(done, max(done, total))
    services.directory.drop_old_encryption_keys()
    return done
