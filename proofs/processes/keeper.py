"""The process that keeps the tokens in use: each with its description in a file of its own.

Started as `python -m proofs.processes.keeper SOCKET FOLDER`; answers one JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

READY = "ready"


class Keeper:
    """Durable files: a crash leaves the old content of one, or the new.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._die: Callable[[str], None] = lambda _moment: None

    def answer(self, asked: dict[str, str]) -> dict[str, Any]:
        """Do what is asked; `dying` chooses the next write as the last one."""
        ask, path = asked["ask"], self._folder / asked["name"]
        if ask == "read":
            return dict(json.loads(path.read_text())) if path.exists() else {}
        if ask == "preflight":
            self._draft(path, "").unlink()
        elif ask == "write":
            self._write(path, json.dumps({"value": asked["value"], "about": asked["about"]}))
        elif ask == "dying":
            self._die = lambda moment: _kill_myself() if moment == asked["when"] else None
        return {}

    def _write(self, path: Path, text: str) -> None:
        draft = self._draft(path, text)
        self._die("before")
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the commit: from here on it survives a power cut
        os.close(folder)
        self._die("after")

    def _draft(self, path: Path, text: str) -> Path:
        draft = path.with_suffix(".new")
        with draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return draft


def _kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(listener: socket.socket, keeper: Keeper) -> None:
    """One connection after the other, so that all see the same order of events."""
    while True:
        connection, _ = listener.accept()
        with suppress(OSError), connection, connection.makefile("rwb") as stream:
            while (line := stream.readline()).endswith(b"\n"):  # else the client has ended
                stream.write(json.dumps(keeper.answer(json.loads(line))).encode() + b"\n")
                stream.flush()


def main() -> None:
    """Listen on a socket file, say so, and answer until this process is ended."""
    path, folder = map(Path, sys.argv[1:])
    path.unlink(missing_ok=True)  # of a predecessor that was killed
    os.umask(0o077)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        print(READY, flush=True)
        _serve(listener, Keeper(folder))


if __name__ == "__main__":
    main()
