"""FlowAuth, or the bundled renewal server, by the sign-in of the token's owner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pyotp import TOTP

from flowauth_rotator.agent.http import LARGEST_BODY, CodeMissing, SignedOut
from flowauth_rotator.agent.issuer import HttpIssuer
from flowauth_rotator.core.errors import IssuerUnavailable, Misconfigured, Refused, RotatorError
from flowauth_rotator.core.succession import RenewalResponse, Row
from flowauth_rotator.core.text import quote
from flowauth_rotator.core.tokens import Claims, Token, shorten_name

logger = logging.getLogger(__name__)

LARGEST_LIST = 64 * 1024 * 1024  # 5,000 rows of FlowAuth are 14 MB
CODE_REFUSED = "Code not valid."  # FlowAuth's message, also for a code that was used before
CODE_PERIOD = 30  # seconds

T = TypeVar("T")


class SessionIssuer(HttpIssuer):
    """FlowAuth, or the bundled renewal server, by the sign-in of the token's owner.

    Args:
        url: as `HttpIssuer` describes it, as `timeout`, `verify` and `sleep`.
        username: the owner of the tokens.
        password: the owner's password.
        totp_secret: the base32 secret of the owner's two-factor codes (RFC 6238).
        clock: the time for the codes, in seconds since the epoch.

    Attributes:
        max_codes: the number of codes that a sign-in tries, 30 s apart.

    Raises:
        Misconfigured: the secret is not base32, or as `HttpIssuer` says.
    """

    max_codes = 10  # more than the rotations that run at once

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        *,
        totp_secret: str | None = None,
        clock: Callable[[], float] = time.time,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(url, **options)
        self.username = username
        self._password = password
        self._totp = _parse_totp(totp_secret) if totp_secret else None
        self._clock = clock
        self._clock_skew = 0.0  # seconds by which the issuer's clock is ahead
        self._signed_in = False
        self._http.secrets = (password,)

    def test_connection(self) -> str:
        """Sign in, and return a clause with the user and the audiences.

        Raises:
            Refused: the user holds no role on any server, or the issuer refuses the sign-in.
        """
        names = [str(row.get("server_name")) for row in self._get("/tokens/servers")]
        if not names:
            raise Refused(
                f"User {quote(self.username)} holds no role on any server of {self.url}.",
                issuer_message="",
                status=200,
                hint="Ask an administrator of the issuer to grant the user a role.",
            )
        return f"signed in as {quote(self.username)}, for {', '.join(sorted(names))}"

    def rows(self, claims: Claims) -> Sequence[Row]:
        """Return the user's history for the audience of `claims`.

        Raises:
            Misconfigured: the token belongs to another user.
            Refused: the user holds no role on that server.
        """
        if claims.subject not in (None, self.username):
            raise Misconfigured(
                f"The token belongs to user {quote(claims.subject)}, the sign-in to "
                f"{quote(self.username)}.",
                hint="Sign in as the owner of the token.",
            )
        servers = self._get("/tokens/servers")
        ids = [row.get("id") for row in servers if row.get("server_name") == claims.audience]
        if not ids:
            raise Refused(
                f"User {quote(self.username)} holds no role on server "
                f"{quote(claims.audience or '')} of {self.url}.",
                issuer_message="",
                status=200,
                hint="Check that the issuer has this server, and ask an administrator to grant "
                "the user a role on it.",
            )
        rows = self._get(f"/tokens/tokens/{ids[0]}", max_bytes=LARGEST_LIST)
        return self._parse_rows(rows, lambda row: _parse_row(row) if row["token"] else None)

    def issued(self) -> list[tuple[str, str, Token | datetime]]:
        """Return audience, name and token of every row on servers where the user holds a role.

        For a row whose token the issuer has deleted, the expiry stands in place of the token
        (FlowAuth deletes none).
        """
        issued: list[tuple[str, str, Token | datetime]] = []
        for server in self._get("/tokens/servers"):
            path = f"/tokens/tokens/{server.get('id')}?all=true"
            issued += self._parse_rows(self._get(path, max_bytes=LARGEST_LIST), _parse_issued)
        return issued

    def _parse_rows(
        self, rows: list[dict[str, Any]], parse: Callable[[dict[str, Any]], T | None]
    ) -> list[T]:
        try:
            return [parsed for row in rows if (parsed := parse(row)) is not None]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
        raise IssuerUnavailable(f"{self.url} returned a token history that cannot be parsed.")

    def renew(
        self,
        token: Token,
        row: Row | None,
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> RenewalResponse:
        """Renew the token's row.

        Raises:
            Refused: the history does not contain the token, or the issuer refuses the renewal.
        """
        if row is None:
            raise Refused(
                f"{self.url} has no renewable token matching this one for user "
                f"{quote(self.username)}.",
                issuer_message="",
                status=200,
                hint="Mint a new token there for this user and store it.",
            )
        self._http.secrets = (self._password, token.reveal())
        path = f"/tokens/tokens/{row.id}/renew"
        return self._with_session(
            lambda: self._request_renewal(path, key, lifetime_minutes, self._csrf())
        )

    def close(self) -> None:
        """Sign out, if signed in, and close the connections."""
        if self._signed_in:
            try:
                self._http.send("GET", "/signout")
            except RotatorError as error:
                logger.info("sign-out failed: %s", error)
            self._signed_in = False
        super().close()

    def _get(self, path: str, max_bytes: int = LARGEST_BODY) -> list[dict[str, Any]]:
        document = self._with_session(
            lambda: self._http.send("GET", path, max_bytes=max_bytes)
        ).document
        if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
            raise IssuerUnavailable(f"{self.url}{path} returned JSON that is not a list of rows.")
        return document

    def _with_session(self, request: Callable[[], T]) -> T:
        """Call `request` signed in; if the session has ended, sign in again, once."""
        if self._signed_in:
            try:
                return request()
            except SignedOut:
                self._signed_in = False
        self._sign_in()
        try:
            return request()
        except SignedOut as error:
            raise IssuerUnavailable(
                f"{error.message} The sign-in a moment before succeeded."
            ) from None

    def _sign_in(self) -> None:
        """Sign in, with a two-factor code that no other rotation has used.

        A code is valid once. If another rotation has used it, wait for the next one by the issuer's
        clock.
        """
        for number in range(1, self.max_codes + 1):
            if self._try_sign_in():
                self._signed_in = True
                return
            if self._http.responded_at:
                self._clock_skew = self._http.responded_at.timestamp() - self._clock()
            if number < self.max_codes:
                pause = CODE_PERIOD - (self._clock() + self._clock_skew) % CODE_PERIOD + 1
                logger.info("Waiting %.0f s for the next two-factor code.", pause)
                self._sleep(pause)
        raise Refused(
            f"{self.url} did not accept {self.max_codes} two-factor codes of "
            f"{quote(self.username)}.",
            issuer_message=CODE_REFUSED,
            status=401,
            hint="Correct `totp_secret`.",
        )

    def _try_sign_in(self) -> bool:
        """Whether the sign-in succeeds; False if its two-factor code was used or is wrong."""
        body = {"username": self.username, "password": self._password}
        if self._totp:
            body["two_factor_code"] = self._totp.at(int(self._clock() + self._clock_skew))
        try:
            self._http.send("POST", "/signin", body=body)
        except SignedOut:
            raise IssuerUnavailable(f"{self.url}/signin returned HTML instead of JSON.") from None
        except CodeMissing:
            raise Misconfigured(
                f"{self.url} requires a two-factor code for user {quote(self.username)}.",
                hint="Set `totp_secret` in the connection, or use an account without two-factor "
                "authentication.",
            ) from None
        except Refused as refusal:
            if self._totp and refusal.issuer_message == CODE_REFUSED:
                return False
            raise Refused(
                f"Sign-in of {quote(self.username)} failed: {refusal.message}",
                issuer_message=refusal.issuer_message,
                status=refusal.status,
                hint="Correct the login and password for the issuer.",
            ) from None
        return True

    def _csrf(self) -> dict[str, str]:
        """Return the headers that FlowAuth requires for changes; the Referer over https only."""
        return {"X-CSRF-Token": self._http.cookie("X-CSRF"), "Referer": f"{self.url}/"}


def _parse_totp(secret: str) -> TOTP:
    try:
        totp = TOTP("".join(secret.split()))
        totp.at(0)
    except ValueError:  # also binascii.Error, which may quote the secret
        pass
    else:
        return totp
    raise Misconfigured(
        "`totp_secret` is not a base32 text.",
        hint="Use the secret with which the account's authenticator was set up.",
    )


def _parse_row(row: dict[str, Any]) -> Row:
    return Row(
        id=int(row["id"]),
        name=shorten_name(str(row["name"])),
        owner=str(row["username"]),
        audience=str(row["server_name"]),
        roles=frozenset(str(role["name"]) for role in row["roles"]),
        token=Token(str(row["token"])),
    )


def _parse_issued(row: dict[str, Any]) -> tuple[str, str, Token | datetime]:
    audience, name = str(row["server_name"]), shorten_name(str(row["name"]))
    if row["token"]:
        return audience, name, Token(str(row["token"]))
    return audience, name, parsedate_to_datetime(str(row["expires"]))
