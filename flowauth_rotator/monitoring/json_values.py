"""Dataclasses as JSON values, and the reverse: times are epoch seconds, durations seconds."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, Union, get_args, get_origin, get_type_hints


def to_json(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value as JSON; times are epoch seconds, durations seconds."""
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):  # truncated: rounded up, the end of the year 9999 is invalid
        return round(value.replace(microsecond=0).timestamp())
    if isinstance(value, timedelta):
        return round(value.total_seconds())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def parse(kind: Any, value: Any) -> Any:  # noqa: ANN401 - a type, and JSON
    """Return a JSON value as an instance of a type; the reverse of `to_json`.

    Raises:
        KeyError: a field without a default is missing.
        TypeError: a value has another type.
        ValueError: a value is out of its range.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            if type(None) not in arguments:
                raise TypeError(f"null is not a {kind}")
            return None
        kinds = tuple(each for each in arguments if each is not type(None))
        if len(kinds) == 1:
            return parse(kinds[0], value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (isinstance(value, str) or (is_number and isfinite(value))):
            raise TypeError(f"{value} is not a {kind}")
        return value
    if origin is Sequence:
        if not isinstance(value, list):
            raise TypeError(f"{type(value)} is not a list")
        return tuple(parse(arguments[0], item) for item in value)
    if origin is Mapping:
        return {str(key): parse(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _get_type_hints(kind)
        return kind(
            **{name: parse(hint, value[name]) for name, hint in hints.items() if name in value}
        )
    if kind is datetime:
        return datetime.fromtimestamp(value, timezone.utc)
    if kind is timedelta:
        return timedelta(seconds=value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is not Any and (
        not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)
    ):
        raise TypeError(f"{type(value)} is not {kind}")
    return value


@lru_cache(maxsize=16)
def _get_type_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def without_defaults(value: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return a dataclass as JSON without the fields that have their defaults, to save space."""
    document: dict[str, Any] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if item == each.default or (isinstance(item, (list, tuple, Mapping)) and not item):
            continue
        if is_dataclass(item):
            document[each.name] = without_defaults(item)
        elif each.name == "rotations":
            document[each.name] = [without_defaults(event) for event in item]
        else:
            document[each.name] = to_json(item)
    return document
