"""`flowauth-rotator serve`: a gunicorn master with workers that run an `HttpServer`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

from flowauth_rotator.server.counters import Counters
from flowauth_rotator.server.http_server import HttpServer
from flowauth_rotator.server.logs import JsonFormatter

_SLOTS = 4  # for each worker: a reload runs the next workers beside the last ones


class _Log(Logger):  # type: ignore[misc]
    """Gunicorn's own log as JSON lines; the app logs requests."""

    def setup(self, cfg: object) -> None:
        """Write JSON lines to standard error."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


class _Worker(Worker):  # type: ignore[misc]
    """A worker process; the master replaces it when it ends or shows no sign of life.

    Attributes:
        slot: The slot of the counters that it writes; None if all were in use at its start.
    """

    slot: int | None = None
    _server: HttpServer | None = None

    def run(self) -> None:
        """Serve until the master says to stop, or is gone."""
        [listener] = self.sockets
        self._server = server = HttpServer(self.wsgi, listener.sock)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            server.serve_for(seconds=1)
        self._server = None  # nothing is left to wake
        server.stop(on_wait=self.notify)

    def handle_exit(self, sig: int, frame: object) -> None:
        """Stop after the current requests."""
        super().handle_exit(sig, frame)
        if self._server is not None:
            self._server.wake()


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """A gunicorn master; each worker creates its own app.

    Args:
        load_app: Creates the app that counts in these counters, in each worker after the fork.
        bind: HOST:PORT.
        workers: The number of worker processes.
        on_ready: Called when the socket listens.
    """

    def __init__(
        self,
        load_app: Callable[[Counters], Flask],
        bind: str,
        workers: int,
        on_ready: Callable[[], None],
    ) -> None:
        self._load_app = load_app
        self._slots = _SLOTS * workers
        self._counters = Counters(self._slots)
        self._settings = {
            "bind": bind,
            "workers": workers,
            "worker_class": _Worker,
            "preload_app": False,
            "loglevel": "warning",
            "logger_class": _Log,
            "control_socket_disable": True,
            "pre_fork": self._assign_slot,
            "post_fork": lambda _arbiter, worker: self._counters.use_slot(worker.slot),
            "when_ready": lambda _arbiter: on_ready(),
        }
        super().__init__()

    def load_config(self) -> None:
        """Apply the settings that this version of gunicorn knows."""
        for name in self.cfg.settings.keys() & self._settings.keys():
            self.cfg.set(name, self._settings[name])

    def load(self) -> Flask:
        """Create the app of one worker."""
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.getLogger("alembic").setLevel(logging.WARNING)
        return self._load_app(self._counters)

    def _assign_slot(self, arbiter: Any, worker: _Worker) -> None:  # noqa: ANN401 - gunicorn's
        used = {other.slot for other in arbiter.WORKERS.values()}
        worker.slot = next((slot for slot in range(self._slots) if slot not in used), None)
