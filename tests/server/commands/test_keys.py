"""Keys that are replaced while the server goes on."""

import json

import jwt
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from flowauth_rotator.server import create_app, maintenance
from flowauth_rotator.server.schema import tokens

DATABASES = ["SQLite", "PostgreSQL"]


def kid_of(token):
    return jwt.get_unverified_header(token)["kid"]


def verify(token, public_key, algorithm="RS256"):
    options = {"verify_iat": False, "verify_nbf": False}
    jwt.decode(token, public_key, algorithms=[algorithm], audience="TEST_SERVER", options=options)


class TestSigningKey:
    @pytest.fixture
    def app(self, data_dir, cheap_hasher, clock):
        """A server that signs with the data directory's own key, whichever that is."""
        app = create_app(data_dir, hasher=cheap_hasher, clock=clock)
        yield app
        app.extensions["flowauth_rotator"].database.close()

    def test_a_running_server_signs_with_the_new_one_and_takes_the_tokens_of_both(
        self, says, flowbot
    ):
        old = flowbot.minted()
        old_key = says("public-key")
        told = says("rotate-signing-key")
        new = flowbot.renew_presented(old["token"]).json["token"]
        new_key = says("public-key")
        verify(old["token"], old_key)
        verify(new, new_key)
        assert old_key != new_key
        assert kid_of(new) in told.splitlines()[0]
        published = [key["kid"] for key in flowbot.get("/.well-known/jwks.json").json["keys"]]
        assert published == [kid_of(old["token"]), kid_of(new)]
        answers = [flowbot.renew_presented(token) for token in (old["token"], new)]
        assert [answer.status_code for answer in answers] == [200, 200]

    def test_it_says_until_when_the_old_one_is_published(self, says, flowbot):
        row = flowbot.minted(lifetime_minutes=60)
        flowbot.minted(lifetime_minutes=30)
        told = says("rotate-signing-key --algorithm ES256").splitlines()
        assert told[0].endswith(" (ES256).")
        assert told[1] == (
            f"The old key {kid_of(row['token'])} stays published until 2100-01-01 01:00:00 UTC, "
            "when its last token expires."
        )
        assert told[2].endswith("print it with `flowauth-rotator server public-key`.")

    def test_one_without_living_tokens_is_no_longer_published(self, says):
        assert "has no live tokens and is no longer published" in says("rotate-signing-key")

    def test_json(self, says, flowbot):
        old = flowbot.minted(lifetime_minutes=60)["token"]
        told = json.loads(says("rotate-signing-key --json --algorithm EdDSA"))
        new = flowbot.minted(name="NEW")["token"]
        assert told == {
            "kid": kid_of(new),
            "algorithm": "EdDSA",
            "old_kid": kid_of(old),
            "old_published_until": 4_102_448_400,
        }
        verify(new, says("public-key"), "EdDSA")

    def test_without_an_algorithm_the_new_one_is_of_the_same_kind(self, says):
        says("rotate-signing-key --algorithm ES256")
        assert json.loads(says("rotate-signing-key --json"))["algorithm"] == "ES256"

    def test_an_unknown_algorithm_is_refused(self, fails, data_dir):
        before = (data_dir / "signing-key.pem").read_bytes()
        assert "is not one of" in fails("rotate-signing-key --algorithm HS256")
        assert (data_dir / "signing-key.pem").read_bytes() == before


class TestEncryptionKey:
    @pytest.fixture
    def keys(self, data_dir):
        return lambda: (data_dir / "encryption.key").read_bytes().split()

    @pytest.fixture
    def ciphertexts(self, services):
        def ciphertexts():
            with services.database.reading() as connection:
                return list(connection.execute(select(tokens.c.ciphertext)).scalars())

        return ciphertexts

    def test_everything_is_encrypted_anew_and_a_running_server_reads_it(
        self, says, flowbot, keys, ciphertexts
    ):
        row = flowbot.minted()
        [old] = keys()
        told = says("rotate-encryption-key").splitlines()
        assert told[0] == "Encrypted 1 token with a new key, and removed the old key."
        assert told[1].startswith("Back up the database and encryption.key again")
        [new] = keys()
        assert new != old
        same = flowbot.rows() == [row]
        assert same
        same = Fernet(new).decrypt(ciphertexts()[0]).decode() == row["token"]
        assert same
        answer = flowbot.mint(name="NEW")
        assert answer.status_code == 200

    def test_json(self, says, fill):
        fill(3)
        assert json.loads(says("rotate-encryption-key --json")) == {"encrypted": 3}

    def test_an_interrupted_one_is_finished_by_the_next_call(
        self, says, fill, flowbot, services, keys, ciphertexts
    ):
        """Both keys stay in use in between, and no third is made."""
        fill(700)
        row = flowbot.minted()
        [old] = keys()

        def interrupt(_done, _total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            maintenance.rotate_encryption_key(services, progress=interrupt)
        new, kept = keys()
        assert kept == old
        same = flowbot.rows()[-1] == row
        assert same
        assert "Encrypted 701 tokens" in says("rotate-encryption-key")
        assert keys() == [new]
        same = flowbot.rows()[-1] == row
        assert same
        assert all(Fernet(new).decrypt(text) for text in ciphertexts())

    def test_a_token_of_a_lost_key_stops_it_and_no_key_is_forgotten(
        self, says, fails, fill, services, data_dir
    ):
        """What can be read with either of the two keys can still be read."""
        fill(1, expires_at=4_102_444_801)
        file = data_dir / "encryption.key"
        file.write_bytes(Fernet.generate_key() + b"\n")
        fill(1, expires_at=4_102_444_802)
        sentence = fails("rotate-encryption-key")
        assert "encryption.key lacks a key that encrypted some of the stored tokens" in sentence
        assert len(file.read_bytes().split()) == 2
        assert len(json.loads(says("tokens --json"))) == 2
