"""The interface of an issuer, and what both issuers have in common."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

import tenacity

from flowauth_rotator.agent.http import (
    ForeignRefusal,
    HttpClient,
    KeyExpired,
    SignedOut,
)
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    HistoryTimeout,
    IssuerUnavailable,
    Misconfigured,
    Refused,
    Throttled,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.limits import Limit, Outlook
from flowauth_rotator.core.succession import RenewalResponse, Row
from flowauth_rotator.core.text import quote
from flowauth_rotator.core.tokens import Claims, Token

logger = logging.getLogger(__name__)

ATTEMPTS = 3
LONGEST_LIFE = 100 * 366 * 24 * 60  # minutes; a longer lifetime limits nothing

T = TypeVar("T")


class Issuer(Protocol):
    """An issuer as a rotation uses it.

    Attributes:
        renewal_requests: the number of renewal requests since `reset`.
    """

    renewal_requests: int

    @property
    def responded_at(self) -> datetime | None:
        """The issuer's clock in its last response since `reset`, in aware UTC; None without one."""

    @property
    def responded_after(self) -> float:
        """Seconds from `reset` to that response."""

    def reset(self) -> None:
        """Forget requests and responses: a rotation begins."""

    def rows(self, claims: Claims) -> Sequence[Row]:
        """Return the issuer's history of the user and audience of `claims`, if it shows one."""

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> RenewalResponse:
        """Request a successor of `token`, whose row in the history is `row`, once."""

    def rehearse(self, token: Token, claims: Claims) -> Outlook:
        """Do all of a renewal of the token, except the request that mints one.

        Raises:
            RotatorError: the renewal would fail.
        """

    def retry(self, request: Callable[[], T]) -> T:
        """Call `request` a few times, with pauses, until it gets a response."""

    def close(self) -> None:
        """End the session and close the connections."""


class HttpIssuer:
    """An issuer at one address.

    Args:
        address: the issuer's address, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one exchange, from the connection to the end of the response.
        verify: whether certificates are verified, or the path of the certificates to trust.
        sleep: pauses for a number of seconds.

    Raises:
        Misconfigured: the address is invalid, or a setting is out of its range.
    """

    def __init__(
        self,
        address: str | Address,
        *,
        timeout: float = 30.0,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = HttpClient(address, timeout=timeout, verify=verify)
        self.url = self._http.url
        self.renewal_requests = 0
        self._sleep = sleep

    @property
    def responded_at(self) -> datetime | None:
        """The issuer's clock in its last response, to the second; None without one."""
        return self._http.responded_at

    @property
    def responded_after(self) -> float:
        """Seconds from the beginning of the rotation to that response."""
        return self._http.responded_after

    def reset(self) -> None:
        """Forget requests and responses: a rotation begins."""
        self.renewal_requests = 0
        self._http.reset()

    def retry(self, request: Callable[[], T]) -> T:
        """Call `request` up to 3 times: a response may be lost, a server may be restarting."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_retryable),
            wait=_pause,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self._sleep,
            before_sleep=_log_pause,
            reraise=True,
        )(request)

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
        self.renewal_requests += 1
        body = {} if lifetime_minutes is None else {"lifetime_minutes": lifetime_minutes}
        headers = {**headers, "Idempotency-Key": key}
        try:
            response = self._http.send("POST", path, body=body, headers=headers, renewing=True)
        except KeyExpired:
            return RenewalResponse(None, replayed=True)
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
        return RenewalResponse(Token(token), response.headers.get("Idempotent-Replayed") == "true")


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
    return Limit(holder, timedelta(minutes=minutes), latest - clock_offset if latest else None)


def parse_date(text: object) -> datetime | None:
    """Return a date of HTTP in aware UTC; None if it is not one."""
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(str(text)).astimezone(timezone.utc)
    return None


def _is_retryable(error: BaseException) -> bool:
    is_slow = isinstance(error, HistoryTimeout)  # Airflow's retry is soon enough
    return isinstance(error, IssuerUnavailable) and error.retryable and not is_slow


def _pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds to wait: as the issuer asked, but at least 1 to 2, then 2 to 3."""
    error = state.outcome.exception() if state.outcome else None
    backoff = tenacity.wait_exponential(max=Throttled.longest_pause) + tenacity.wait_random(0, 1)
    return max(backoff(state), getattr(error, "retry_after", 0.0))


def _log_pause(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Next attempt in %.0f s.", error, pause)
