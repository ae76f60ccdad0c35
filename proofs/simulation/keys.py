"""What signs tokens in a simulated world, one for all schedules of a process; and a forger."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flowauth_rotator.server.signing import Signer


@cache
def signer() -> Signer:
    """The issuer's key."""
    return Signer(Ed25519PrivateKey.generate())


@cache
def forger() -> Signer:
    """A key that is not the issuer's."""
    return Signer(Ed25519PrivateKey.generate())
