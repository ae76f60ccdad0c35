"""The data directory: create, read and replace its files."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.fernet import Fernet, MultiFernet

from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.server.signing import Signer, UnusableKey, load_key

DATABASE = "history.db"
SIGNING_KEY = "signing-key.pem"
ENCRYPTION_KEYS = "encryption.key"
SESSION_SECRET = "session.key"  # noqa: S105 - a file name
METRICS_TOKEN = "metrics.token"  # noqa: S105 - a file name
LOCK = "serve.lock"
_MIN_SECRET = 32
_RESTORE = "restore it from a backup"
_ADVICE = {
    DATABASE: _RESTORE,
    SIGNING_KEY: f"{_RESTORE}; if it is lost, create a new key with `flowauth-rotator server "
    "rotate-signing-key`",
    ENCRYPTION_KEYS: f"{_RESTORE}; if it is lost, move the damaged file away and drop the tokens "
    "that it encrypted with `flowauth-rotator server prune --unreadable`",
    SESSION_SECRET: f"{_RESTORE}, or write 64 random characters into it",
    METRICS_TOKEN: f"{_RESTORE}, or write 64 random characters into it",
}

T = TypeVar("T")
Fingerprint = tuple[int, int, int]


class DataDirectory:
    """A private directory with the server's secrets and, for SQLite, its database.

    A parsed file is cached until the file is replaced, so that a running server uses a new key
    without a restart.

    Args:
        path: The directory.
        with_database: Whether the directory contains the database.
    """

    def __init__(self, path: Path, *, with_database: bool = True) -> None:
        self.path = path
        names = (SIGNING_KEY, ENCRYPTION_KEYS, SESSION_SECRET, METRICS_TOKEN)
        self.file_names = (DATABASE, *names) if with_database else names
        self._cache: dict[str, tuple[Fingerprint, object]] = {}

    def create(self, signing_key: bytes) -> None:
        """Create the directory and its files, readable by their owner only.

        Args:
            signing_key: The PEM text of the signing key.

        Raises:
            SetupError: A file exists already, other users can access the directory, or it cannot
                be written.
        """
        contents = {
            DATABASE: b"",
            SIGNING_KEY: signing_key,
            ENCRYPTION_KEYS: Fernet.generate_key() + b"\n",
            SESSION_SECRET: _generate_secret(),
            METRICS_TOKEN: _generate_secret(),
        }
        try:
            self._create_directory()
            for name in self.file_names:
                self.create_file(name, contents[name])
        except OSError as error:
            raise SetupError(self._describe_create_error(error)) from None

    def verify_files(self, *optional: str) -> None:
        """Verify that every file exists, except optional ones.

        Raises:
            SetupError: Files are missing, or the directory cannot be read.
        """
        try:
            required = [name for name in self.file_names if name not in optional]
            missing = [name for name in required if not (self.path / name).is_file()]
        except OSError as error:  # such as another user's directory
            raise SetupError(
                f"Cannot read {self.path}: {error.strerror}. It is private to its owner: run this "
                f"as that user, not as user {os.geteuid()}."
            ) from None
        if missing == [METRICS_TOKEN]:
            raise SetupError(
                f"{self.path} lacks {METRICS_TOKEN}, which version 0.1 did not create: run "
                f"`flowauth-rotator server upgrade --data-dir {self.path}`."
            )
        if self._is_below_file():
            raise SetupError(f"A part of {self.path} is a file: choose another data directory.")
        if missing == required:
            raise SetupError(
                f"{self.path} is not a data directory yet: "
                f"run `flowauth-rotator server init --data-dir {self.path}`."
            )
        if missing:
            raise SetupError(f"{self.path} lacks {', '.join(missing)}: {_ADVICE[missing[0]]}.")

    def verify_permissions(self) -> None:
        """Verify that no other user can read or write the directory or a file in it.

        Raises:
            SetupError: Others can.
        """
        for path in (self.path, *(self.path / name for name in self.file_names)):
            if path.exists() and path.stat().st_mode & 0o077:
                raise self._build_access_error(path, path.stat().st_mode & 0o777)

    def has_other_owner(self) -> bool:
        """Return whether the directory belongs to another user than that of this process."""
        return self.path.stat().st_uid != os.geteuid()

    def lock(self) -> bool:
        """Take the lock of the server that serves this directory, until this process ends.

        Returns:
            Whether no other process is known to have it: not every network file system has locks.
        """
        if not self.has_file(LOCK):
            self.create_file(LOCK, b"")
        descriptor = os.open(self.path / LOCK, os.O_WRONLY)  # closing it would release the lock
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def verify_contents(self) -> None:
        """Verify that every key and secret can be parsed.

        Raises:
            SetupError: A file is unusable.
        """
        self.load_signer()
        self.load_cipher()
        self.load_session_secret()
        self.load_metrics_token()

    def load_signer(self) -> Signer:
        """Return the current signing key."""
        return self._load(SIGNING_KEY, lambda content: Signer(load_key(content)))

    def load_cipher(self) -> MultiFernet:
        """Return the keys that encrypt tokens at rest: one per line, the first for new rows."""
        return self._load(ENCRYPTION_KEYS, _parse_cipher)

    def load_session_secret(self) -> str:
        """Return the secret that signs session cookies."""
        return self._load(SESSION_SECRET, _parse_secret)

    def load_metrics_token(self) -> str:
        """Return the bearer token for /metrics."""
        return self._load(METRICS_TOKEN, _parse_secret)

    def add_encryption_key(self) -> None:
        """Add a key that encrypts from now on; the existing keys still decrypt."""
        old_keys = self._read(ENCRYPTION_KEYS) if self.has_file(ENCRYPTION_KEYS) else b""
        self.replace_file(ENCRYPTION_KEYS, Fernet.generate_key() + b"\n" + old_keys)

    def has_file(self, name: str) -> bool:
        """Return whether a file exists."""
        return (self.path / name).is_file()

    def drop_old_encryption_keys(self) -> None:
        """Remove every encryption key except the newest."""
        newest = self._read(ENCRYPTION_KEYS).split()[0]
        self.replace_file(ENCRYPTION_KEYS, newest + b"\n")

    def has_old_encryption_keys(self) -> bool:
        """Return whether there is more than one encryption key."""
        return len(self._read(ENCRYPTION_KEYS).split()) > 1

    def add_missing_metrics_token(self) -> None:
        """Create the metrics token, which data directories of version 0.1 lack."""
        if not (self.path / METRICS_TOKEN).exists():
            self.create_file(METRICS_TOKEN, _generate_secret())

    def create_file(self, name: str, content: bytes) -> None:
        """Write a new file with mode 0600 from the start, owned by the directory's owner."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(self.path / name, flags, 0o600), "wb") as file:
            owner = self.path.stat()
            if owner.st_uid != os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace_file(self, name: str, content: bytes) -> None:
        """Replace the content of a file atomically."""
        draft = f".{name}.new"
        try:
            (self.path / draft).unlink(missing_ok=True)
            self.create_file(draft, content)
            (self.path / draft).replace(self.path / name)
        except OSError as error:
            raise SetupError(
                f"Cannot write {self.path / name}: {error.strerror}; nothing was changed."
            ) from None
        _sync_directory(self.path)

    def build_error(self, name: str, fault: str) -> SetupError:
        """Build the error for an unusable file, with advice."""
        return SetupError(f"{self.path / name} {fault}: {_ADVICE[name]}.")

    def _create_directory(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        existing = [name for name in self.file_names if (self.path / name).exists()]
        if len(existing) == len(self.file_names):
            raise SetupError(
                f"{self.path} is a data directory already; nothing was changed. Start it with "
                f"`flowauth-rotator serve --data-dir {self.path}`, or choose a new directory."
            )
        if existing:
            raise SetupError(
                f"{self.path} already contains {', '.join(existing)}; nothing was changed."
            )
        self.verify_permissions()

    def _build_access_error(self, path: Path, mode: int) -> SetupError:
        private = f"run `chmod {'700' if path == self.path else '600'} {path}`"
        return SetupError(
            f"Other users can access {path} (mode {mode:04o}): {private}. If others may have read "
            "a key, replace it too."
        )

    def _describe_create_error(self, error: OSError) -> str:
        """Return why the directory cannot be created, and what to do about it."""
        advice = "Choose another directory."
        if self._is_below_file():
            advice = "A part of this path is a file: choose another directory."
        elif isinstance(error, PermissionError):
            advice = (
                "Choose a directory that you can write, or let root create this one for you: "
                f"install -d -m 700 -o {os.geteuid()} {self.path}"
            )
        return f"Cannot create {self.path}: {error.strerror or error}. {advice}"

    def _is_below_file(self) -> bool:
        """Return whether the path or a part of it is not a directory."""
        existing = next(part for part in (self.path, *self.path.parents) if part.exists())
        return not existing.is_dir()

    def _load(self, name: str, parse: Callable[[bytes], T]) -> T:
        """Return the parsed content of a file; parse it again only after a replacement."""
        fingerprint = self._read_fingerprint(name)
        cached = self._cache.get(name)
        if cached is None or cached[0] != fingerprint:
            try:
                cached = (fingerprint, parse(self._read(name)))
            except (UnusableKey, _InvalidContent) as error:
                raise self.build_error(name, str(error)) from None
            self._cache[name] = cached
        return cached[1]  # type: ignore[return-value]  # the result of `parse`

    def _build_read_error(self, name: str, error: OSError) -> SetupError:
        if isinstance(error, PermissionError):
            return SetupError(
                f"Cannot read {self.path / name}: {error.strerror}. Make it readable for the user "
                "that runs the server."
            )
        return self.build_error(name, f"cannot be read: {error.strerror}")

    def _read_fingerprint(self, name: str) -> Fingerprint:
        try:
            status = (self.path / name).stat()
        except OSError as error:
            raise self._build_read_error(name, error) from None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise self._build_read_error(name, error) from None


class _InvalidContent(ValueError):
    """The content of a file is invalid."""


def _parse_cipher(content: bytes) -> MultiFernet:
    try:
        return MultiFernet([Fernet(line) for line in content.split()])
    except ValueError:
        raise _InvalidContent("does not contain valid encryption keys") from None


def _parse_secret(content: bytes) -> str:
    secret = content.decode(errors="replace").strip()
    if len(secret) < _MIN_SECRET:
        raise _InvalidContent(f"has fewer than {_MIN_SECRET} characters")
    return secret


def _generate_secret() -> bytes:
    return secrets.token_hex(_MIN_SECRET).encode() + b"\n"


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
