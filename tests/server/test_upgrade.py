"""A data directory of version 0.1 becomes one of today, and nothing in it is lost."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from cryptography.fernet import Fernet

from flowauth_rotator.server import Services, Settings, SetupError, create_app, schema_version
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.schema import metadata
from flowauth_rotator.server.services import upgrade_server
from flowauth_rotator.server.signing import Signer, encode_private_key

# As version 0.1 left them in `sqlite_master`.
OLD_TABLES = """
CREATE TABLE users (
    id INTEGER NOT NULL, username VARCHAR(100) NOT NULL, password_hash VARCHAR(255) NOT NULL,
    CONSTRAINT pk_users PRIMARY KEY (id AUTOINCREMENT),
    CONSTRAINT uq_users_username UNIQUE (username));
CREATE TABLE audiences (
    id INTEGER NOT NULL, name VARCHAR(100) NOT NULL, max_lifetime_minutes INTEGER NOT NULL,
    latest_expiry BIGINT, CONSTRAINT pk_audiences PRIMARY KEY (id AUTOINCREMENT),
    CONSTRAINT uq_audiences_name UNIQUE (name));
CREATE TABLE roles (
    id INTEGER NOT NULL, audience_id INTEGER NOT NULL, name VARCHAR(100) NOT NULL,
    scopes JSON NOT NULL, max_lifetime_minutes INTEGER NOT NULL, latest_expiry BIGINT,
    CONSTRAINT pk_roles PRIMARY KEY (id AUTOINCREMENT),
    CONSTRAINT fk_roles_audience_id_audiences FOREIGN KEY(audience_id) REFERENCES audiences (id),
    CONSTRAINT uq_roles_audience_id_name UNIQUE (audience_id, name));
CREATE TABLE grants (
    user_id INTEGER NOT NULL, role_id INTEGER NOT NULL,
    CONSTRAINT pk_grants PRIMARY KEY (user_id, role_id),
    CONSTRAINT fk_grants_user_id_users FOREIGN KEY(user_id) REFERENCES users (id)
        ON DELETE CASCADE,
    CONSTRAINT fk_grants_role_id_roles FOREIGN KEY(role_id) REFERENCES roles (id)
        ON DELETE CASCADE);
CREATE TABLE tokens (
    id INTEGER NOT NULL, parent_id INTEGER, idempotency_key VARCHAR(200),
    requested_minutes INTEGER, owner_id INTEGER NOT NULL, audience_id INTEGER NOT NULL,
    name VARCHAR(200) NOT NULL, jti VARCHAR(36) NOT NULL, issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL, ciphertext BLOB NOT NULL,
    CONSTRAINT pk_tokens PRIMARY KEY (id AUTOINCREMENT),
    CONSTRAINT fk_tokens_parent_id_tokens FOREIGN KEY(parent_id) REFERENCES tokens (id),
    CONSTRAINT fk_tokens_owner_id_users FOREIGN KEY(owner_id) REFERENCES users (id),
    CONSTRAINT fk_tokens_audience_id_audiences FOREIGN KEY(audience_id) REFERENCES audiences (id),
    CONSTRAINT uq_tokens_jti UNIQUE (jti),
    CONSTRAINT uq_tokens_parent_id_idempotency_key UNIQUE (parent_id, idempotency_key));
CREATE INDEX ix_tokens_name ON tokens (name);
CREATE INDEX ix_tokens_owner_id_audience_id ON tokens (owner_id, audience_id);
CREATE TABLE token_roles (
    token_id INTEGER NOT NULL, role_id INTEGER NOT NULL, role_name VARCHAR(100) NOT NULL,
    CONSTRAINT pk_token_roles PRIMARY KEY (token_id, role_id),
    CONSTRAINT fk_token_roles_token_id_tokens FOREIGN KEY(token_id) REFERENCES tokens (id));
