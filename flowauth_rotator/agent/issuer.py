"""What a rotation asks of an issuer, and what both issuers have in common."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

import tenacity

from flowauth_rotator.agent.http import (
    KeyExpired,
    NoSuchPage,
    SignedOut,
    Wire,
)
from flowauth_rotator.core.errors import (
    AmbiguousAnswer,
    IssuerUnavailable,
    Misconfigured,
    Throttled,
)
from flowauth_rotator.core.succession import Renewal, Row
from flowauth_rotator.core.tokens import Claims, Token

logger = logging.getLogger(__name__)

ATTEMPTS = 3

T = TypeVar("T")


class Issuer(Protocol):
    """What a rotation asks of an issuer.

    Attributes:
        renewal_requests: how many renewals were asked for since `begin`.
    """

    renewal_requests: int

    @property
    def answered_at(self) -> datetime | None:
        """The issuer's clock in its last answer since `begin`, in aware UTC; None without one."""

    @property
    def answered_after(self) -> float:
        """Seconds from `begin` to that answer."""

    def begin(self) -> None:
        """A rotation begins: nothing was asked or answered yet."""

    def rows(self, claims: Claims) -> Sequence[Row]:
        """The issuer's history for the user and audience of `claims`; empty if it shows none."""

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> Renewal:
        """Ask once for a successor of `token`, whose row in the history is `row`."""

    def retry(self, ask: Callable[[], T]) -> T:
        """Call `ask` until it gets an answer, a few times, with pauses."""

    def close(self) -> None:
        """Leave nothing open at the issuer."""


class HttpIssuer:
    """One issuer at one address.

    Args:
        url: where the issuer answers, `http[s]://host[:port][/prefix]`.
        timeout: seconds for one request, and for all of its body.
        verify: whether certificates are verified, or the path of the certificates to trust.
        sleep: pauses, in seconds.

    Raises:
        Misconfigured: the address is none, or a setting is out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wire = Wire(url, timeout=timeout, verify=verify)
        self.url = self._wire.url
        self.renewal_requests = 0
        self._sleep = sleep

    @property
    def answered_at(self) -> datetime | None:
        """The issuer's clock in its last answer, to the second; None without one."""
        return self._wire.answered_at

    @property
    def answered_after(self) -> float:
        """Seconds from the beginning of the rotation to that answer."""
        return self._wire.answered_after

    def begin(self) -> None:
        """A rotation begins: nothing was asked or answered yet."""
        self.renewal_requests = 0
        self._wire.begin()

    def retry(self, ask: Callable[[], T]) -> T:
        """Call `ask` up to 3 times: an answer may be lost, a server may be restarting."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_worth_waiting_for),
            wait=_pause,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self._sleep,
            before_sleep=_log_pause,
            reraise=True,
        )(ask)

    def version(self) -> str:
        """What the issuer says its version is: the least that one can ask it.

        Raises:
            Misconfigured: nobody answers there who knows of versions.
        """
        try:
            document = self._wire.send("GET", "/version").document
        except (SignedOut, NoSuchPage):
            document = None
        version = document.get("version") if isinstance(document, dict) else None
        if not isinstance(version, str):
            raise Misconfigured(
                f"{self.url} tells no version: it is no issuer of tokens.",
                advice="Set host to the issuer's address, with the path that it has, if any.",
            )
        return version[:40]

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def _renewal(
        self, path: str, key: str, lifetime_minutes: int | None, headers: dict[str, str]
    ) -> Renewal:
        self.renewal_requests += 1
        body = {} if lifetime_minutes is None else {"lifetime_minutes": lifetime_minutes}
        headers = {**headers, "Idempotency-Key": key}
        try:
            answer = self._wire.send("POST", path, body=body, headers=headers, renewing=True)
        except KeyExpired:
            return Renewal(None, replayed=True)
        token = answer.document.get("token") if isinstance(answer.document, dict) else None
        if not isinstance(token, str) or not token:
            raise AmbiguousAnswer(f"{self.url} answered a renewal without a token.")
        return Renewal(Token(token), answer.headers.get("Idempotent-Replayed") == "true")


def _worth_waiting_for(error: BaseException) -> bool:
    return isinstance(error, IssuerUnavailable) and error.retryable


def _pause(state: tenacity.RetryCallState) -> float:
    """Seconds to wait: what the issuer asked for, and never less than 1 to 2, then 2 to 3."""
    error = state.outcome.exception() if state.outcome else None
    backoff = tenacity.wait_exponential(max=Throttled.longest_pause) + tenacity.wait_random(0, 1)
    return max(backoff(state), getattr(error, "retry_after", 0.0))


def _log_pause(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Next attempt in %.0f s.", error, pause)
