"""Copies of a token in further stores, which get the same successor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.errors import (
    ConflictingWrite,
    MalformedToken,
    MissingToken,
    RotatorError,
    ShadowedStore,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.tokens import Claims, Token, read_unverified

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import TokenStore

logger = logging.getLogger(__name__)


@wrap_unexpected_errors
def read_current(store: TokenStore) -> Token | None:
    """Return the token in a store; None if the store is empty."""
    with suppress(MissingToken):
        return store.read()
    return None


def has_copies(copies: Sequence[TokenStore], token: Token) -> bool:
    """Whether each of the stores is known to contain the token: not if it cannot be read."""
    with suppress(RotatorError):
        return all(read_current(copy) == token for copy in copies)
    return False


def check_copy(copy: TokenStore, token: Token, claims: Claims) -> None:
    """Check that a successor of a token would be stored in a copy.

    A store that is empty is not checked further: its preflight may need a token to read.

    Args:
        copy: the store of the copy.
        token: the token in use.
        claims: its claims.

    Raises:
        RotatorError: it would not.
    """
    current = read_current(copy)
    if current:
        _check_value(copy, current, token, claims)
        copy.preflight()


def update_copies(
    copies: Sequence[TokenStore], token: Token, claims: Claims, description: str
) -> tuple[RotatorError, ...]:
    """Store a token in each copy that does not contain it.

    A copy is written if it is empty or contains an earlier token of the same owner, audience and
    roles. Another value is not overwritten.

    Args:
        copies: the stores.
        token: the token that they should contain.
        claims: its claims.
        description: the description to store with it.

    Returns:
        An error for each copy that could not be updated.
    """
    errors = (_update(copy, token, claims, description) for copy in copies)
    return tuple(error for error in errors if error)


def _update(
    copy: TokenStore, token: Token, claims: Claims, description: str
) -> RotatorError | None:
    """Store the token in a copy; return the error that prevents it."""
    try:
        _store(copy, token, claims, description)
    except RotatorError as error:
        return error
    return None


@wrap_unexpected_errors
def _store(copy: TokenStore, token: Token, claims: Claims, description: str) -> None:
    current = read_current(copy)
    if current == token:
        return
    if current:
        _check_value(copy, current, token, claims)
    copy.write(token, description)
    if read_current(copy) != token:
        raise ShadowedStore(
            f"The write to {copy.place} succeeded, but reading it returns another value.",
            hint="Remove what hides it: another secrets backend or an environment variable.",
        )
    logger.info("%s contains the token now.", copy.place)


def _check_value(copy: TokenStore, current: Token, token: Token, claims: Claims) -> None:
    """Check that the value of a copy is the token, or an earlier one of the same kind.

    Raises:
        ConflictingWrite: it is not.
    """
    if current == token:
        return
    other = None
    with suppress(MalformedToken):
        other = read_unverified(current)
    if other is None or _get_kind(other) != _get_kind(claims):
        raise ConflictingWrite(
            f"{copy.place} contains something else than an earlier token of the same owner, "
            "audience and roles, so it was not overwritten.",
            hint=f"Remove the value, or take {copy.name} out of `also_variables`.",
        )
    if other.expires_at > claims.expires_at:
        raise ConflictingWrite(
            f"{copy.place} contains a token that expires later, at "
            f"{format_time(other.expires_at)}, so it was not overwritten.",
            hint="Store that token in the place of the first one, too, or take "
            f"{copy.name} out of `also_variables`.",
        )


def _get_kind(claims: Claims) -> tuple[object, ...]:
    return claims.subject, claims.audience, claims.roles
