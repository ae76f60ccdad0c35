"""The signing key, and the JWTs it makes: claims as FlowAPI reads them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

ALGORITHM = "RS256"
KEY_BITS = 3072
SMALLEST_KEY_BITS = 2048  # RFC 7518, section 3.3

# Times are checked by the caller against the request's own `now`, and `aud` against the row's.
_UNCHECKED = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
_REQUIRED = ["exp", "iat", "nbf", "jti", "sub", "aud"]


class UnusableKey(ValueError):
    """The text of a key file is not a key that this server can sign with."""


class NotOurs(ValueError):
    """A presented token was not signed by this server's key, or is no token at all."""


@dataclass(frozen=True)
class Signer:
    """Signs with one RSA key and recognises what it has signed."""

    key: rsa.RSAPrivateKey

    @cached_property
    def kid(self) -> str:
        """The key's own name: its RFC 7638 thumbprint, so that it needs no bookkeeping."""
        jwk = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        members = {member: jwk[member] for member in ("e", "kty", "n")}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def sign(self, claims: Mapping[str, object]) -> str:
        """The compact JWT of these claims."""
        return jwt.encode(dict(claims), self.key, algorithm=ALGORITHM, headers={"kid": self.kid})

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature has been verified; times are not checked here.

        Raises:
            NotOurs: The signature, the algorithm or the shape is wrong, or a claim is missing.
        """
        try:
            return jwt.decode(
                token,
                self.key.public_key(),
                algorithms=[ALGORITHM],
                options=cast("Any", {**_UNCHECKED, "require": _REQUIRED}),
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotOurs from None

    @cached_property
    def public_pem(self) -> str:
        """The public key, for whoever verifies tokens."""
        return (
            self.key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )


def generate_key() -> rsa.RSAPrivateKey:
    """A new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    """The PEM text of a private key, as the data directory keeps it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> rsa.RSAPrivateKey:
    """Read a private key from its PEM text.

    Raises:
        UnusableKey: It is not an unencrypted RSA key of at least 2048 bits; says which.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise UnusableKey("is not an unencrypted private key in PEM form") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UnusableKey("is not an RSA key")
    if key.key_size < SMALLEST_KEY_BITS:
        raise UnusableKey(f"has {key.key_size} bits; at least {SMALLEST_KEY_BITS} are needed")
    return key


def compress_claims(user_claims: Mapping[str, list[str]]) -> str:
    """User claims as FlowKit writes them: JSON, gzip, base64 in lines of 76 characters.

    The time in gzip's header is left out, so that equal claims are equal text.
    """
    packed = gzip.compress(json.dumps(user_claims).encode(), mtime=0)
    return base64.encodebytes(packed).decode()
