"""The bundled renewal server: FlowAuth's wire contract for those who have no FlowAuth.

`gunicorn "flowauth_rotator.server:create_app()"` serves the data directory that
FLOWAUTH_ROTATOR_DATA_DIR names; `create_blueprint()` is the same, to be mounted in another app.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from flask import Blueprint, Flask
from sqlalchemy.exc import OperationalError
from werkzeug.middleware.proxy_fix import ProxyFix

from flowauth_rotator.server.database import Busy
from flowauth_rotator.server.errors import SetupError, Unreachable
from flowauth_rotator.server.maintenance import prune
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Signer

if TYPE_CHECKING:
    from flowauth_rotator.server.blueprint import Clock

logger = logging.getLogger(__name__)

__all__ = ["Services", "Settings", "SetupError", "create_app", "create_blueprint"]


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
        SetupError: A part is missing or unusable; says which and what to do.
    """
    from flowauth_rotator.server.error_responses import handle_elsewhere

    settings = Settings.load(data_dir)
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # a redirect would be an answer that is not JSON
    app.register_blueprint(_blueprint(settings, signer, hasher, clock))
    handle_elsewhere(app)
    if proxies := settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as Flask's documentation does
            app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies
        )
    return app


def create_blueprint(data_dir: str | os.PathLike[str] | None = None) -> Blueprint:
    """The renewal server as a blueprint, to be mounted in another Flask app.

    It brings its own sessions, error answers and log lines, and needs nothing of the app. The
    opened `Parts` are then `app.extensions["flowauth_rotator"]`.

    Args:
        data_dir: The data directory; without it, what FLOWAUTH_ROTATOR_DATA_DIR names.

    Raises:
        SetupError: A part is missing or unusable; says which and what to do.
    """
    return _blueprint(Settings.load(data_dir))


def _blueprint(
    settings: Settings,
    signer: Signer | None = None,
    hasher: PasswordHasher | None = None,
    clock: Clock | None = None,
) -> Blueprint:
    from flowauth_rotator.server.blueprint import make_blueprint  # see `metrics` for why here

    clock = clock or _system_clock
    services = Services.assemble(settings, signer, hasher)
    try:
        services.check()
        prune(services, now=clock())
    except (Unreachable, Busy, OperationalError) as error:
        # A worker that ended now would be replaced by one that ends, and then all would end.
        logger.warning("database_unavailable", extra={"facts": {"reason": str(error)}})
    except BaseException:
        services.database.close()
        raise
    return make_blueprint(services, clock)


def _system_clock() -> int:
    return int(time.time())
