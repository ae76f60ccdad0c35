"""The list of managed tokens: valid and invalid entries."""

import json
from datetime import timedelta

import pytest

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.monitoring.status import TokenStatus
from flowauth_rotator.provider.managed_tokens import (
    ManagedToken,
    parse_tokens,
    resolve_name,
    validate_tokens,
)

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ"


def find_errors(*entries):
    """Return the labels and the errors of the invalid entries of a list."""
    _, problems = parse_tokens(json.dumps(list(entries)))
    return [(problem.label, str(problem.error)) for problem in problems]


def test_an_entry_has_the_fields_of_a_managed_token():
    """Durations as a number and a unit; what is left out has its default."""
    entry = {
        "variable": "ETL_TOKEN",
        "name": "ETL",
        "flowauth_conn_id": "flowauth_etl",
        "description": "for the nightly ETL",
        "renew_before": "8h",
        "critical_before": 0.2,
        "lifetime_minutes": 600,
    }
    tokens, problems = parse_tokens(json.dumps([entry, {"variable": "X", "name": None}]))
    assert tokens == [
        ManagedToken(**{**entry, "renew_before": timedelta(hours=8)}),
        ManagedToken("X"),
    ]
    assert problems == []


@pytest.mark.parametrize(
    "token",
    [
        ManagedToken(),
        ManagedToken("X", name="ETL", flowauth_conn_id="a", description="b", lifetime_minutes=7),
        ManagedToken("X", renew_before=timedelta(days=400), critical_before=0.05),
        ManagedToken("X", critical_before=timedelta(minutes=7)),
        ManagedToken("X", name="N" * 200),
    ],
)
def test_a_managed_token_is_written_as_the_list_has_it(token):
    """The survey passes the settings to the page in the format of the list Variable."""
    assert parse_tokens(json.dumps([token.to_json()])) == ([token], [])


def test_only_what_differs_from_the_defaults_is_written():
    """Each run keeps a copy."""
    assert ManagedToken().to_json() == {"variable": "FLOWAPI_TOKEN"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not valid JSON at line 1, column 1"),
        ('[{"variable": "X"},\n]', "is not valid JSON at line"),
        ("[" * 100_000, "is not valid JSON"),
        ('[{"lifetime_minutes": ' + "9" * 5000 + "}]", "is not valid JSON."),
        ("null", "is not a JSON array"),
        ('{"variable": "X"}', "is not a JSON array"),
    ],
    ids=["empty", "comma", "deep", "digits", "null", "object"],
)
def test_an_invalid_list_is_a_single_error(text, words):
    """With the position of the error and an example."""
    tokens, [problem] = parse_tokens(text)
    assert tokens == []
    assert problem.label == "flowauth_rotator_tokens"
    assert words in problem.error.message
    assert '[{"variable": "FLOWAPI_TOKEN"}' in problem.error.hint


@pytest.mark.parametrize(
    ("entry", "label", "words"),
    [
        ("FLOWAPI_TOKEN", "entry 2", "It is not a JSON object"),
        ([], "entry 2", "It is not a JSON object"),
        ({}, "entry 2", "It does not contain `variable`"),
        ({"name": "ETL"}, "ETL", "It does not contain `variable`"),
        ({"variable": "X", "lifetime": 60}, "X", "unknown key 'lifetime'"),
        ({"variable": ""}, "entry 2", "`variable` is ''"),
        ({"variable": 7}, "entry 2", "`variable` is not a string"),
        ({"variable": None}, "entry 2", "`variable` is not a string"),
        ({"variable": "V" * 251}, "entry 2", "`variable` is longer than 250"),
        ({"variable": "X", "name": "N" * 201}, "X", "`name` is longer than 200"),
        ({"variable": "X", "name": ["ETL"]}, "X", "`name` is not a string"),
        ({"variable": "X", "flowauth_conn_id": None}, "X", "`flowauth_conn_id` is not a string"),
        ({"variable": "X", "renew_before": "soon"}, "X", "`renew_before` is neither"),
        ({"variable": "X", "renew_before": True}, "X", "`renew_before` is neither"),
        ({"variable": "X", "renew_before": 0.7}, "X", "`renew_before` is 0.7"),
        (
            {"variable": "X", "renew_before": "0h"},
            "X",
            "`renew_before` is 0 s, which is not positive",
        ),
        ({"variable": "X", "critical_before": None}, "X", "`critical_before` is neither"),
        ({"variable": "X", "critical_before": float("nan")}, "X", "`critical_before` is nan"),
        ({"variable": "X", "lifetime_minutes": True}, "X", "`lifetime_minutes` is not a whole"),
        ({"variable": "X", "lifetime_minutes": "60"}, "X", "`lifetime_minutes` is not a whole"),
        ({"variable": "X", "lifetime_minutes": 0}, "X", "`lifetime_minutes` is 0"),
        ({"variable": "FIRST"}, "FIRST", "Variable FIRST is listed twice"),
        ({"variable": "X", "name": "ONE"}, "ONE", "Two tokens have the name 'ONE'"),
        ({"variable": "X", "also_variables": ["FIRST"]}, "X", "Variable FIRST is listed twice"),
        ({"variable": "X", "also_variables": ["X"]}, "X", "Variable X is listed twice"),
        ({"variable": "X", "also_variables": "Y"}, "X", "not a list of keys"),
        ({"variable": "X", "also_variables": [7]}, "X", "not a list of keys"),
        ({"variable": "X", "also_variables": [""]}, "X", "not a list of keys"),
        ({"variable": "X", "also_variables": ["V" * 251]}, "X", "longer than 250"),
        ({"variable": "X", "store": 7}, "X", "`store` is not a string"),
        ({"variable": "X", "store": "vault"}, "X", "neither the address of a secrets backend"),
    ],
    ids=str,
)
def test_an_invalid_entry_is_named_and_stops_no_other(entry, label, words):
    """By its name, its Variable or its number, with the setting and the correction."""
    text = json.dumps([{"variable": "FIRST", "name": "ONE"}, entry, {"variable": "LAST"}])
    tokens, [problem] = parse_tokens(text)
    assert [token.variable for token in tokens] == ["FIRST", "LAST"]
    assert problem.label == label
    assert problem.error.message.startswith(
        "Entry 2 of Variable flowauth_rotator_tokens is invalid. "
    )
    assert words in problem.error.message
    assert problem.error.hint


