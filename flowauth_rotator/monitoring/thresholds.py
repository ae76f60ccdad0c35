"""The remaining lifetimes from which a token is a warning, or critical."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.monitoring.status import TokenStatus


@dataclass(frozen=True)
class Thresholds:
    """The remaining lifetimes below which a token is a warning, or critical.

    Each is a duration, or a fraction of the renewal window: the time from due to expiry.

    Raises:
        Misconfigured: a fraction is not above 0 and up to 1, a duration is not positive, or
            `warning` is smaller than `critical`.
    """

    warning: float | timedelta = 0.6
    critical: float | timedelta = 0.3

    def __post_init__(self) -> None:
        for name in ("warning", "critical"):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                if value <= timedelta(0):
                    raise Misconfigured(
                        f"`{name}` is {format_duration(value)}, which is not positive.",
                        hint="Use a longer duration.",
                    )
            elif not 0 < value <= 1:
                raise Misconfigured(
                    f"`{name}` is {value!r} of the renewal window.",
                    hint="Use a fraction above 0 and up to 1, or a duration like 2d.",
                )
        if type(self.warning) is type(self.critical) and self.warning < self.critical:  # type: ignore[operator]
            raise Misconfigured(
                f"`warning` ({_format_threshold(self.warning)}) is smaller than `critical` "
                f"({_format_threshold(self.critical)}).",
                hint="Use a larger `warning`.",
            )

    def resolve(self, token: TokenStatus) -> tuple[timedelta, timedelta]:
        """Return both as durations for one token, whose expiry must be known.

        If the renewal is not due before the expiry, fractions are of the whole lifetime.
        """
        due, expires_at = token.renew_at, token.expires_at
        if expires_at is None:
            raise ValueError("the expiry of the token is unknown")
        start = due if due and due < expires_at else token.issued_at
        window = max(expires_at - start, timedelta(0)) if start else timedelta(0)
        warning, critical = (
            value if isinstance(value, timedelta) else window * value
            for value in (self.warning, self.critical)
        )
        return warning, min(warning, critical)

    def __str__(self) -> str:
        warning, critical = map(_format_threshold, (self.warning, self.critical))
        return f"warning below {warning}, critical below {critical}"


def _format_threshold(value: float | timedelta) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:.4g} of the renewal window"
