"""One parser for all durations from outside, and one format for all messages."""

from datetime import timedelta

import pytest

from flowauth_rotator.core.durations import (
    format_duration,
    parse_duration,
    parse_fraction_or_duration,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("30m", 1800), ("8h", 28_800), ("2d", 172_800), ("2w", 1_209_600)],
)
def test_a_duration_is_a_whole_number_with_a_unit(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert parse_fraction_or_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "8", "h", "8 h", "-8h", "1.5h", "8H", "8y", "8h30m", "٨h", "1234567890s", "999999999w"],
)
def test_any_other_text_is_a_value_error(text):
    """Also digits of another script, and what no `timedelta` can hold."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "fraction"), [("1/3", 1 / 3), ("0.25", 0.25), ("1", 1.0)])
def test_a_fraction_is_a_ratio_or_a_number(text, fraction):
    assert parse_fraction_or_duration(text) == fraction


@pytest.mark.parametrize("text", ["", "1/0", "a third", "1/3h", "1/-3"])
def test_any_other_text_is_neither(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of float, too
        parse_fraction_or_duration(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.5, "0 s"),
        (75, "1 min 15 s"),
        (1800, "30 min"),
        (90_000, "1 d 1 h"),
        (86_401, "1 d"),
        (-3_600, "-1 h"),
    ],
)
def test_a_message_shows_the_two_largest_units(seconds, shown):
    assert format_duration(timedelta(seconds=seconds)) == shown
