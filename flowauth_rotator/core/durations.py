"""Durations as operators write them, `30m` or a fraction `1/3`, and as messages show them."""

from __future__ import annotations

import re
from datetime import timedelta

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SHOWN_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def parse_duration(text: str) -> timedelta:
    """Parse a whole number with a unit: s, m, h, d or w.

    Raises:
        ValueError: the text is not a duration.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration like 30m, 8h or 2d")
    try:
        return timedelta(**{UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None


def parse_fraction_or_duration(text: str) -> float | timedelta:
    """Parse a fraction like `1/3` or `0.25`, or a duration like `8h`.

    Raises:
        ValueError: the text is neither.
    """
    if match := re.fullmatch(r"([0-9]{1,9})/([1-9][0-9]{0,8})", text):
        return int(match[1]) / int(match[2])
    if text[-1:] in UNITS:
        return parse_duration(text)
    return float(text)


def format_duration(duration: timedelta) -> str:
    """Format a duration in its two largest units: `1 d 1 h`, `25 min`, `-40 s`."""
    total = int(duration.total_seconds())
    seconds, sign = abs(total), "-" if total < 0 else ""
    sizes = [size for _, size in SHOWN_UNITS]
    first = next((i for i, size in enumerate(sizes) if seconds >= size), len(sizes) - 1)
    parts: list[str] = []
    for unit, size in SHOWN_UNITS[first : first + 2]:
        count, seconds = divmod(seconds, size)
        if count or not parts:
            parts.append(f"{count} {unit}")
    return sign + " ".join(parts)
