"""The tokens to keep alive, as a DAG file or a Variable lists them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from flowauth_rotator.core.durations import parse_duration
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import RotationPolicy

DAG_ID = "flowauth_token_rotation"  # unless told otherwise
LIST_VARIABLE = "flowauth_rotator_tokens"
TAG = "flowauth-rotator"  # of the DAGs that keep tokens alive
LONGEST_RUN = timedelta(hours=1)
LOST = "The rotation ended without a report; its log says why."
LONGEST_LABEL = 250  # of a mapped task, in Airflow's database
LONGEST_KEY = 250  # of a Variable, in Airflow's database
TEXTS = ("variable", "name", "flowauth_conn_id", "description")
SHARES = ("renew_before", "critical_before")


@dataclass(frozen=True)
class ManagedToken:
    """A token that the DAG keeps alive; the fields are those of `RotateTokenOperator`.

    Raises:
        Misconfigured: a setting is out of its range.
    """

    variable: str = "FLOWAPI_TOKEN"
    name: str | None = None
    flowauth_conn_id: str = "flowauth_default"
    description: str | None = None
    renew_before: float | timedelta = RotationPolicy.renew_before
    critical_before: float | timedelta = RotationPolicy.critical_before
    lifetime_minutes: int | None = None

    def __post_init__(self) -> None:
        for setting in TEXTS:
            value = getattr(self, setting)
            optional = setting in ("name", "description") and value is None
            if not optional and not (isinstance(value, str) and value):
                raise Misconfigured(f"`{setting}` is {value!r}.", advice="Give it a text.")
            if not optional and may_be_a_token(value):
                raise Misconfigured(
                    f"`{setting}` looks like a token itself.",
                    advice="Store the token in a Variable, and give that Variable's key here.",
                )
        if len(self.variable) > LONGEST_KEY:
            raise Misconfigured(
                f"`variable` is longer than {LONGEST_KEY} characters.",
                advice="Give it the key of a Variable.",
            )
        self.policy  # noqa: B018 - a wrong setting is told where it is written

    def to_json(self) -> dict[str, Any]:
        """The settings that differ from the defaults, in the words of the Variable's list."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: f"{math.ceil(value.total_seconds())}s" if isinstance(value, timedelta) else value
            for name, value in settings.items()
            if name == "variable" or value != getattr(type(self), name)
        }

    @property
    def policy(self) -> RotationPolicy:
        """When this token is due."""
        return RotationPolicy(
            renew_before=self.renew_before,
            critical_before=self.critical_before,
            lifetime_minutes=self.lifetime_minutes,
        )


@dataclass(frozen=True)
class WrongEntry:
    """An entry of the list that stands for no token.

    Attributes:
        label: what to call it: its name, its Variable, or its number.
        error: what is wrong with it.
    """

    label: str
    error: Misconfigured


def check_tokens(tokens: Sequence[ManagedToken]) -> None:
    """Check what a DAG file lists.

    Raises:
        Misconfigured: it is no list of managed tokens, or has a Variable or a name twice.
    """
    if not isinstance(tokens, (list, tuple)) or not all(
        isinstance(token, ManagedToken) for token in tokens
    ):
        raise Misconfigured(
            "`tokens` is no list of managed tokens.",
            advice='Write it as in rotation_dag([ManagedToken("FLOWAPI_TOKEN")]).',
        )
    taken: set[tuple[str, str]] = set()
    for token in tokens:
        _take(token, taken)


def read_tokens(text: str) -> tuple[list[ManagedToken], list[WrongEntry]]:
    """The tokens that a JSON text lists, and the entries that are wrong, which stop no others."""
    try:
        entries = json.loads(text, object_pairs_hook=tuple)  # so that a key twice is seen
    except json.JSONDecodeError as error:
        where = f"at line {error.lineno}, column {error.colno}"
        return [], [_whole(f"is no JSON {where}")]
    except (ValueError, RecursionError):
        return [], [_whole("is no JSON that could be read")]
    if not isinstance(entries, list):
        return [], [_whole("is no list")]
    taken: set[tuple[str, str]] = set()
    read = [_entry(number, entry, taken) for number, entry in enumerate(entries, 1)]
    return (
        [one for one in read if isinstance(one, ManagedToken)],
        [one for one in read if isinstance(one, WrongEntry)],
    )


