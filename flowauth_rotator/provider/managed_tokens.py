"""The list of managed tokens, in a DAG file or in a Variable."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.durations import parse_duration
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.text import quote
from flowauth_rotator.core.tokens import LONGEST_NAME
from flowauth_rotator.provider.stores import check_store

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.status import TokenStatus

DAG_ID = "flowauth_token_rotation"  # by default
LIST_VARIABLE = "flowauth_rotator_tokens"
TAG = "flowauth-rotator"  # of rotation DAGs
LONGEST_RUN = timedelta(hours=1)
NO_REPORT = "The rotation ended without a report; see the log of its task."
LONGEST_LABEL = 250  # of a mapped task, in Airflow's database
LONGEST_KEY = 250  # of a Variable, in Airflow's database
STRING_SETTINGS = ("variable", "name", "flowauth_conn_id", "description", "store")
OPTIONAL_STRINGS = ("name", "description", "store")
OPTIONAL_SETTINGS = (*OPTIONAL_STRINGS, "lifetime_minutes", "rehearse_every")
DURATION_SETTINGS = ("renew_before", "critical_before")


@dataclass(frozen=True)
class ManagedToken:
    """The settings of a token that a rotation DAG renews, as in `RotateTokenOperator`.

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
    rehearse_every: timedelta | None = timedelta(days=1)
    store: str | None = None
    also_variables: Sequence[str] = ()

    def __post_init__(self) -> None:
        for setting in STRING_SETTINGS:
            value = getattr(self, setting)
            optional = setting in OPTIONAL_STRINGS and value is None
            if not optional and not (isinstance(value, str) and value):
                raise Misconfigured(
                    f"`{setting}` is {value!r}, which is not a non-empty string.",
                    hint="Correct the setting.",
                )
            if not optional and looks_like_token(value):
                raise Misconfigured(
                    f"`{setting}` contains what looks like a token.",
                    hint="Store the token in a Variable, and set `variable` to its key.",
                )
        check_store(self.store)
        object.__setattr__(self, "also_variables", _parse_keys(self.also_variables))
        for setting, keys in (
            ("variable", (self.variable,)),
            ("also_variables", self.also_variables),
        ):
            if any(len(key) > LONGEST_KEY for key in keys):
                raise Misconfigured(
                    f"`{setting}` is longer than {LONGEST_KEY} characters.",
                    hint="Set it to the key of a Variable.",
                )
        for key, count in Counter(self.keys).items():
            if count > 1:
                raise _reject_key(key)
        if self.name and len(self.name) > LONGEST_NAME:
            raise Misconfigured(
                f"`name` is longer than {LONGEST_NAME} characters.",
                hint="Set it to the issuer's name of the token.",
            )
        every = self.rehearse_every
        if every is not None and not (isinstance(every, timedelta) and every > timedelta(0)):
            raise Misconfigured(
                f"`rehearse_every` is {every!r}.", hint="Use a `timedelta` above 0, or None."
            )
        self.policy  # noqa: B018 - validates the settings

    def to_json(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, as an entry of the list Variable."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: _setting_to_json(value)
            for name, value in settings.items()
            if name == "variable" or value != getattr(type(self), name)
        }

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the token and of its copies."""
        return (self.variable, *self.also_variables)

    @property
    def policy(self) -> RotationPolicy:
        """The policy that decides when this token is due."""
        return RotationPolicy(
            renew_before=self.renew_before,
            critical_before=self.critical_before,
            lifetime_minutes=self.lifetime_minutes,
        )


@dataclass(frozen=True)
class InvalidEntry:
    """An invalid entry of the list Variable.

    Attributes:
        label: the name, the Variable or the number of the entry.
        error: the problem.
    """

    label: str
    error: Misconfigured


def validate_tokens(tokens: Sequence[ManagedToken]) -> None:
    """Validate the list of a DAG file.

    Raises:
        Misconfigured: it is not a list of managed tokens, or two have the same Variable or name.
    """
    if not isinstance(tokens, (list, tuple)) or not all(
        isinstance(token, ManagedToken) for token in tokens
    ):
        raise Misconfigured(
            "`tokens` is not a list of managed tokens.",
            hint='Use rotation_dag([ManagedToken("FLOWAPI_TOKEN")]).',
        )
    used: set[tuple[str, str]] = set()
    for token in tokens:
        _reject_duplicate(token, used)


def parse_tokens(text: str) -> tuple[list[ManagedToken], list[InvalidEntry]]:
    """Parse a list in JSON, and return its tokens and its invalid entries."""
    try:
        entries = json.loads(text, object_pairs_hook=tuple)  # shows duplicate keys
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        return [], [_reject_list(f"is not valid JSON at {position}")]
    except (ValueError, RecursionError):
        return [], [_reject_list("is not valid JSON")]
    if not isinstance(entries, list):
        return [], [_reject_list("is not a JSON array")]
    used: set[tuple[str, str]] = set()
    parsed = [_parse_entry(number, entry, used) for number, entry in enumerate(entries, 1)]
    return (
        [entry for entry in parsed if isinstance(entry, ManagedToken)],
        [entry for entry in parsed if isinstance(entry, InvalidEntry)],
    )


def resolve_name(
    settings: ManagedToken,
    claims_name: str | None,
    fingerprint: str | None,
    known: TokenStatus | None,
) -> tuple[str, bool]:
    """Return the name of a token, and whether it is the issuer's name.

    The JWTs of FlowAuth carry no name: a rotation learns it from the issuer. That name holds for
    the same token, and while the token cannot be read. The substitute is the key of the Variable.

    Args:
        settings: the settings of the token.
        claims_name: the name in the JWT, if the issuer writes it there.
        fingerprint: of the token in use; None if it cannot be read.
        known: the last status of the token in this Variable, if there is one.
    """
    if name := settings.name or claims_name:
        return name, True
    if known and known.name_is_known and fingerprint in (None, known.fingerprint):
        return known.name, True
    return settings.variable, False


def _reject_list(problem: str) -> InvalidEntry:
    hint = 'Write it like [{"variable": "FLOWAPI_TOKEN"}, {"variable": "ETL_TOKEN"}].'
    message = f"Variable {LIST_VARIABLE} {problem}."
    return InvalidEntry(LIST_VARIABLE, Misconfigured(message, hint=hint))


def _parse_entry(
    number: int, entry: object, used: set[tuple[str, str]]
) -> ManagedToken | InvalidEntry:
    try:
        token = _parse_token(entry)
        _reject_duplicate(token, used)
    except Misconfigured as error:
        message = f"Entry {number} of Variable {LIST_VARIABLE} is invalid. {error.message}"
        return InvalidEntry(_get_label(entry, number), Misconfigured(message, hint=error.hint))
    return token


def _parse_token(entry: object) -> ManagedToken:
    """Return the token of an entry: the pairs of a JSON object. No message shows its values."""
    known = [field.name for field in fields(ManagedToken)]
    if not isinstance(entry, tuple):
        raise Misconfigured(
            "It is not a JSON object.", hint='Write it like {"variable": "ETL_TOKEN"}.'
        )
    settings = dict(entry)
    for key in settings:
        if key not in known:
            noun = f"key {key!r}" if re.fullmatch(r"\w{1,40}", key) else "key"
            raise Misconfigured(
                f"It has an unknown {noun}.", hint=f"Its keys may be {_join(known)}."
            )
    if len(settings) < len(entry):
        raise Misconfigured("It contains a key twice.", hint="Remove one of the two.")
    if "variable" not in settings:
        raise Misconfigured(
            "It does not contain `variable`.",
            hint="Set it to the key of the Variable with the token.",
        )
    return ManagedToken(**{key: _parse_value(key, value) for key, value in settings.items()})


def _parse_value(setting: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value if its type is valid; `ManagedToken` validates the range."""
    if setting in DURATION_SETTINGS:
        if type(value) in (int, float):
            return value
        with suppress(ValueError, TypeError):
            return parse_duration(value)
        raise Misconfigured(
            f"`{setting}` is neither a number nor a duration.",
            hint='Use a fraction of the lifetime such as 0.25, or a duration such as "8h".',
        )
    if value is None and setting in OPTIONAL_SETTINGS:
        return None
    if setting == "rehearse_every":
        with suppress(ValueError, TypeError):
            return parse_duration(value)
        raise Misconfigured(
            "`rehearse_every` is not a duration.", hint='Use a duration such as "1d", or null.'
        )
    if setting == "also_variables":
        return value  # `ManagedToken` validates it
    kind, noun = (str, "a string") if setting in STRING_SETTINGS else (int, "a whole number")
    if type(value) is not kind:
        raise Misconfigured(f"`{setting}` is not {noun}.", hint=f"Use {noun}.")
    return value


