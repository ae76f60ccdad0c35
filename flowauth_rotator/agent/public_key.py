"""The issuer's public key, from a setting or from the issuer."""

from __future__ import annotations

import json

from flowauth_rotator.agent.http import ForeignRefusal, HttpClient, SignedOut
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import Misconfigured, wrap_unexpected_errors
from flowauth_rotator.core.tokens import PublicKey


@wrap_unexpected_errors
def load_public_key(text: str, *, timeout: float = 30.0, verify: bool | str = True) -> PublicKey:
    """Return the key of a setting: PEM, or the `http[s]://` address of a JWK Set.

    Raises:
        Misconfigured: the setting holds no public key.
        IssuerError: the address did not return one.
    """
    if not is_url(text):
        return PublicKey(text)
    address = Address.parse(text, "the address in `public_key`")
    client = HttpClient(address, timeout=timeout, verify=verify)
    try:
        return PublicKey(json.dumps(client.send("GET", "").document))
    except (SignedOut, ForeignRefusal):
        raise Misconfigured(
            f"{client.url} does not return a JWK Set.",
            hint="Correct the address in `public_key`, or use the key as PEM.",
        ) from None
    finally:
        client.close()


def is_url(text: str) -> bool:
    """Whether a setting is the address of a JWK Set."""
    return text.strip().lower().startswith(("http://", "https://"))
