"""The data directory: private from the first moment, and clear about what it lacks."""

import errno
import fcntl
import os
import sqlite3

import pytest
from cryptography.fernet import Fernet, MultiFernet
from sqlalchemy.exc import IntegrityError

from flowauth_rotator.server import Services, Settings, SetupError, create_app

PARTS = ("encryption.key", "history.db", "metrics.token", "session.key", "signing-key.pem")


def make(path, signing_key=None):
    """A new data directory, as `server init` makes it."""
    Services.create(Settings.load(path), signing_key, now=0)


def test_everything_in_it_is_private(tmp_path, signing_key):
    """Whatever the umask, and without a moment in between."""
    old = os.umask(0)
    try:
        make(tmp_path / "new", signing_key)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes == dict.fromkeys(PARTS, 0o600)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_what_is_written_while_it_serves_is_private_too(data_dir, flowbot):
    flowbot.mint()
    assert {path.stat().st_mode & 0o777 for path in data_dir.iterdir()} == {0o600}


@pytest.mark.parametrize("left", PARTS)
def test_making_it_twice_changes_nothing(data_dir, left, signing_key):
    """Also when only one part is left of it."""
    for part in set(PARTS) - {left}:
        (data_dir / part).unlink()
    before = (data_dir / left).read_bytes()
    with pytest.raises(SetupError, match=f"already contains {left}; nothing was changed"):
        make(data_dir, signing_key)
    assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == {left: before}


def test_a_directory_that_others_can_read_is_refused(tmp_path, signing_key):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(SetupError, match=r"access .* \(mode 0755\): run `chmod"):
        make(tmp_path / "open", signing_key)
    assert list((tmp_path / "open").iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"^Cannot create .*: Not a directory"):
        make(tmp_path / "file" / "below")


def test_a_place_that_cannot_be_looked_into_is_refused(tmp_path):
    with pytest.raises(SetupError, match=r"^Cannot read .*: File name too long"):
        create_app(tmp_path / ("x" * 300))


def test_without_any_the_start_says_what_to_run(tmp_path):
    with pytest.raises(SetupError, match=r"not a data directory yet: run `.* init .*`"):
        create_app(tmp_path / "nothing")


def test_the_environment_names_it_when_nothing_else_does(data_dir, monkeypatch):
    monkeypatch.setenv("FLOWAUTH_ROTATOR_DATA_DIR", str(data_dir))
    app = create_app()
    assert app.test_client().get("/version").status_code == 200
    app.extensions["flowauth_rotator"].database.close()
    monkeypatch.delenv("FLOWAUTH_ROTATOR_DATA_DIR")
    with pytest.raises(SetupError, match="set FLOWAUTH_ROTATOR_DATA_DIR"):
        create_app()


@pytest.mark.parametrize("part", sorted(set(PARTS) - {"metrics.token"}))
def test_a_missing_part_is_named_at_the_start(data_dir, part):
    (data_dir / part).unlink()
    with pytest.raises(SetupError, match=f"lacks {part}: restore it from a backup"):
        create_app(data_dir)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\x00"])
def test_an_unusable_part_is_named_at_the_start(data_dir, part, content):
    (data_dir / part).write_bytes(content)
    named = "(database|history.db)" if part == "history.db" else part
    with pytest.raises(SetupError, match=f"{named} .*: restore it from a backup") as caught:
        create_app(data_dir)
    assert "nonsense" not in str(caught.value)


def test_a_part_that_is_replaced_stays_its_owners(data_dir, monkeypatch):
    """Root turns the keys, and the server's own user must still be able to read them."""
    changed = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _file, *owner: changed.append(owner))
    directory = Settings.load(data_dir).directory
    directory.add_encryption_key()
    owner = data_dir.stat()
    assert changed == ([] if owner.st_uid == 0 else [(owner.st_uid, owner.st_gid)])


def test_a_key_of_another_kind_is_named_at_the_start(data_dir):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    for key, what in (
        (ec.generate_private_key(ec.SECP384R1()), "is not an RSA, P-256 or Ed25519 key"),
        (rsa.generate_private_key(public_exponent=65537, key_size=1024), "has 1024 bits"),
    ):
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (data_dir / "signing-key.pem").write_bytes(pem)
        with pytest.raises(SetupError, match=what):
            create_app(data_dir)