def _reject_duplicate(token: ManagedToken, used: set[tuple[str, str]]) -> None:
    """Add the token's Variables and name to those in use, or raise an error for a duplicate."""
    for key in token.keys:
        if ("variable", key) in used:
            raise _reject_key(key)
    if token.name and ("name", token.name) in used:
        raise Misconfigured(
            f"Two tokens have the name {quote(token.name)}.",
            hint="Change or remove one of the two names.",
        )
    used |= {("variable", key) for key in token.keys} | {("name", token.name or "")}


def _reject_key(key: str) -> Misconfigured:
    return Misconfigured(f"Variable {key} is listed twice.", hint="Remove one of the two.")


def _setting_to_json(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, timedelta):
        return f"{math.ceil(value.total_seconds())}s"
    return list(value) if isinstance(value, tuple) else value


def _parse_keys(keys: object) -> tuple[str, ...]:
    """Return the keys of Variables in a list.

    Raises:
        Misconfigured: it is not a list of keys.
    """
    is_list = isinstance(keys, (list, tuple)) and all(isinstance(key, str) and key for key in keys)
    if not is_list or any(map(looks_like_token, keys)):  # type: ignore[call-overload]
        raise Misconfigured(
            "`also_variables` is not a list of keys of Variables.",
            hint='Write it like ["ETL_TOKEN"].',
        )
    return tuple(keys)  # type: ignore[arg-type]


def _get_label(entry: object, number: int) -> str:
    """Return the name or the Variable of an entry if it is safe to show, or else its number."""
    settings = dict(entry) if isinstance(entry, tuple) else {}
    for setting, longest in (("name", LONGEST_NAME), ("variable", LONGEST_KEY)):
        text = settings.get(setting)
        if isinstance(text, str) and 0 < len(text) <= longest and not looks_like_token(text):
            return text
    return f"entry {number}"


def looks_like_token(text: str) -> bool:
    """Whether a text contains what looks like a JWT, pasted in place of a name or a key."""
    return re.search(r"[\w-]{16,}\.[\w-]{16,}\.[\w-]{16,}", text) is not None


def _join(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
