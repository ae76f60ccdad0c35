"""Signing keys and encryption keys: three algorithms, and a rotation that nobody notices."""

import json
import time

import jwt
import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet

from flowauth_rotator.server import Services, Settings, SetupError, create_app
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.commands import server
from flowauth_rotator.server.history import RowFilter
from flowauth_rotator.server.maintenance import rotate_encryption_key, rotate_signing_key
from flowauth_rotator.server.schema import tokens
from flowauth_rotator.server.signing import ALGORITHMS, Signer, generate_key

DATABASES = ["SQLite", "PostgreSQL"]


def published(caller) -> dict[str, dict]:
    """The keys of /.well-known/jwks.json by their name."""
    return {key["kid"]: key for key in caller.get("/.well-known/jwks.json").json["keys"]}


def verified(caller, token: str) -> dict:
    """What somebody reads who knows nothing but the published keys."""
    keys = jwt.PyJWKSet.from_dict(caller.get("/.well-known/jwks.json").json)
    header = jwt.get_unverified_header(token)
    key = keys[header["kid"]].key
    options = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
    return jwt.decode(token, key, algorithms=[header["alg"]], options=options)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_signs_and_is_verified_by_the_published_key(
    tmp_path, cheap_hasher, algorithm
):
    """From an empty directory to a renewed token, with nothing but the public key to check it."""
    settings = Settings.load(tmp_path / "server")
    Services.create(settings, generate_key(algorithm), now=0)
    app = create_app(settings.data_dir, hasher=cheap_hasher)
    services = app.extensions["flowauth_rotator"]
    services.accounts.add_audience("A", limit := Limit(60))
    services.accounts.add_role("viewer", "A", ["x"], limit)
    services.accounts.add_user("flowbot", "long enough")
    services.accounts.grant("flowbot", ["viewer"])
    owner = services.accounts.get_user("flowbot")
    token = services.issuer.mint(owner, 1, "N", ["viewer"], 5, now=int(time.time())).token
    stranger = app.test_client()
    answer = stranger.post("/tokens/renew", headers={"Authorization": f"Bearer {token}"})
    assert verified(stranger, answer.json["token"])["token_name"] == "N"
    [key] = published(stranger).values()
    assert (key["alg"], key["use"]) == (algorithm, "sig")
    assert not key.keys() & {"d", "p", "q", "dp", "dq", "qi", "k"}
    services.database.close()


class TestSigningKeyRotation:
    """Both keys count until the last token of the old one has expired."""

    @pytest.fixture
    def rotated(self, app, flowbot, clock, data_dir, cheap_hasher):
        """A running app with the data directory's own key, rotated under its feet."""
        own = create_app(data_dir, hasher=cheap_hasher, clock=clock)
        services = own.extensions["flowauth_rotator"]
        client = own.test_client()
        owner = services.accounts.get_user("flowbot")
        old = services.issuer.mint(owner, 1, "N", ["viewer"], 60, now=clock.now).token
        signer = rotate_signing_key(services, "ES256", now=clock.now)
        yield client, old, signer
        services.database.close()

    def test_the_next_token_is_signed_with_the_new_key_without_a_restart(self, rotated):
        client, old, signer = rotated
        answer = client.post("/tokens/renew", headers={"Authorization": f"Bearer {old}"})
        assert jwt.get_unverified_header(answer.json["token"])["kid"] == signer.kid
        assert verified(client, answer.json["token"]).keys() == verified(client, old).keys()

    def test_a_server_that_has_not_taken_it_up_yet_knows_both(self, rotated, stranger):
        """As the second of two servers, whose copy of the key is older."""
        client, old, _ = rotated
        answer = client.post("/tokens/renew", headers={"Authorization": f"Bearer {old}"})
        assert published(stranger).keys() == published(client).keys()
        answer = stranger.renew_presented(answer.json["token"])
        assert answer.status_code == 200

    def test_the_old_key_is_published_until_its_last_token_has_expired(self, rotated, clock):
        client, _, signer = rotated
        assert len(published(client)) == 2
        clock.advance(minutes=60, seconds=-1)
        assert len(published(client)) == 2
        clock.advance(seconds=1)
        assert list(published(client)) == [signer.kid]


def test_a_signing_key_that_the_database_does_not_know_is_named_at_the_start(data_dir):
    from flowauth_rotator.server.signing import encode_private_key

    (data_dir / "signing-key.pem").write_bytes(encode_private_key(generate_key("EdDSA")))
    with pytest.raises(SetupError, match=r"signing-key\.pem is not a key of this database"):
        create_app(data_dir)


def test_a_key_that_is_lost_can_be_replaced(data_dir, cheap_hasher):
    """What it has signed cannot be renewed by itself any more; all else goes on."""
    from flowauth_rotator.server.signing import encode_private_key

    (data_dir / "signing-key.pem").write_bytes(encode_private_key(generate_key("EdDSA")))
    done = CliRunner().invoke(server, ["rotate-signing-key", "--data-dir", str(data_dir)])
    assert done.exit_code == 0, done.output
    app = create_app(data_dir, hasher=cheap_hasher)
    assert app.test_client().get("/readyz").status_code == 200
    app.extensions["flowauth_rotator"].database.close()


