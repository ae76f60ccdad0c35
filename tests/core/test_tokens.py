import base64
import copy
import gzip
import hashlib
import hmac
import json
import pickle
import traceback
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from flowauth_rotator.core.errors import MalformedToken, Misconfigured
from flowauth_rotator.core.tokens import (
    LONGEST_NAME,
    PublicKey,
    Token,
    read_unverified,
    shorten_name,
)

GOOD = {"iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_086_400, "sub": "flowbot"}
HEADER = {"alg": "RS256", "typ": "JWT"}


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def token_of(payload, header=HEADER) -> Token:
    """A token as bytes on the wire, whatever a library would say of it."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    return Token(".".join([*map(segment, parts), segment(b"signature" * 20)]))


def zipped(document) -> str:
    """As FlowAuth writes `user_claims`: JSON, gzip, base64 in lines of 76 characters."""
    return base64.encodebytes(gzip.compress(json.dumps(document).encode())).decode()


def assert_tells_nothing(error: BaseException, text: str) -> None:
    """No 12 characters in a row of a token's text stand in the error, its causes or attributes."""
    told = "".join(traceback.format_exception(error)) + repr(vars(error))
    content = "".join(text.split(".")[1:])
    assert not any(content[i : i + 12] in told for i in range(len(content) - 11))


def test_claims_are_read_with_times_in_utc():
    """What a JWT says is there, in aware UTC."""
    claims = read_unverified(token_of({**GOOD, "aud": "TEST_SERVER", "token_name": "AIRFLOW"}))
    assert claims.expires_at.isoformat() == "2023-11-15T22:13:20+00:00"
    assert claims.lifetime == timedelta(days=1)
    assert (claims.subject, claims.audience, claims.issuer) == ("flowbot", "TEST_SERVER", None)
    assert claims.token_name == "AIRFLOW"


def test_the_longest_name_is_read():
    """The bundled server permits as many characters."""
    name = "é" * LONGEST_NAME
    assert read_unverified(token_of({**GOOD, "token_name": name})).token_name == name


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_a_name_is_bounded_and_stays_itself(start, one, other):
    """A name of up to 200 characters is unchanged; two names are never taken for one."""
    for name in (start + one, "n" * 200 + one):
        assert len(shorten_name(name)) == min(len(name), LONGEST_NAME)
        assert (shorten_name(name) == name) is (len(name) <= LONGEST_NAME)
    for begin in (start, "n" * 250):
        same = shorten_name(begin + one) == shorten_name(begin + other)
        assert same is (one == other)


@pytest.mark.parametrize("form", [dict, zipped], ids=["object", "zipped"])
def test_both_forms_of_user_claims_give_the_roles(form):
    """FlowAuth's `user_claims` come as an object or as a zipped text."""
    roles = {f"role {number}": ["run", "get_results"] for number in range(60)}
    claims = read_unverified(token_of({**GOOD, "user_claims": form(roles)}))
    assert claims.roles == frozenset(roles)
    assert claims.scopes["role 59"] == ("run", "get_results")


@pytest.mark.parametrize("scopes", [None, "run", 7, ["run", 7]])
def test_odd_scopes_are_left_out(scopes):
    """The role is there all the same."""
    claims = read_unverified(token_of({**GOOD, "user_claims": {"viewer": scopes}}))
    assert claims.scopes == {"viewer": ("run",) if isinstance(scopes, list) else ()}


def test_a_lifetime_begins_with_the_later_of_iat_and_nbf():
    """A token that becomes valid later lives from then on."""
    claims = read_unverified(token_of({**GOOD, "nbf": GOOD["iat"] + 3600}))
    assert claims.lifetime == timedelta(hours=23)


@pytest.mark.parametrize("missing", ["iat", "nbf"])
def test_one_of_iat_and_nbf_is_enough(missing):
    """The one stands in for the other."""
    payload = {key: value for key, value in GOOD.items() if key != missing}
    assert read_unverified(token_of(payload)).lifetime == timedelta(days=1)


odd_times = st.one_of(
    st.floats(),
    st.text(),
    st.booleans(),
    st.none(),
    st.lists(st.integers()),
    st.integers(max_value=0),
    st.integers(min_value=100_000_000_000),
    st.just(1_795_444_292_000),
)


@given(st.sampled_from(["exp", "iat", "nbf"]), odd_times)
def test_an_odd_time_is_malformed(claim, value):
    """A float, text, bool, null, list, negative, huge or millisecond time is a clear error."""
    token = token_of({**GOOD, claim: value})
    with pytest.raises(MalformedToken, match=f"`{claim}`") as refusal:
        read_unverified(token)
    assert_tells_nothing(refusal.value, token.reveal())


@pytest.mark.parametrize("literal", [b"1e400", b"NaN", b"-Infinity", b"1" * 5000, b"1700086400.0"])
def test_an_odd_number_is_malformed(literal):
    """What JSON lets through and no clock shows is a clear error."""
    token = token_of(b'{"iat": 1700000000, "exp": ' + literal + b"}")
    with pytest.raises(MalformedToken) as refusal:
        read_unverified(token)
    assert_tells_nothing(refusal.value, token.reveal())


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"iat": 1_700_000_000}, "no `exp`"),
        ({"exp": 1_700_000_000}, "neither an `iat` nor an `nbf`"),
        ({**GOOD, "exp": GOOD["iat"]}, "not later"),
        ({**GOOD, "nbf": GOOD["exp"] + 1}, "not later"),
        ({**GOOD, "sub": 7}, "`sub`"),
        ({**GOOD, "aud": ["a", "b"]}, "`aud`"),
        ({**GOOD, "token_name": "AIRFLOW\nETL: rotated."}, "`token_name`"),
        ({**GOOD, "token_name": "n" * 201}, "`token_name` is longer than 200 characters"),
        ({**GOOD, "token_name": "n" * 40_000}, "`token_name` is longer than 200 characters"),
        ({**GOOD, "user_claims": ["viewer"]}, "`user_claims`"),
        ({**GOOD, "user_claims": "!!"}, "`user_claims`"),
        ({**GOOD, "user_claims": zipped({})[:-12]}, "`user_claims`"),
        ({**GOOD, "user_claims": zipped(["viewer"])}, "`user_claims`"),
        ({**GOOD, "user_claims": zipped("x" * 2_000_000)}, "larger than a megabyte"),
        ([1], "do not decode"),
        (b"{", "do not decode"),
        (b"[" * 40_000, "do not decode"),
        (b"\xff\xfe", "do not decode"),
    ],
)
def test_an_odd_payload_is_malformed(payload, words):
    """Each mistake in a payload is named."""
    token = token_of(payload)
    with pytest.raises(MalformedToken, match=words) as refusal:
        read_unverified(token)
    assert_tells_nothing(refusal.value, token.reveal())


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "None"}, {"typ": "JWT"}, {"alg": 7}])
def test_an_unsigned_token_is_malformed(header):
    """`alg: none` is no signature, however it is written."""
    with pytest.raises(MalformedToken):
        read_unverified(token_of(GOOD, header))


