"""Who is speaking: the session cookie and the CSRF token, as FlowAuth's clients know them.

The only module that reads or writes cookies. It shares nothing with the sessions of an app on
which the blueprint is mounted. Both texts are signed and carry the time at which they were made.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from flask import Response, request
from itsdangerous import BadData, URLSafeSerializer

from flowauth_rotator.server.errors import Refused

SESSION_COOKIE = "session"
CSRF_COOKIE = "X-CSRF"
CSRF_HEADER = "X-CSRF-Token"
CSRF_SECONDS = 3600
SESSION_SECONDS = 20 * 60
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Session:
    """What a session cookie says: a caller, and perhaps who signed in.

    Attributes:
        id: The name of this session, never used again.
        user_id: The user who signed in, or None.
        password_number: The password, counted, that the user signed in with.
    """

    id: str
    user_id: int | None = None
    password_number: int | None = None

    @classmethod
    def anonymous(cls) -> Session:
        """A new session of somebody who has not signed in."""
        return cls(secrets.token_hex(20))

    @classmethod
    def signed_in(cls, user_id: int, password_number: int) -> Session:
        """A new session of this user."""
        return cls(secrets.token_hex(20), user_id, password_number)


class Sessions:
    """Reads and writes the two cookies.

    Args:
        secret: What signs them.
    """

    def __init__(self, secret: str) -> None:
        self._sessions = _serializer(secret, "session")
        self._csrf = _serializer(secret, "csrf")

    def load(self, now: int) -> Session:
        """The session of the current request; a new one when it brings none that is good.

        It may bring another app's cookie of the same name, if that is mounted above this one.
        """
        for text in request.cookies.getlist(SESSION_COOKIE):
            try:
                made_at, *facts = self._sessions.loads(text)
            except BadData:
                continue
            if _is_good(made_at, now, SESSION_SECONDS):
                return Session(*facts)
        return Session.anonymous()

    def save(
        self, response: Response, session: Session, now: int, path: str, *, anew: bool
    ) -> None:
        """Put a CSRF token beside the answer.

        Args:
            response: The answer.
            session: Who was answered.
            now: Seconds since the epoch.
            path: Where the cookies are to be sent.
            anew: Whether the session lives for another twenty minutes: only one that is known not
                to have ended may.
        """
        csrf = self._csrf.dumps([now, session.id])
        shared: dict[str, Any] = {"path": path, "secure": request.is_secure, "samesite": "Lax"}
        if anew:
            made = self._sessions.dumps([now, session.id, session.user_id, session.password_number])
            response.set_cookie(
                SESSION_COOKIE, str(made), httponly=True, max_age=SESSION_SECONDS, **shared
            )
        response.set_cookie(CSRF_COOKIE, str(csrf), **shared)

    def check_csrf(self, session: Session, now: int) -> None:
        """Refuse a request that would change something unless a page of ours has sent it."""
        if request.method in _SAFE_METHODS:
            return
        if not (self._has_csrf(session, now) and _is_same_host()):
            raise Refused(401, "CSRF error")

    def _has_csrf(self, session: Session, now: int) -> bool:
        try:
            made_at, session_id = self._csrf.loads(request.headers.get(CSRF_HEADER, ""))
        except (BadData, TypeError, ValueError):
            return False
        return session_id == session.id and _is_good(made_at, now, CSRF_SECONDS)


def _serializer(secret: str, purpose: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret,
        salt=f"flowauth-rotator-{purpose}",
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
    )


def _is_good(made_at: int, now: int, seconds: int) -> bool:
    """Whether a text is young enough, or as near in the future: another server's clock made it."""
    return abs(now - made_at) <= seconds


def _is_same_host() -> bool:
    """Whether the Referer is of this host; asked over https only, where browsers always send it."""
    if not request.is_secure:
        return True
    try:
        referer, host = urlsplit(request.referrer or ""), urlsplit(f"//{request.host}")
        same = (referer.hostname, referer.port or 443) == (host.hostname, host.port or 443)
    except ValueError:
        return False
    return referer.scheme == "https" and same
