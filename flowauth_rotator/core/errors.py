"""Everything that can go wrong in a rotation.

```
RotatorError
├── Misconfigured             a setting is wrong
├── TokenError                the token in use is at fault
│   ├── MissingToken          there is none
│   ├── MalformedToken        it is no JWT that could be kept alive
│   └── ExpiredToken          it has expired and the issuer renews it no more
├── StoreError                the place that holds the token is at fault
│   ├── ShadowedStore         a write would be invisible to those who read
│   ├── ConflictingWrite      somebody else's value stands there now
│   └── StoreUnavailable      it did not answer, or did not take the write (retryable)
└── IssuerError               the issuer is at fault
    ├── Refused               it said no, in its own words
    ├── Capped                what it grants is not worth having
    ├── Rejected              what it answered failed verification
    ├── BudgetExhausted       it has minted too often already
    └── IssuerUnavailable     no usable answer (retryable)
        ├── Throttled         it asked for patience, and said how long
        └── AmbiguousAnswer   it may have acted: look before asking again
```

No message, attribute, cause or context of these carries a token or a part of one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from flowauth_rotator.core.report import Outcome, Report, Severity

if TYPE_CHECKING:
    from datetime import datetime


class RotatorError(Exception):
    """A rotation ended without a swap.

    Attributes:
        outcome: the word for it in reports and metrics.
        retryable: whether the same attempt may succeed a little later.
        advice: what a person can do, in one sentence.
        severity: critical, unless the rotation found that there is time left.
        about: what was known of the token by then.
    """

    outcome: ClassVar[Outcome]
    retryable: bool = False
    advice: str = ""
    severity: Severity = Severity.CRITICAL
    about: Report | None = None

    def __init__(self, reason: str, *, advice: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        return f"{self.reason} {self.advice}".rstrip()

    def report(self, *, name: str, place: str, checked_at: datetime) -> Report:
        """The same as a report, with what was known of the token."""
        known = self.about or Report(name, place, self.outcome, self.reason, checked_at)
        return replace(
            known,
            outcome=self.outcome,
            reason=self.reason,
            severity=self.severity,
            advice=self.advice,
        )


class Misconfigured(RotatorError):
    """A setting is wrong; the reason names it."""

    outcome = Outcome.MISCONFIGURED


class TokenError(RotatorError):
    """The token in use is at fault."""


class MissingToken(TokenError):
    """There is no token where one is kept."""

    outcome = Outcome.MISSING
    advice = "Store a FlowAPI token there; it is kept alive from then on."


class MalformedToken(TokenError):
    """The text is no JWT that could be kept alive; the reason says why and shows none of it."""

    outcome = Outcome.MALFORMED
    advice = "Store the bare JWT, exactly as the issuer printed it."


class ExpiredToken(TokenError):
    """The token has expired, and the issuer renews it no more."""

    outcome = Outcome.EXPIRED
    advice = "Mint a new token at the issuer and store it."


class StoreError(RotatorError):
    """The place that holds the token is at fault."""


class ShadowedStore(StoreError):
    """A write would be invisible to those who read; the reason names what hides it."""

    outcome = Outcome.SHADOWED


class ConflictingWrite(StoreError):
    """Somebody else's value stands where ours was read, and was left alone."""

    outcome = Outcome.CONFLICT
    advice = "Look at what is stored there, and store a token that is valid."


class StoreUnavailable(StoreError):
    """The store did not answer, or did not take the write."""

    outcome = Outcome.UNAVAILABLE
    retryable = True
    advice = "It is tried again; if it stays so, look at what keeps the token."


class IssuerError(RotatorError):
    """The issuer is at fault."""


class Refused(IssuerError):
    """The issuer said no on purpose.

    Attributes:
        words: the issuer's own message, on one line, shortened to 300 characters.
        status: the HTTP status that carried it.
    """

    outcome = Outcome.REFUSED
    advice = "Mend what the issuer names, or mint a new token there and store it."

    def __init__(self, reason: str, *, words: str, status: int, advice: str | None = None) -> None:
        super().__init__(reason, advice=advice)
        self.words = words
        self.status = status


class Capped(IssuerError):
    """The issuer grants no lifetime worth having."""

    outcome = Outcome.CAPPED
    advice = (
        "Raise `lifetime_minutes`, if it is set, or ask an administrator of the issuer to raise "
        "the longest lifetime or the latest expiry of the server and the roles."
    )


class Rejected(IssuerError):
    """The issuer's answer failed verification and was not written.

    Attributes:
        objections: what was wrong with it, a clause each.
    """

    outcome = Outcome.REJECTED
    advice = "The token in use was left as it is; compare it with the issuer's records."

    def __init__(self, reason: str, *, objections: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.objections = objections


class BudgetExhausted(IssuerError):
    """The issuer has minted as many tokens of this name as any trouble could call for."""

    outcome = Outcome.BUDGET_EXHAUSTED
    advice = "Find out why so many were needed; asking resumes as the hour or the day passes."


class IssuerUnavailable(IssuerError):
    """No usable answer from the issuer, and nothing was done there."""

    outcome = Outcome.UNAVAILABLE
    retryable = True
    advice = "It is tried again; if it stays so, look at the issuer."


class Throttled(IssuerUnavailable):
    """The issuer asked for patience; for more than 30 s of it, the next run is soon enough.

    Attributes:
        retry_after: seconds to wait, between 0 and 3600.
    """

    longest_pause: ClassVar[float] = 30.0

    def __init__(self, reason: str, *, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.retryable = retry_after <= self.longest_pause


class AmbiguousAnswer(IssuerUnavailable):
    """The issuer may have acted, but its answer was lost or unreadable: look, then ask."""
