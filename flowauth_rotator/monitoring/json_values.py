"""Dataclasses as JSON values, and the reverse: times are epoch seconds, durations seconds."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, Union, get_args, get_origin, get_type_hints

PLAIN_TYPES = frozenset({str, int, float, bool, type(None)})  # the same in JSON


def to_json(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value as JSON; times are epoch seconds, durations seconds."""
    kind: Any = type(value)
    if kind in PLAIN_TYPES:
        return value
    if is_dataclass(value):
        return {name: to_json(getattr(value, name)) for name in _get_field_names(kind)}
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
    return _build_parser(kind)(value)


@lru_cache(maxsize=128)
def _build_parser(kind: Any) -> Callable[[Any], Any]:  # noqa: ANN401 - a type
    """Return the function that parses values of a type: once, since documents are long."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _build_union_parser(kind, arguments)
    if origin is Sequence:
        parse_item = _build_parser(arguments[0])
        return lambda value: tuple(map(parse_item, _check(list, value)))
    if origin is Mapping:
        parse_item = _build_parser(arguments[1])
        return lambda value: {str(key): parse_item(item) for key, item in value.items()}
    if kind is datetime:
        return lambda value: datetime.fromtimestamp(value, timezone.utc)
    if kind is timedelta:
        return lambda value: timedelta(seconds=value)
    if isinstance(kind, type) and is_dataclass(kind):
        parsers = {name: _build_parser(hint) for name, hint in get_type_hints(kind).items()}
        return lambda value: kind(
            **{
                name: parse_field(value[name])
                for name, parse_field in parsers.items()
                if name in value
            }
        )
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    return lambda value: value if kind is Any else _check(kind, value)


def _build_union_parser(kind: Any, arguments: Sequence[Any]) -> Callable[[Any], Any]:  # noqa: ANN401
    """Return the parser of an optional type, or of a text or a number."""
    is_optional = type(None) in arguments
    kinds = [each for each in arguments if each is not type(None)]
    parse_value = _build_parser(kinds[0]) if len(kinds) == 1 else _check_text_or_number

    def parse_union(value: Any) -> Any:  # noqa: ANN401 - JSON
        if value is not None:
            return parse_value(value)
        if is_optional:
            return None
        raise TypeError(f"null is not a {kind}")

    return parse_union


def _check_text_or_number(value: Any) -> Any:  # noqa: ANN401 - JSON
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(value, str) or (is_number and isfinite(value)):
        return value
    raise TypeError(f"{value} is neither a text nor a number")


def _check(kind: type, value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise TypeError(f"{type(value)} is not {kind}")


@lru_cache(maxsize=16)
def _get_field_names(kind: Any) -> list[str]:  # noqa: ANN401 - a dataclass
    return [each.name for each in fields(kind)]


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
