"""FlowAuth, or the bundled renewal server, by the sign-in of the token's owner."""

from __future__ import annotations

import logging
import re
import time
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from pyotp import TOTP

from flowauth_rotator.agent.http import (
    LARGEST_BODY,
    LONGEST_TIMEOUT,
    CodeMissing,
    CsrfRefused,
    ForeignRefusal,
    NoSuchPage,
    SignedOut,
)
from flowauth_rotator.agent.issuer import (
    HttpIssuer,
    add_clock_reading,
    parse_date,
    parse_limit,
)
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import (
    HistoryTimeout,
    IssuerUnavailable,
    Misconfigured,
    RefusalReason,
    Refused,
    RotatorError,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.limits import Limit, Outlook
from flowauth_rotator.core.succession import (
    History,
    RenewalResponse,
    Row,
    find_current_row,
    find_successors,
)
from flowauth_rotator.core.text import describe_character, format_count, quote
from flowauth_rotator.core.tokens import Claims, Token, shorten_name

logger = logging.getLogger(__name__)

LARGEST_LIST = 64 * 1024 * 1024  # 5,000 rows of FlowAuth are 14 MB
HISTORY_FACTOR = 4  # FlowAuth takes up to 48 s for 5,000 rows
OLD_FLOWAUTH = (
    "This FlowAuth may be too old to renew tokens (FlowKit pull request 7279): update it, or "
    "check that a proxy passes on paths that end in /renew."
)
CODE_PERIOD = 30  # seconds
SHORTEST_SECRET = 16  # characters of base32, which are 80 bits (RFC 4226 asks for 128)

T = TypeVar("T")


class SessionIssuer(HttpIssuer):
    """FlowAuth, or the bundled renewal server, by the sign-in of the token's owner.

    Args:
        address: as `HttpIssuer` describes it, as `timeout` and `verify`. The history may take four
            times the timeout.
        username: the owner of the tokens.
        password: the owner's password.
        totp_secret: the base32 secret of the owner's two-factor codes (RFC 6238).
        clock: the time for the codes, in seconds since the epoch.
        sleep: waits for the next code, for a number of seconds.

    Attributes:
        max_codes: the number of codes that a sign-in tries, 30 s apart.

    Raises:
        Misconfigured: the secret is invalid, or as `HttpIssuer` says.
    """

    max_codes = 10  # more than the rotations that run at once

    @wrap_unexpected_errors
    def __init__(
        self,
        address: str | Address,
        username: str,
        password: str,
        *,
        totp_secret: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(address, **options)
        self.username = username
        self._password = password
        self._totp = _parse_totp(totp_secret) if totp_secret else None
        self._clock = clock
        self._sleep = sleep
        self._clock_skew = 0.0  # seconds by which the issuer's clock is ahead
        self._signed_in = False
        self._server_id: object = None
        self._http.secrets = (password, totp_secret or "")

    @wrap_unexpected_errors
    def test_connection(self) -> str:
        """Sign in, check that a renewal would pass, and return a clause with user and audiences.

        Raises:
            Refused: the user holds no role on any server, or the issuer refuses the sign-in.
            Misconfigured: FlowAuth sees another address than this one, or does not renew tokens.
        """
        servers = self._list_servers()
        if not servers:
            raise Refused(
                f"User {quote(self.username)} holds no role on any server of {self.url}.",
                issuer_message="",
                status=200,
                hint="Ask an administrator of the issuer to grant the user a role.",
            )
        self._check_csrf()
        return f"signed in as {quote(self.username)}, for {self._join_names(servers)}"

    @add_clock_reading
    def rows(self, claims: Claims) -> History:
        """Return the user's history for the audience of `claims`.

        Raises:
            Misconfigured: the token belongs to another user.
            Refused: the user holds no role on that server.
        """
        if claims.subject not in (None, self.username):
            raise Misconfigured(
                f"The token belongs to user {quote(claims.subject)}, the sign-in to "
                f"{quote(self.username)}.",
                hint="Set `login` and `password` to those of the token's owner.",
            )
        servers = self._list_servers()
        if claims.audience not in servers:
            raise Refused(
                f"User {quote(self.username)} holds no role on server "
                f"{quote(claims.audience or '')} of {self.url}, or there is no such server.",
                issuer_message="",
                status=200,
                hint=f"The servers of the user are {self._join_names(servers) or 'none'}: ask an "
                "administrator of the issuer to grant a role on that server, or check that the "
                "address is the one of the token's issuer.",
            )
        self._server_id = servers[claims.audience]
        rows = self._get_history(f"/tokens/tokens/{self._server_id}")
        return History(
            self._parse_rows(rows, lambda row: _parse_row(row) if row["token"] else None)
        )

    @wrap_unexpected_errors
    def issued(self) -> list[tuple[str, str, Token | datetime]]:
        """Return audience, name and token of every row on servers where the user holds a role.

        For a row whose token the issuer has deleted, the expiry stands in place of the token
        (FlowAuth deletes none).
        """
        issued: list[tuple[str, str, Token | datetime]] = []
        for server in self._list_servers().values():
            path = f"/tokens/tokens/{server}?all=true"
            issued += self._parse_rows(self._get_history(path), _parse_issued)
        return issued

    def _parse_rows(
        self, rows: list[dict[str, Any]], parse: Callable[[dict[str, Any]], T | None]
    ) -> list[T]:
        try:
            return [parsed for row in rows if (parsed := parse(row)) is not None]
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
        raise IssuerUnavailable(f"{self.url} returned a token history that cannot be parsed.")

    @add_clock_reading
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
        row = self._check_row(row)
        self._http.token = token.reveal()
        path = f"/tokens/tokens/{row.id}/renew"
        try:
            return self._with_session(
                lambda: self._request_renewal(path, key, lifetime_minutes, self._csrf())
            )
        except NoSuchPage as refusal:
            refusal.hint = f"The row of the token was listed a moment ago. {OLD_FLOWAUTH}"
            raise
        except Refused as refusal:
            if refusal.bad_field == "lifetime_minutes":
                refusal.hint += self._describe_limits(row)
            raise

    @add_clock_reading
    def rehearse(self, token: Token, claims: Claims) -> Outlook:
        """Do all of a renewal of the token, except the request that mints one.

        FlowAuth does not show which roles the user holds: only that there is one at least.

        Raises:
            RotatorError: the renewal would fail.
        """
        self._http.token = token.reveal()
        rows = self.rows(claims).rows
        row = self._check_row(find_current_row(claims, rows))
        if lost := claims.roles - row.roles:
            raise Refused(
                f"Roles of this token no longer exist at {self.url}: "
                f"{', '.join(map(quote, sorted(lost)))}.",
                issuer_message="",
                status=200,
                hint="Ask an administrator of the issuer to restore them, or mint a new token "
                "without them and store it.",
            )
        self._check_csrf()
        newer = [each.claims.expires_at for each in find_successors(claims, rows) if each.claims]
        return Outlook(row.name, self._read_limits(row), max(newer, default=None))

    def _check_row(self, row: Row | None) -> Row:
        """Return the row of the token in use.

        Raises:
            Refused: the history has no such row.
        """
        if row:
            return row
        raise Refused(
            f"{self.url} has no renewable token matching this one for user {quote(self.username)}.",
            issuer_message="",
            status=200,
            hint="Mint a new token there for this user and store it.",
        )

    def _read_limits(self, row: Row) -> list[Limit]:
        """Return the limits of the row's roles, as far as the issuer shows them."""
        try:
            roles = self._get(f"/user/roles/server/{self._server_id}")
        except RotatorError as error:
            logger.info("The limits of the roles cannot be read: %s", error)
            return []
        limits = (
            parse_limit("role", role, self._http.show, row.clock_offset)
            for role in roles
            if role.get("name") in row.roles
        )
        return [limit for limit in limits if limit]

    def _describe_limits(self, row: Row) -> str:
        """Return a sentence with the shortest maximum among the row's roles, if it can be read."""
        limits = self._read_limits(row)
        if not limits:
            return ""
        strictest = min(limits, key=lambda limit: limit.longest)
        minutes = strictest.longest // timedelta(minutes=1)
        return f" The {strictest.holder} has a maximum of {minutes} minutes."

    @wrap_unexpected_errors
    def close(self) -> None:
        """Sign out, if signed in, and close the connections."""
        if self._signed_in:
            try:
                self._http.send("GET", "/signout")
            except RotatorError as error:
                logger.info("sign-out failed: %s", error)
            self._signed_in = False
        super().close()

    def _list_servers(self) -> dict[str, object]:
        """Return the ids of the servers where the user holds a role, by name."""
        rows = self._get("/tokens/servers")
        return {str(row.get("server_name")): row.get("id") for row in rows}

    def _join_names(self, servers: Iterable[str]) -> str:
        return ", ".join(self._http.show(name) for name in sorted(servers))

    def _check_csrf(self) -> None:
        """Renew a row that cannot exist: FlowAuth checks CSRF before it looks for the row."""
        path = "/tokens/tokens/0/renew"
        try:
            self._with_session(lambda: self._http.send("POST", path, body={}, headers=self._csrf()))
        except Refused as refusal:
            if refusal.status != 404:
                raise
        self._check_endpoint(path)

    def _check_endpoint(self, path: str) -> None:
        """Check that there is an endpoint to POST to.

        FlowAuth responds to a GET of it with 405, and to one of any other path with 404. A proxy or
        a page for all paths may respond in another way, which tells nothing.
        """
        try:
            self._http.send("GET", path)
        except RotatorError as error:
            if isinstance(error, Refused) and error.status == 404:
                raise Misconfigured(
                    f"{self.url} has no endpoint to renew tokens.", hint=OLD_FLOWAUTH
                ) from None

    def _get_history(self, path: str) -> list[dict[str, Any]]:
        """Return the rows of a history, which takes FlowAuth the longer, the more there are."""
        timeout = min(HISTORY_FACTOR * self._http.timeout, LONGEST_TIMEOUT)
        try:
            return self._get(path, max_bytes=LARGEST_LIST, timeout=timeout)
        except IssuerUnavailable as error:
            if not error.is_late:
                raise
            message = error.message
        raise HistoryTimeout(
            f"The history of user {quote(self.username)} is long and did not arrive in time. "
            f"{message}",
            hint=f"Raise `timeout`: the history may take {HISTORY_FACTOR} times as long, now "
            f"{timeout:g} s. Raise the timeout of a proxy in between, too.",
        )

    def _get(
        self, path: str, max_bytes: int = LARGEST_BODY, timeout: float | None = None
    ) -> list[dict[str, Any]]:
        document = self._with_session(
            lambda: self._http.send("GET", path, max_bytes=max_bytes, timeout=timeout)
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
        except CsrfRefused as error:
            raise Misconfigured(
                f"{error.message} The sign-in a moment before succeeded: FlowAuth sees another "
                "scheme or host than this address has.",
                hint=f"Set {self._http.address.setting} to the scheme and host that FlowAuth sees. "
                "A proxy in front of FlowAuth must pass the header Host on, and set "
                "X-Forwarded-Proto to the scheme of this address.",
            ) from None
        except SignedOut as error:
            raise IssuerUnavailable(
                f"{error.message} The sign-in a moment before succeeded.",
                hint="The request is retried; if the error persists, check that a proxy passes "
                "cookies on, and that all servers of the issuer have the same secret key.",
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
            if self._http.clock:
                self._clock_skew = self._http.clock.time.timestamp() - self._clock()
            if number < self.max_codes:
                pause = CODE_PERIOD - (self._clock() + self._clock_skew) % CODE_PERIOD + 1
                logger.info("Waiting %.0f s for the next two-factor code.", pause)
                self._sleep(pause)
        raise Refused(
            f"{self.url} did not accept {self.max_codes} two-factor codes of "
            f"{quote(self.username)}.",
            issuer_message=RefusalReason.CODE.value,
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
            raise IssuerUnavailable(
                f"{self.url}/signin responded with 401, and not in JSON.",
                hint="The request is retried; if the error persists, check whether a proxy in "
                "front of the issuer requires credentials of its own.",
            ) from None
        except CodeMissing:
            raise Misconfigured(
                f"{self.url} requires a two-factor code for user {quote(self.username)}.",
                hint="Set `totp_secret`, or use an account without two-factor authentication.",
            ) from None
        except Refused as refusal:
            if self._totp and refusal.reason is RefusalReason.CODE:
                return False
            if refusal.status not in (400, 401) or isinstance(refusal, ForeignRefusal):
                raise Misconfigured(
                    f"{self.url}/signin responded with {refusal.status}, and not as FlowAuth does.",
                    hint=f"Check host, port and path in {self._http.address.setting}: another "
                    "service or a proxy may have responded.",
                ) from None
            raise Refused(
                f"Sign-in of {quote(self.username)} failed: {refusal.message}",
                issuer_message=refusal.issuer_message,
                status=refusal.status,
                hint="Correct `login` and `password`.",
            ) from None
        return True

    def _csrf(self) -> dict[str, str]:
        """Return the headers that FlowAuth requires for changes; the Referer over https only."""
        return {"X-CSRF-Token": self._http.cookie("X-CSRF"), "Referer": f"{self.url}/"}


class _Totp(TOTP):
    """Codes also of secrets of 80 bits, which were usual; new versions of pyotp refuse them."""

    min_secret_length_bits = 80


def _parse_totp(secret: str) -> TOTP:
    """Parse a base32 secret, which may be in groups.

    A wrong secret costs a sign-in with each code, and these may lock the account: what cannot be a
    secret is refused here.
    """
    text = "".join(
        character
        for character in secret
        if not (character.isspace() or unicodedata.category(character) == "Pd")
    ).rstrip("=")
    problem = _find_fault(text)
    if not problem:
        with suppress(Exception):  # its text may quote the secret
            totp = _Totp(text)
            totp.at(0)
            return totp
        problem = f"has {format_count(len(text), 'character')}, and is incomplete"
    is_uri = text.lower().startswith("otpauth:")
    raise Misconfigured(
        f"`totp_secret` {problem}.",
        hint="Use only the value of `secret=`."
        if is_uri
        else "Use the secret with which the account's authenticator was set up.",
    )


def _find_fault(text: str) -> str:
    """Return why a text cannot be a base32 secret, without a character that may be of one."""
    if text.lower().startswith("otpauth:"):
        return "is the whole otpauth:// address"
    if unfit := re.search("[^A-Za-z2-7]", text):
        character = unfit[0]
        kind = "a sign"
        if character.isascii() and character.isdigit():
            kind = "a digit other than 2 to 7"
        elif character.isalnum():
            kind = "a letter or digit that is not ASCII"
        elif not character.isprintable():
            kind = describe_character(character)
        return f"is not a base32 text: it contains {kind}"
    if len(text) < SHORTEST_SECRET:
        count = format_count(len(text), "character")
        return f"has {count}; at least {SHORTEST_SECRET} are needed"
    return ""


def _parse_row(row: dict[str, Any]) -> Row:
    return Row(
        id=int(row["id"]),
        name=shorten_name(str(row["name"])),
        owner=str(row["username"]),
        audience=str(row["server_name"]),
        roles=frozenset(str(role["name"]) for role in row["roles"]),
        token=Token(str(row["token"])),
        listed_expiry=parse_date(row.get("expires")),
    )


def _parse_issued(row: dict[str, Any]) -> tuple[str, str, Token | datetime]:
    audience, name = str(row["server_name"]), shorten_name(str(row["name"]))
    if row["token"]:
        return audience, name, Token(str(row["token"]))
    return audience, name, parsedate_to_datetime(str(row["expires"]))
