"""Text from outside is safe to show, in each place that shows it."""

import json
import re
import unicodedata
from dataclasses import replace
from urllib.parse import quote as quote_url

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core import errors
from flowauth_rotator.core.report import Outcome, Report
from flowauth_rotator.core.text import format_count, quote, redact, remove_control_characters
from flowauth_rotator.tables import format_table
from tests.core.conftest import NOON
from tests.monitoring import hostile

CONTROL = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"}
BIDIRECTIONAL = {
    *("\u061c", "\u200e", "\u200f"),
    *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
}
SURROGATES = st.integers(0xD800, 0xDFFF).map(chr)
texts = hostile.texts | st.text(
    alphabet=st.sampled_from(sorted(CONTROL | BIDIRECTIONAL)) | st.characters() | SURROGATES
)
ERRORS = {
    "Refused": lambda text: errors.Refused(text, issuer_message=text, status=400, hint=text),
    "Rejected": lambda text: errors.Rejected(text, violations=()),
    "Throttled": lambda text: errors.Throttled(text, retry_after=1),
}


def is_showable(text):
    """Whether the text is one line that every output can encode, and no control sequence."""
    text.encode()
    return not set(text) & (CONTROL | BIDIRECTIONAL) and len(text.splitlines()) <= 1


@given(texts)
def test_only_control_characters_are_removed(text):
    """What is left is the text in its order; a second time changes nothing."""
    shown = remove_control_characters(text)
    assert is_showable(shown)
    kept = [c for c in text if c not in BIDIRECTIONAL]
    assert len(shown) == len(kept)
    for before, after in zip(kept, shown, strict=True):
        is_control = before in CONTROL or unicodedata.category(before) == "Cs"
        assert after == (" " if is_control else before)
    assert remove_control_characters(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "AIRFLOW",
        "Düngemittel 東京",
        "🔑",
        "👩\u200d💻",
        "e\u0301",
        "עברית",
        "a | b",
        "back\\slash",
        "",
    ],
)
def test_printable_text_stays(text):
    """In any script, also in one from right to left."""
    assert remove_control_characters(text) == text
    assert quote(text) == f"'{text}'"


@given(texts, st.sampled_from([*ERRORS, "Misconfigured"]))
def test_an_error_is_safe_to_show(text, kind):
    """Its message, hint and report, and the issuer's words; its lines are those of the message."""
    error = ERRORS.get(kind, lambda text: errors.Misconfigured(text, hint=text))(text)
    lines = text.count("\n") + 1
    shown = [error.message, error.hint, getattr(error, "issuer_message", ""), *map(str, error.args)]
    for part in (*shown, str(error)):
        assert all(map(is_showable, part.split("\n")))
        assert part.count("\n") < 2 * lines
    assert "\n" not in getattr(error, "issuer_message", "")
    assert is_showable(str(error.report(name=text, place=text, checked_at=NOON)))


@given(texts)
def test_a_report_is_one_line_and_keeps_its_name(text):
    """The name in JSON is the identity of the token, and unchanged."""
    report = Report(text, text, Outcome.HEALTHY, text, NOON, hint=text)
    assert is_showable(str(report))
    assert replace(report).name == report.to_json()["name"] == text


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_a_table_has_a_line_for_each_row(rows):
    """The columns are as wide as what is shown."""
    lines = list(format_table(rows, ["NAME", "STATE"]))
    assert len(lines) == len(rows) + 1
    assert all(map(is_showable, lines))


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 tokens"), (1, "1 token"), (1200, "1,200 tokens")]
)
def test_a_count_has_its_noun_in_the_singular_or_plural(number, shown):
    assert format_count(number, "token") == shown


TOKEN = jwt.encode(
    {"sub": "flowbot", "aud": "TEST"}, "a secret of at least thirty-two bytes", "HS256"
)
SPACED = " ".join(TOKEN[start : start + 7] for start in range(0, len(TOKEN), 7))


