"""The signatures of the tokens in use, verified with the public keys of their connections.

A check stores the keys in its status document, so that the web server verifies a token that has
been replaced since without a request and without reading the connection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from flowauth_rotator.core.errors import IssuerError, Misconfigured
from flowauth_rotator.core.tokens import PublicKey, Token
from flowauth_rotator.monitoring.status import Signature
from flowauth_rotator.provider.hook import FlowAuthHook

MOST_SIGNATURES = 4096  # to keep in memory
_known_signatures: dict[tuple[str, str], Signature] = {}  # by the digest of the token, and the key

PublicKeys = Mapping[str, str | None]  # by connection; empty if it cannot be read, None without one


def verify_signature(token: Token, key: str | None) -> Signature | None:
    """Verify the signature of a token in use, once for each key.

    Args:
        token: the token.
        key: PEM or a JWK Set; empty if the configured key could not be read; None without one.
    """
    if key is None:
        return None
    known = token.digest, key
    if known not in _known_signatures:
        if len(_known_signatures) >= MOST_SIGNATURES:
            _known_signatures.clear()
        _known_signatures[known] = _verify_signature(token, key)
    return _known_signatures[known]


def read_hooks(
    connection_ids: Iterable[str],
) -> tuple[dict[str, FlowAuthHook], dict[str, Misconfigured]]:
    """Read connections, each once, and return the hooks and the errors of the others.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    read = {each: _read_hook(each) for each in dict.fromkeys(connection_ids)}
    hooks = {key: each for key, each in read.items() if isinstance(each, FlowAuthHook)}
    errors = {key: each for key, each in read.items() if isinstance(each, Misconfigured)}
    return hooks, errors


def read_public_keys(
    tokens: Iterable[tuple[str, Token | None]],
    hooks: Mapping[str, FlowAuthHook],
    known: Mapping[str, str],
) -> tuple[PublicKeys, dict[str, Misconfigured]]:
    """Read the public key of each connection, and return the keys and the errors of connections.

    A JWK Set is requested only if the known one does not verify each token.

    Args:
        tokens: the connection of each token, and the token in use; None if it cannot be read.
        hooks: the hooks of the connections that can be read, by connection id.
        known: the keys of the last check, by connection id.
    """
    by_connection: dict[str, list[Token]] = defaultdict(list)
    for connection_id, token in tokens:
        by_connection[connection_id] += [token] if token else []
    keys: dict[str, str | None] = {}
    errors = {}
    for connection_id, in_use in by_connection.items():
        last = known.get(connection_id)
        hook = hooks.get(connection_id)
        key, error = _read_public_key(hook, in_use, last) if hook else (last, None)
        keys[connection_id] = key
        if error:
            errors[connection_id] = error
    return keys, errors


def _read_hook(connection_id: str) -> FlowAuthHook | Misconfigured:
    try:
        return FlowAuthHook(connection_id)
    except Misconfigured as error:
        return error


def _read_public_key(
    hook: FlowAuthHook, tokens: list[Token], known: str | None
) -> tuple[str | None, Misconfigured | None]:
    """Return the key of a connection, or the last one with the error of the connection."""
    try:
        if hook.has_key_set_url and known:
            verified = {verify_signature(token, known) for token in tokens}
            if verified <= {Signature.VALID}:
                return known, None
        key = hook.public_key()
    except IssuerError:
        return known or "", None  # the next check tries again
    except Misconfigured as error:
        return known, error
    return key.text if key else None, None


def _verify_signature(token: Token, text: str) -> Signature:
    key = _parse_public_key(text)
    if key is None or not key.has_key_of(token):
        return Signature.UNVERIFIED
    return Signature.VALID if key.verifies(token) else Signature.INVALID


@lru_cache(maxsize=64)
def _parse_public_key(text: str) -> PublicKey | None:
    try:
        return PublicKey(text)
    except Misconfigured:
        return None
