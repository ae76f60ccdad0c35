"""The policy that decides when a token is due for renewal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import format_time, to_utc
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import Misconfigured

if TYPE_CHECKING:
    from flowauth_rotator.core.tokens import Claims

LARGEST_FRACTION = 1 / 2  # of the lifetime: beyond it a fresh token would be due at birth
ABANDONED = timedelta(days=30)  # a name without a valid token for so long is out of use


@dataclass(frozen=True)
class RotationPolicy:
    """When to renew a token, and how much a renewal must gain.

    `renew_before`, `critical_before` and `minimum_gain` are each a fraction of the lifetime or a
    duration. A duration longer than half of a token's lifetime counts as that half.

    Attributes:
        renew_before: remaining lifetime at which a renewal is due.
        critical_before: remaining lifetime under which a failure is critical.
        minimum_gain: how much later than its predecessor a successor must expire.
        leeway: how far an issuer's clock may be ahead of ours.
        lifetime_minutes: the lifetime to request; None requests the issuer's maximum.

    Raises:
        Misconfigured: a value is out of its range.
    """

    renew_before: float | timedelta = 1 / 3
    critical_before: float | timedelta = 1 / 10
    minimum_gain: float | timedelta = 1 / 10
    leeway: timedelta = timedelta(seconds=60)
    lifetime_minutes: int | None = None

    def __post_init__(self) -> None:
        for setting in ("renew_before", "critical_before", "minimum_gain"):
            _check_fraction_or_duration(setting, getattr(self, setting))
        if not isinstance(self.leeway, timedelta) or self.leeway < timedelta(0):
            raise Misconfigured(
                f"`leeway` is {self.leeway!r}.", hint="Use a `timedelta` of zero or more."
            )
        minutes = self.lifetime_minutes
        if minutes is not None and (type(minutes) is not int or minutes < 1):
            raise Misconfigured(
                f"`lifetime_minutes` is {minutes!r}.", hint="Use a whole number from 1, or None."
            )


class TokenState(str, Enum):
    """The states of a token between its issue and its expiry, in this order."""

    HEALTHY = "healthy"
    DUE = "due"
    CRITICAL = "critical"
    EXPIRED = "expired"

    __str__ = str.__str__


@dataclass(frozen=True)
class Decision:
    """The decision of a policy about a token at one moment; times are aware UTC.

    Attributes:
        state: the state of the token.
        message: why, in a sentence.
        renew_at: from when on a renewal is due.
        critical_at: from when on a failure is critical.
        remaining: time left until `exp`; negative once it has passed.
    """

    state: TokenState
    message: str
    renew_at: datetime
    critical_at: datetime
    remaining: timedelta

    @property
    def due(self) -> bool:
        """Whether the token is to be renewed now."""
        return self.state is not TokenState.HEALTHY


def decide(claims: Claims, policy: RotationPolicy, now: datetime) -> Decision:
    """Decide whether a token is due. The state never goes back as `now` advances.

    Args:
        claims: the claims of the token.
        policy: when it is due.
        now: an aware time, of any zone.

    Raises:
        ValueError: `now` is naive.
    """
    now = to_utc(now)
    renew_before = resolve_duration(policy.renew_before, claims.lifetime)
    renew_at = claims.expires_at - renew_before
    critical_at = claims.expires_at - min(
        resolve_duration(policy.critical_before, claims.lifetime), renew_before
    )
    if now >= claims.expires_at:
        state, message = TokenState.EXPIRED, f"It expired at {format_time(claims.expires_at)}."
    elif now >= critical_at:
        state, message = (
            TokenState.CRITICAL,
            f"It expires at {format_time(claims.expires_at)}, soon.",
        )
    elif now >= renew_at:
        state, message = TokenState.DUE, f"Renewal has been due since {format_time(renew_at)}."
    else:
        state, message = TokenState.HEALTHY, f"Renewal is due at {format_time(renew_at)}."
    return Decision(state, message, renew_at, critical_at, claims.expires_at - now)


def resolve_duration(setting: float | timedelta, lifetime: timedelta) -> timedelta:
    """Return a setting as a duration, at most half of the lifetime."""
    duration = setting if isinstance(setting, timedelta) else lifetime * setting
    return min(duration, lifetime * LARGEST_FRACTION)


def _check_fraction_or_duration(setting: str, value: float | timedelta) -> None:
    if isinstance(value, timedelta):
        if value <= timedelta(0):
            raise Misconfigured(
                f"`{setting}` is {format_duration(value)}, which is not positive.",
                hint="Use a longer duration.",
            )
    elif type(value) not in (int, float) or not 0 < value <= LARGEST_FRACTION:
        raise Misconfigured(
            f"`{setting}` is {value!r} of the lifetime.",
            hint=f"Use a fraction above 0 and up to {LARGEST_FRACTION}, or a duration.",
        )
