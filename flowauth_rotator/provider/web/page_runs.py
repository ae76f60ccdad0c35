"""The DAG runs that users start from the page: their ids, their progress and their results.

Rehearsals are runs like renewals, so that a token has one active run of either kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from flowauth_rotator.monitoring.status import Event, RotationDagStatus, TokenStatus

PREFIX = "renew-"  # of the ids of these runs
PREFIX_LENGTH = len(PREFIX) + 13  # with the digest of the Variable
STEPS = ("survey", "rotate", "report")  # the tasks of a rotation DAG
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")  # states of tasks
NO_RESULT = "The run ended without a report; see its log."


@dataclass(frozen=True)
class PageRun:
    """A DAG run that a user started from the page to renew a token, or to rehearse that.

    Attributes:
        run_id: its id.
        state: queued, running, success or failed.
        requested_at: when the user requested it.
        requested_by: the user, if Airflow records it.
        step: the task that an active run is at, or `queued`; None otherwise.
        is_rehearsal: whether it rehearses the renewal.
    """

    run_id: str
    state: str
    requested_at: datetime
    requested_by: str | None = None
    step: str | None = None
    is_rehearsal: bool = False

    @property
    def is_active(self) -> bool:
        """Whether the run has not ended."""
        return self.state in ("queued", "running")

    @property
    def has_failed(self) -> bool:
        """Whether the run ended, and not with success."""
        return self.state == "failed"

    def find_result(self, token: TokenStatus, dag: RotationDagStatus) -> Event | None:
        """Return the result of the run for a token; None if the document does not have it."""
        check = token.last_check
        if self.is_rehearsal:  # the check of the token comes first, and succeeds
            is_end = check is None or check.has_failed
            events = [token.last_rehearsal, check if is_end else None, dag.failure]
        else:
            events = [check, *token.rotations, dag.failure]
        return next((event for event in events if event and event.run_id == self.run_id), None)

    def describe(self, result: Event | None) -> str:
        """Return the progress or the result of the run in a sentence; may be empty."""
        if self.state == "queued":
            return "Waiting for the scheduler."
        if self.is_active:
            return "Rehearsing the renewal." if self.is_rehearsal else "Renewing."
        if result and result.message:
            return result.message
        return NO_RESULT if self.has_failed else ""


def find_step(states: Mapping[str, Collection[str | None]]) -> str | None:
    """Return the first task of a running run that has not ended; None if all have.

    Args:
        states: by task, the states of its task instances.
    """
    for task_id in STEPS:
        if not all(state in FINISHED for state in states.get(task_id, ())):
            return task_id
    return None


def build_run_prefix(variable: str) -> str:
    """Return the prefix of the ids of a Variable's runs."""
    return f"{PREFIX}{hashlib.sha256(variable.encode()).hexdigest()[:12]}-"


def build_next_run_id(variable: str, last: PageRun | None) -> str:
    """Return the id of the run after `last`: the same for all requests that saw the same run."""
    number = int(last.run_id[PREFIX_LENGTH:]) + 1 if last else 1
    return f"{build_run_prefix(variable)}{number}"


def is_run_id(text: str) -> bool:
    """Whether a text that begins with `PREFIX` is the id of such a run."""
    return text[PREFIX_LENGTH:].isdecimal()
