"""The data directory: where it is, what lies in it, how it is made and how it is opened."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy.exc import DatabaseError

from flowauth_rotator.server import signing
from flowauth_rotator.server.history import Database

DATA_DIR_VARIABLE = "FLOWAUTH_ROTATOR_DATA_DIR"
_DATABASE = "history.db"
_SIGNING_KEY = "signing-key.pem"
_ENCRYPTION_KEYS = "encryption.key"
_SESSION_SECRET = "session.key"  # noqa: S105 - a file's name
_PARTS = (_DATABASE, _SIGNING_KEY, _ENCRYPTION_KEYS, _SESSION_SECRET)
_SHORTEST_SECRET = 32


class DataDirectoryError(Exception):
    """The data directory cannot be used; the message says which part and what to do."""


@dataclass(frozen=True)
class Settings:
    """Where the server keeps everything it knows: one directory, private to its user."""

    data_dir: Path

    @classmethod
    def load(
        cls, data_dir: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """Take the data directory as given, or else from FLOWAUTH_ROTATOR_DATA_DIR.

        Raises:
            DataDirectoryError: Neither is given.
        """
        named = data_dir or environ.get(DATA_DIR_VARIABLE)
        if not named:
            raise DataDirectoryError(f"No data directory is named: set {DATA_DIR_VARIABLE}.")
        return cls(Path(named).absolute())

    def initialise(self, signing_key: rsa.RSAPrivateKey | None = None) -> None:
        """Make the directory and all that belongs in it, private from the first moment.

        Args:
            signing_key: The key to sign with; a new one is generated without it.

        Raises:
            DataDirectoryError: Something is there already (nothing is changed then), the
                directory is open to other users, or it cannot be written.
        """
        try:
            self._make_directory()
            key = signing_key or signing.generate_key()
            self._write(_SIGNING_KEY, signing.private_pem(key))
            self._write(_ENCRYPTION_KEYS, Fernet.generate_key() + b"\n")
            self._write(_SESSION_SECRET, secrets.token_hex(_SHORTEST_SECRET).encode() + b"\n")
            self._write(_DATABASE, b"")
        except OSError as error:
            raise DataDirectoryError(
                f"{self.data_dir} cannot be made: {error.strerror or error}."
            ) from None
        database = Database(self.data_dir / _DATABASE)
        database.create()
        database.close()

    def check(self) -> None:
        """Make sure that every part is there.

        Raises:
            DataDirectoryError: Parts are missing (says which and what to do), or the directory
                cannot be looked into.
        """
        try:
            missing = [part for part in _PARTS if not (self.data_dir / part).is_file()]
        except OSError as error:  # another user's, say
            raise DataDirectoryError(f"{self.data_dir} cannot be read: {error.strerror}.") from None
        command = f"flowauth-rotator server init --data-dir {self.data_dir}"
        if len(missing) == len(_PARTS):
            raise DataDirectoryError(
                f"{self.data_dir} is not a data directory yet: run `{command}`."
            )
        if missing:
            raise DataDirectoryError(
                f"{self.data_dir} lacks {', '.join(missing)}: restore it from a backup, or move "
                f"what is left aside and run `{command}`."
            )

    def open_database(self) -> Database:
        """The history's database, seen to work."""
        database = Database(self.data_dir / _DATABASE)
        try:
            database.check()
        except DatabaseError as error:
            database.close()
            raise self._unusable(_DATABASE, f"cannot be read: {error.orig}") from None
        return database

    def signing_key(self) -> rsa.RSAPrivateKey:
        """The key that signs tokens."""
        try:
            return signing.load_key(self._read(_SIGNING_KEY))
        except signing.UnusableKey as error:
            raise self._unusable(_SIGNING_KEY, str(error)) from None

    def cipher(self) -> MultiFernet:
        """The keys that encrypt tokens at rest: one a line, the first for new rows."""
        try:
            return MultiFernet([Fernet(line) for line in self._read(_ENCRYPTION_KEYS).split()])
        except ValueError:
            raise self._unusable(_ENCRYPTION_KEYS, "holds something else than keys") from None

    def session_secret(self) -> str:
        """The secret that signs session cookies."""
        secret = self._read(_SESSION_SECRET).decode(errors="replace").strip()
        if len(secret) < _SHORTEST_SECRET:
            raise self._unusable(_SESSION_SECRET, "is too short to be a secret")
        return secret

    def _make_directory(self) -> None:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = [part for part in _PARTS if (self.data_dir / part).exists()]
        if present:
            raise DataDirectoryError(
                f"{self.data_dir} already holds {', '.join(present)}; nothing was changed."
            )
        mode = self.data_dir.stat().st_mode & 0o777
        if mode & 0o077:
            raise DataDirectoryError(
                f"{self.data_dir} is open to other users (mode {mode:04o}): "
                f"run `chmod 700 {self.data_dir}` first, or name a new directory."
            )

    def _write(self, part: str, content: bytes) -> None:
        """Create a part with its mode, so that there is no moment at which others can read it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(self.data_dir / part, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _read(self, part: str) -> bytes:
        try:
            return (self.data_dir / part).read_bytes()
        except OSError as error:
            raise self._unusable(part, f"cannot be read: {error.strerror}") from None

    def _unusable(self, part: str, what: str) -> DataDirectoryError:
        return DataDirectoryError(
            f"{self.data_dir / part} {what}: restore it from a backup, or make a new data "
            "directory with `flowauth-rotator server init --data-dir DIR`."
        )
