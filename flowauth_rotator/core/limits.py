"""The limits of an issuer, and whether a renewal at a given time would be within them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flowauth_rotator.core.clock import ClockReading, format_time
from flowauth_rotator.core.errors import Capped, Refused
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.succession import find_violations
from flowauth_rotator.core.tokens import Claims

LIMIT_HINT = (
    "Ask an administrator of the issuer to raise the longest lifetime or the latest expiry there."
)


@dataclass(frozen=True)
class Limit:
    """A limit of the lifetimes of tokens.

    Attributes:
        holder: what has it, as a noun: `role 'viewer'`.
        longest: the longest lifetime.
        latest: the latest expiry; None if there is none.
    """

    holder: str
    longest: timedelta
    latest: datetime | None = None

    def find_maximum(self, issued_at: datetime) -> datetime:
        """Return the latest expiry of a token that is issued at this time."""
        expires_at = issued_at + self.longest
        return min(expires_at, self.latest) if self.latest else expires_at


@dataclass(frozen=True)
class Outlook:
    """What an issuer shows of the next renewal of a token.

    Attributes:
        name: the issuer's name of the token, if it shows it.
        limits: those that apply to the token, as far as it shows them.
        newest_expiry: the latest expiry among newer tokens like this one; None without one.
        clock: the issuer's clock in its last response; None without one.
    """

    name: str | None = None
    limits: Sequence[Limit] = ()
    newest_expiry: datetime | None = None
    clock: ClockReading | None = None


def check_limits(
    predecessor: Claims, policy: RotationPolicy, limits: Sequence[Limit], at: datetime
) -> None:
    """Check that the issuer can grant a renewal at a given time that is worth it.

    Args:
        predecessor: the claims of the token in use.
        policy: the lifetime to request, and how much a successor must gain.
        limits: those that apply to the token, as far as they are known.
        at: the time of the renewal.

    Raises:
        Refused: the issuer would refuse the renewal.
        Capped: it would grant too little.
    """
    if not limits:
        return
    strictest = min(limits, key=lambda limit: limit.find_maximum(at))
    maximum, holder = strictest.find_maximum(at), strictest.holder
    if maximum <= at:
        reason = (
            f"allows no expiry after {format_time(strictest.latest)}"
            if strictest.latest and strictest.latest <= at
            else "has a maximum lifetime of 0 minutes"
        )
        raise Refused(f"The {holder} {reason}.", issuer_message="", status=200, hint=LIMIT_HINT)
    expires_at = maximum
    if minutes := policy.lifetime_minutes:
        longest = (maximum - at) / timedelta(minutes=1)
        # FlowAuth, whose tokens have no name, refuses the maximum as well.
        is_too_long = minutes > longest if predecessor.token_name else minutes >= longest
        if is_too_long:
            most = "at most" if predecessor.token_name else "less than"
            raise Refused(
                f"`lifetime_minutes` is {minutes}, and the {holder} allows {most} "
                f"{math.floor(longest)} minutes.",
                issuer_message="",
                status=200,
                hint="Reduce it, or leave it out for the maximum.",
                bad_field="lifetime_minutes",
            )
        expires_at = at + timedelta(minutes=minutes)
    successor = replace(predecessor, digest="", issued_at=at, not_before=at, expires_at=expires_at)
    if violations := find_violations(predecessor, successor, policy, at):
        clauses = "; ".join(violation.text for violation in violations)
        raise Capped(f"The {holder} allows no successor that gains enough: {clauses}.")
