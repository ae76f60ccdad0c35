"""How readings put durations, times and foreign text."""

from __future__ import annotations

from datetime import datetime, timedelta

from flowauth_rotator.core.clock import to_utc

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def span(duration: timedelta) -> str:
    """A duration as people read it, in its two largest units: `1 d 1 h`, `25 min`, `40 s`."""
    seconds = abs(int(duration.total_seconds()))
    first = next((at for at, (_, size) in enumerate(UNITS) if seconds >= size), len(UNITS) - 1)
    words: list[str] = []
    for unit, size in UNITS[first : first + 2]:
        count, seconds = divmod(seconds, size)
        if count or not words:
            words.append(f"{count} {unit}")
    return " ".join(words)


def moment(time: datetime) -> str:
    """A time to the minute: `2026-11-24 13:00 UTC`."""
    return f"{to_utc(time):%Y-%m-%d %H:%M} UTC"


def percent(share: float) -> str:
    """A share in percent, in digits alone: who reads performance data need not know exponents."""
    return f"{round(100 * share, 2):g}"


def one_line(text: str) -> str:
    """The text without what would end a line or begin another field of a reading.

    `|` begins the performance data of Nagios, a backslash the escapes of Checkmk.
    """
    fit = "".join(
        character if character.isprintable() and character not in "|\\" else " "
        for character in text
    )
    return " ".join(fit.split())
