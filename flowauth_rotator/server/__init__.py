"""The bundled renewal server: an issuer with FlowAuth's wire contract.

`gunicorn "flowauth_rotator.server:create_app()"` serves the data directory in
FLOWAUTH_ROTATOR_DATA_DIR; `create_blueprint()` mounts the same routes in another Flask app.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from sqlalchemy.exc import OperationalError

from flowauth_rotator.server.counters import Counters
from flowauth_rotator.server.database import DatabaseBusy
from flowauth_rotator.server.errors import DatabaseUnreachable, SetupError
from flowauth_rotator.server.maintenance import prune
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Signer

if TYPE_CHECKING:
    from flask import Blueprint, Flask  # at run time only to serve: commands need none of it

    from flowauth_rotator.server.blueprint import Clock

logger = logging.getLogger(__name__)

__all__ = ["Services", "Settings", "SetupError", "create_app", "create_blueprint"]


def create_app(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    signer: Signer | None = None,
    hasher: PasswordHasher | None = None,
    clock: Clock | None = None,
    counters: Counters | None = None,
) -> Flask:
    """Create the renewal server as a WSGI application.

    Args:
        data_dir: The data directory; by default FLOWAUTH_ROTATOR_DATA_DIR.
        signer: Replaces the signing key of the data directory.
        hasher: Hashes passwords; by default Argon2 with its library's parameters.
        clock: Returns seconds since the epoch; read once per request.
        counters: What several workers count in together; by default this process alone.

    Raises:
        SetupError: A file, a key or the database is unusable.
    """
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from flowauth_rotator.server.error_responses import handle_unmatched_requests

    settings = Settings.load(data_dir)
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # a redirect would not be JSON
    app.register_blueprint(_open_blueprint(settings, signer, hasher, clock, counters))
    handle_unmatched_requests(app)
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as in Flask's documentation
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
    return app


def create_blueprint(data_dir: str | os.PathLike[str] | None = None) -> Blueprint:
    """Create the renewal server as a blueprint for another Flask app.

    It has its own sessions, error responses and log lines, and does not depend on the app. After
    registration its `Services` are `app.extensions["flowauth_rotator"]`.

    Args:
        data_dir: The data directory; by default FLOWAUTH_ROTATOR_DATA_DIR.

    Raises:
        SetupError: A file, a key or the database is unusable.
    """
    return _open_blueprint(Settings.load(data_dir))


def _open_blueprint(
    settings: Settings,
    signer: Signer | None = None,
    hasher: PasswordHasher | None = None,
    clock: Clock | None = None,
    counters: Counters | None = None,
) -> Blueprint:
    from flowauth_rotator.server.blueprint import make_blueprint

    clock = clock or _read_system_clock
    services = Services.build(settings, signer, hasher)
    try:
        services.verify()
        prune(services, now=clock())
    except (DatabaseUnreachable, DatabaseBusy, OperationalError) as error:
        # Keep running: gunicorn would replace an exiting worker at once, and then give up.
        logger.warning("database_unavailable", extra={"facts": {"reason": str(error)}})
    except BaseException:
        services.database.close()
        raise
    _warn_of_access(services)
    return make_blueprint(services, clock, counters or Counters())


def _warn_of_access(services: Services) -> None:
    """Log that other users can access the data directory, which `serve` refuses.

    It is only a warning: after a change of a mode, a running server must still replace a worker.
    """
    try:
        services.directory.verify_permissions()
    except SetupError as error:
        logger.warning("data_directory_accessible", extra={"facts": {"reason": str(error)}})


def _read_system_clock() -> int:
    return int(time.time())
