"""Places that hold a token: what a rotation asks of them, and two of them."""

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
        name: what to call the token while the issuer's name of it is unknown.
        place: the place, for people ("Variable FLOWAPI_TOKEN").
    """

    name: str
    place: str

    def read(self) -> Token:
        """The token, as those who use it would read it.

        Raises:
            MissingToken: there is none.
            StoreUnavailable: that cannot be known now.
        """

    def preflight(self) -> None:
        """Check, before anything is minted, that a write would be seen by those who read.

        Raises:
            ShadowedStore: it would not.
            StoreUnavailable: it would fail, or that cannot be known now.
        """

    def write(self, token: Token, description: str) -> None:
        """Put the token in the place of whatever is there.

        Raises:
            StoreUnavailable: it failed, or it is not known whether it did.
        """


class MemoryStore:
    """A store of this process alone."""

    place = "memory"

    def __init__(self, token: Token | None = None, *, name: str = "token") -> None:
        self.name = name
        self.token = token
        self.description = ""

    def read(self) -> Token:
        """The token."""
        if self.token is None:
            raise MissingToken("There is no token in memory.")
        return self.token

    def preflight(self) -> None:
        """Nothing hides memory."""

    def write(self, token: Token, description: str) -> None:
        """Keep the token."""
        self.token, self.description = token, description


class FileStore:
    """A file that holds the bare token on one line.

    A write replaces the file atomically, with mode 0600; a crash leaves the old file or the new
    one. A file has no description: that argument of `write` is not kept.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.place = f"file {self.path}"

    def read(self) -> Token:
        """The file's text, less one line break at its end."""
        try:
            text = self.path.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            raise MissingToken(f"There is no {self.place}.") from None
        except OSError as error:
            raise StoreUnavailable(f"Reading {self.place} failed: {error.strerror}.") from None
        if not text.strip():
            raise MissingToken(f"The {self.place} is empty.")
        return Token(text.removesuffix("\n").removesuffix("\r"))

    def preflight(self) -> None:
        """Check that the file is a regular one and that its folder takes a draft."""
        if not self.path.resolve().is_file():
            raise ShadowedStore(
                f"The {self.place} is not a regular file, so its content comes from elsewhere.",
                advice="Name a regular file.",
            )
        self._drafting("")

    def write(self, token: Token, description: str) -> None:  # noqa: ARG002 - no place for it
        """Replace the file atomically."""
        self._drafting(token.reveal() + "\n", put_in_place=True)

    def _drafting(self, text: str, *, put_in_place: bool = False) -> None:
        """Write a draft beside the file and put it in its place, or else remove it again.

        The folder is locked meanwhile: of several writers each finishes before the next begins,
        and finds at most the draft that a crash has left.
        """
        target = self.path.resolve()  # a link stays a link
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
                f"Writing {self.place} failed: {problem.strerror}.",
                advice="See that this user may create files in its folder and that there is room.",
            )


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The open folder, locked against other writers until the block ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, such as some NFS
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
