"""The signing keys, and the JWTs that they make: claims as FlowAPI reads them."""

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
SMALLEST_KEY_BITS = 2048  # RFC 7518, section 3.3

_MAKERS: dict[str, Callable[[], PrivateKey]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
ALGORITHMS = tuple(_MAKERS)

# What a thumbprint is made of: RFC 7638, section 3.2, and RFC 8037, section 2.
_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}

# Times are checked by the caller against the request's own `now`, and `aud` against the row's.
_UNCHECKED = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
_REQUIRED = ["exp", "iat", "nbf", "jti", "sub", "aud"]


class UnusableKey(ValueError):
    """The text of a key file is not a key that this server can sign with."""


class NotOurs(ValueError):
    """A presented token was not signed with a key of this server, or is no token at all."""


@dataclass(frozen=True)
class Verifier:
    """A public key, which recognises what its private key has signed."""

    public_pem: str

    @cached_property
    def jwk(self) -> dict[str, str]:
        """The key as a member of a JSON Web Key Set (RFC 7517)."""
        members: dict[str, Any] = self._algorithm.to_jwk(self._key, as_dict=True)
        members.pop("key_ops", None)  # `use` says the same
        return members | {"alg": self._name, "use": "sig", "kid": self.kid}

    @cached_property
    def kid(self) -> str:
        """The key's own name: its RFC 7638 thumbprint, so that it needs no bookkeeping."""
        jwk: dict[str, str] = self._algorithm.to_jwk(self._key, as_dict=True)
        members = {member: jwk[member] for member in _THUMBPRINT[jwk["kty"]]}
        digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature has been verified; times are not checked here.

        Raises:
            NotOurs: The signature, the algorithm or the shape is wrong, or a claim is missing.
        """
        options = cast("Any", {**_UNCHECKED, "require": _REQUIRED})
        try:
            return jwt.decode(token, self._key, algorithms=[self._name], options=options)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise NotOurs from None

    @cached_property
    def _key(self) -> Any:  # noqa: ANN401 - one of three kinds
        return serialization.load_pem_public_key(self.public_pem.encode())

    @property
    def _name(self) -> str:
        return algorithm_of(self._key)

    @property
    def _algorithm(self) -> Any:  # noqa: ANN401 - PyJWT's, one for each kind of key
        return jwt.get_algorithm_by_name(self._name)


@dataclass(frozen=True)
class Signer:
    """A private key, which signs tokens."""

    key: PrivateKey

    def sign(self, claims: Mapping[str, object]) -> str:
        """The compact JWT of these claims."""
        return jwt.encode(
            dict(claims), self.key, algorithm=self.algorithm, headers={"kid": self.kid}
        )

    @cached_property
    def algorithm(self) -> str:
        """The name of the signature algorithm: RS256, ES256 or EdDSA."""
        return algorithm_of(self.key.public_key())

    @cached_property
    def verifier(self) -> Verifier:
        """What recognises its tokens."""
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return Verifier(public.decode())

    @property
    def kid(self) -> str:
        """The name of the key."""
        return self.verifier.kid

    @property
    def public_pem(self) -> str:
        """The public key, for whoever verifies tokens."""
        return self.verifier.public_pem


class Keyring:
    """The keys of this server: the one that signs, and those whose tokens are still alive.

    Args:
        current: What signs now; asked each time, since a key can be replaced at any moment.
        database: Where the public keys are written down.
    """

    def __init__(self, current: Callable[[], Signer], database: Database) -> None:
        self.current = current
        self._database = database
        self._verifiers: dict[str, Verifier] = {}

    def read(self, token: str) -> dict[str, Any]:
        """The claims of a token that a key of this server has signed.

        Raises:
            NotOurs: None has, or the shape is wrong, or a claim is missing.
        """
        current, kid = self.current(), _kid(token)
        if kid in (None, current.kid):
            return current.verifier.read(token)
        return self._verifier(kid).read(token)

    def record(self, connection: Connection, signer: Signer, now: int) -> None:
        """Write down the public half of a key, so that every server here knows it."""
        if not _is_recorded(connection, signer.kid):
            values = {"kid": signer.kid, "public_pem": signer.public_pem, "added_at": now}
            connection.execute(insert(signing_keys).values(values))

    def adopt_nameless(self, connection: Connection, now: int) -> None:
        """Record the key that signs, and that it has signed all tokens of which no key is known.

        Version 0.1 had one key and did not write down which.
        """
        if connection.execute(select(signing_keys.c.kid).limit(1)).first() is not None:
            return
        signer = self.current()
        self.record(connection, signer, now)
        nameless = update(tokens).where(tokens.c.kid.is_(None))
        connection.execute(nameless.values(kid=signer.kid))

    def is_recorded(self, connection: Connection) -> bool:
        """Whether the key that signs is one that this database knows."""
        return _is_recorded(connection, self.current().kid)

    def published(self, connection: Connection, now: int) -> list[Verifier]:
        """The keys that a verifier needs: of all tokens alive, and of the next; oldest first."""
        alive = exists().where(tokens.c.kid == signing_keys.c.kid, tokens.c.expires_at > now)
        newest = select(func.max(signing_keys.c.added_at)).scalar_subquery()
        query = (
            select(signing_keys.c.public_pem)
            .where(
                or_(
                    alive,
                    signing_keys.c.kid == self.current().kid,
                    signing_keys.c.added_at == newest,
                )
            )
            .order_by(signing_keys.c.added_at, signing_keys.c.kid)
        )
        return [Verifier(row.public_pem) for row in connection.execute(query)]

    def _verifier(self, kid: object) -> Verifier:
        if not (isinstance(kid, str) and kid.isprintable()):
            raise NotOurs
        if kid not in self._verifiers:
            query = select(signing_keys.c.public_pem).where(signing_keys.c.kid == kid)
            with self._database.reading() as connection:
                pem = connection.execute(query).scalar()
            if pem is None:
                raise NotOurs
            self._verifiers[kid] = Verifier(pem)
        return self._verifiers[kid]


def algorithm_of(public_key: object) -> str:
    """The name of the algorithm that goes with a kind of key (RFC 7518 and RFC 8037)."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return "RS256"
    return "ES256" if isinstance(public_key, ec.EllipticCurvePublicKey) else "EdDSA"


