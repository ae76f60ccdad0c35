"""A search for 12 characters in a row of any token or password, wherever something was written.

What passes by in this process as a token or a password is kept in memory alone. Of what is written
only the runs of those characters are kept that a token, or an encoding of one, is made of.
"""

from __future__ import annotations

import json
import re
import string
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import product
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

from argon2 import PasswordHasher
from cryptography.fernet import Fernet
from jwt.api_jws import PyJWS

from flowauth_rotator.core.tokens import LONGEST_TOKEN, Token

WINDOW = 12
BLOCK, STRIDE = 6, 7  # of blocks that begin at every seventh character, each window has one whole
ALPHABET = (string.ascii_letters + string.digits + "_+/=%.-").encode()
ELSE_BLANK = bytes(byte if byte in ALPHABET else ord(" ") for byte in range(256))
TOKEN = re.compile(r"(?<![\w-])[\w-]{2,}(?:\.[\w-]{12,}){2}(?![\w-])", re.ASCII)
TOKENS_PASS = (  # when made, when the agent takes one, the server stores one, anybody is sent one
    (PyJWS, "encode"),
    (Token, "__init__"),
    (Fernet, "encrypt_at_time"),
    (json, "loads"),
)
PASSWORDS_PASS = ((PasswordHasher, "hash"),)


def forms(text: str) -> dict[str, str]:
    """A text in each encoding, less what depends on its neighbours, and the encoding's name."""
    content = text.encode()
    found = {}
    for before in range(3):  # bytes, which have a share in the first characters
        known = slice(-(-8 * before // 6), 8 * (before + len(content)) // 6)
        for encode in (b64encode, urlsafe_b64encode):
            found[encode(bytes(before) + content)[known].decode()] = "base64"
    found |= {content.hex().upper(): "hex", content.hex(): "hex"}
    return found | {quote(text, safe=""): "URL-quoted", text: "raw"}


class Recorded:
    """What has passed by: the secret parts of each token, and of each password, by its text."""

    def __init__(self) -> None:
        self.tokens: dict[str, Iterable[str]] = {}
        self.passwords: dict[str, Iterable[str]] = {}

    def hear(self, text: str) -> None:
        """Keep the tokens in a text, but for those that are too long to be taken for one."""
        for token in TOKEN.findall(text):
            header, *parts = token.split(".")
            if len(token) <= LONGEST_TOKEN and _is_json(header):
                self.tokens[token] = parts

    def hear_password(self, text: str) -> None:
        """Keep a text, unless it is what was made of a password."""
        if not text.startswith("$argon2"):
            self.passwords[text] = [text]


def _is_json(header: str) -> bool:
    """Whether it may be a token's; the first part of a module's dotted name is none."""
    try:
        return urlsafe_b64decode(f"{header}==").strip().startswith(b"{")
    except ValueError:
        return False


@contextmanager
def recording() -> Iterator[Recorded]:
    """Record until the block ends."""
    recorded = Recorded()
    with ExitStack() as stack:
        for places, hear in (
            (TOKENS_PASS, recorded.hear),
            (PASSWORDS_PASS, recorded.hear_password),
        ):
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, _heard(getattr(owner, name), hear)))
        yield recorded


def _heard(function: Callable[..., Any], hear: Callable[[str], None]) -> Callable[..., Any]:
    """The same function; what it is given and what it returns is heard."""

    @wraps(function)
    def wrapped(*given: object, **named: object) -> Any:  # noqa: ANN401 - the function's own
        __tracebackhide__ = True  # by pytest
        result = function(*given, **named)
        for value in (*given, *named.values(), result):
            if isinstance(value, (str, bytes)):
                hear(value if isinstance(value, str) else value.decode("latin-1"))
        return result

    return wrapped


@dataclass(frozen=True, order=True)
class Finding:
    """A part of a secret where it should not be.

    Attributes:
        artefact: where.
        form: how it was encoded.
        fingerprint: of the secret, or of that of which most is there.
        windows: how much of it, in different windows.
    """

    artefact: str
    form: str
    fingerprint: str
    windows: int

    def __str__(self) -> str:
        return f"{self.artefact}: {self.windows} windows of {self.fingerprint}, {self.form}"


class Artefacts:
    """What has been written.

    Attributes:
        names: of all that was added.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._runs: dict[str, set[str]] = {}

    def add(self, name: str, content: bytes) -> None:
        """Take in one more artefact, or one more piece of it."""
        self.names.add(name)
        for run in content.translate(ELSE_BLANK).split():
            if len(run) >= WINDOW:
                self._runs.setdefault(run.decode(), set()).add(name)

    def find(self, secrets: Mapping[str, Iterable[str]]) -> list[Finding]:
        """Where 12 characters in a row of a part of a secret stand in some form.

        A token that stands there whole is found, whoever has made it.
        """
        shown = Recorded()
        for run in self._runs:
            shown.hear(run)
        blocks = {block for run in self._runs for block in _pieces(run, BLOCK)}
        windows = {window for run in self._runs for window in _pieces(run, WINDOW)}
        known: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for secret, parts in (shown.tokens | dict(secrets)).items():
            for part in parts:
                for text, form in forms(part).items():
                    for window in _common(text, windows, blocks):
                        known[window].add((form, secret))
        return sorted(self._findings(known)) if known else []

    def _findings(self, known: dict[str, set[tuple[str, str]]]) -> Iterator[Finding]:
        seen: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for run, names in self._runs.items():
            for window in known.keys() & _pieces(run, WINDOW):
                for name, (form, secret) in product(names, known[window]):
                    seen[name, form][secret] += 1
        for (name, form), counted in seen.items():
            [(secret, count)] = counted.most_common(1)
            yield Finding(name, form, Token(secret).fingerprint, count)


def _pieces(text: str, length: int) -> set[str]:
    return {text[at : at + length] for at in range(len(text) - length + 1)}


def _common(text: str, windows: set[str], blocks: set[str]) -> Iterator[str]:
    """The windows of a text that are among these."""
    for block in range(0, len(text) - BLOCK + 1, STRIDE):
        if text[block : block + BLOCK] in blocks:
            for at in range(max(0, block + BLOCK - WINDOW), block + 1):
                if text[at : at + WINDOW] in windows:
                    yield text[at : at + WINDOW]
