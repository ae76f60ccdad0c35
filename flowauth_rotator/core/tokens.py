"""The token as a secret text, its claims, and the issuer's public key."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from flowauth_rotator.core.errors import MalformedToken, Misconfigured, wrap_unexpected_errors
from flowauth_rotator.core.text import describe_character, format_count

LONGEST_TOKEN = 64 * 1024
LONGEST_USER_CLAIMS = 1024 * 1024
LONGEST_NAME = 200  # of a token, in characters: names are labels of metrics and services
SIGNING_ALGORITHMS = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
]
_PEM = re.compile(r"\s*(-----BEGIN [A-Z ]+-----)(.*)(-----END [A-Z ]+-----)\s*", re.DOTALL)
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")  # in a JWT (RFC 7515: base64url and dots)
_DELETE = "Delete that character, or paste the token again."
LATEST_TIME = 100_000_000_000  # the year 5138; a later time is in milliseconds


class Token:
    """The text of a token, a secret that only `reveal` returns.

    Attributes:
        offset: the number of characters of white space before it, where it is stored.
    """

    __slots__ = ("__text", "offset")

    def __init__(self, text: str) -> None:
        self.__text = text
        self.offset = 0

    def reveal(self) -> str:
        """Return the secret: for an HTTP header, a store's write or a log masker, nothing else."""
        return self.__text

    @classmethod
    def strip(cls, text: str) -> Token:
        """Return the token in a text that may have white space around it, as a file has."""
        token = cls(text.strip())
        token.offset = len(text) - len(text.lstrip())
        return token

    @property
    def digest(self) -> str:
        """SHA-256 of the text, 64 hex digits: identifies the token and reveals nothing of it."""
        return hashlib.sha256(self.__text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def fingerprint(self) -> str:
        """The first 8 hex digits of the digest, for people and logs."""
        return self.digest[:8]

    def __repr__(self) -> str:
        return f"<Token {self.fingerprint}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and hmac.compare_digest(self.digest, other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token is never pickled or copied: pass the object itself")


@dataclass(frozen=True)
class Claims:
    """The claims of a token; all times are aware UTC.

    Attributes:
        digest: SHA-256 of the token, 64 hex digits.
        algorithm: `alg` of the header.
        issued_at: `iat`; `nbf` where that is missing.
        not_before: `nbf`; `iat` where that is missing.
        expires_at: `exp`.
        subject, audience, issuer: `sub`, `aud`, `iss`; None where missing.
        roles: the names of the roles in `user_claims`.
        scopes: the scopes of each role, by its name.
        token_name: the issuer's name of the token, if the issuer writes it into the JWT.
    """

    digest: str
    algorithm: str
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    subject: str | None = None
    audience: str | None = None
    issuer: str | None = None
    roles: frozenset[str] = frozenset()
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    token_name: str | None = None

    @property
    def lifetime(self) -> timedelta:
        """`exp - max(iat, nbf)`; always positive."""
        return self.expires_at - max(self.issued_at, self.not_before)


@wrap_unexpected_errors
def read_unverified(token: Token) -> Claims:
    """Decode a token without verifying its signature.

    Raises:
        MalformedToken: it is not a signed JWT with times in whole seconds; quotes no content.
    """
    import jwt  # takes 0.1 s: parsing a DAG file must not pay for it

    text = token.reveal()
    _check_text(text, token.offset)
    document = None
    # `jwt.decode_complete` is missing in PyJWT 2.9, which Airflow's constraints up to 2.10.3 pin
    with contextlib.suppress(Exception):  # whatever it is: PyJWT decodes it or not
        document = jwt.PyJWT().decode_complete(text, options={"verify_signature": False})
    if document is None:  # outside the block, so that the library's error is not the context
        raise _unusable("The token's segments do not decode to JSON objects.")
    header, payload = document["header"], document["payload"]
    issued_at, not_before = _time(payload, "iat"), _time(payload, "nbf")
    expires_at = _time(payload, "exp")
    if expires_at is None:
        raise _unusable("The token has no `exp` claim: a token that never expires is not renewed.")
    begins = [time for time in (issued_at, not_before) if time is not None]
    if not begins:
        raise _unusable(
            "The token has neither an `iat` nor an `nbf` claim: its lifetime is unknown."
        )
    if expires_at <= max(begins):
        raise _unusable("The token's `exp` is not later than its `iat` and `nbf`.")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise _unusable("The token is not signed.")
    scopes = _scopes(payload.get("user_claims", {}))
    return Claims(
        digest=token.digest,
        algorithm=algorithm,
        issued_at=issued_at or begins[0],
        not_before=not_before or begins[0],
        expires_at=expires_at,
        subject=_text(payload, "sub"),
        audience=_text(payload, "aud"),
        issuer=_text(payload, "iss"),
        roles=frozenset(scopes),
        scopes=scopes,
        token_name=_name(payload),
    )


