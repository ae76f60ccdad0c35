"""The bundled renewal server: FlowAuth's wire contract for those who have no FlowAuth.

`gunicorn "flowauth_rotator.server:create_app()"` serves the data directory that
FLOWAUTH_ROTATOR_DATA_DIR names.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from argon2 import PasswordHasher
from flask import Flask
from werkzeug.exceptions import HTTPException

from flowauth_rotator.server.accounts import Accounts
from flowauth_rotator.server.blueprint import create_blueprint, http_error
from flowauth_rotator.server.history import Database, History
from flowauth_rotator.server.issuing import Issuing, Signer
from flowauth_rotator.server.sessions import SESSION_SECONDS, Clock, CookieSessions, RequestClock
from flowauth_rotator.server.settings import DataDirectoryError, Settings
from flowauth_rotator.server.signing import Signer as RsaSigner

__all__ = ["DataDirectoryError", "Parts", "Settings", "create_app", "create_blueprint"]

LARGEST_BODY = 64 * 1024


@dataclass(frozen=True)
class Parts:
    """An opened data directory: the rules, ready to be asked."""

    database: Database
    accounts: Accounts
    issuing: Issuing

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        signer: Signer | None = None,
        hasher: PasswordHasher | None = None,
    ) -> Parts:
        """Open what a data directory holds.

        Raises:
            DataDirectoryError: A part is missing or unusable; says which and what to do.
        """
        settings.check()
        signer = signer or RsaSigner(settings.signing_key())
        history = History(settings.cipher())
        database = settings.open_database()
        accounts = Accounts(database, hasher or PasswordHasher())
        return cls(database, accounts, Issuing(database, accounts, history, signer))


def create_app(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    signer: Signer | None = None,
    hasher: PasswordHasher | None = None,
    clock: Clock | None = None,
) -> Flask:
    """The renewal server as a WSGI application.

    Args:
        data_dir: The data directory; without it, what FLOWAUTH_ROTATOR_DATA_DIR names.
        signer: What signs tokens, in place of the data directory's own key.
        hasher: What hashes passwords, in place of Argon2 with its library's parameters.
        clock: Seconds since the epoch, in place of the machine's clock; read once a request.

    Raises:
        DataDirectoryError: A part is missing or unusable; says which and what to do.
    """
    settings = Settings.load(data_dir)
    settings.check()
    secret = settings.session_secret()
    parts = Parts.open(settings, signer=signer, hasher=hasher)
    now = RequestClock(clock or _system_clock)
    app = Flask(__name__, static_folder=None)
    app.config.update(
        SECRET_KEY=secret,
        PERMANENT_SESSION_LIFETIME=SESSION_SECONDS,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=LARGEST_BODY,
    )
    app.url_map.merge_slashes = False  # a redirect would be an answer that is not JSON
    app.session_interface = CookieSessions(now)
    app.extensions["flowauth_rotator"] = parts
    app.register_error_handler(HTTPException, http_error)
    app.register_blueprint(create_blueprint(parts.accounts, parts.issuing, now=now))
    return app


def _system_clock() -> int:
    return int(time.time())
