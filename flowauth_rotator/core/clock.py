"""Aware times in UTC, their format, and how far two clocks may be apart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

MAX_CLOCK_SKEW = timedelta(minutes=5)  # beyond it, the issuer's clock is the one to go by


def to_utc(time: datetime) -> datetime:
    """Convert an aware time to UTC, where subtraction knows no daylight saving time.

    Raises:
        ValueError: the time is naive.
    """
    if time.utcoffset() is None:
        raise ValueError("a time must be aware: a naive one means another moment in every zone")
    return time.astimezone(timezone.utc)


def format_time(time: datetime) -> str:
    """Format a time for people: `2026-11-23 14:05:00 UTC`."""
    return f"{to_utc(time):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class ClockReading:
    """A reading of an issuer's clock, such as the `Date` of a response.

    Attributes:
        time: the time of the issuer's clock, aware.
        read_at: our `time.monotonic()` when the response arrived, in seconds.
    """

    time: datetime
    read_at: float

    def measure_skew(self, now: datetime, monotonic: float) -> timedelta:
        """Return how far the issuer's clock was ahead of ours; `now` was at `monotonic` seconds."""
        return self.time - (now + timedelta(seconds=self.read_at - monotonic))
