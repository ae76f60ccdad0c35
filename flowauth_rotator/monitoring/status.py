"""The status of tokens and rotation DAGs: facts without a severity rule, and their JSON.

A rotation DAG writes its status as JSON to an Airflow Variable. A reader merges the documents of
several DAGs, and adds what only Airflow knows at that moment. `status.schema.json` describes the
JSON. A status contains no part of a token.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.monitoring.json_values import parse, to_json
from flowauth_rotator.monitoring.stored_status import dump_dag, dump_token

VERSION = 3  # of the JSON
DEFAULT_GRACE_PERIOD = timedelta(hours=1)  # if the check interval is unknown
SWAP_OUTCOMES = (Outcome.ROTATED, Outcome.ADOPTED)


class Signature(str, Enum):
    """What the public key of the connection says about the signature of a token."""

    VALID = "valid"
    INVALID = "invalid"
    UNVERIFIED = "unverified"  # the key could not be read, or is another one

    __str__ = str.__str__


class InvalidStatus(ValueError):
    """A document is not a status of this version."""


@dataclass(frozen=True)
class Event:
    """The result of a check or a rotation.

    Attributes:
        at: when it ended.
        outcome: an `Outcome`.
        severity: its severity.
        message: why, in a sentence; empty in the history of a token, except for a last rotation
            that failed.
        hint: what the operator can do; empty if no action is needed.
        fingerprint: of the token in use after it; None if no token could be read.
        expires_at: the expiry of that token.
        needs_new_token: whether a renewal cannot help any more.
        run_id: the DAG run; None outside of Airflow.
        task_id: its task.
        map_index: the index of a mapped task, or -1.
        requested_by: the user who started the run; None for the schedule, and where Airflow does
            not record it.
    """

    at: datetime
    outcome: str
    severity: Severity = Severity.OK
    message: str = ""
    hint: str = ""
    fingerprint: str | None = None
    expires_at: datetime | None = None
    needs_new_token: bool = False
    run_id: str | None = None
    task_id: str | None = None
    map_index: int = -1
    requested_by: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the severity is not OK."""
        return self.severity is not Severity.OK

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


@dataclass(frozen=True)
class TokenStatus:
    """The status of one token.

    Attributes:
        name: the issuer's name of the token, or the key of its Variable while that is unknown.
        variable: the key of its Variable; None in an issuer's list.
        dag_id: the rotation DAG that manages it; None in an issuer's list.
        name_is_known: whether `name` is the issuer's name, and not a substitute.
        former_name: the name before the last change of `name`, if there was one.
        renamed_at: when `name` changed.
        settings: its entry in the list of managed tokens, without the description.
        fingerprint: the first 8 hex digits of the SHA-256 of the token in use.
        owner: its `sub`.
        audience: its `aud`.
        roles: the names of its roles.
        signature: whether its signature is valid; None if the connection has no public key.
        issued_at: when it was issued; None if no token can be read.
        renew_at: when its renewal is due.
        critical_at: from when on a failure is critical.
        expires_at: its `exp`.
        last_check: the result of the last check or rotation of the token.
        rotations: the last rotations, the newest first.
        rotation_counts: the number of rotations by outcome.
        last_success_at: when it was last swapped.
        newest_issued_at: when the newest token at the issuer was issued, or first seen.
        newest_issued_expires_at: its `exp`.
        longest_minutes: the lifetime that the issuer granted for a request without a lifetime.
        setup: a fingerprint of the token in use, its settings and its connection; None after a
            rotation, until the next check.
        last_rehearsal: the result of the last rehearsal of its renewal with this setup, or the
            rotation that stored it.
        rehearsal_steps: the steps of that rehearsal that succeeded, a sentence for each.
        read_error: live: why the token in use cannot be read.
        next_check_at: live: the time of the next check.
        renewal_check_at: live: the first check at which the renewal is due.
    """

    name: str
    variable: str | None = None
    dag_id: str | None = None
    name_is_known: bool = True
    former_name: str | None = None
    renamed_at: datetime | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    owner: str | None = None
    audience: str | None = None
    roles: Sequence[str] = ()
    signature: Signature | None = None
    issued_at: datetime | None = None
    renew_at: datetime | None = None
    critical_at: datetime | None = None
    expires_at: datetime | None = None
    last_check: Event | None = None
    rotations: Sequence[Event] = ()
    rotation_counts: Mapping[str, int] = field(default_factory=dict)
    last_success_at: datetime | None = None
    newest_issued_at: datetime | None = None
    newest_issued_expires_at: datetime | None = None
    longest_minutes: int | None = None
    setup: str | None = None
    last_rehearsal: Event | None = None
    rehearsal_steps: Sequence[str] = ()
    read_error: Event | None = None
    next_check_at: datetime | None = None
    renewal_check_at: datetime | None = None

    @property
    def is_unread(self) -> bool:
        """Whether neither a check nor this reader has read the token yet."""
        return not (self.last_check or self.read_error or self.issued_at)

    @property
    def current_result(self) -> Event | None:
        """The last result, if it is about the token in use."""
        return self.last_check if self.last_check and self.is_current(self.last_check) else None

    @property
    def current_rehearsal(self) -> Event | None:
        """The last rehearsal, if it was of the token in use."""
        last = self.last_rehearsal
        return last if last and self.is_current(last) else None

    @property
    def failed_rehearsal(self) -> Event | None:
        """The last rehearsal, if it failed and the same token is still in use."""
        last = self.current_rehearsal
        return last if last and last.has_failed else None

    @property
    def failed_rotation(self) -> Event | None:
        """The last rotation, if it failed and the same token is still in use."""
        last = next(iter(self.rotations), None)
        return last if last and last.has_failed and self.is_current(last) else None

    def is_current(self, event: Event) -> bool:
        """Whether an event is about the token in use.

        A shadowed Variable stays shadowed, whatever it contains. A failure before the token could
        be read is about the token of that time.
        """
        if event.outcome == Outcome.SHADOWED:
            return True
        if event.fingerprint is None and self.issued_at and event.outcome not in UNREAD_OUTCOMES:
            return False
        if event.fingerprint is None:
            return self.issued_at is None or self.issued_at <= event.at
        return event.fingerprint == self.fingerprint


