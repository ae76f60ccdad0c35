"""Who is speaking: the session cookie and the CSRF token, as FlowAuth's clients know them.

The only module that reads or writes cookies. Both are signed and timed with the request's own
`now`, so that the clock is read once a request and tests can move it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, request, session
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer

from flowauth_rotator.server.accounts import Refused, User

Clock = Callable[[], int]

CSRF_COOKIE = "X-CSRF"
CSRF_HEADER = "X-CSRF-Token"
CSRF_SECONDS = 3600
SESSION_SECONDS = 20 * 60
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_NOW = "flowauth_rotator.now"
_USER = "user_id"
_NONCE = "csrf"


class RequestClock:
    """A clock that stands still during a request: read at its first use, then handed on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self) -> int:
        """Seconds since the epoch at which this request came in."""
        if _NOW not in request.environ:
            request.environ[_NOW] = self._clock()
        now: int = request.environ[_NOW]
        return now


class CookieSessions(SecureCookieSessionInterface):
    """Flask's signed session cookie, timed by the server's clock and Secure over https."""

    digest_method = staticmethod(hashlib.sha256)

    def __init__(self, now: Clock) -> None:
        self._now = now

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's signature
        """Whether this request came over https."""
        return request.is_secure

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """Flask's serializer with the request's `now` in place of the wall clock."""
        serializer = super().get_signing_serializer(app)
        if serializer is not None:
            serializer.signer = _signer_at(self._now())
        return serializer


def start_session(user: User) -> None:
    """Sign a user in; nothing of an earlier session survives."""
    session.clear()
    session.permanent = True
    session[_USER] = user.id


def end_session() -> None:
    """Sign the user out."""
    session.clear()


def session_user_id() -> int | None:
    """The id of the user who has signed in, or None."""
    return session.get(_USER)


def issue_csrf(response: Response, now: int) -> None:
    """Put a fresh CSRF token, bound to this session, beside the answer."""
    nonce = session.setdefault(_NONCE, secrets.token_hex(20))
    session.permanent = True
    response.set_cookie(
        CSRF_COOKIE, _csrf_serializer(now).dumps(nonce), secure=request.is_secure, samesite="Lax"
    )


def check_csrf(now: int) -> None:
    """Refuse a request that would change something unless a page of ours has sent it."""
    if request.method in _SAFE_METHODS:
        return
    nonce = session.get(_NONCE, "")
    if not (nonce and hmac.compare_digest(nonce, _presented_nonce(now)) and _is_same_host()):
        raise Refused(401, "CSRF error")


def _presented_nonce(now: int) -> str:
    try:
        token = request.headers.get(CSRF_HEADER, "")
        return str(_csrf_serializer(now).loads(token, max_age=CSRF_SECONDS))
    except BadSignature:
        return ""


def _is_same_host() -> bool:
    """Whether the Referer is of this host; asked over https only, where browsers always send it."""
    if not request.is_secure:
        return True
    try:
        referer = urlsplit(request.referrer or "")
    except ValueError:
        return False
    return (referer.scheme, referer.netloc) == ("https", request.host)


def _csrf_serializer(now: int) -> URLSafeTimedSerializer:
    secret = current_app.secret_key
    if secret is None:
        raise RuntimeError("The Flask app needs a secret_key.")
    return URLSafeTimedSerializer(
        secret,
        salt="flowauth-rotator-csrf",
        signer=_signer_at(now),
        signer_kwargs={"digest_method": hashlib.sha256},
    )


def _signer_at(now: int) -> type[TimestampSigner]:
    class SignerAt(TimestampSigner):
        def get_timestamp(self) -> int:
            return now

    return SignerAt
