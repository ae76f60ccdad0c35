"""A token's place in the process that keeps it, and the hands that start and end that process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.parts import ROOT
from flowauth_rotator.core.errors import MissingToken, StoreUnavailable
from flowauth_rotator.core.tokens import Token
from proofs.processes.keeper import READY

WAIT_LIMIT = 10  # seconds for an answer


def ask(
    path: Path, request: dict[str, str], sent: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Ask the keeper; `sent` is called, with what is asked, between request and answer.

    Raises:
        OSError: there was no answer.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_LIMIT)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        sent(request["ask"])
        with connection.makefile("rb") as stream:
            line = stream.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    return dict(json.loads(line))


class KeptStore:
    """A `TokenStore` whose token another process keeps.

    Attributes:
        name: of the token.
        place: the same, for people.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.place = f"keeper's {name}"
        self._path = path

    def read(self) -> Token:
        """The token."""
        value = self._ask("read").get("value")
        if not value:
            raise MissingToken(f"There is no {self.place}.")
        return Token(value)

    def description(self) -> str:
        """What stands beside the token."""
        return str(self._ask("read").get("about", ""))

    def preflight(self) -> None:
        """See that the folder takes a draft."""
        self._ask("preflight")

    def write(self, token: Token, description: str) -> None:
        """Replace token and description together, durably."""
        self._ask("write", value=token.reveal(), about=description)

    def sent(self, what: str) -> None:
        """Called when the keeper has been asked something and its answer has not been read."""

    def _ask(self, what: str, **more: str) -> dict[str, Any]:
        failed = False
        try:
            return ask(self._path, {"ask": what, "name": self.name, **more}, self.sent)
        except OSError:
            failed = True
        if failed:  # raised here, so that no error has one with the request as its context
            raise StoreUnavailable(f"{self.place} did not answer.")
        return {}


class KeeperProcess:
    """The keeper, which can be killed and started again.

    Args:
        folder: its own; short, since the path of a socket is at most a hundred characters.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "socket"
        self._folder = folder / "kept"
        self._folder.mkdir()
        self._process = self._started()

    def die_at_next_write(self, name: str, when: str) -> None:
        """Have it kill itself right `before` or right `after` the commit of the next write."""
        ask(self.socket, {"ask": "dying", "name": name, "when": when})

    def revive(self) -> bool:
        """Once it has died, start it again; whether it has died at all."""
        try:
            self._process.wait(timeout=WAIT_LIMIT)
        except subprocess.TimeoutExpired:
            return False
        self._process = self._started()
        return True

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        """The process, once it listens."""
        module = "proofs.processes.keeper"
        command = [sys.executable, "-m", module, str(self.socket), str(self._folder)]
        reading, writing = os.pipe()
        process = subprocess.Popen(command, cwd=ROOT, stdout=writing)  # noqa: S603 - ours
        os.close(writing)
        with os.fdopen(reading) as said:
            if said.readline() != f"{READY}\n":
                raise RuntimeError("The keeper did not start.")
        return process
