"""Our clock and the issuer's, of which either may be wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW
from flowauth_rotator.core.policy import RotationPolicy, TokenState, decide
from flowauth_rotator.core.report import Report, Severity

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer_calls import IssuerCalls
    from flowauth_rotator.agent.rotation import Inspection

A_YEAR = timedelta(days=366)


@dataclass(frozen=True)
class Clocks:
    """The two clocks of a rotation.

    Ours is read once, when the rotation begins; the issuer's is the `Date` of its last response.
    Before the first response both are ours.
    """

    inspection: Inspection
    calls: IssuerCalls

    @property
    def ours(self) -> datetime:
        """When the rotation began."""
        return self.inspection.report.checked_at

    @property
    def theirs(self) -> datetime:
        """The `Date` of the last response, or our clock if that date is impossible.

        Impossible is a date before the token in use was issued, or a year after its expiry.
        """
        reading, claims = self.calls.clock, self.inspection.claims
        if reading is None or reading.time < claims.issued_at - MAX_CLOCK_SKEW:
            return self.ours
        if reading.time > max(self.ours, claims.expires_at) + A_YEAR:
            return self.ours
        return reading.time

    @property
    def earliest(self) -> datetime:
        """The earlier clock: by it a token expires only when both clocks say so."""
        return min(self.ours, self.theirs)

    @property
    def latest(self) -> datetime:
        """The later clock: by it a token is from the future only when both clocks say so."""
        return max(self.ours, self.theirs)

    def contradict(self, policy: RotationPolicy) -> bool:
        """Whether the clocks are far apart, and by the issuer's the token is not due.

        No clock decides about a renewal that was forced.
        """
        is_apart = abs(self.theirs - self.ours) > MAX_CLOCK_SKEW
        is_due = self.inspection.forced or decide(self.inspection.claims, policy, self.theirs).due
        return is_apart and not is_due

    def find_severity(self, policy: RotationPolicy) -> Severity:
        """Return the severity of a failure now: a warning while by both clocks there is time."""
        claims = self.inspection.claims
        states = {decide(claims, policy, now).state for now in (self.ours, self.theirs)}
        is_late = states & {TokenState.CRITICAL, TokenState.EXPIRED}
        return Severity.CRITICAL if is_late else Severity.WARNING

    def annotate(self, report: Report) -> Report:
        """Return the report with the number of requests and the clock skew."""
        reading = self.calls.clock
        skew = reading.measure_skew(self.ours, self.calls.began) if reading else None
        return replace(
            report,
            renewal_requests=self.calls.renewal_requests,
            clock_skew=None if skew is None else round(skew.total_seconds()),
        )
