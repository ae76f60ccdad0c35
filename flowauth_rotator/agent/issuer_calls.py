"""The calls of a rotation to an issuer: their repetition, their number, and the issuer's clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import tenacity

from flowauth_rotator.core.errors import HistoryTimeout, IssuerUnavailable, Throttled

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.core.clock import ClockReading
    from flowauth_rotator.core.limits import Outlook
    from flowauth_rotator.core.succession import RenewalResponse, Row
    from flowauth_rotator.core.tokens import Claims, Token

logger = logging.getLogger(__name__)

ATTEMPTS = 3

T = TypeVar("T")


class Timer(Protocol):
    """Measures time and pauses, as the module `time` does."""

    def monotonic(self) -> float:
        """Return seconds since any moment, on the clock of `ClockReading.read_at`."""

    def sleep(self, seconds: float, /) -> None:
        """Pause."""


@dataclass
class IssuerCalls:
    """The calls of one rotation, or of one rehearsal, to its issuer.

    Attributes:
        issuer: the issuer.
        timer: measures the time from now on, and pauses between attempts.
        renewal_requests: the number of renewal requests so far.
        clock: the issuer's clock in its last response; None without one.
        began: the timer's seconds at the beginning.
    """

    issuer: Issuer
    timer: Timer = time
    renewal_requests: int = 0
    clock: ClockReading | None = None

    def __post_init__(self) -> None:
        self.began = self.timer.monotonic()

    def rows(self, claims: Claims) -> Sequence[Row]:
        """Return the rows of the issuer's history."""
        return self._note(lambda: self.issuer.rows(claims)).rows

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> RenewalResponse:
        """Request a successor, once."""
        return self._note(
            lambda: self.issuer.renew(token, row, key=key, lifetime_minutes=lifetime_minutes),
            renewal_requests=1,
        )

    def rehearse(self, token: Token, claims: Claims) -> Outlook:
        """Rehearse the renewal, up to 3 times."""
        return self.retry(lambda: self._note(lambda: self.issuer.rehearse(token, claims)))

    def retry(self, request: Callable[[], T]) -> T:
        """Call `request` up to 3 times: a response may be lost, a server may be restarting."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_retryable),
            wait=_pause,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            sleep=self.timer.sleep,
            before_sleep=_log_pause,
            reraise=True,
        )(request)

    def _note(self, call: Callable[[], T], *, renewal_requests: int = 0) -> T:
        """Call the issuer once, and note clock and requests of its result or its error."""
        source: object = None
        try:
            source = result = call()
        except BaseException as error:
            source = error
            raise
        finally:
            self.clock = getattr(source, "clock", None) or self.clock
            sent = getattr(source, "renewal_requests", None)
            self.renewal_requests += renewal_requests if sent is None else sent
        return result


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