def shorten_name(name: str) -> str:
    """Return a name of at most 200 characters; a longer one ends in digits of its SHA-256.

    Two different long names stay different.
    """
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{name[: LONGEST_NAME - 17]}~{digest}"


class PublicKey:
    """An issuer's public key or key set, which verifies signatures.

    Args:
        text: the key as PEM, or a JWK Set (RFC 7517); keys for encryption are ignored.

    Attributes:
        text: the same.

    Raises:
        Misconfigured: the text is neither, or holds no public signing key.
    """

    @wrap_unexpected_errors
    def __init__(self, text: str) -> None:
        if "\ufffd" in text or "\0" in text:
            raise Misconfigured("The issuer's public key is not UTF-8.", hint="Save it as UTF-8.")
        self.text = text
        self._keys = _keys_of_set(text) if text.lstrip().startswith("{") else [_key_of_pem(text)]

    def verifies(self, token: Token) -> bool:
        """Whether this key made the token's signature; times and audience are not checked.

        In a set, the key with the token's `kid` counts; without a `kid` every key does. Only
        asymmetric algorithms are accepted, so that a public key is never taken for a shared secret
        (RFC 8725, section 3.1).
        """
        return any(_verifies(key, token) for key in self._find_keys(token))

    def has_key_of(self, token: Token) -> bool:
        """Whether a key has the token's `kid`, so that `verifies` is about its signature."""
        return bool(self._find_keys(token))

    def _find_keys(self, token: Token) -> list[Any]:
        import jwt

        kid = None
        with contextlib.suppress(Exception):
            kid = jwt.get_unverified_header(token.reveal()).get("kid")
        return [key for key_id, key in self._keys if None in (key_id, kid) or key_id == kid]


def _verifies(key: Any, token: Token) -> bool:  # noqa: ANN401 - of whatever algorithm
    import jwt

    try:
        jwt.PyJWT().decode_complete(
            token.reveal(),
            key,
            algorithms=SIGNING_ALGORITHMS,
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
            },
        )
    except Exception:  # noqa: BLE001 - what cannot be verified is not verified
        return False
    return True


