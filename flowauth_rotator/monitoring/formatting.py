"""Format times, numbers and text from outside for the output formats."""

from __future__ import annotations

from datetime import datetime

from flowauth_rotator.core.clock import to_utc
from flowauth_rotator.core.text import remove_control_characters


def format_minute(time: datetime) -> str:
    """Format a time to the minute: `2026-11-24 13:00 UTC`."""
    return f"{to_utc(time):%Y-%m-%d %H:%M} UTC"


def format_percent(fraction: float) -> str:
    """Format a fraction in percent, without an exponent, which performance data cannot contain."""
    return f"{round(100 * fraction, 2):g}"


def to_one_line(text: str) -> str:
    """Replace control characters, `|` and backslashes by blanks, and collapse blanks.

    `|` begins the performance data of Nagios, a backslash the escapes of Checkmk.
    """
    safe = "".join(
        character if character.isprintable() and character not in "|\\" else " "
        for character in remove_control_characters(text)
    )
    return " ".join(safe.split())
