"""The result of a check or a rotation of one token, without any part of the token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, format_time
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.text import remove_control_characters


class Outcome(str, Enum):
    """The outcome of one check of one token; a closed set."""

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
    """The severity of a report, of a token or of a rotation DAG."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"

    __str__ = str.__str__

    @property
    def rank(self) -> int:
        """The order of severities: UNKNOWN is worse than OK, and better than WARNING."""
        return (Severity.OK, Severity.UNKNOWN, Severity.WARNING, Severity.CRITICAL).index(self)


def most_severe(*severities: Severity) -> Severity:
    """Return the most severe of several severities; OK if there are none."""
    return max(severities, key=lambda severity: severity.rank, default=Severity.OK)


@dataclass(frozen=True)
class Report:
    """The result of one check of one token. All times are aware UTC.

    Attributes:
        name: the issuer's name of the token, or the name of its store while that is unknown.
        place: where the token in use is kept, for people ("Variable FLOWAPI_TOKEN").
        outcome: the outcome.
        message: why, in a sentence or a clause.
        checked_at: the `now` of the check.
        severity: ok, warning or critical.
        hint: what a person can do; empty when there is nothing to do.
        predecessor_expires_at: `exp` of the token that was in use, if it could be decoded.
        successor_expires_at: `exp` of the token that was swapped in, if one was.
        issued_at: when the token now in use was issued, if known.
        expires_at: its `exp`, if known.
        renew_at: when the token now in use is due, if known.
        critical_at: from when on a failure with it is critical, if known.
        renewal_requests: the number of renewal requests to the issuer.
        newest_issued_expires_at: the latest `exp` among the successors that the issuer listed or
            minted, whether one of them was swapped in or not; None without one.
        longest_minutes: the lifetime that the issuer granted for a request without a lifetime.
        clock_skew: seconds by which the issuer's clock was ahead of ours, to within the time of a
            response; None without a response.
        name_is_known: whether `name` is the issuer's name, and not that of the store.
        fingerprint: of the token now in use, if it could be decoded.
        needs_new_token: whether a renewal cannot help any more: a person must mint a token.
        steps: the steps of a rehearsal that succeeded, a sentence for each.
    """

    name: str
    place: str
    outcome: Outcome
    message: str
    checked_at: datetime
    severity: Severity = Severity.OK
    hint: str = ""
    predecessor_expires_at: datetime | None = None
    successor_expires_at: datetime | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    renew_at: datetime | None = None
    critical_at: datetime | None = None
    renewal_requests: int = 0
    newest_issued_expires_at: datetime | None = None
    longest_minutes: int | None = None
    clock_skew: int | None = None
    name_is_known: bool = True
    fingerprint: str | None = None
    needs_new_token: bool = False
    steps: Sequence[str] = ()

    def add_name(self, name: str | None) -> Report:
        """Return the report with the issuer's name of the token, unless that is known already."""
        if not name or self.name_is_known:
            return self
        return replace(self, name=name, name_is_known=True)

    @property
    def overlap(self) -> timedelta | None:
        """Time from the swap to the predecessor's `exp`, not negative; None without a swap."""
        if self.successor_expires_at is None or self.predecessor_expires_at is None:
            return None
        return max(self.predecessor_expires_at - self.checked_at, timedelta(0))

    @property
    def failed(self) -> bool:
        """Whether the report is a warning or critical."""
        return self.severity is not Severity.OK

    @property
    def expiry(self) -> str:
        """A sentence with the expiry of the token that was in use, or an empty text."""
        if self.predecessor_expires_at is None or self.outcome is Outcome.EXPIRED:
            return ""
        token = "The predecessor" if self.overlap is not None else "The token in use"
        verb = "expired" if self.predecessor_expires_at <= self.checked_at else "expires"
        return f"{token} {verb} at {format_time(self.predecessor_expires_at)}."

    @property
    def clock_warning(self) -> str:
        """A sentence if the two clocks are more than five minutes apart, or an empty text."""
        skew = timedelta(seconds=self.clock_skew or 0)
        if abs(skew) <= MAX_CLOCK_SKEW:
            return ""
        word = "behind" if skew > timedelta(0) else "ahead of"
        return f"The clock here is {format_duration(abs(skew))} {word} the issuer's."

    def __str__(self) -> str:
        head = f"{self.name}: {self.outcome}."
        sentences = (head, self.message, self.expiry, self.clock_warning, self.hint)
        return remove_control_characters(" ".join(filter(None, sentences)))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; times are epoch seconds."""
        return {
            key: round(value.timestamp()) if isinstance(value, datetime) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Report:
        """Return the report that `to_json` wrote; further fields are ignored."""
        known = {field.name for field in fields(cls)}
        document = {key: value for key, value in document.items() if key in known}
        times = {
            key: datetime.fromtimestamp(value, timezone.utc)
            for key, value in document.items()
            if key.endswith("_at") and value is not None
        }
        enums = {
            "outcome": Outcome(document["outcome"]),
            "severity": Severity(document["severity"]),
        }
        steps = tuple(document.get("steps", ()))
        return cls(**{**document, **times, **enums, "steps": steps})