@pytest.mark.parametrize("left", [None, Fernet.generate_key()], ids=["no key", "another key"])
def test_a_lost_encryption_key_costs_the_stored_texts_and_no_more(
    flowbot, data_dir, left, cheap_hasher, clock
):
    row = flowbot.minted()
    (data_dir / "encryption.key").unlink()
    if left:
        (data_dir / "encryption.key").write_bytes(left)
    with pytest.raises(SetupError, match="server prune --unreadable"):
        create_app(data_dir)
    done = CliRunner().invoke(server, ["prune", "--unreadable", "--data-dir", str(data_dir)])
    assert done.output == "Dropped the text of 1 token that no key decrypts.\n"
    app = create_app(data_dir, hasher=cheap_hasher, clock=clock)
    bearer = {"Authorization": f"Bearer {row['token']}"}
    answer = app.test_client().post("/tokens/renew", headers=bearer)
    assert answer.status_code == 200
    app.extensions["flowauth_rotator"].database.close()


class TestEncryptionKeyRotation:
    """Every text is encrypted anew; a running server never notices."""

    def test_all_is_encrypted_anew_and_the_old_key_forgotten(self, flowbot, services, data_dir):
        rows = [flowbot.minted(name=f"N{number}") for number in range(3)]
        old = (data_dir / "encryption.key").read_bytes()
        seen = []
        assert rotate_encryption_key(services, progress=lambda *done: seen.append(done)) == 3
        [new] = (data_dir / "encryption.key").read_bytes().split()
        assert new not in old
        assert seen == [(3, 3)]
        for row in list(services.listing.iterate_rows()):
            Fernet(new).decrypt(row.ciphertext)
        same = flowbot.rows() == rows
        assert same
        assert flowbot.renew(rows[0]["id"]).status_code == 200

    def test_more_rows_than_are_read_at_a_time(self, flowbot, services, monkeypatch):
        monkeypatch.setattr("flowauth_rotator.server.history.BATCH", 2)
        rows = [flowbot.minted(name=f"N{number}") for number in range(5)]
        seen = []
        assert rotate_encryption_key(services, progress=lambda *done: seen.append(done)) == 5
        assert seen == [(2, 5), (4, 5), (5, 5)]
        same = flowbot.rows() == rows
        assert same

    def test_an_interrupted_rotation_is_finished_and_none_begun(
        self, flowbot, services, data_dir, monkeypatch
    ):
        monkeypatch.setattr("flowauth_rotator.server.history.BATCH", 1)
        rows = [flowbot.minted(name=f"N{number}") for number in range(2)]

        def interrupt(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rotate_encryption_key(services, progress=interrupt)
        new, _ = (data_dir / "encryption.key").read_bytes().split()
        same = flowbot.rows() == rows
        assert same
        rotate_encryption_key(services)
        assert (data_dir / "encryption.key").read_bytes().split() == [new]
        same = flowbot.rows() == rows
        assert same

    def test_a_row_that_is_added_meanwhile_has_the_new_key(self, flowbot, services, monkeypatch):
        monkeypatch.setattr("flowauth_rotator.server.history.BATCH", 1)
        for number in range(2):
            flowbot.mint(name=f"N{number}")
        rotate_encryption_key(
            services, progress=lambda done, _: flowbot.mint(name="LATE") if done == 1 else None
        )
        assert [row["name"] for row in flowbot.rows()] == ["N0", "N1", "LATE"]

    def test_a_list_that_is_being_read_meanwhile_is_whole(
        self, flowbot, services, monkeypatch, clock
    ):
        monkeypatch.setattr("flowauth_rotator.server.listing.BATCH", 2)
        rows = [flowbot.minted(name=f"N{number}") for number in range(4)]
        owner = services.accounts.get_user("flowbot")
        batches = services.listing._read_batches(RowFilter(owner_id=owner.id))
        first = next(batches)
        rotate_encryption_key(services)
        decrypt = services.listing._decrypt_rows
        listed = decrypt(first) + decrypt(next(batches))
        same = [token for _, token in listed] == [row["token"] for row in rows]
        assert same

    def test_a_damaged_row_hides_no_other(self, flowbot, services, caplog):
        good = flowbot.minted(name="GOOD")
        bad = flowbot.minted(name="BAD")
        with services.database.writing() as connection:
            damaged = tokens.update().where(tokens.c.id == bad["id"])
            connection.execute(damaged.values(ciphertext=b"damaged"))
        same = flowbot.rows() == [good, bad | {"token": ""}]
        assert same
        assert [r.facts for r in caplog.records if r.message == "token_unreadable"] == [{"row": 2}]

    def test_another_key_than_the_tokens_were_stored_with_is_named_at_the_start(
        self, flowbot, data_dir
    ):
        flowbot.mint()
        (data_dir / "encryption.key").write_bytes(Fernet.generate_key())
        with pytest.raises(
            SetupError, match=r"encryption\.key lacks the key that encrypted the stored tokens"
        ):
            create_app(data_dir)


def test_a_key_is_named_by_its_thumbprint():
    """The example of RFC 7638, section 3.1."""
    from cryptography.hazmat.primitives import serialization

    from flowauth_rotator.server.signing import Verifier

    jwk = {
        "kty": "RSA",
        "n": (
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc"
            "_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQ"
            "R0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bF"
            "TWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        ),
        "e": "AQAB",
    }
    pem = jwt.algorithms.RSAAlgorithm.from_jwk(json.dumps(jwk)).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert Verifier(pem.decode()).kid == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_token_without_a_key_name_is_tried_with_the_current_key(stranger, flowbot, signing_key):
    claims = jwt.decode(flowbot.minted()["token"], options={"verify_signature": False})
    nameless = jwt.encode(claims, signing_key, "RS256")
    named = jwt.encode(claims, signing_key, "RS256", headers={"kid": "nobody's"})
    answers = [stranger.renew_presented(token) for token in (nameless, named)]
    assert [answer.status_code for answer in answers] == [200, 401]


def test_a_signer_shows_no_key_when_printed(signing_key):
    assert "BEGIN PRIVATE" not in repr(Signer(signing_key))
