"""Gunicorn for `flowauth-rotator serve`: in this process, in the foreground."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from flowauth_rotator.server.logs import JsonFormatter
from flowauth_rotator.server.settings import METRICS_DIR_VARIABLE

# A bearer token with many roles exceeds gunicorn's default of 8190 bytes.
_MAX_HEADER = 32 * 1024
_THREADS = 3  # more do not help: the GIL lets only one compute


class _Log(Logger):  # type: ignore[misc]
    """Gunicorn's own log as JSON lines; the app logs requests."""

    def setup(self, cfg: object) -> None:
        """Write JSON lines to standard error."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """A gunicorn master; each worker creates its own app.

    Args:
        load_app: Creates the app, in each worker after the fork.
        bind: HOST:PORT.
        workers: The number of worker processes.
        on_ready: Called when the socket listens.
    """

    def __init__(
        self, load_app: Callable[[], Flask], bind: str, workers: int, on_ready: Callable[[], None]
    ) -> None:
        self._load_app = load_app
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - private below
        metrics_dir = tempfile.mkdtemp(prefix="flowauth-rotator-metrics-", dir=memory)
        self._settings = {
            "bind": bind,
            "workers": workers,
            "worker_class": "gthread",
            "threads": _THREADS,
            "preload_app": False,
            "limit_request_field_size": _MAX_HEADER,
            "loglevel": "warning",
            "logger_class": _Log,
            "control_socket_disable": True,
            "forwarded_allow_ips": "",  # TRUSTED_PROXIES decides instead
            "raw_env": [f"{METRICS_DIR_VARIABLE}={metrics_dir}"],
            "when_ready": lambda _arbiter: on_ready(),
            "on_exit": lambda _arbiter: shutil.rmtree(metrics_dir, ignore_errors=True),
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
        return self._load_app()