def generate_key(algorithm: str = DEFAULT_ALGORITHM) -> PrivateKey:
    """A new key for one of `ALGORITHMS`."""
    return _MAKERS[algorithm]()


def private_pem(key: PrivateKey) -> bytes:
    """The PEM text of a private key, as the data directory keeps it."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> PrivateKey:
    """Read a private key from its PEM text.

    Raises:
        UnusableKey: It is not an unencrypted key for one of `ALGORITHMS`; says what is wrong.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey("is not an unencrypted private key in PEM form") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < SMALLEST_KEY_BITS:
            raise UnusableKey(f"has {key.key_size} bits; at least {SMALLEST_KEY_BITS} are needed")
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise UnusableKey("is neither an RSA key, nor one of the curves P-256 and Ed25519")


def compress_claims(user_claims: Mapping[str, list[str]]) -> str:
    """User claims as FlowKit writes them: JSON, gzip, base64 in lines of 76 characters.

    The time in gzip's header is left out, so that equal claims are equal text.
    """
    packed = gzip.compress(json.dumps(user_claims).encode(), mtime=0)
    return base64.encodebytes(packed).decode()


def _kid(token: str) -> object:
    """The name of the key that a token says it was signed with; it says so unverified."""
    try:
        return json.loads(base64url_decode(token.partition(".")[0])).get("kid")
    except (AttributeError, ValueError, RecursionError):
        raise NotOurs from None


def _is_recorded(connection: Connection, kid: str) -> bool:
    query = select(signing_keys.c.kid).where(signing_keys.c.kid == kid)
    return connection.execute(query).first() is not None
