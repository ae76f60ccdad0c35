"""Our clock and the issuer's, of which either may be wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW
from flowauth_rotator.core.policy import RotationPolicy, TokenState, decide
from flowauth_rotator.core.report import Report, Severity

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.agent.rotation import Inspection

A_YEAR = timedelta(days=366)


def measure_clock_skew(issuer: Issuer, began: datetime) -> timedelta | None:
    """Return how far the issuer's clock was ahead of ours; None if it has not responded.

    Args:
        issuer: the issuer that was asked.
        began: our clock at its `reset`.
    """
    if issuer.responded_at is None:
        return None
    return issuer.responded_at - (began + timedelta(seconds=issuer.responded_after))


@dataclass(frozen=True)
class Clocks:
    """The two clocks of a rotation.

    Ours is read once, when the rotation begins; the issuer's is the `Date` of its last response.
    Before the first response both are ours.
    """

    inspection: Inspection
    issuer: Issuer

    @property
    def ours(self) -> datetime:
        """When the rotation began."""
        return self.inspection.report.checked_at

    @property
    def theirs(self) -> datetime:
        """The `Date` of the last response, or our clock if that date is impossible.

        Impossible is a date before the token in use was issued, or a year after its expiry.
        """
        responded_at, claims = self.issuer.responded_at, self.inspection.claims
        if responded_at is None or responded_at < claims.issued_at - MAX_CLOCK_SKEW:
            return self.ours
        if responded_at > max(self.ours, claims.expires_at) + A_YEAR:
            return self.ours
        return responded_at

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
        skew = measure_clock_skew(self.issuer, self.ours)
        return replace(
            report,
            renewal_requests=self.issuer.renewal_requests,
            clock_skew=None if skew is None else round(skew.total_seconds()),
        )
