"""Text from outside, made safe to show, and numbers with their nouns."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress

# C0, DEL and C1, the line and the paragraph separator, and halves of characters (surrogates),
# which no output can encode
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BIDIRECTIONAL = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_QUOTED = re.compile(  # as in a URL, in Python, in JSON and in HTML
    r"((?:%[0-9A-Fa-f]{2})+)|((?:\\x[0-9A-Fa-f]{2})+)|"
    r"((?:\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8})+)|(&#?\w{2,8};)"
)
_CHARACTER = re.compile(rf"{_QUOTED.pattern}|.", re.DOTALL)
_JWT = re.compile(r"(?<![^\W_])eyJ.*", re.DOTALL)  # how the header of each begins, as base64
_LONG = re.compile(r"[^\s.]{40,}")  # the segments of a token are longer
_NAMES = {" ": "a blank", "\t": "a tab", "\n": "a line break", "\r": "a line break"}
REDACTED = "[...]"
WINDOW = 8  # characters of a secret that are not shown in a row
SHORTEST = 4  # redacting a shorter one in other words would reveal its letters


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


def decode_secret(line: bytes) -> str:
    """Return the secret in the first line of a file, without a byte order mark and a line break.

    Raises:
        ValueError: it is not UTF-8; a predicate of the input, with what to do.
    """
    problem, secret = "has a character in another encoding, such as latin-1", None
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problem = "begins with a UTF-16 byte order mark"
    elif b"\0" in line:
        problem = "contains null bytes, as UTF-16 does"
    else:
        with suppress(UnicodeDecodeError):
            secret = line.decode("utf-8-sig").rstrip("\r\n")
    if secret is None:  # outside the block, so that the bytes are not the context
        raise ValueError(f"is not UTF-8 text: it {problem}. Save it as UTF-8.")
    return secret


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text from outside without the secrets that it recites.

    Redacted are 8 letters or digits of a secret in a row, or all of a shorter one, in either case
    and whatever stands between them, also as quoted in a URL, in JSON, Python or HTML, and in
    another encoding. A secret of less than 4 is redacted where it is a word of its own. Of secrets
    that are not known here, such as a token that was minted now, redacted is what begins like a
    JWT, with all that follows, and what is as long as its segments.
    """
    pairs, spans = _decode(text), list[tuple[int, int]]()
    spellings = {spelling for secret in filter(None, secrets) for spelling in _respell(secret)}
    for fold in (str, _fold_letters, _fold_ascii):
        letters, places = _fold_pairs(pairs, fold)
        for part in {"".join(map(fold, spelling)) for spelling in spellings}:
            if fold is not str and len(part) < SHORTEST:
                continue
            windows = _find_windows(letters, part)
            spans += [(places[start][0], places[end - 1][1]) for start, end in windows]
    return _LONG.sub(REDACTED, _JWT.sub(REDACTED, _replace(text, spans)))


def _decode(text: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the characters that a text stands for, each with its begin and end in the text.

    What is quoted in a row is decoded, and has one place, as a whole.
    """
    return [
        (character, match.span())
        for match in _CHARACTER.finditer(text)
        for character in _unquote(match)
    ]


def _unquote(match: re.Match[str]) -> str:
    if match.lastindex is None:
        return match[0]
    in_url, in_python, in_json, in_html = match.groups()
    if digits := (in_url or in_python or "").replace("%", "").replace("\\x", ""):
        content = bytes.fromhex(digits)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content.decode("latin-1")
    if in_json:
        halves = in_json.encode().decode("unicode_escape", "replace")
        return halves.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return html.unescape(in_html)


def _respell(secret: str) -> set[str]:
    """Return a secret, what it stands for if it looks quoted, and as read in a wrong encoding."""
    content = secret.encode("utf-8", "replace")
    unquoted = _QUOTED.sub(_unquote, secret)
    return {
        unicodedata.normalize("NFC", spelling)
        for spelling in (
            *(secret, unquoted),
            *(content.decode(encoding, "ignore") for encoding in ("latin-1", "cp1252")),
        )
    }


def _fold_letters(character: str) -> str:
    """Return the letters and digits of a character, without case, accents and width."""
    if character.isascii():
        return _fold_ascii(character)
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", character))).casefold()


def _fold_ascii(character: str) -> str:
    """Return a letter or digit of ASCII: the others may have been lost in a wrong encoding."""
    return character.lower() if character.isascii() and character.isalnum() else ""


def _fold_pairs(
    pairs: list[tuple[str, tuple[int, int]]], fold: Callable[[str], str]
) -> tuple[str, list[tuple[int, int]]]:
    """Return the folded text, and where each of its characters begins and ends in the text."""
    folded = [(letter, span) for character, span in pairs for letter in fold(character)]
    return "".join(letter for letter, _ in folded), [span for _, span in folded]


def _find_windows(text: str, secret: str) -> list[tuple[int, int]]:
    """Return where parts of a secret stand in a text; a short one only as a word of its own."""
    if len(secret) < SHORTEST:
        word = re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)") if secret else None
        return [match.span() for match in word.finditer(text)] if word else []
    size = min(len(secret), WINDOW)
    parts = {secret[start : start + size] for start in range(len(secret) - size + 1)}
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
