"""Aware times in UTC, their format, and how far two clocks may be apart."""

from __future__ import annotations

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