JWT = token_of(GOOD).reveal()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (json.dumps({"token": JWT}), "JSON document"),
        (f"Bearer {JWT}", "`Bearer`"),
        (f"bearer:{JWT}", "`Bearer`"),
        (f'"{JWT}"', "quotation marks"),
        (f"'{JWT}'", "quotation marks"),
        (f"{JWT[:40]}\n{JWT[40:]}", "has a line break at position 41,"),
        (f"{JWT[:40]} {JWT[40:]}", "has a blank at position 41,"),
        (f"{JWT[:40]}\u200b{JWT[40:]}", r"has U\+200B ZERO WIDTH SPACE at position 41,"),
        (f"{JWT}\u00a0", r"has U\+00A0 NO-BREAK SPACE at position"),
        (f"{JWT[:-9]}+{JWT[-8:]}", r"has '\+' at position"),
        (f"\ufeff{JWT}", "byte order mark"),
        (JWT.encode("utf-16").decode(errors="replace"), "is not UTF-8"),
        (f"{JWT}.{JWT}", "6 segments; a signed JWT has 3"),
        (f"{JWT}.a.b", "5 segments; a signed JWT has 3"),
        (JWT.rpartition(".")[0] + ".", "2 segments; a signed JWT has 3"),
        ("opaque-secret-value", "1 segment; a signed JWT has 3"),
        ("a" * 10_000_000, "longer than"),
        ("ä.ö.ü", r"has U\+00E4 LATIN SMALL LETTER A WITH DIAERESIS at position 1,"),
        ("\ud800.b.c", r"has U\+D800 at position 1,"),
        ("a.b.c", "do not decode"),
    ],
    ids=lambda value: value[:10] if value.isascii() else "other",
)
def test_an_odd_text_is_malformed(text, words):
    """Each mistake that people make when they store a token is named, and its text is not shown."""
    with pytest.raises(MalformedToken, match=words) as refusal:
        read_unverified(Token(text))
    assert refusal.value.hint
    if len(text) < 1000:
        assert_tells_nothing(refusal.value, f".{text}")


