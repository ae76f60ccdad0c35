"""The data directory: what lies in it, how it is made, read and changed."""

from __future__ import annotations

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
SESSION_SECRET = "session.key"  # noqa: S105 - a file's name
METRICS_TOKEN = "metrics.token"  # noqa: S105 - a file's name
_SHORTEST_SECRET = 32
_BACK = "restore it from a backup"
_ADVICE = {
    DATABASE: _BACK,
    SIGNING_KEY: f"{_BACK}; if it is lost, make another: `flowauth-rotator server "
    "rotate-signing-key`",
    ENCRYPTION_KEYS: f"{_BACK}; if it is lost, move what is left of it aside and give up what it "
    "has encrypted: `flowauth-rotator server prune --unreadable`",
    SESSION_SECRET: f"{_BACK}, or write any 64 characters into it",
    METRICS_TOKEN: f"{_BACK}, or write any 64 characters into it",
}

T = TypeVar("T")
Fingerprint = tuple[int, int, int]


class DataDirectory:
    """One directory, private to its user: every secret of the server and, for SQLite, its data.

    What has been read is remembered until its file is replaced, so that a running server takes up
    a new key by itself.

    Args:
        path: Where it is.
        with_database: Whether the database is one of its files.
    """

    def __init__(self, path: Path, *, with_database: bool = True) -> None:
        self.path = path
        self.parts: tuple[str, ...] = (SIGNING_KEY, ENCRYPTION_KEYS, SESSION_SECRET, METRICS_TOKEN)
        if with_database:
            self.parts = (DATABASE, *self.parts)
        self._remembered: dict[str, tuple[Fingerprint, object]] = {}

    def make(self, signing_key: bytes) -> None:
        """Make the directory and all that belongs in it, private from the first moment.

        Args:
            signing_key: The PEM text of the private key to sign with.

        Raises:
            SetupError: Something is there already (nothing is changed then), the
                directory is open to other users, or it cannot be written.
        """
        contents = {
            DATABASE: b"",
            SIGNING_KEY: signing_key,
            ENCRYPTION_KEYS: Fernet.generate_key() + b"\n",
            SESSION_SECRET: _new_secret(),
            METRICS_TOKEN: _new_secret(),
        }
        try:
            self._make_directory()
            for part in self.parts:
                self.create(part, contents[part])
        except OSError as error:
            raise SetupError(f"{self.path} cannot be made: {error.strerror or error}.") from None

    def check(self, *but: str) -> None:
        """Make sure that every part is there, but for those that may be missing.

        Raises:
            SetupError: Parts are missing (says which and what to do), or the directory
                cannot be looked into.
        """
        try:
            needed = [part for part in self.parts if part not in but]
            missing = [part for part in needed if not (self.path / part).is_file()]
        except OSError as error:  # another user's, say
            raise SetupError(f"{self.path} cannot be read: {error.strerror}.") from None
        if missing == [METRICS_TOKEN]:
            raise SetupError(
                f"{self.path} lacks {METRICS_TOKEN}, as those of version 0.1 do: run "
                f"`flowauth-rotator server upgrade --data-dir {self.path}`."
            )
        if missing == needed:
            raise SetupError(
                f"{self.path} is not a data directory yet: "
                f"run `flowauth-rotator server init --data-dir {self.path}`."
            )
        if missing:
            raise SetupError(f"{self.path} lacks {', '.join(missing)}: {_ADVICE[missing[0]]}.")

    def check_contents(self) -> None:
        """Make sure that every secret is one.

        Raises:
            SetupError: One is not; says which and what to do.
        """
        self.signer()
        self.cipher()
        self.session_secret()
        self.metrics_token()

    def signer(self) -> Signer:
        """What signs with the key of this moment."""
        return self._read(SIGNING_KEY, lambda content: Signer(load_key(content)))

    def cipher(self) -> MultiFernet:
        """The keys that encrypt tokens at rest: one a line, the first for new rows."""
        return self._read(ENCRYPTION_KEYS, _cipher)

    def session_secret(self) -> str:
        """The secret that signs session cookies."""
        return self._read(SESSION_SECRET, _secret)

    def metrics_token(self) -> str:
        """What a scraper of /metrics presents."""
        return self._read(METRICS_TOKEN, _secret)

    def add_encryption_key(self) -> None:
        """Encrypt with a new key from now on; the ones before, if there are any, still decrypt."""
        known = self._content(ENCRYPTION_KEYS) if self.has(ENCRYPTION_KEYS) else b""
        self.replace(ENCRYPTION_KEYS, Fernet.generate_key() + b"\n" + known)

    def has(self, part: str) -> bool:
        """Whether a part is there."""
        return (self.path / part).is_file()

    def drop_old_encryption_keys(self) -> None:
        """Forget every encryption key but the newest."""
        newest = self._content(ENCRYPTION_KEYS).split()[0]
        self.replace(ENCRYPTION_KEYS, newest + b"\n")

    def has_old_encryption_keys(self) -> bool:
        """Whether an encryption key beside the newest is kept."""
        return len(self._content(ENCRYPTION_KEYS).split()) > 1

    def add_missing_metrics_token(self) -> None:
        """Make the one part that data directories of version 0.1 do not have."""
        if not (self.path / METRICS_TOKEN).exists():
            self.create(METRICS_TOKEN, _new_secret())

    def create(self, part: str, content: bytes) -> None:
        """Write a new part with its mode, so that at no moment others can read it.

        It belongs to whom the directory belongs to, also when root does this.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(self.path / part, flags, 0o600), "wb") as file:
            owner = self.path.stat()
            if owner.st_uid != os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, part: str, content: bytes) -> None:
        """Put another content in the place of a part, at once or, after a crash, not at all."""
        beside = f".{part}.new"
        try:
            (self.path / beside).unlink(missing_ok=True)
            self.create(beside, content)
            (self.path / beside).replace(self.path / part)
        except OSError as error:
            raise SetupError(
                f"{self.path / part} cannot be written: {error.strerror}; nothing was changed."
            ) from None
        _sync_directory(self.path)

    def unusable(self, part: str, what: str) -> SetupError:
        """The error that a part's state deserves, with the way out."""
        return SetupError(f"{self.path / part} {what}: {_ADVICE[part]}.")

    def _make_directory(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        present = [part for part in self.parts if (self.path / part).exists()]
        if present:
            raise SetupError(
                f"{self.path} already holds {', '.join(present)}; nothing was changed."
            )
        mode = self.path.stat().st_mode & 0o777
        if mode & 0o077:
            raise SetupError(
                f"{self.path} is open to other users (mode {mode:04o}): "
                f"run `chmod 700 {self.path}` first, or name a new directory."
            )

    def _read(self, part: str, parse: Callable[[bytes], T]) -> T:
        """What a part says, read again only once its file is another one."""
        fingerprint = self._fingerprint(part)
        remembered = self._remembered.get(part)
        if remembered is None or remembered[0] != fingerprint:
            try:
                remembered = (fingerprint, parse(self._content(part)))
            except (UnusableKey, _Unusable) as error:
                raise self.unusable(part, str(error)) from None
            self._remembered[part] = remembered
        return remembered[1]  # type: ignore[return-value]  # what `parse` has made

    def _unreadable(self, part: str, error: OSError) -> SetupError:
        if isinstance(error, PermissionError):
            return SetupError(
                f"{self.path / part} cannot be read: {error.strerror}: give it to the user that "
                "the server runs as."
            )
        return self.unusable(part, f"cannot be read: {error.strerror}")

    def _fingerprint(self, part: str) -> Fingerprint:
        try:
            found = (self.path / part).stat()
        except OSError as error:
            raise self._unreadable(part, error) from None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _content(self, part: str) -> bytes:
        try:
            return (self.path / part).read_bytes()
        except OSError as error:
            raise self._unreadable(part, error) from None


class _Unusable(ValueError):
    """A part's content is not what it should be."""


def _cipher(content: bytes) -> MultiFernet:
    try:
        return MultiFernet([Fernet(line) for line in content.split()])
    except ValueError:
        raise _Unusable("holds something else than keys") from None


def _secret(content: bytes) -> str:
    secret = content.decode(errors="replace").strip()
    if len(secret) < _SHORTEST_SECRET:
        raise _Unusable("is too short to be a secret")
    return secret


def _new_secret() -> bytes:
    return secrets.token_hex(_SHORTEST_SECRET).encode() + b"\n"


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