class TestAtRest:
    def test_tokens_are_encrypted(self, data_dir, flowbot, services):
        token = flowbot.minted()["token"]
        services.database.close()
        stored = b"".join(path.read_bytes() for path in data_dir.glob("history.db*"))
        for part in token.split("."):
            windows = {part[start : start + 12] for start in range(len(part) - 11)}
            assert not [window for window in windows if window.encode() in stored]

    def test_a_second_encryption_key_takes_over_and_the_first_still_reads(self, data_dir, flowbot):
        """The first line encrypts, every line decrypts."""
        token = flowbot.minted()["token"]
        file = data_dir / "encryption.key"
        old, new = file.read_bytes(), Fernet.generate_key()
        file.write_bytes(new + b"\n" + old)
        cipher = Settings.load(data_dir).directory.load_cipher()
        assert isinstance(cipher, MultiFernet)
        decrypted = Fernet(new).decrypt(cipher.encrypt(token.encode())).decode()
        same = decrypted == token
        assert same
        app = create_app(data_dir, clock=lambda: 1_800_000_000)
        app.test_client().get("/version")
        services = app.extensions["flowauth_rotator"]
        owner = services.accounts.get_user("flowbot")
        listed = services.listing.list_renewable(owner, 1, now=1_800_000_000)
        same = [text for _, text in listed] == [token]
        assert same
        services.database.close()

    def test_commits_are_durable_and_references_hold(self, services):
        with services.database.reading() as connection:
            pragmas = {
                pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 5000,
        }

    def test_a_parent_cannot_have_one_key_twice(self, data_dir, flowbot, services):
        """The database itself holds this, whatever the rules do."""
        flowbot.renew(flowbot.minted()["id"], key="one")
        services.database.close()
        copy = (
            "INSERT INTO tokens (parent_id, idempotency_key, owner_id, audience_id, name, roles, "
            "jti, family_began_at, issued_at, expires_at) "
            "SELECT parent_id, idempotency_key, owner_id, audience_id, name, roles, "
            "jti || 'x', family_began_at, issued_at, expires_at "
            "FROM tokens WHERE parent_id IS NOT NULL"
        )
        connection = sqlite3.connect(data_dir / "history.db")
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            connection.execute(copy)
        connection.close()

    def test_an_owner_of_tokens_cannot_vanish(self, flowbot, services):
        from flowauth_rotator.server.schema import users

        flowbot.mint()
        with pytest.raises(IntegrityError), services.database.writing() as connection:
            connection.execute(users.delete())


class TestOtherUsers:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
    @pytest.mark.parametrize("name", ["signing-key.pem", "encryption.key", "history.db"])
    def test_a_file_that_others_can_use_is_refused_with_what_to_run(self, data_dir, name, mode):
        (data_dir / name).chmod(mode)
        with pytest.raises(SetupError) as caught:
            Services.open(Settings.load(data_dir))
        assert str(caught.value) == (
            f"Other users can access {data_dir / name} (mode {mode:04o}): run `chmod 600 "
            f"{data_dir / name}`. If others may have read a key, replace it too."
        )
        (data_dir / name).chmod(0o600)
        Services.open(Settings.load(data_dir)).database.close()

    def test_a_directory_that_others_can_list_is_refused(self, data_dir):
        data_dir.chmod(0o755)
        with pytest.raises(SetupError, match=f"run `chmod 700 {data_dir}`"):
            Services.open(Settings.load(data_dir))

    def test_an_app_of_another_wsgi_server_warns_of_them(self, data_dir, caplog):
        """And starts: a worker that is replaced must not end the server."""
        (data_dir / "signing-key.pem").chmod(0o644)
        create_app(data_dir).extensions["flowauth_rotator"].database.close()
        [record] = [each for each in caplog.records if each.msg == "data_directory_accessible"]
        assert record.facts["reason"].startswith("Other users can access ")


def test_without_locks_no_other_server_is_named(data_dir, monkeypatch):
    """As on some network file systems."""

    def lockf(*_args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert Settings.load(data_dir).directory.lock()
