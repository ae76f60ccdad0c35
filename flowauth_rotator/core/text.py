"""Text from outside, made safe to show, and numbers with their nouns."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote

# C0, DEL and C1, the line and the paragraph separator, and halves of characters (surrogates),
# which no output can encode
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BIDIRECTIONAL = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CHARACTER = re.compile(r"%[0-9A-Fa-f]{2}|&#?\w{2,8};|.", re.DOTALL)
_JWT = re.compile(r"(?<![^\W_])eyJ.*", re.DOTALL)  # how the header of each begins, as base64
_LONG = re.compile(r"[^\s.]{40,}")  # the segments of a token are longer
_NAMES = {" ": "a blank", "\t": "a tab", "\n": "a line break", "\r": "a line break"}
REDACTED = "[...]"
WINDOW = 8  # characters of a secret that are not shown in a row


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


def describe_character(character: str) -> str:
    """Return a character for an error, also one that cannot be seen."""
    if character in _NAMES:
        return _NAMES[character]
    name = unicodedata.name(character, "")
    is_visible = character.isascii() and character.isprintable()
    return repr(character) if is_visible else f"U+{ord(character):04X} {name}".rstrip()


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text from outside without the secrets that it recites.

    Redacted are 8 letters or digits of a secret in a row, or all of a shorter one, in either case
    and whatever stands between them, also as quoted in a URL or in HTML. Of secrets that are not
    known here, such as a token that was minted now, redacted is what begins like a JWT, with all
    that follows, and what is as long as its segments.
    """
    letters, places = _squeeze(text)
    spans: list[tuple[int, int]] = []
    for secret in filter(None, secrets):
        found = _find_windows(letters, _squeeze(secret)[0])
        spans += [(places[start][0], places[end - 1][1]) for start, end in found]
        spans += _find_windows(text, secret)  # which may have neither letters nor digits
    return _LONG.sub(REDACTED, _JWT.sub(REDACTED, _replace(text, spans)))


def _squeeze(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the letters and digits of a text in lower case, and where each begins and ends in it.

    What is quoted as in a URL or in HTML counts as what it stands for.
    """
    pairs = [
        (letter, match.span())
        for match in _CHARACTER.finditer(text)
        for letter in _decode(match[0]).lower()
        if letter.isalnum()
    ]
    return "".join(letter for letter, _ in pairs), [span for _, span in pairs]


def _decode(character: str) -> str:
    return character if len(character) == 1 else html.unescape(unquote(character))


def _find_windows(text: str, secret: str) -> list[tuple[int, int]]:
    """Return where parts of a secret stand in a text."""
    size = min(len(secret), WINDOW)
    parts = {secret[start : start + size] for start in range(len(secret) - size + 1)} - {""}
    return [
        (start, start + size)
        for start in range(len(text) - size + 1)
        if text[start : start + size] in parts
    ]


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    """Return a text with its spans redacted, those that overlap or touch as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            first, last = merged.pop()
            start, end = first, max(last, end)
        merged.append((start, end))
    for start, end in reversed(merged):
        text = f"{text[:start]}{REDACTED}{text[end:]}"
    return text
