"""The operator's shell, and a history to look at."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet
from sqlalchemy import insert

from flowauth_rotator.server.commands import server
from flowauth_rotator.server.schema import tokens

NEW_YEAR_2100 = 4_102_444_800
_CODE = "import sys; from flowauth_rotator.server.commands import server; server(sys.argv[1:])"


@pytest.fixture
def clock(clock):
    """The app's clock runs ahead, so that what it issues is alive by the machine's."""
    clock.now = NEW_YEAR_2100
    return clock


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch, cheap_hasher):
    """Let the commands, too, hash passwords with Argon2 at next to no cost."""
    monkeypatch.setattr("flowauth_rotator.server.services.PasswordHasher", lambda: cheap_hasher)


@pytest.fixture
def run(data_dir, database):
    """Run a `server` command on the data directory; the answer is what click's runner gives."""

    def run(line, *more, **kwargs):
        environ = {"FLOWAUTH_ROTATOR_DATA_DIR": str(data_dir)}
        words = [*line.split(), *map(str, more)]
        return CliRunner(env=environ).invoke(server, words, **kwargs)

    return run


@pytest.fixture
def says(run):
    """Run a command that must succeed; the answer is its standard output."""

    def says(*arguments, **kwargs):
        result = run(*arguments, **kwargs)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return result.stdout

    return says


@pytest.fixture
def fails(run):
    """Run a command that must fail with one sentence, no traceback and nothing on stdout."""

    def fails(*arguments, **kwargs):
        result = run(*arguments, **kwargs)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code != 0
        assert result.stdout == ""
        return result.stderr.splitlines()[-1]

    return fails


@pytest.fixture
def start(data_dir, database):
    """Start a `server` command as a process of its own."""

    def start(*arguments, before="", **kwargs):
        return subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{_CODE}", *arguments],
            env={**os.environ, "FLOWAUTH_ROTATOR_DATA_DIR": str(data_dir)},
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs,
        )

    return start


@pytest.fixture
def fill(services, data_dir):
    """Write so many rows into the history, faster than by signing: flowbot's, with some text."""

    def fill(count, *, expires_at=NEW_YEAR_2100, size=20):
        cipher = Fernet((data_dir / "encryption.key").read_bytes().split()[0])
        row = {
            "owner_id": 1,
            "audience_id": 1,
            "name": "FILLED",
            "roles": [[1, "viewer"]],
            "family_began_at": 0,
            "issued_at": 0,
            "expires_at": expires_at,
            "ciphertext": cipher.encrypt(b"x" * size),
        }
        with services.database.writing() as connection:
            rows = [row | {"jti": os.urandom(16).hex()} for _ in range(count)]
            connection.execute(insert(tokens), rows)

    return fill
