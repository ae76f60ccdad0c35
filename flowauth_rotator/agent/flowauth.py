"""FlowAuth, or the bundled server, with the sign-in of the token's owner."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pyotp import TOTP

from flowauth_rotator.agent.http import LARGEST_ANSWER, CodeMissing, SignedOut
from flowauth_rotator.agent.issuer import HttpIssuer
from flowauth_rotator.core.errors import IssuerUnavailable, Misconfigured, Refused, RotatorError
from flowauth_rotator.core.succession import Renewal, Row
from flowauth_rotator.core.tokens import Claims, Token

logger = logging.getLogger(__name__)

LARGEST_LIST = 64 * 1024 * 1024  # 5,000 rows of FlowAuth are 14 MB
CODE_REFUSED = "Code not valid."  # FlowAuth's words, also for a code that was used before
CODE_SERVES = 30  # seconds

T = TypeVar("T")


class SessionIssuer(HttpIssuer):
    """FlowAuth, or the bundled server, with the sign-in of the token's owner.

    Args:
        url: see above; so are `timeout`, `verify` and `sleep`.
        username: the owner of the tokens.
        password: their password.
        totp_secret: the secret of their two-factor codes (RFC 6238), in base 32.
        clock: the time for these, in seconds since the epoch.

    Attributes:
        most_codes: how many of them a sign-in tries, 30 s apart.

    Raises:
        Misconfigured: the secret is none, or as above.
    """

    most_codes = 10  # more than there are rotations at once

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
        self._totp = _checked_totp(totp_secret) if totp_secret else None
        self._clock = clock
        self._ahead = 0.0  # seconds by which the issuer's clock is, as far as it has mattered
        self._signed_in = False
        self._wire.secrets = (password,)

    def introduce(self) -> str:
        """Sign in, and say as whom and for which audiences.

        Raises:
            Refused: the user holds no role at any audience, or any refusal of the issuer.
        """
        names = [str(row.get("server_name")) for row in self._get("/tokens/servers")]
        if not names:
            raise Refused(
                f"{self.url} shows user {self.username!r} no server.",
                words="",
                status=200,
                advice="Have a role granted to the user.",
            )
        return f"signed in as {self.username!r}, for {', '.join(sorted(names))}"

    def rows(self, claims: Claims) -> Sequence[Row]:
        """The user's history at the token's audience.

        Raises:
            Misconfigured: the token is another user's.
            Refused: the user holds no role at that audience.
        """
        if claims.subject not in (None, self.username):
            raise Misconfigured(
                f"The token belongs to user {claims.subject!r}, the sign-in to {self.username!r}.",
                advice="Sign in as the owner of the token.",
            )
        servers = self._get("/tokens/servers")
        ids = [row.get("id") for row in servers if row.get("server_name") == claims.audience]
        if not ids:
            raise Refused(
                f"{self.url} shows user {self.username!r} no server {claims.audience!r}.",
                words="",
                status=200,
                advice="Have a role of that server granted to the user.",
            )
        rows = self._get(f"/tokens/tokens/{ids[0]}", largest=LARGEST_LIST)
        return self._parsed(rows, lambda row: _row(row) if row["token"] else None)

    def issued(self) -> list[tuple[str, str, Token | datetime]]:
        """Audience, name and token of all that were issued where the user holds a role.

        Of a token whose text the issuer has dropped, its expiry (FlowAuth drops none).
        """
        found: list[tuple[str, str, Token | datetime]] = []
        for server in self._get("/tokens/servers"):
            path = f"/tokens/tokens/{server.get('id')}?all=true"
            found += self._parsed(self._get(path, largest=LARGEST_LIST), _issued)
        return found

    def _parsed(
        self, rows: list[dict[str, Any]], parse: Callable[[dict[str, Any]], T | None]
    ) -> list[T]:
        try:
            return [parsed for row in rows if (parsed := parse(row)) is not None]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
        raise IssuerUnavailable(f"{self.url} answered a history of another form.")

    def renew(
        self,
        token: Token,
        row: Row | None,
        *,
        key: str,
        lifetime_minutes: int | None,
    ) -> Renewal:
        """Renew the token's row.

        Raises:
            Refused: the history does not hold the token, or any refusal of the issuer.
        """
        if row is None:
            raise Refused(
                f"Among the tokens of user {self.username!r} that {self.url} can renew is not "
                "this one.",
                words="",
                status=200,
                advice="Mint a new token there for this user, and store it.",
            )
        self._wire.secrets = (self._password, token.reveal())
        path = f"/tokens/tokens/{row.id}/renew"
        return self._signed(lambda: self._renewal(path, key, lifetime_minutes, self._csrf()))

    def close(self) -> None:
        """Sign out, if signed in, and close the connections."""
        if self._signed_in:
            try:
                self._wire.send("GET", "/signout")
            except RotatorError as error:
                logger.info("sign-out failed: %s", error)
            self._signed_in = False
        super().close()

    def _get(self, path: str, largest: int = LARGEST_ANSWER) -> list[dict[str, Any]]:
        document = self._signed(lambda: self._wire.send("GET", path, largest=largest)).document
        if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
            raise IssuerUnavailable(
                f"{self.url}{path} answered something other than a list of rows."
            )
        return document

    def _signed(self, ask: Callable[[], T]) -> T:
        """Call `ask` signed in; if the session turns out to be lost, sign in again, once."""
        if self._signed_in:
            try:
                return ask()
            except SignedOut:
                self._signed_in = False
        self._sign_in()
        try:
            return ask()
        except SignedOut as error:
            raise IssuerUnavailable(f"{error.reason} It was signed in a moment ago.") from None

    def _sign_in(self) -> None:
        """Sign in, if there are codes then with one that nobody else has used.

        A code serves once, and another rotation may have used it: then the next is waited for, by
        the issuer's clock.
        """
        for number in range(1, self.most_codes + 1):
            if self._is_let_in():
                self._signed_in = True
                return
            if self._wire.answered_at:
                self._ahead = self._wire.answered_at.timestamp() - self._clock()
            if number < self.most_codes:
                pause = CODE_SERVES - (self._clock() + self._ahead) % CODE_SERVES + 1
                logger.info("Waiting %.0f s for the next two-factor code.", pause)
                self._sleep(pause)
        raise Refused(
            f"{self.url} did not accept {self.most_codes} two-factor codes of {self.username!r}.",
            words=CODE_REFUSED,
            status=401,
            advice="Correct `totp_secret`.",
        )

    def _is_let_in(self) -> bool:
        """Whether the credentials are taken; not if their code was used before, or is none."""
        body = {"username": self.username, "password": self._password}
        if self._totp:
            body["two_factor_code"] = self._totp.at(int(self._clock() + self._ahead))
        try:
            self._wire.send("POST", "/signin", body=body)
        except SignedOut:
            raise IssuerUnavailable(f"{self.url}/signin answered with a page.") from None
        except CodeMissing:
            raise Misconfigured(
                f"{self.url} asks {self.username!r} for a two-factor code.",
                advice="Give the connection the account's `totp_secret`, or let an account without "
                "two-factor authentication own the tokens.",
            ) from None
        except Refused as refusal:
            if self._totp and refusal.words == CODE_REFUSED:
                return False
            raise Refused(
                f"Sign-in of {self.username!r} failed: {refusal.reason}",
                words=refusal.words,
                status=refusal.status,
                advice="Correct the login and password for the issuer.",
            ) from None
        return True

    def _csrf(self) -> dict[str, str]:
        """What FlowAuth asks of a state-changing request; the Referer over https only."""
        return {"X-CSRF-Token": self._wire.cookie("X-CSRF"), "Referer": f"{self.url}/"}


def _checked_totp(secret: str) -> TOTP:
    try:
        totp = TOTP("".join(secret.split()))
        totp.at(0)
    except ValueError:  # binascii.Error is one; it may show the secret
        pass
    else:
        return totp
    raise Misconfigured(
        "`totp_secret` is no text in base 32.",
        advice="Give it the secret that the account's authenticator was set up with.",
    )


def _row(row: dict[str, Any]) -> Row:
    return Row(
        id=int(row["id"]),
        name=str(row["name"]),
        owner=str(row["username"]),
        audience=str(row["server_name"]),
        roles=frozenset(str(role["name"]) for role in row["roles"]),
        token=Token(str(row["token"])),
    )


def _issued(row: dict[str, Any]) -> tuple[str, str, Token | datetime]:
    if row["token"]:
        return str(row["server_name"]), str(row["name"]), Token(str(row["token"]))
    return str(row["server_name"]), str(row["name"]), parsedate_to_datetime(str(row["expires"]))
