"""Text from outside, made safe to show, and numbers with their nouns."""

from __future__ import annotations

import re

# C0, DEL and C1, the line and the paragraph separator, and halves of characters (surrogates),
# which no output can encode
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BIDIRECTIONAL = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def remove_control_characters(text: str) -> str:
    """Return a text for a terminal, a log or a page, on one line.

    Otherwise a text from outside could add a line to a log, control a terminal, or change the order
    of the text around it. Each control character becomes a blank; characters that set the direction
    of text are removed; all others stay. The result is for people: compare the original.
    """
    return _CONTROL.sub(" ", _BIDIRECTIONAL.sub("", text))


def quote(name: str) -> str:
    """Return a name for a sentence: as it is, in quotes, without control characters."""
    return f"'{remove_control_characters(name)}'"


def format_count(number: int, noun: str) -> str:
    """Format a number with its noun, in the plural if needed: `1 token`, `1,200 tokens`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
