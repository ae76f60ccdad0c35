"""The interface of an issuer, and what both issuers have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import wraps
from typing import Any, Protocol, TypeVar, cast

from flowauth_rotator.agent.http import (
    ForeignRefusal,
    HttpClient,
    KeyExpired,
    SignedOut,
)
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.clock import ClockReading
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    Misconfigured,
    Refused,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.limits import Limit, Outlook
from flowauth_rotator.core.succession import History, RenewalResponse, Row
from flowauth_rotator.core.text import quote
from flowauth_rotator.core.tokens import Claims, Token

LONGEST_LIFE = 100 * 366 * 24 * 60  # minutes; a longer lifetime limits nothing

F = TypeVar("F", bound=Callable[..., Any])


class Issuer(Protocol):
    """An issuer of tokens, as a rotation and a rehearsal use it.

    Implement it by a class with these methods; it need not inherit. An error that they raise is a
    `RotatorError`: `Refused` is final, `IssuerUnavailable` is followed by another attempt. Each
    result and each error may carry the issuer's clock, which is compared with ours; without it,
    ours is right.
    """

    def rows(self, claims: Claims) -> History:
        """Return the tokens of the user and audience of `claims`; `History()` if none are shown."""

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> RenewalResponse:
        """Request a successor of a token, once.

        Args:
            token: the token in use.
            row: its row in the history; None if that does not contain it.
            key: the same for each request for the same successor (an `Idempotency-Key`). An issuer
                that shows no history has to respond to it with the same token again.
            lifetime_minutes: the lifetime to request; None for the longest.

        Raises:
            AmbiguousResponse: the issuer may have minted a token.
            RotatorError: it has not.
        """

    def rehearse(self, token: Token, claims: Claims) -> Outlook:
        """Do all of a renewal of the token, except the request that mints one.

        `Outlook()` says that there is nothing to check.

        Raises:
            RotatorError: the renewal would fail.
        """

    def close(self) -> None:
        """End the session and close the connections."""


class HttpIssuer:
    """An issuer at one address.

    Args:
        address: the issuer's address, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one exchange, from the connection to the end of the response.
        verify: whether certificates are verified, or the path of the certificates to trust.

    Raises:
        Misconfigured: the address is invalid, or a setting is out of its range.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        timeout: float = 30.0,
        verify: bool | str = True,
    ) -> None:
        self._http = HttpClient(address, timeout=timeout, verify=verify)
        self.url = self._http.url
        self._renewal_requests = 0

    @property
    def clock(self) -> ClockReading | None:
        """The issuer's clock in its last response, to the second; None without one."""
        return self._http.clock

    @wrap_unexpected_errors
    def version(self) -> str:
        """Return the version of the issuer, the cheapest request that needs no sign-in.

        Raises:
            Misconfigured: the address is not that of an issuer.
        """
        try:
            document = self._http.send("GET", "/version").document
        except (SignedOut, ForeignRefusal):
            document = None
        version = document.get("version") if isinstance(document, dict) else None
        if not isinstance(version, str):
            raise Misconfigured(
                f"{self.url} did not return a version: is this a FlowAuth address?",
                hint=f"Set {self._http.address.setting} to the issuer's address, including its "
                "path, if it has one.",
            )
        return self._http.show(version)[:40]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _request_renewal(
        self, path: str, key: str, lifetime_minutes: int | None, headers: dict[str, str]
    ) -> RenewalResponse:
        self._renewal_requests += 1
        body = {} if lifetime_minutes is None else {"lifetime_minutes": lifetime_minutes}
        headers = {**headers, "Idempotency-Key": key}
        try:
            response = self._http.send("POST", path, body=body, headers=headers, renewing=True)
        except KeyExpired:
            return RenewalResponse(None, True, self._renewal_requests)
        except Refused as refusal:
            if refusal.bad_field == "lifetime_minutes" and lifetime_minutes:
                refusal.hint = (
                    f"`lifetime_minutes` is {lifetime_minutes}, and FlowAuth refuses its maximum, "
                    "too: set it to the maximum less one minute, or leave it out for the maximum."
                )
            raise
        document = response.document
        token = document.get("token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not token:
            raise AmbiguousResponse(f"{self.url} responded to a renewal without a token.")
        replayed = response.headers.get("Idempotent-Replayed") == "true"
        return RenewalResponse(Token(token), replayed, self._renewal_requests)


def add_clock_reading(method: F) -> F:
    """Add the issuer's clock to what a method of `HttpIssuer` returns or raises.

    An error also gets the number of renewal requests that were sent before it.
    """

    @wraps(method)
    def call(self: HttpIssuer, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - of the method
        self._http.clock, self._renewal_requests = None, 0
        try:
            result = method(self, *args, **kwargs)
        except BaseException as error:
            vars(error).update(clock=self.clock, renewal_requests=self._renewal_requests)
            raise
        return replace(result, clock=self.clock)

    return cast("F", call)


def parse_limit(
    noun: str, document: object, show: Callable[[str], str], clock_offset: timedelta = timedelta(0)
) -> Limit | None:
    """Return the limit of a role or a server; None if it cannot be read.

    Args:
        noun: what has it: `role`.
        document: the role or the server as JSON.
        show: makes a name safe to show.
        clock_offset: the time by which the issuer's dates are later than those of its JWTs.
    """
    fields = document if isinstance(document, dict) else {}
    minutes, latest = (
        fields.get("longest_token_life_minutes"),
        parse_date(fields.get("latest_token_expiry")),
    )
    if type(minutes) is not int or not 0 <= minutes <= LONGEST_LIFE:
        return None
    holder = f"{noun} {quote(show(str(fields.get('name'))))}"
    if latest:
        try:
            latest -= clock_offset
        except OverflowError:  # at the end of the year 9999, which limits nothing
            latest = None
    return Limit(holder, timedelta(minutes=minutes), latest)


def parse_date(text: object) -> datetime | None:
    """Return a date of HTTP in aware UTC; None if it is not one."""
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(str(text)).astimezone(timezone.utc)
    return None