UNREAD_OUTCOMES = (Outcome.MISCONFIGURED, Outcome.UNAVAILABLE)  # possible before the token is read


@dataclass(frozen=True)
class RotationDagStatus:
    """The status of one rotation DAG.

    Attributes:
        dag_id: the DAG.
        schedule: a cron expression, or the seconds between two checks; None if unknown.
        checked_at: the end of its last check of all tokens; None before the first.
        checked_by: the DAG run of that check.
        deadline_at: when two checks will have been missed, if the schedule is known.
        interval: the time from one check to the next, if known.
        grace_period: how long an issued token may remain unused: two checks.
        token_count: the number of managed tokens at its last check; None if unknown.
        configuration_errors: messages about invalid entries of the list of managed tokens.
        failure: the last check, if it failed as a whole.
        clock_skews: by connection, the seconds by which the issuer's clock was ahead of ours.
        public_keys: by connection, its public key as PEM or a JWK Set; empty if it could not be
            read.
        exists: live: whether Airflow knows the DAG.
        is_paused: live: whether it is paused.
        has_import_error: live: whether its file cannot be imported.
        next_check_at: live: the time of its next check, if one is scheduled.
    """

    dag_id: str
    schedule: str | float | None = None
    checked_at: datetime | None = None
    checked_by: str | None = None
    deadline_at: datetime | None = None
    interval: timedelta | None = None
    grace_period: timedelta = DEFAULT_GRACE_PERIOD
    token_count: int | None = None
    configuration_errors: Sequence[str] = ()
    failure: Event | None = None
    clock_skews: Mapping[str, int] = field(default_factory=dict)
    public_keys: Mapping[str, str] = field(default_factory=dict)
    exists: bool = True
    is_paused: bool = False
    has_import_error: bool = False
    next_check_at: datetime | None = None

    @property
    def is_scheduled(self) -> bool:
        """Whether Airflow will run it by its schedule."""
        return self.exists and not (self.is_paused or self.has_import_error)