def test_the_variables_of_an_invalid_entry_are_free_for_another():
    """An entry that repeats its own Variable, or another's name, is not in use."""
    entries = [
        {"variable": "FIRST", "name": "ONE"},
        {"variable": "X", "also_variables": ["Y", "X"]},
        {"variable": "Z", "name": "ONE"},
        *({"variable": key} for key in "XYZ"),
    ]
    tokens, problems = parse_tokens(json.dumps(entries))
    assert [token.variable for token in tokens] == ["FIRST", "X", "Y", "Z"]
    assert [problem.label for problem in problems] == ["X", "ONE"]


def test_a_duplicate_key_in_an_entry_is_an_error():
    """A JSON parser would silently use the last of the two."""
    tokens, [problem] = parse_tokens('[{"variable": "A", "variable": "B"}]')
    assert tokens == []
    assert "It contains a key twice" in problem.error.message


@pytest.mark.parametrize(
    "entry",
    [
        JWT,
        {"variable": JWT},
        {"variable": "X", "name": f"Bearer {JWT}"},
        {"variable": "X", "token": JWT},
        {"variable": "X", JWT: 1},
        {"variable": "X", "renew_before": JWT},
        {"variable": "X", "lifetime_minutes": JWT},
    ],
    ids=["entry", "variable", "name", "unknown", "key", "share", "minutes"],
)
def test_a_token_that_is_pasted_into_the_list_is_not_shown(entry):
    """Neither in the label nor in the error."""
    [(label, sentence)] = find_errors(entry)
    shown = f"{label} {sentence}"
    assert not any(shown[start : start + 12] in JWT for start in range(len(shown) - 11))


def test_a_list_in_code_has_each_variable_and_each_name_once():
    """Two tokens of one name could not be told apart in a report; without a name they can."""
    validate_tokens([ManagedToken("A", name="X"), ManagedToken("B", name="Y"), ManagedToken("C")])
    with pytest.raises(Misconfigured, match="Two tokens have the name 'X'") as misconfigured:
        validate_tokens([ManagedToken("A", name="X"), ManagedToken("B", name="X")])
    assert misconfigured.value.hint


@pytest.mark.parametrize(
    ("schedule", "minutes", "checks"),
    [
        (timedelta(minutes=5), 40, 8),
        (timedelta(minutes=5), 39, 7),
        (timedelta(hours=2), 40, 0),
        ("*/5 * * * *", 40, 8),
        ("*/5 * * * *", 36, 7),
        ("@hourly", 150, 2),
        ("0 9 * * 1-5", 48 * 60, 0),
        ("@once", 40, None),
        (None, 40, None),
    ],
    ids=str,
)
def test_the_count_checks_due_and_expiry_are_counted(schedule, minutes, checks):
    """Of an interval and of a cron expression, which may rest at the weekend."""
    from datetime import datetime, timezone

    from flowauth_rotator.provider.schedule import count_checks

    friday = datetime(2026, 11, 27, 10, 2, tzinfo=timezone.utc)
    until = friday + timedelta(minutes=minutes)
    assert count_checks(schedule, friday, until, 8) == checks


LEARNT = TokenStatus("ETL", name_is_known=True, fingerprint="0123abcd")
SUBSTITUTE = TokenStatus("ETL_TOKEN", name_is_known=False, fingerprint="0123abcd")


@pytest.mark.parametrize(
    ("name", "claims_name", "fingerprint", "known", "resolved"),
    [
        ("SET", None, "0123abcd", LEARNT, ("SET", True)),
        (None, "IN_JWT", "0123abcd", LEARNT, ("IN_JWT", True)),
        (None, None, "0123abcd", LEARNT, ("ETL", True)),
        (None, None, "another", LEARNT, ("ETL_TOKEN", False)),
        (None, None, None, LEARNT, ("ETL", True)),
        (None, None, "0123abcd", SUBSTITUTE, ("ETL_TOKEN", False)),
        (None, None, None, SUBSTITUTE, ("ETL_TOKEN", False)),
        (None, None, "0123abcd", None, ("ETL_TOKEN", False)),
    ],
)
def test_a_learnt_name_holds_for_the_same_token(name, claims_name, fingerprint, known, resolved):
    """Settings and JWT come first; an unreadable token keeps its name."""
    settings = ManagedToken("ETL_TOKEN", name=name)
    assert resolve_name(settings, claims_name, fingerprint, known) == resolved
