"""`flowauth-rotator serve` as it is, but for workers that may kill themselves.

Started as `python -m proofs.processes.serve FAULTS --data-dir ... --bind ...`. A file in the folder
FAULTS that has the name of a point is consumed by the first worker whose renewal gets there; it
says what dies: that `worker`, or `all` of the server.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import Connection, Engine, event

from flowauth_rotator.server import commands, create_app
from flowauth_rotator.server.commands import serving
from flowauth_rotator.server.counters import Counters

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # a sign-in costs no time


class Faults:
    """The folder of the faults that are still to come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reach(self, point: str) -> None:
        """Die here, if that is wanted; only once, whoever of the workers comes first."""
        taken = self._folder / f"taken-{os.getpid()}"
        with suppress(FileNotFoundError):
            (self._folder / point).rename(taken)
            _die(whole=taken.read_text() == "all")


def _die(*, whole: bool) -> None:
    """As by `kill -9`: this worker, or first the master, lest it have new workers, and then all."""
    if whole:
        master = psutil.Process(os.getppid())
        master.suspend()
        others = [worker for worker in master.children() if worker.pid != os.getpid()]
        for process in (master, *others):
            process.kill()
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_commits(faults: Faults) -> None:
    """P5: the row of a renewal is inserted, and COMMIT would be next."""

    def executed(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO tokens"):
            connection.info["has_new_row"] = True

    def committing(connection: Connection) -> None:
        if connection.info.pop("has_new_row", False):
            faults.reach("P5")

    event.listen(Engine, "after_cursor_execute", executed)
    event.listen(Engine, "commit", committing)


def _dying_in_answers(application: WSGIApplication, faults: Faults) -> WSGIApplication:
    """P6: the row of a renewal is committed, and nothing of the answer is sent."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[..., object]:  # noqa: ANN401
            started.append(status)
            return start_response(status, headers, *more)

        body = application(environ, start)
        if environ["PATH_INFO"].endswith("/renew") and started[0].startswith("200"):
            faults.reach("P6")
        return body

    return answer


def main() -> None:
    """Serve, in the foreground."""
    faults = Faults(Path(sys.argv[1]))
    _die_in_commits(faults)

    def create_mortal_app(data_dir: Path, counters: Counters) -> Flask:
        app = create_app(data_dir, hasher=CHEAP, counters=counters)
        app.wsgi_app = _dying_in_answers(app.wsgi_app, faults)  # type: ignore[assignment, method-assign]
        return app

    vars(serving)["create_app"] = create_mortal_app  # what `serve` calls
    commands.serve(sys.argv[2:])


if __name__ == "__main__":
    main()