@dataclass(frozen=True)
class StatusDocument:
    """The status of rotation DAGs and of the tokens that they manage.

    Attributes:
        dags: the rotation DAGs: one in the document of a DAG; None in an issuer's list.
        tokens: the tokens.
        issuer: the address of the issuer whose tokens were listed; empty if none were.
        issuer_failure: why the issuer's list failed; empty if it did not.
        taken_at: live: when a remote Airflow read its facts, by its clock; None if read here.
    """

    dags: Sequence[RotationDagStatus] | None = ()
    tokens: Sequence[TokenStatus] = ()
    issuer: str = ""
    issuer_failure: str = ""
    taken_at: datetime | None = None

    def select(self, names: Collection[str], now: datetime) -> StatusDocument:
        """Return the tokens of these names alone; an unknown name becomes a missing token.

        A former name selects the token that had it, unless another token has that name now.
        """
        known = {token.name for token in self.tokens}
        tokens = [
            token
            for token in self.tokens
            if token.name in names
            or (token.former_name in names and token.former_name not in known)
        ]
        known |= {token.former_name for token in tokens if token.former_name}
        missing = [name for name in dict.fromkeys(names) if name not in known]
        tokens += [self._build_missing_token(name, now) for name in missing]
        return replace(self, tokens=tokens)

    def with_issued(self, issued: StatusDocument) -> StatusDocument:
        """Return a document that adds the newest issued tokens of an issuer's list, by name.

        If tokens for several audiences share a name, the one that expires first counts.
        """
        by_name = {token.name: token for token in reversed(sort_by_expiry(issued.tokens))}
        tokens = [
            replace(
                token,
                newest_issued_at=newest.issued_at,
                newest_issued_expires_at=newest.expires_at,
            )
            if (newest := by_name.get(token.name))
            else token
            for token in self.tokens
        ]
        return replace(self, tokens=tokens, issuer=issued.issuer)

    def without_replaced_dags(self) -> StatusDocument:
        """Return the document without missing DAGs, except for tokens that no other DAG manages."""
        existing = {dag.dag_id for dag in self.dags or () if dag.exists or dag.has_import_error}
        managed = {token.variable for token in self.tokens if token.dag_id in existing}
        tokens = [
            token
            for token in self.tokens
            if token.dag_id in existing or token.variable not in managed
        ]
        needed = existing | {token.dag_id for token in tokens}
        dags = [dag for dag in self.dags or () if dag.dag_id in needed]
        return replace(self, dags=dags, tokens=tokens)

    def to_json(self) -> dict[str, Any]:
        """Return the document as JSON values; times are epoch seconds, durations seconds."""
        return {"version": VERSION, **to_json(self)}

    @classmethod
    def from_json(cls, document: object) -> StatusDocument:
        """Parse a document that `to_json` returned, or one that has further fields.

        Raises:
            InvalidStatus: the document is not a status, or one of another version.
        """
        if not isinstance(document, Mapping) or document.get("version") != VERSION:
            raise InvalidStatus(f"It is not a status of version {VERSION}.")
        try:
            return parse(cls, document)  # type: ignore[no-any-return]
        except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):
            pass
        raise InvalidStatus("It is not a status of tokens.")

    def dump(self) -> str:
        """Return the document as text of bounded size, without live values.

        A token takes at most 4 KiB. The steps of its rehearsal are dropped first, then its oldest
        rotations, the fields of `LEAST_NEEDED`, and the messages.
        """
        values = {
            "version": VERSION,
            "dags": [dump_dag(dag) for dag in self.dags or ()],
            "tokens": [dump_token(token) for token in self.tokens],
        }
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace").decode()

    @classmethod
    def load(cls, text: str) -> StatusDocument:
        """Parse a text that `dump` returned.

        Raises:
            InvalidStatus: the text is not a status, or one of another version.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidStatus("It is not valid JSON.") from None
        return cls.from_json(document)

    def _build_missing_token(self, name: str, now: datetime) -> TokenStatus:
        severity = Severity.CRITICAL
        new = [dag.dag_id for dag in self.dags or () if dag.checked_at is None]
        if self.dags is None:
            message = f"{self.issuer} has no current or recently expired token of this name."
            hint = "Correct the name, or mint a token of this name at the issuer."
        elif new:
            severity = Severity.UNKNOWN
            message = f"No check yet of the tokens of {' and '.join(new)}."
            hint = "The next run of the DAG checks them."
        else:
            message = "No managed token has this name."
            hint = "Correct the name, or add the token to the list of managed tokens."
        error = Event(now, Outcome.MISSING, severity, message, hint)
        return TokenStatus(name, read_error=error)


def merge(documents: Iterable[StatusDocument]) -> StatusDocument:
    """Merge the documents of several rotation DAGs."""
    documents = list(documents)
    return StatusDocument(
        dags=[dag for document in documents for dag in document.dags or ()],
        tokens=[token for document in documents for token in document.tokens],
    )


def sort_by_expiry(tokens: Iterable[TokenStatus]) -> list[TokenStatus]:
    """Sort tokens by expiry, those with an unknown expiry first."""
    return sorted(
        tokens, key=lambda token: token.expires_at.timestamp() if token.expires_at else 0.0
    )


def build_event(
    report: Report,
    *,
    run_id: str | None = None,
    task_id: str | None = None,
    map_index: int = -1,
    requested_by: str | None = None,
) -> Event:
    """Build the event of a report; the run, the task and the user are those it comes from."""
    return Event(
        at=report.checked_at,
        outcome=report.outcome,
        severity=report.severity,
        message=report.message,
        hint=report.hint,
        fingerprint=report.fingerprint,
        expires_at=report.expires_at,
        needs_new_token=report.needs_new_token,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        requested_by=requested_by,
    )