def _key_of_pem(text: str) -> tuple[None, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if parts := _PEM.fullmatch(text):  # a form field removes the line breaks
        text = "\n".join((parts[1], "".join(parts[2].split()), parts[3]))
    try:
        return None, load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Misconfigured(
            "The issuer's public key is not a valid PEM public key.",
            hint="Use the text that begins with `-----BEGIN PUBLIC KEY-----`.",
        ) from None


def _keys_of_set(text: str) -> list[tuple[str | None, Any]]:
    """Return the `kid` and the key of each public signing key; shared secrets are ignored."""
    import jwt

    jwks: list[jwt.PyJWK] = []
    with contextlib.suppress(jwt.PyJWTError, AttributeError, TypeError, ValueError, RecursionError):
        jwks = jwt.PyJWKSet.from_json(text).keys
    keys = [
        (jwk.key_id, jwk.key.public_key() if hasattr(jwk.key, "public_key") else jwk.key)
        for jwk in jwks
        if jwk.key_type != "oct" and jwk.public_key_use in (None, "sig")
    ]
    if not keys:
        raise Misconfigured(
            "The issuer's JWK Set has no public signing key.",
            hint="Use the address of its jwks.json, or the public key as PEM.",
        )
    return keys


def _check_text(text: str, offset: int) -> None:
    """Reject the usual mistakes in a stored token, each with a message of its own.

    Args:
        text: the token.
        offset: its place in what is stored, where people look for a position.
    """
    if not text.strip():
        raise MalformedToken("The text is empty.")
    if len(text) > LONGEST_TOKEN:
        raise MalformedToken(f"The text is longer than {LONGEST_TOKEN:,} characters.")
    if text.startswith("\ufeff"):
        raise MalformedToken("The text begins with a byte order mark.", hint=_DELETE)
    if "\ufffd" in text:
        raise MalformedToken("The text is not UTF-8.", hint="Save it as UTF-8.")
    if text.lower().startswith("bearer"):
        raise MalformedToken("The text begins with `Bearer`.")
    if text[0] in "{[":
        raise MalformedToken("The text is a JSON document, not the token alone.")
    if text[0] in "\"'`" or text[-1] in "\"'`":
        raise MalformedToken("The text has quotation marks around the token.")
    if foreign := _FOREIGN.search(text):
        raise MalformedToken(
            f"The text has {describe_character(foreign[0])} at position "
            f"{offset + foreign.start() + 1}, which no JWT contains.",
            hint=_DELETE,
        )
    segments = text.split(".")
    if len(segments) != 3 or not all(segments):
        count = sum(map(bool, segments))
        raise MalformedToken(f"The text has {format_count(count, 'segment')}; a signed JWT has 3.")


def _unusable(problem: str) -> MalformedToken:
    """Return the error for a text that looks like a JWT, and cannot be renewed."""
    return MalformedToken(problem, hint="Mint a FlowAPI token at the issuer and store it.")


def _time(payload: Mapping[str, Any], claim: str) -> datetime | None:
    value = payload.get(claim)
    if value is None and claim not in payload:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _unusable(f"The token's `{claim}` is not a whole number of seconds.")
    if value <= 0:
        raise _unusable(f"The token's `{claim}` is not a time after 1970.")
    if value >= LATEST_TIME:
        raise _unusable(f"The token's `{claim}` is after the year 5138: it may be in milliseconds.")
    return datetime.fromtimestamp(value, timezone.utc)


def _text(payload: Mapping[str, Any], claim: str) -> str | None:
    value = payload.get(claim)
    if value is None or (isinstance(value, str) and value.isprintable()):
        return value
    raise _unusable(f"The token's `{claim}` is not a printable string.")


def _name(payload: Mapping[str, Any]) -> str | None:
    name = _text(payload, "token_name")
    if name and len(name) > LONGEST_NAME:
        raise _unusable(f"The token's `token_name` is longer than {LONGEST_NAME} characters.")
    return name


def _scopes(user_claims: object) -> dict[str, tuple[str, ...]]:
    """Return the scopes of each role in `user_claims`: an object, or its compressed form.

    FlowAuth compresses it as base64 of gzip of JSON.
    """
    if isinstance(user_claims, str):
        user_claims = _decompress(user_claims)
    if not isinstance(user_claims, dict):
        raise _unusable("The token's `user_claims` is neither an object nor a compressed object.")
    return {
        role: tuple(scope for scope in scopes if isinstance(scope, str))
        if isinstance(scopes, list)
        else ()
        for role, scopes in user_claims.items()
    }


def _decompress(text: str) -> object:
    unzip = zlib.decompressobj(wbits=31)  # 31: gzip
    document: object = None
    with contextlib.suppress(binascii.Error, zlib.error, ValueError, RecursionError):
        unzipped = unzip.decompress(base64.b64decode(text), LONGEST_USER_CLAIMS)
        if not unzip.eof:
            raise _unusable("The token's `user_claims` is truncated, or larger than a megabyte.")
        document = json.loads(unzipped)
    return document