def _whole(what: str) -> WrongEntry:
    """The list itself is wrong."""
    advice = 'Write it like [{"variable": "FLOWAPI_TOKEN"}, {"variable": "ETL_TOKEN"}].'
    reason = f"Variable {LIST_VARIABLE} {what}."
    return WrongEntry(LIST_VARIABLE, Misconfigured(reason, advice=advice))


def _entry(number: int, entry: object, taken: set[tuple[str, str]]) -> ManagedToken | WrongEntry:
    try:
        token = _token(entry)
        _take(token, taken)
    except Misconfigured as error:
        reason = f"Entry {number} of Variable {LIST_VARIABLE} is wrong. {error.reason}"
        return WrongEntry(_label(entry, number), Misconfigured(reason, advice=error.advice))
    return token


def _token(entry: object) -> ManagedToken:
    """The token of an entry, which is a JSON object as its pairs. No value of it is shown."""
    known = [field.name for field in fields(ManagedToken)]
    if not isinstance(entry, tuple):
        raise Misconfigured("It is no object.", advice='Write it like {"variable": "ETL_TOKEN"}.')
    settings = dict(entry)
    for key in settings:
        if key not in known:
            shown = f"key {key!r}" if re.fullmatch(r"\w{1,40}", key) else "key"
            raise Misconfigured(f"It has an unknown {shown}.", advice=f"It takes {_listed(known)}.")
    if len(settings) < len(entry):
        raise Misconfigured("It has a key twice.", advice="Leave one of the two out.")
    if "variable" not in settings:
        raise Misconfigured(
            "It has no `variable`.", advice="Give it the key of the Variable with the token."
        )
    return ManagedToken(**{key: _value(key, value) for key, value in settings.items()})


def _value(setting: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    """A setting's value, if it is of its type; its range is the managed token's affair."""
    if setting in SHARES:
        if type(value) in (int, float):
            return value
        with suppress(ValueError, TypeError):
            return parse_duration(value)
        raise Misconfigured(
            f"`{setting}` is neither a number nor a duration.",
            advice='Use a fraction of the lifetime such as 0.25, or a duration such as "8h".',
        )
    if value is None and setting in ("name", "description", "lifetime_minutes"):
        return None
    kind, words = (str, "a text") if setting in TEXTS else (int, "a whole number")
    if type(value) is not kind:
        raise Misconfigured(f"`{setting}` is not {words}.", advice=f"Give it {words}.")
    return value


def _take(token: ManagedToken, taken: set[tuple[str, str]]) -> None:
    """Add the token's Variable and name to those that are taken, unless one of them is."""
    if ("variable", token.variable) in taken:
        raise Misconfigured(
            f"Variable {token.variable} is managed twice.", advice="Leave one of the two out."
        )
    if token.name and ("name", token.name) in taken:
        raise Misconfigured(
            f"Two tokens are named {token.name!r}.",
            advice="Give one of the two another name, or none.",
        )
    taken |= {("variable", token.variable), ("name", token.name or "")}


def _label(entry: object, number: int) -> str:
    """The name of an entry, or its Variable's, if it has one that may be shown."""
    settings = dict(entry) if isinstance(entry, tuple) else {}
    for setting in ("name", "variable"):
        text = settings.get(setting)
        if isinstance(text, str) and 0 < len(text) <= LONGEST_KEY and not may_be_a_token(text):
            return text
    return f"entry {number}"


def may_be_a_token(text: str) -> bool:
    """Whether a text has what looks like a JWT, pasted where a name or a key belongs."""
    return re.search(r"[\w-]{16,}\.[\w-]{16,}\.[\w-]{16,}", text) is not None


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