"""


@pytest.fixture
def now():
    return int(time.time())


@pytest.fixture
def old_data_dir(tmp_path, signing_key, cheap_hasher, now):
    """A data directory as version 0.1 left it: three generations of one token, one of another."""
    folder = tmp_path / "server"
    folder.mkdir(mode=0o700)
    key = Fernet.generate_key()
    (folder / "signing-key.pem").write_bytes(encode_private_key(signing_key))
    (folder / "encryption.key").write_bytes(key)
    (folder / "session.key").write_bytes(b"s" * 64)
    (folder / "history.db").touch()
    for path in folder.iterdir():
        path.chmod(0o600)
    connection = sqlite3.connect(folder / "history.db")
    connection.executescript(f"PRAGMA journal_mode=WAL; {OLD_TABLES}")
    hashed = cheap_hasher.hash("correct-horse-battery-staple")
    connection.execute("INSERT INTO users VALUES (1, 'flowbot', ?)", [hashed])
    connection.execute("INSERT INTO audiences VALUES (1, 'TEST_SERVER', 10080, NULL)")
    scopes = json.dumps(["run"])
    for role_id, name in ((1, "viewer"), (2, "runner")):
        connection.execute(
            "INSERT INTO roles VALUES (?, 1, ?, ?, 1440, NULL)", [role_id, name, scopes]
        )
        connection.execute("INSERT INTO grants VALUES (1, ?)", [role_id])
    for row_id, parent, name in ((1, None, "A"), (2, 1, "A"), (3, 2, "A"), (4, None, "B")):
        issued_at, expires_at = now - 3000 + row_id, now + 600 + row_id
        claims = {"iat": issued_at, "nbf": issued_at, "exp": expires_at, "jti": f"jti-{row_id}"}
        token = Signer(signing_key).sign(claims | {"sub": "flowbot", "aud": "TEST_SERVER"})
        row = [row_id, parent, "k" if parent else None, name, f"jti-{row_id}", issued_at]
        connection.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, NULL, 1, 1, ?, ?, ?, ?, ?)",
            [*row, expires_at, Fernet(key).encrypt(token.encode())],
        )
        connection.execute("INSERT INTO token_roles VALUES (?, 1, 'viewer')", [row_id])
    connection.execute("INSERT INTO token_roles VALUES (3, 2, 'runner')")
    connection.commit()
    connection.close()
    return folder


def test_it_is_refused_with_what_to_run(old_data_dir):
    with pytest.raises(SetupError, match=r"lacks metrics\.token.* server upgrade"):
        create_app(old_data_dir)
    (old_data_dir / "metrics.token").write_text("x" * 32)
    with pytest.raises(SetupError, match=r"version 0001, this program requires .* server upgrade`"):
        create_app(old_data_dir)


def test_every_row_is_kept_with_its_lineage_roles_and_token(
    old_data_dir, signing_key, cheap_hasher, now
):
    settings = Settings.load(old_data_dir)
    assert upgrade_server(settings, now=now) == ("0001", schema_version.required_version())
    app = create_app(old_data_dir, hasher=cheap_hasher)
    services = app.extensions["flowauth_rotator"]
    rows = list(services.listing.iterate_rows())
    facts = [(row.id, row.parent_id, row.name, row.family_began_at) for row in rows]
    assert facts == [
        (1, None, "A", now - 2999),
        (2, 1, "A", now - 2999),
        (3, 2, "A", now - 2999),
        (4, None, "B", now - 2996),
    ]
    assert [[role.name for role in row.roles] for row in rows] == [
        ["viewer"],
        ["viewer"],
        ["runner", "viewer"],
        ["viewer"],
    ]
    client = app.test_client()
    body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
    assert client.post("/signin", json=body).status_code == 200
    listed = client.get("/tokens/tokens/1").json
    assert [row["id"] for row in listed] == [1, 2, 3, 4]
    bearer = {"Authorization": f"Bearer {listed[2]['token']}"}
    assert client.post("/tokens/renew", headers=bearer).json["id"] == 5
    [key] = client.get("/.well-known/jwks.json").json["keys"]
    assert key["kid"] == Signer(signing_key).kid
    services.database.close()


def test_doing_it_twice_changes_nothing(old_data_dir, now):
    settings = Settings.load(old_data_dir)
    upgrade_server(settings, now=now)
    before = (old_data_dir / "metrics.token").read_bytes()
    newest = schema_version.required_version()
    assert upgrade_server(settings, now=now + 5) == (newest, newest)
    assert (old_data_dir / "metrics.token").read_bytes() == before
    Services.open(settings).database.close()


def test_a_failure_in_the_middle_leaves_everything_as_it_was(old_data_dir, now, monkeypatch):
    """A power cut, say, after most of the work."""
    from alembic.operations import Operations

    def fail(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "drop_table", fail)
        with pytest.raises(KeyboardInterrupt):
            upgrade_server(Settings.load(old_data_dir), now=now)
    connection = sqlite3.connect(old_data_dir / "history.db")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert connection.execute("SELECT count(*) FROM token_roles").fetchone() == (5,)
    connection.close()
    assert "signing_keys" not in tables
    assert upgrade_server(Settings.load(old_data_dir), now=now)[0] == "0001"


def test_a_database_of_a_newer_version_is_left_alone(data_dir):
    connection = sqlite3.connect(data_dir / "history.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SetupError, match=r"version 9999.*install a newer flowauth-rotator"):
        create_app(data_dir)
    with pytest.raises(SetupError, match=r"version 9999.*install a newer flowauth-rotator"):
        upgrade_server(Settings.load(data_dir), now=0)


def test_the_migrations_make_what_the_program_expects(data_dir):
    """Column for column, index for index."""
    check_schema(Database.sqlite(data_dir / "history.db"))


def test_so_do_they_in_postgresql(data_dir, postgresql):
    database = Settings.load(data_dir, {"DATABASE_URL": postgresql.create()}).build_database()
    schema_version.upgrade_schema(database)
    check_schema(database)


def check_schema(database):
    """Compare the tables with what the program expects, and close the database."""
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    database.close()


def test_an_empty_database_behind_a_data_directory_is_named(data_dir, postgresql, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", postgresql.create())
    with pytest.raises(SetupError, match="has no tables"):
        create_app(data_dir)
    settings = Settings.load(data_dir)
    assert upgrade_server(settings, now=0)[0] == "0000"
    Services.open(settings).database.close()


def test_a_second_server_does_not_begin_anew_on_a_database_that_is_used(
    tmp_path, postgresql_url, signing_key
):
    settings = Settings.load(tmp_path / "second", {"DATABASE_URL": postgresql_url})
    with pytest.raises(SetupError, match="already contains the tables of a server"):
        Services.create(settings, signing_key, now=0)
    assert not settings.data_dir.exists()


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path, signing_key):
    url = f"postgresql://me:very-secret@/db?host={tmp_path}"
    settings = Settings.load(tmp_path / "server", {"DATABASE_URL": url})
    with pytest.raises(SetupError, match=r"db is unusable \(.*verify that it is running") as caught:
        Services.create(settings, signing_key, now=0)
    assert "very-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_required_version_is_that_of_the_last_migration():
    """Read from the names of the migrations, since Alembic costs a third of a command."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(schema_version._build_config())
    assert schema_version.required_version() == scripts.get_current_head()


def test_a_command_that_only_reads_imports_what_it_needs(old_data_dir, now):
    upgrade_server(Settings.load(old_data_dir), now=now)
    code = (
        "import sys; from flowauth_rotator.server.commands import server; "
        "server(['tokens'], standalone_mode=False); "
        "heavy = {'flask', 'alembic', 'sqlalchemy.dialects.postgresql'}; "
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    environment = os.environ | {"FLOWAUTH_ROTATOR_DATA_DIR": str(old_data_dir)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