@pytest.mark.parametrize(
    ("text", "position"), [(" abc\u200b", 5), ("\n\n a b\n", 5), ("abc\u200b ", 4)]
)
def test_a_position_is_that_in_what_is_stored(text, position):
    """White space before the token counts, since people see it in the Variable or the file."""
    with pytest.raises(MalformedToken, match=f" at position {position},") as refusal:
        read_unverified(Token.strip(text))
    assert refusal.value.hint == "Delete that character, or paste the token again."


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (f"\ufeff{JWT}", "Delete that character"),
        (f"Bearer {JWT}", "Store the JWT alone, without a prefix"),
        (f"{JWT}\ufffd", "Save it as UTF-8"),
        ("a.b.c", "Mint a FlowAPI token"),
        (token_of({**GOOD, "exp": None}).reveal(), "Mint a FlowAPI token"),
        (token_of({**GOOD, "user_claims": 7}).reveal(), "Mint a FlowAPI token"),
        (token_of(GOOD, {"alg": "none"}).reveal(), "Mint a FlowAPI token"),
    ],
    ids=lambda value: value[:10] if value.isascii() else "other",
)
def test_the_hint_fits_the_mistake(text, hint):
    """A token without an expiry has no prefix to remove."""
    with pytest.raises(MalformedToken) as refusal:
        read_unverified(Token(text))
    assert refusal.value.hint.startswith(hint)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_any_other_text_is_malformed(text):
    """Nothing that can stand in a Variable ends in anything but a clear error."""
    with pytest.raises(MalformedToken):
        read_unverified(Token(text))


def test_a_token_tells_only_its_fingerprint():
    """However a token is printed, formatted or put into a traceback, it stays secret."""
    token = Token(JWT)
    for told in (repr(token), str(token), f"{token}", f"{[token]!r}", f"{token!r:>40}"):
        assert token.fingerprint in told
        shown = JWT[-12:] in told
        assert not shown
    assert len(token.fingerprint) == 8


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_token_is_not_copied_by_accident(copying):
    """No XCom backend and no queue gets a token by pickling what holds it."""
    with pytest.raises(TypeError, match="never pickled") as refusal:
        copying(Token(JWT))
    assert_tells_nothing(refusal.value, JWT)


def test_tokens_are_equal_by_their_text():
    """Two tokens of one text are one token."""
    one, same = Token(JWT), Token(JWT)
    assert one == same
    assert len({one, same, Token("other")}) == 2
    equals_its_text = one == JWT
    assert not equals_its_text


def test_a_signature_is_verified_with_the_public_key_alone(signing_key):
    """The issuer's key verifies, another one does not, a changed token does not."""
    token = Token(jwt.encode(GOOD, signing_key, algorithm="RS256"))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert PublicKey(pem(signing_key)).verifies(token)
    assert not PublicKey(pem(other)).verifies(token)
    head, _, tail = token.reveal().split(".")
    payload = segment(json.dumps({**GOOD, "sub": "root"}).encode())
    changed = Token(f"{head}.{payload}.{tail}")
    assert not PublicKey(pem(signing_key)).verifies(changed)


@pytest.mark.parametrize("between", ["", " ", "\r\n  "], ids=["nothing", "blank", "indented"])
def test_a_public_key_needs_no_line_breaks(signing_key, between):
    """A field of one line takes them away."""
    token = Token(jwt.encode(GOOD, signing_key, algorithm="RS256"))
    assert PublicKey(between.join(pem(signing_key).splitlines())).verifies(token)


def test_a_public_key_is_no_shared_secret(signing_key):
    """A token signed by HMAC with the public key as its secret is not verified."""
    signed = ".".join(segment(json.dumps(part).encode()) for part in ({"alg": "HS256"}, GOOD))
    mac = hmac.digest(pem(signing_key).encode(), signed.encode(), hashlib.sha256)
    token = Token(f"{signed}.{segment(mac)}")
    assert not PublicKey(pem(signing_key)).verifies(token)


def pem(key) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(key, **members):
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), **members}


def test_a_set_of_keys_verifies_by_the_kid(signing_key):
    """The key of the token's `kid`, of a token without one any, and no key of another's `kid`."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keys = PublicKey(json.dumps({"keys": [jwk(other, kid="new"), jwk(signing_key, kid="old")]}))

    def signed(key, **headers):
        return Token(jwt.encode(GOOD, key, algorithm="RS256", headers=headers))

    assert keys.verifies(signed(signing_key, kid="old"))
    assert keys.verifies(signed(other, kid="new"))
    assert keys.verifies(signed(signing_key))
    assert not keys.verifies(signed(signing_key, kid="new"))
    assert not keys.verifies(signed(signing_key, kid="unknown"))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"keys": []}',
        '{"keys": 7}',
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        "{" * 9999,
    ],
    ids=["empty", "no keys", "no list", "secret", "deep"],
)
def test_a_set_without_a_public_key_is_told(text):
    """A secret shared with the issuer is none either."""
    with pytest.raises(Misconfigured, match="JWK Set has no public signing key"):
        PublicKey(text)


def test_a_private_key_in_a_set_verifies_as_its_public_one(signing_key):
    """Whoever publishes it has other troubles; the rotation does not end in another error."""
    private = json.loads(RSAAlgorithm.to_jwk(signing_key))
    token = Token(jwt.encode(GOOD, signing_key, algorithm="RS256"))
    assert PublicKey(json.dumps({"keys": [private]})).verifies(token)


def test_a_key_for_encryption_verifies_nothing(signing_key):
    """Its `use` says so."""
    keys = {"keys": [jwk(signing_key, kid="one", use="enc")]}
    with pytest.raises(Misconfigured, match="no public signing key"):
        PublicKey(json.dumps(keys))
