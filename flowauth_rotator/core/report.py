"""What a rotation tells: an outcome, a sentence, the times. Never a token or a part of one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, format_time


class Outcome(str, Enum):
    """How a check of one token ended; a closed set."""

    HEALTHY = "healthy"
    ROTATED = "rotated"
    ADOPTED = "adopted"
    SUPERSEDED = "superseded"
    MISSING = "missing"
    MALFORMED = "malformed"
    EXPIRED = "expired"
    SHADOWED = "shadowed"
    CONFLICT = "conflict"
    REFUSED = "refused"
    CAPPED = "capped"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    BUDGET_EXHAUSTED = "budget_exhausted"
    MISCONFIGURED = "misconfigured"

    __str__ = str.__str__


class Severity(str, Enum):
    """How loud a report is."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"

    __str__ = str.__str__


@dataclass(frozen=True)
class Report:
    """How one check of one token ended.

    Attributes:
        name: the issuer's name of the token, or the name of its place while that is unknown.
        place: where the token in use is kept, for people ("Variable FLOWAPI_TOKEN").
        outcome: the word for it.
        reason: why, in a sentence or a clause.
        checked_at: the `now` of the check.
        severity: ok, warning or critical.
        advice: what a person can do; empty when there is nothing to do.
        predecessor_expires_at: `exp` of the token that was in use, if it could be read.
        successor_expires_at: `exp` of the token that was swapped in, if one was.
        issued_at: when the token now in use was issued, if known.
        expires_at: its `exp`, if known.
        renew_at: when the token now in use is due, if known.
        renewal_requests: how many renewals the issuer was asked for.
        newest_issued_expires_at: the latest `exp` among the successors that the issuer showed or
            made, if any, whether one of them was swapped in or not.
        longest_minutes: the lifetime that the issuer granted when asked for its maximum.
        clock_skew: by how many seconds the issuer's clock was ahead of ours, to within the time
            that its answers took; None if it was not asked.
    """

    name: str
    place: str
    outcome: Outcome
    reason: str
    checked_at: datetime
    severity: Severity = Severity.OK
    advice: str = ""
    predecessor_expires_at: datetime | None = None
    successor_expires_at: datetime | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    renew_at: datetime | None = None
    renewal_requests: int = 0
    newest_issued_expires_at: datetime | None = None
    longest_minutes: int | None = None
    clock_skew: int | None = None

    @property
    def overlap(self) -> timedelta | None:
        """From the swap to the predecessor's `exp`; None without a swap, zero if it had expired."""
        if self.successor_expires_at is None or self.predecessor_expires_at is None:
            return None
        return max(self.predecessor_expires_at - self.checked_at, timedelta(0))

    @property
    def failed(self) -> bool:
        """Whether a person should look at it."""
        return self.severity is not Severity.OK

    @property
    def expiry(self) -> str:
        """A sentence about the token that was in use; none where the reason is just that."""
        if self.predecessor_expires_at is None or self.outcome is Outcome.EXPIRED:
            return ""
        which = "The one before" if self.overlap is not None else "The token in use"
        past = "d" if self.predecessor_expires_at <= self.checked_at else "s"
        return f"{which} expire{past} at {format_time(self.predecessor_expires_at)}."

    @property
    def clock_warning(self) -> str:
        """A sentence when our clock and the issuer's are more than five minutes apart, or none."""
        skew = timedelta(seconds=self.clock_skew or 0)
        if abs(skew) <= MAX_CLOCK_SKEW:
            return ""
        word = "behind" if skew > timedelta(0) else "ahead of"
        return f"The clock here is {abs(skew)} {word} the issuer's."

    def __str__(self) -> str:
        head = f"{self.name}: {self.outcome}."
        sentences = (head, self.reason, self.expiry, self.clock_warning, self.advice)
        return " ".join(filter(None, sentences))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values; times are epoch seconds."""
        return {
            key: round(value.timestamp()) if isinstance(value, datetime) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Report:
        """The report that `to_json` wrote."""
        times = {
            key: datetime.fromtimestamp(value, timezone.utc)
            for key, value in document.items()
            if key.endswith("_at") and value is not None
        }
        words = {
            "outcome": Outcome(document["outcome"]),
            "severity": Severity(document["severity"]),
        }
        return cls(**{**document, **times, **words})
