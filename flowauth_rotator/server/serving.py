"""Gunicorn, as `flowauth-rotator serve` runs it: in this process, in the foreground."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

# A bearer token of a large role set is longer than gunicorn's 8190 bytes for a header.
_LONGEST_HEADER = 32 * 1024
_THREADS = 4


class AccessLog(Logger):  # type: ignore[misc]
    """Gunicorn's logger, with each path on one line whatever it contains, in UTC."""

    def atoms(
        self, resp: object, req: object, environ: dict[str, str], request_time: object
    ) -> dict[str, Any]:
        """The facts of one request, without its query string and its headers."""
        atoms: dict[str, Any] = super().atoms(resp, req, environ, request_time)
        return {
            **{name: atoms[name] for name in ("h", "m", "s", "B", "M")},
            "t": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "U": quote(environ.get("PATH_INFO", ""), encoding="latin-1"),
        }


class Gunicorn(BaseApplication):  # type: ignore[misc]
    """A gunicorn master whose workers each make their own app.

    Args:
        load_app: Makes the app, in each worker after the fork.
        bind: HOST:PORT.
        workers: The number of worker processes.
        on_ready: Called once the socket listens.
    """

    def __init__(
        self, load_app: Callable[[], Flask], bind: str, workers: int, on_ready: Callable[[], None]
    ) -> None:
        self._load_app = load_app
        self._settings = {
            "bind": bind,
            "workers": workers,
            "worker_class": "gthread",
            "threads": _THREADS,
            "preload_app": False,
            "limit_request_field_size": _LONGEST_HEADER,
            "loglevel": "warning",
            "logger_class": AccessLog,
            "accesslog": "-",
            "access_log_format": "%(t)s access %(h)s %(m)s %(U)s %(s)s %(B)s bytes %(M)s ms",
            "control_socket_disable": True,
            "when_ready": lambda _arbiter: on_ready(),
        }
        super().__init__()

    def load_config(self) -> None:
        """Take the settings; one that this version of gunicorn does not know is not needed."""
        for name in self.cfg.settings.keys() & self._settings.keys():
            self.cfg.set(name, self._settings[name])

    def load(self) -> Flask:
        """Make the app of one worker."""
        logging.Formatter.converter = time.gmtime
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(name)s %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%SZ",
        )
        return self._load_app()
