"""The stores of a token in use: their interface, memory and a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from flowauth_rotator.core.errors import MissingToken, ShadowedStore, StoreUnavailable
from flowauth_rotator.core.tokens import Token


class TokenStore(Protocol):
    """A place that holds one token in use.

    Attributes:
        name: the name of the token while the issuer's name of it is unknown.
        place: the store, for people ("Variable FLOWAPI_TOKEN").
    """

    name: str
    place: str

    def read(self) -> Token:
        """Return the token, as its users would read it.

        Raises:
            MissingToken: the store is empty.
            StoreUnavailable: the store cannot be read now.
        """

    def preflight(self) -> None:
        """Check, before anything is minted, that readers would see a write.

        Raises:
            ShadowedStore: they would not.
            StoreUnavailable: a write would fail, or the check is not possible now.
        """

    def write(self, token: Token, description: str) -> None:
        """Store the token in place of the current value.

        Raises:
            StoreUnavailable: the write failed or may have failed.
        """


class MemoryStore:
    """A store in the memory of this process."""

    place = "memory"

    def __init__(self, token: Token | None = None, *, name: str = "token") -> None:
        self.name = name
        self.token = token
        self.description = ""

    def read(self) -> Token:
        """Return the token."""
        if self.token is None:
            raise MissingToken("The memory holds no token.")
        return self.token

    def preflight(self) -> None:
        """Do nothing: nothing can hide memory."""

    def write(self, token: Token, description: str) -> None:
        """Store the token."""
        self.token, self.description = token, description


class FileStore:
    """A file that contains the token alone, on one line.

    A write replaces the file atomically, with mode 0600; a crash leaves the old file or the new
    one. A file has no description: that argument of `write` is ignored.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.place = f"file {self.path}"

    def read(self) -> Token:
        """Return the text of the file without white space around it."""
        try:
            text = self.path.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            raise MissingToken(f"The {self.place} does not exist.") from None
        except OSError as error:
            raise StoreUnavailable(f"The {self.place} cannot be read: {error.strerror}.") from None
        if not text.strip():
            raise MissingToken(f"The {self.place} is empty.")
        return Token.strip(text)

    def preflight(self) -> None:
        """Check that the file is regular and that a file can be created beside it."""
        if not self.path.resolve().is_file():
            raise ShadowedStore(
                f"The {self.place} is not a regular file, so a write would not change its content.",
                hint="Use a regular file.",
            )
        self._write_draft("")

    def write(self, token: Token, description: str) -> None:  # noqa: ARG002 - a file has none
        """Replace the file atomically."""
        self._write_draft(token.reveal() + "\n", put_in_place=True)

    def _write_draft(self, text: str, *, put_in_place: bool = False) -> None:
        """Write a draft beside the file, and rename it or else remove it.

        The folder is locked meanwhile: each writer finishes before the next begins, and finds at
        most the draft that a crash has left.
        """
        target = self.path.resolve()  # a symbolic link stays one
        draft = target.with_name(f".{target.name}.new")
        problem: OSError | None = None
        try:
            with _locked(target.parent) as folder:
                draft.unlink(missing_ok=True)
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                        file.write(text)
                        file.flush()
                        os.fsync(descriptor)
                    if put_in_place:
                        draft.replace(target)
                finally:
                    draft.unlink(missing_ok=True)
                os.fsync(folder)  # makes the rename survive a power cut
        except OSError as error:
            problem = error
        if problem:
            raise StoreUnavailable(
                f"The {self.place} cannot be written: {problem.strerror}.",
                hint="Check that this user may create files in its folder and that the disk has "
                "space.",
            )


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Open the folder and lock it against other writers until the block ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, such as some NFS
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
