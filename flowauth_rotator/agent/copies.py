"""Copies of a token in further stores, which get the same successor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flowauth_rotator.core.errors import (
    ConflictingWrite,
    MalformedToken,
    MissingToken,
    RotatorError,
    ShadowedStore,
)
from flowauth_rotator.core.tokens import Claims, Token, read_unverified

if TYPE_CHECKING:
    from flowauth_rotator.agent.stores import TokenStore

logger = logging.getLogger(__name__)


def read_current(store: TokenStore) -> Token | None:
    """Return the token in a store; None if the store is empty."""
    with suppress(MissingToken):
        return store.read()
    return None


def has_copies(copies: Sequence[TokenStore], token: Token) -> bool:
    """Whether each of the stores contains the token; a value that cannot be read is another one.

    Raises:
        RotatorError: a store does not respond.
    """
    try:
        return all(read_current(copy) == token for copy in copies)
    except RotatorError as error:
        if error.retryable:
            raise
    return False


def update_copies(
    copies: Sequence[TokenStore], token: Token, claims: Claims, description: str
) -> tuple[str, ...]:
    """Store a token in each copy that does not contain it.

    A copy is written if it is empty or contains an earlier token of the same owner, audience and
    roles. Another value is not overwritten.

    Args:
        copies: the stores.
        token: the token that they should contain.
        claims: its claims.
        description: the description to store with it.

    Returns:
        A text for each copy that could not be updated: the problem, and what to do.

    Raises:
        RotatorError: a copy could not be updated, and a retry may succeed.
    """
    problems = (_update(copy, token, claims, description) for copy in copies)
    return tuple(problem for problem in problems if problem)


def _update(copy: TokenStore, token: Token, claims: Claims, description: str) -> str:
    """Store the token in a copy; return the problem that prevents it, or an empty text."""
    try:
        _store(copy, token, claims, description)
    except RotatorError as error:
        if error.retryable:
            raise
        return str(error)
    return ""


def _store(copy: TokenStore, token: Token, claims: Claims, description: str) -> None:
    current = read_current(copy)
    if current == token:
        return
    if current and not _is_earlier(current, claims):
        raise ConflictingWrite(
            f"{copy.place} contains something else than an earlier token of the same owner, "
            "audience and roles, so it was not overwritten.",
            hint=f"Remove the value, or take {copy.name} out of `also_variables`.",
        )
    copy.write(token, description)
    if read_current(copy) != token:
        raise ShadowedStore(
            f"The write to {copy.place} succeeded, but reading it returns another value.",
            hint="Remove what hides it: another secrets backend or an environment variable.",
        )
    logger.info("%s contains the token now.", copy.place)


def _is_earlier(current: Token, claims: Claims) -> bool:
    with suppress(MalformedToken):
        other = read_unverified(current)
        is_same_kind = (other.subject, other.audience, other.roles) == (
            claims.subject,
            claims.audience,
            claims.roles,
        )
        return is_same_kind and other.expires_at <= claims.expires_at
    return False