@pytest.mark.parametrize(
    ("secret", "recited"),
    [
        ("my.pass word.9x", "my.pass word.9x"),
        ("my.pass word.9x", "MY-PASS-WORD-9X"),
        ("my.pass word.9x", "my.pass%20word.9x"),
        ("p@ss!word", "p%40ss!word"),
        ("say<it>loud", "say&lt;it&gt;loud"),
        ("short", "short"),
        ("??!!", "??!!"),
        ("!!!!a!!!!", "!!!!a!!!!"),
        ("!!!!a!!!!", "%21%21%21%21a%21%21%21%21"),
        ("e", "e"),
        ("ab%41", "ab%41"),
        ("ab%41cdefgh", "ab%2541cdefgh"),
        (TOKEN, TOKEN),
        (TOKEN, SPACED),
        (TOKEN, TOKEN[30:60]),
        (TOKEN, TOKEN.replace(".", "\u200b.\u200b")),
    ],
)
def test_a_known_secret_is_redacted_however_it_is_spelt(secret, recited):
    """With other characters between, in another case or quoted; what stands around it stays."""
    assert redact(f"bad '{recited}' for runner_of_things", [secret]).endswith(
        "for runner_of_things"
    )
    assert redact(f"bad '{recited}'", [secret]).replace("'", "") == "bad [...]"


LATIN = ["pässwörtchen", "p@ss w&rd\u2039é>longer"]
SPELLINGS = {
    "percent": quote_url,
    "percent, all": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "Python": lambda text: ascii(text)[1:-1],
    "bytes of Python": lambda text: repr(text.encode())[2:-1],
    "HTML": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "in capitals": str.upper,
    "UTF-8 read as latin-1": lambda text: text.encode().decode("latin-1"),
    "UTF-8 read as cp1252": lambda text: text.encode().decode("cp1252", "replace"),
}
LATIN_SPELLINGS = {  # of which nothing is left in another script
    "percent, latin-1": lambda text: quote_url(text, encoding="latin-1", errors="replace"),
    "latin-1 read as UTF-8": lambda text: text.encode("latin-1", "replace").decode(errors="ignore"),
}
RECITALS = [
    *((secret, spell) for secret in LATIN for spell in LATIN_SPELLINGS.values()),
    *(
        (secret, spell)
        for secret in (*LATIN, "пароль-секрет", "秘密の言葉", "🔑🗝🔒🔓")
        for spell in SPELLINGS.values()
    ),
]


@pytest.mark.parametrize(("secret", "spell"), RECITALS)
def test_a_secret_that_is_not_ascii_is_redacted_in_any_encoding(secret, spell):
    """Nothing of it is shown but punctuation at its ends; what stands around it stays."""
    recited = remove_control_characters(spell(secret))
    shown = redact(f"bad '{recited}' for runner", [secret])
    assert re.fullmatch(r"bad '\W*\[\.\.\.\]\W*' for runner", shown)


@pytest.mark.parametrize("secret", ["e", "!!!!a!!!!", "us", "%61"])
def test_a_short_secret_is_not_told_by_what_is_missing(secret):
    """Letters of other words stay, where a secret of few letters would be found."""
    text = "bad password of the user: a name was expected"
    assert redact(text, [secret]).replace("[...]", "a") == text
    assert "b[...]d" not in redact(text, [secret])


@pytest.mark.parametrize("recited", [TOKEN, SPACED, f"x {TOKEN}", "x" * 40])
def test_an_unknown_token_is_redacted_too(recited):
    """Of a token that was minted now, nobody here knows the text."""
    shown = redact(f"new: {recited}", ["another-secret"])
    assert shown.startswith("new: ")
    assert shown.endswith("[...]")
    assert "eyJ" not in shown


def test_other_words_stay():
    """A sentence is not a secret, and an empty secret hides nothing."""
    text = "Cannot renew: the following roles are no longer assigned to you: runner, viewer"
    assert redact(text, ["", "correct-horse", TOKEN]) == text
