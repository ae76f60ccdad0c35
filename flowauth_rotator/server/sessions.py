"""Sessions: the session cookie and the CSRF token, as FlowAuth's clients expect them.

The only module that reads or writes cookies. It shares nothing with the sessions of a host app.
Both values are signed and contain the time of their creation.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request
from itsdangerous import BadData, URLSafeSerializer

from flowauth_rotator.server.accounts import SESSION_SECONDS
from flowauth_rotator.server.errors import Refused

SESSION_COOKIE = "session"
CSRF_COOKIE = "X-CSRF"
CSRF_HEADER = "X-CSRF-Token"
CSRF_SECONDS = 3600
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Session:
    """The content of a session cookie.

    Attributes:
        id: The unique id of the session.
        user_id: The signed-in user, or None.
        password_number: The number of the password that the user signed in with.
    """

    id: str
    user_id: int | None = None
    password_number: int | None = None

    @classmethod
    def anonymous(cls) -> Session:
        """Create a session without a user."""
        return cls(secrets.token_hex(20))

    @classmethod
    def signed_in(cls, user_id: int, password_number: int) -> Session:
        """Create a session of a signed-in user."""
        return cls(secrets.token_hex(20), user_id, password_number)


class Sessions:
    """Reads and writes the two cookies.

    Args:
        secret: The key that signs them.
    """

    def __init__(self, secret: str) -> None:
        self._sessions = _serializer(secret, "session")
        self._csrf = _serializer(secret, "csrf")

    def load(self, now: int) -> Session:
        """Return the session of the current request, or a new one without a valid cookie.

        A request can have several cookies of this name: a host app may set one, too.
        """
        for text in request.cookies.getlist(SESSION_COOKIE):
            try:
                created_at, *facts = self._sessions.loads(text)
            except BadData:
                continue
            if _is_current(created_at, now, SESSION_SECONDS):
                return Session(*facts)
        return Session.anonymous()

    def save(
        self, response: Response, session: Session, now: int, path: str, *, extend: bool
    ) -> None:
        """Set a new CSRF token and, to extend the session, a new session cookie.

        Args:
            response: The response.
            session: The session of the request.
            now: Seconds since the epoch.
            path: The path of the cookies.
            extend: Whether the session is extended by 20 minutes; it must not have ended.
        """
        csrf = self._csrf.dumps([now, session.id])
        shared: dict[str, Any] = {"path": path, "secure": request.is_secure, "samesite": "Lax"}
        if extend:
            value = self._sessions.dumps(
                [now, session.id, session.user_id, session.password_number]
            )
            response.set_cookie(
                SESSION_COOKIE, str(value), httponly=True, max_age=SESSION_SECONDS, **shared
            )
        response.set_cookie(CSRF_COOKIE, str(csrf), **shared)

    def require_csrf(self, session: Session, now: int) -> None:
        """Refuse a request with an unsafe method and without a valid CSRF token."""
        if request.method in _SAFE_METHODS:
            return
        if not (self._has_csrf(session, now) and _is_same_host()):
            raise Refused(401, "CSRF error")

    def _has_csrf(self, session: Session, now: int) -> bool:
        try:
            created_at, session_id = self._csrf.loads(request.headers.get(CSRF_HEADER, ""))
        except (BadData, TypeError, ValueError):
            return False
        return session_id == session.id and _is_current(created_at, now, CSRF_SECONDS)


def _serializer(secret: str, purpose: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret,
        salt=f"flowauth-rotator-{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def _is_current(created_at: int, now: int, seconds: int) -> bool:
    """Return whether a value is recent; another server's clock may be ahead by as much."""
    return abs(now - created_at) <= seconds


def _is_same_host() -> bool:
    """Return whether the Referer is this host; required over https only, as by FlowAuth."""
    if not request.is_secure:
        return True
    try:
        referer, host = urlsplit(request.referrer or ""), urlsplit(f"//{request.host}")
        same = (referer.hostname, referer.port or 443) == (host.hostname, host.port or 443)
    except ValueError:
        return False
    return referer.scheme == "https" and same
