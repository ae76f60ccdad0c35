"""The JSON that a rotation DAG stores: without live values, and of bounded size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowauth_rotator.monitoring.json_values import without_defaults

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.status import Event, RotationDagStatus, TokenStatus

LONGEST_HISTORY = 20  # rotations of a token
LARGEST_TOKEN = 4096  # bytes of JSON for a token
LONGEST_MESSAGE = 600  # bytes of a message in a written document
LONGEST_HINT = 400
LONGEST_STEP = 200  # bytes of a step of a rehearsal
MOST_STEPS = 8  # of a rehearsal
LONGEST_LIST = 400  # bytes of the roles of a token
LONGEST_CLAIM = 200  # bytes of the owner or the audience
LONGEST_ID = 300  # bytes of the id of a run or a task
LONGEST_USER = 100  # bytes of the name of a user
LEAST_NEEDED = ("former_name", "renamed_at", "roles", "settings", "audience", "owner")
MOST_ERRORS = 20  # of the list of managed tokens


def dump_dag(dag: RotationDagStatus) -> dict[str, Any]:
    """Return a DAG as JSON without live values."""
    errors = dag.configuration_errors[:MOST_ERRORS]
    stored = replace(
        dag,
        configuration_errors=[_cut(error, LONGEST_MESSAGE) for error in errors],
        failure=dag.failure and _cut_event(dag.failure),
        exists=True,
        is_paused=False,
        has_import_error=False,
        next_check_at=None,
    )
    return without_defaults(stored)


def dump_token(token: TokenStatus) -> dict[str, Any]:
    """Return a token as JSON without live values, at most `LARGEST_TOKEN` bytes of it.

    The limit holds for names up to 200 characters, Variables and DAGs up to 250.
    """
    token = replace(
        token,
        owner=token.owner and _cut(token.owner, LONGEST_CLAIM),
        audience=token.audience and _cut(token.audience, LONGEST_CLAIM),
        roles=_cut_list(token.roles),
        last_check=token.last_check and _cut_event(token.last_check),
        last_rehearsal=token.last_rehearsal and _cut_event(token.last_rehearsal),
        rehearsal_steps=[_cut(step, LONGEST_STEP) for step in token.rehearsal_steps[:MOST_STEPS]],
        rotations=[
            _cut_event(
                event if number == 0 and event.has_failed else replace(event, message="", hint="")
            )
            for number, event in enumerate(token.rotations[:LONGEST_HISTORY])
        ],
        read_error=None,
        next_check_at=None,
        renewal_check_at=None,
    )
    values: dict[str, Any] = without_defaults(token)
    if _size(values) > LARGEST_TOKEN:
        values.pop("rehearsal_steps", None)
    while _size(values) > LARGEST_TOKEN and values.get("rotations"):
        values["rotations"].pop()
    last_check = values.get("last_check", {})
    for document, name in (
        *((values, name) for name in LEAST_NEEDED),
        (values.get("last_rehearsal", {}), "hint"),
        (values.get("last_rehearsal", {}), "message"),
        (last_check, "hint"),
        (last_check, "message"),
    ):
        if _size(values) > LARGEST_TOKEN:
            document.pop(name, None)
    return values


def _cut_event(event: Event) -> Event:
    """Return an event with a message of bounded size, and without ids that are too long."""
    run_id, task_id = (
        each if each is None or _size(each) <= LONGEST_ID else None
        for each in (event.run_id, event.task_id)
    )
    return replace(
        event,
        message=_cut(event.message, LONGEST_MESSAGE),
        hint=_cut(event.hint, LONGEST_HINT),
        run_id=run_id,
        task_id=task_id,
        requested_by=event.requested_by and _cut(event.requested_by, LONGEST_USER),
    )


def _cut(text: str, limit: int) -> str:
    """Return a text that has at most `limit` bytes as JSON, with an ellipsis if it is cut."""
    if _size(text) <= limit:
        return text
    size = _size("…")
    for end, character in enumerate(text):
        size += _size(character) - _size("")
        if size > limit:
            return f"{text[:end]}…"
    return text


def _cut_list(items: Sequence[str]) -> list[str]:
    kept: list[str] = []
    size = 0
    for item in items:
        size += _size(item) + 1
        if size > LONGEST_LIST:
            return [*kept, "…"]
        kept.append(item)
    return kept


def _size(value: object) -> int:
    """Return the number of bytes that a value has as JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "replace"))
