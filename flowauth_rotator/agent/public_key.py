"""The issuer's public key, from a setting or from the issuer."""

from __future__ import annotations

import json

from flowauth_rotator.agent.http import HttpClient, NoSuchPage, SignedOut
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.tokens import PublicKey


def load_public_key(text: str, *, timeout: float = 30.0, verify: bool | str = True) -> PublicKey:
    """Return the key of a setting: PEM, or the `http[s]://` address of a JWK Set.

    Raises:
        Misconfigured: the setting holds no public key.
        IssuerError: the address did not return one.
    """
    if not is_url(text):
        return PublicKey(text)
    client = HttpClient(text.strip(), timeout=timeout, verify=verify)
    try:
        return PublicKey(json.dumps(client.send("GET", "").document))
    except (SignedOut, NoSuchPage):
        raise Misconfigured(
            f"{client.url} does not return a JWK Set.",
            hint="Correct the address in `public_key`, or use the key as PEM.",
        ) from None
    finally:
        client.close()


def is_url(text: str) -> bool:
    """Whether a setting is the address of a JWK Set."""
    return text.strip().lower().startswith(("http://", "https://"))
