"""Renewal with the current token as the credential: no password, no cookie."""

import jwt
import pytest

DATABASES = ["SQLite", "PostgreSQL"]
PATH = "/tokens/renew"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def forged(flowbot, claims_of, signing_key):
    """Sign the claims of a live token of flowbot's again, some of them changed."""
    token = flowbot.minted()["token"]

    def forge(key=signing_key, algorithm="RS256", **changed):
        return jwt.encode(claims_of(token) | changed, key, algorithm=algorithm)

    return forge


def test_the_presented_token_is_enough(stranger, flowbot, claims_of):
    """No sign-in, no CSRF token; the successor is the same as by session."""
    row = flowbot.minted()
    answer = stranger.renew_presented(row["token"], {"lifetime_minutes": 30})
    assert answer.status_code == 200
    assert answer.json.keys() == {"id", "token"}
    claims = claims_of(answer.json["token"])
    assert claims["exp"] - claims["iat"] == 1800
    assert flowbot.rows()[-1]["id"] == answer.json["id"]
    assert flowbot.rows()[-1]["roles"] == row["roles"]


def test_no_cookie_is_set_or_heeded(stranger, flowbot, refused):
    row = flowbot.minted()
    answer = stranger.renew_presented(row["token"])
    assert "Set-Cookie" not in answer.headers
    refused(flowbot.http.post(PATH), 401)


def test_a_successor_renews_itself(stranger, flowbot):
    token = flowbot.minted()["token"]
    for _ in range(3):
        token = stranger.renew_presented(token).json["token"]
    assert len(flowbot.rows()) == 4


def test_a_revoked_role_is_refused_with_its_name(stranger, flowbot, services, refused):
    row = flowbot.minted()
    services.accounts.revoke("flowbot", ["runner"])
    message = refused(stranger.renew_presented(row["token"]), 401)
    assert message.endswith("to you: runner")


def test_an_expired_token_is_refused(stranger, flowbot, clock, refused):
    row = flowbot.minted(lifetime_minutes=5)
    clock.advance(minutes=5)
    answer = stranger.renew_presented(row["token"])
    assert refused(answer, 401) == "The presented token has expired."
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic Zm86YmFy"},
        {"Authorization": "Basic \xff"},
        {"Authorization": "Bearer \xff"},
        {"Authorization": "Bearer a b"},
    ],
)
def test_no_token_is_refused(stranger, refused, headers):
    refused(stranger.http.post(PATH, headers=headers), 401)


@pytest.mark.parametrize("token", ["x", "a.b.c", "....", "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"])
def test_what_is_no_token_is_refused(stranger, refused, token):
    assert "not issued by this server" in refused(stranger.renew_presented(token), 401)


class TestForgeries:
    """Security: only a token that this server signed, as it signed it, is a credential."""

    def test_the_unchanged_claims_pass(self, stranger, forged):
        """So that the refusals below are for what they change."""
        answer = stranger.renew_presented(forged())
        assert answer.status_code == 200

    def test_another_key(self, stranger, forged, refused):
        from cryptography.hazmat.primitives.asymmetric import rsa

        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        refused(stranger.renew_presented(forged(key=other)), 401)

    def test_no_signature(self, stranger, forged, refused):
        refused(stranger.renew_presented(forged(key=None, algorithm="none")), 401)

    def test_another_algorithm_of_the_same_key(self, stranger, forged, refused):
        refused(stranger.renew_presented(forged(algorithm="RS512")), 401)

    def test_the_public_key_as_an_hmac_secret(self, stranger, forged, refused, data_dir):
        """RS/HS confusion; PyJWT will not sign this, so it is put together by hand."""
        import base64
        import hashlib
        import hmac

        from flowauth_rotator.server import Settings

        pem = Settings.load(data_dir).directory.load_signer().public_pem.encode()
        header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
        signed = header + b"." + forged().split(".")[1].encode()
        mac = hmac.new(pem, signed, hashlib.sha256).digest()
        token = signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
        refused(stranger.renew_presented(token.decode()), 401)

    @pytest.mark.parametrize(
        "changed",
        [{"jti": "00000000-0000-4000-8000-000000000000"}, {"sub": "mallory"}, {"aud": "OTHER"}],
    )
    def test_claims_of_no_row(self, stranger, forged, refused, changed):
        """Signed with our key, and still not what the history knows."""
        message = refused(stranger.renew_presented(forged(**changed)), 401)
        assert message == "This server has no record of the presented token."
