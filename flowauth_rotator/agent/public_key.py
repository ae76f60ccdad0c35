"""The issuer's public key, from a setting or from the issuer."""

from __future__ import annotations

import json

from flowauth_rotator.agent.http import NoSuchPage, SignedOut, Wire
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.tokens import PublicKey


def load_public_key(text: str, *, timeout: float = 30.0, verify: bool | str = True) -> PublicKey:
    """The key that a setting gives: as PEM, or as the `http[s]://` address of a JWK Set.

    Raises:
        Misconfigured: there is no key.
        IssuerError: the address did not answer with one.
    """
    if not text.strip().lower().startswith(("http://", "https://")):
        return PublicKey(text)
    wire = Wire(text.strip(), timeout=timeout, verify=verify)
    try:
        return PublicKey(json.dumps(wire.send("GET", "").document))
    except (SignedOut, NoSuchPage):
        raise Misconfigured(
            f"There is no JWK Set at {wire.url}.",
            advice="Correct the address in `public_key`, or give the key as PEM.",
        ) from None
    finally:
        wire.close()
