"""Signing keys: sign JWTs, verify them, and publish the public keys."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, cast

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.utils import base64url_decode
from sqlalchemy import Connection, exists, func, insert, or_, select, update

from flowauth_rotator.server.database import Database
from flowauth_rotator.server.schema import signing_keys, tokens

PrivateKey: TypeAlias = "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey"

DEFAULT_ALGORITHM = "RS256"
KEY_BITS = 3072
MIN_KEY_BITS = 2048  # RFC 7518, section 3.3

_GENERATORS: dict[str, Callable[[], PrivateKey]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
ALGORITHMS = tuple(_GENERATORS)

# The members of a key thumbprint: RFC 7638, section 3.2, and RFC 8037, section 2.
_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}

# The caller compares times with the request's `now`, and `aud` with the row's.
_UNVERIFIED = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
_REQUIRED = ["exp", "iat", "nbf", "jti", "sub", "aud"]


class UnusableKey(ValueError):
    """The text of a key file is not a usable private key."""


class UntrustedToken(ValueError):
    """A presented text is not a token that a key of this server has signed."""


@dataclass(frozen=True)
class Verifier:
    """A public key, which verifies tokens."""

    public_pem: str

    @cached_property
    def jwk(self) -> dict[str, str]:
        """The key as a member of a JSON Web Key Set (RFC 7517)."""
        members: dict[str, Any] = self._algorithm.to_jwk(self._key, as_dict=True)
        members.pop("key_ops", None)  # redundant with `use`
        return members | {"alg": self._name, "use": "sig", "kid": self.kid}

    @cached_property
    def kid(self) -> str:
        """The key id: its RFC 7638 thumbprint."""
        jwk: dict[str, str] = self._algorithm.to_jwk(self._key, as_dict=True)
        members = {member: jwk[member] for member in _THUMBPRINT[jwk["kty"]]}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def verify(self, token: str) -> dict[str, Any]:
        """Verify a token's signature, not its times, and return its claims.

        Raises:
            UntrustedToken: The signature, algorithm or format is wrong, or a claim is missing.
        """
        options = cast("Any", {**_UNVERIFIED, "require": _REQUIRED})
        try:
            return jwt.decode(token, self._key, algorithms=[self._name], options=options)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise UntrustedToken from None

    @cached_property
    def _key(self) -> Any:  # noqa: ANN401 - one of three types
        return serialization.load_pem_public_key(self.public_pem.encode())

    @property
    def _name(self) -> str:
        return get_algorithm_name(self._key)

    @property
    def _algorithm(self) -> Any:  # noqa: ANN401 - PyJWT's
        return jwt.get_algorithm_by_name(self._name)


@dataclass(frozen=True)
class Signer:
    """A private key, which signs tokens."""

    key: PrivateKey

    def sign(self, claims: Mapping[str, object]) -> str:
        """Return the compact JWT of these claims."""
        return jwt.encode(
            dict(claims), self.key, algorithm=self.algorithm, headers={"kid": self.kid}
        )

    @cached_property
    def algorithm(self) -> str:
        """The name of the signature algorithm: RS256, ES256 or EdDSA."""
        return get_algorithm_name(self.key.public_key())

    @cached_property
    def verifier(self) -> Verifier:
        """The matching public key."""
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Verifier(public.decode())

    @property
    def kid(self) -> str:
        """The key id."""
        return self.verifier.kid

    @property
    def public_pem(self) -> str:
        """The public key as PEM text."""
        return self.verifier.public_pem


class Keyring:
    """The keys of this server: the current signing key, and the public keys of live tokens.

    Args:
        current_signer: Returns the signing key; called each time, since it can be replaced.
        database: Stores the public keys.
    """

    def __init__(self, current_signer: Callable[[], Signer], database: Database) -> None:
        self.current_signer = current_signer
        self._database = database
        self._verifiers: dict[str, Verifier] = {}

    def verify(self, token: str) -> dict[str, Any]:
        """Verify that a key of this server has signed a token, and return its claims.

        Raises:
            UntrustedToken: No key has, the format is wrong, or a claim is missing.
        """
        current, kid = self.current_signer(), _read_kid(token)
        if kid in (None, current.kid):
            return current.verifier.verify(token)
        return self._find_verifier(kid).verify(token)

    def record(self, connection: Connection, signer: Signer, now: int) -> None:
        """Store the public key, so that all servers of this database can verify its tokens."""
        if not _is_recorded(connection, signer.kid):
            values = {"kid": signer.kid, "public_pem": signer.public_pem, "added_at": now}
            connection.execute(insert(signing_keys).values(values))

    def record_first_key(self, connection: Connection, now: int) -> None:
        """Record the signing key of a version 0.1 database as the key of all its tokens.

        Version 0.1 had one key and did not store its id.
        """
        if connection.execute(select(signing_keys.c.kid).limit(1)).first() is not None:
            return
        signer = self.current_signer()
        self.record(connection, signer, now)
        without_key = update(tokens).where(tokens.c.kid.is_(None))
        connection.execute(without_key.values(kid=signer.kid))

    def is_recorded(self, connection: Connection) -> bool:
        """Return whether the signing key is recorded in the database."""
        return _is_recorded(connection, self.current_signer().kid)

    def list_published(self, connection: Connection, now: int) -> list[Verifier]:
        """Return the public keys of all live tokens and of future ones, oldest first."""
        alive = exists().where(tokens.c.kid == signing_keys.c.kid, tokens.c.expires_at > now)
        newest = select(func.max(signing_keys.c.added_at)).scalar_subquery()
        query = (
            select(signing_keys.c.public_pem)
            .where(
                or_(
                    alive,
                    signing_keys.c.kid == self.current_signer().kid,
                    signing_keys.c.added_at == newest,
                )
            )
            .order_by(signing_keys.c.added_at, signing_keys.c.kid)
        )
        return [Verifier(row.public_pem) for row in connection.execute(query)]

    def _find_verifier(self, kid: object) -> Verifier:
        if not (isinstance(kid, str) and kid.isprintable()):
            raise UntrustedToken
        if kid not in self._verifiers:
            query = select(signing_keys.c.public_pem).where(signing_keys.c.kid == kid)
            with self._database.reading() as connection:
                pem = connection.execute(query).scalar()
            if pem is None:
                raise UntrustedToken
            self._verifiers[kid] = Verifier(pem)
        return self._verifiers[kid]


def get_algorithm_name(public_key: object) -> str:
    """Return the JWT algorithm for a type of key (RFC 7518 and RFC 8037)."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return "RS256"
    return "ES256" if isinstance(public_key, ec.EllipticCurvePublicKey) else "EdDSA"


def generate_key(algorithm: str = DEFAULT_ALGORITHM) -> PrivateKey:
    """Generate a key for one of `ALGORITHMS`."""
    return _GENERATORS[algorithm]()


def encode_private_key(key: PrivateKey) -> bytes:
    """Encode a private key as PEM text for the data directory."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> PrivateKey:
    """Parse the PEM text of a private key.

    Raises:
        UnusableKey: It is not an unencrypted key for one of `ALGORITHMS`.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey("is not an unencrypted private key in PEM format") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_KEY_BITS:
            raise UnusableKey(f"has {key.key_size} bits; at least {MIN_KEY_BITS} are required")
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise UnusableKey("is not an RSA, P-256 or Ed25519 key")


def compress_claims(user_claims: Mapping[str, list[str]]) -> str:
    """Compress user claims like FlowKit: JSON, gzip, base64 in lines of 76 characters.

    The gzip header has no timestamp, so that equal claims give equal text.
    """
    packed = gzip.compress(json.dumps(user_claims).encode(), mtime=0)
    return base64.encodebytes(packed).decode()


def _read_kid(token: str) -> object:
    """Read the key id from a token's unverified header."""
    try:
        return json.loads(base64url_decode(token.partition(".")[0])).get("kid")
    except (AttributeError, ValueError, RecursionError):
        raise UntrustedToken from None


def _is_recorded(connection: Connection, kid: str) -> bool:
    query = select(signing_keys.c.kid).where(signing_keys.c.kid == kid)
    return connection.execute(query).first() is not None
