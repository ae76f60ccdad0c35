"""What was found of the tokens and of the DAGs that keep them alive, at one moment: facts alone.

All readings are made of it, and it travels as JSON from an Airflow to whoever watches it. No part
of a token is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from flowauth_rotator.core.report import Outcome, Report, Severity

VERSION = 1  # of the JSON
PATIENCE = timedelta(hours=1)  # where nobody knows how often is checked


class Unreadable(ValueError):
    """A document is no snapshot of this version."""


@dataclass(frozen=True)
class Life:
    """When a token begins, is due and ends; aware UTC.

    Attributes:
        issued_at: when it was issued.
        expires_at: its `exp`.
        renew_at: when it is due, if known.
    """

    issued_at: datetime
    expires_at: datetime
    renew_at: datetime | None = None


@dataclass(frozen=True)
class Told:
    """What was said of a token by whoever looked at it last.

    Attributes:
        word: an outcome, or where the token stands.
        severity: how loud it is.
        reason: why, in a sentence.
        advice: what a person can do; empty when there is nothing to do.
    """

    word: str
    severity: Severity
    reason: str
    advice: str = ""


@dataclass(frozen=True)
class Watched:
    """One token that is watched, by its name.

    Attributes:
        name: the issuer's name of it, or of its place while that is unknown.
        place: where the token in use is kept, for people; empty if only the issuer was asked.
        dag_id: the DAG that keeps it alive, if known.
        in_use: the token in use, if it can be read.
        issued: the newest one that the issuer holds; if only the agent saw it, since it did.
        told: what was said of it last.
        renewal_check_at: the first check at which it is due, if one is known.
        last_success_at: when it was last swapped, if known.
        rotations: how many ended with each outcome; None if nobody counts.
    """

    name: str
    place: str = ""
    dag_id: str | None = None
    in_use: Life | None = None
    issued: Life | None = None
    told: Told | None = None
    renewal_check_at: datetime | None = None
    last_success_at: datetime | None = None
    rotations: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Heartbeat:
    """How a DAG is that keeps tokens alive.

    Attributes:
        dag_id: the DAG.
        condition: ok, new, failed, misconfigured, late, paused, missing or broken.
        sentence: what a person can do if it is not well.
        checked_at: the end of its last check of all tokens; None before the first.
        deadline_at: when two checks have been missed, if the schedule is known.
        next_check_at: when its next check comes, if one does.
        interval: the time from one check to the next, if known.
        patience: how long a token that was issued may wait to be put to use: two checks.
    """

    dag_id: str
    condition: str = "ok"
    sentence: str = ""
    checked_at: datetime | None = None
    deadline_at: datetime | None = None
    next_check_at: datetime | None = None
    interval: timedelta | None = None
    patience: timedelta = PATIENCE


@dataclass(frozen=True)
class Snapshot:
    """All that was found.

    Attributes:
        taken_at: when, in aware UTC.
        tokens: the watched tokens.
        agents: the DAGs; None if only the issuer was asked, who knows of none.
        clock_skews: by connection, by how many seconds the issuer's clock was ahead of ours.
        issuer: the issuer that was asked, if one was.
        issuer_trouble: why it gave no list, if it did not.
    """

    taken_at: datetime
    tokens: Sequence[Watched] = ()
    agents: Sequence[Heartbeat] | None = None
    clock_skews: Mapping[str, int] = field(default_factory=dict)
    issuer: str = ""
    issuer_trouble: str = ""

    def named(self, names: Collection[str]) -> Snapshot:
        """The same of these names alone; one that nobody knows is a missing token."""
        tokens = [one for one in self.tokens if one.name in names]
        unknown = dict.fromkeys(names, None) | {one.name: one for one in tokens}
        tokens += [self._unknown(name) for name, one in unknown.items() if one is None]
        return replace(self, tokens=tokens)

    def with_issued(self, issued: Snapshot) -> Snapshot:
        """The same with what an issuer holds of each name."""
        lives = {one.name: one.issued for one in reversed(soonest_first(issued.tokens))}
        tokens = [replace(one, issued=lives.get(one.name, one.issued)) for one in self.tokens]
        return replace(self, tokens=tokens, issuer=issued.issuer)

    def to_json(self) -> dict[str, Any]:
        """The snapshot as JSON values; times are epoch seconds, durations seconds."""
        document: dict[str, Any] = _plain(self)
        return {"version": VERSION, **document}

    @classmethod
    def from_json(cls, document: object) -> Snapshot:
        """The snapshot that `to_json` wrote.

        Raises:
            Unreadable: it is none, or of another version.
        """
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise Unreadable(f"It is no state of tokens of version {VERSION}.")
        try:
            agents = document["agents"]
            return cls(
                taken_at=_time(document["taken_at"]),
                tokens=[_watched(one) for one in document["tokens"]],
                agents=None if agents is None else [_heartbeat(one) for one in agents],
                clock_skews={
                    str(key): int(value) for key, value in document["clock_skews"].items()
                },
                issuer=str(document["issuer"]),
                issuer_trouble=str(document["issuer_trouble"]),
            )
        except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):
            pass
        raise Unreadable("It is no state of tokens.")

    def _unknown(self, name: str) -> Watched:
        reason = (
            f"{self.issuer} has issued no token of this name lately."
            if self.agents is None
            else "No managed token has this name."
        )
        advice = "Correct the name, or have a token of this name kept alive."
        return Watched(name, told=Told(Outcome.MISSING, Severity.CRITICAL, reason, advice))


def soonest_first(tokens: Iterable[Watched]) -> list[Watched]:
    """Those that nobody can read, then those that expire, in that order."""
    return sorted(tokens, key=_expiry)


def reported(report: Report, dag_id: str) -> Watched:
    """A token as the report of its last check tells of it.

    Not what only a rotation tells, such as when it was swapped: the next check would forget it.
    """
    return Watched(
        name=report.name,
        place=report.place,
        dag_id=dag_id,
        in_use=(
            Life(report.issued_at, report.expires_at, report.renew_at)
            if report.issued_at and report.expires_at
            else None
        ),
        told=Told(report.outcome, report.severity, report.reason, report.advice),
    )


def _expiry(one: Watched) -> float:
    life = one.in_use or one.issued
    return life.expires_at.timestamp() if life else 0.0


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):
        return round(value.timestamp())
    if isinstance(value, timedelta):
        return round(value.total_seconds())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _watched(document: dict[str, Any]) -> Watched:
    told, rotations = document["told"], document["rotations"]
    dag_id = document["dag_id"]
    return Watched(
        name=str(document["name"]),
        place=str(document["place"]),
        dag_id=None if dag_id is None else str(dag_id),
        in_use=_life(document["in_use"]),
        issued=_life(document["issued"]),
        told=None
        if told is None
        else Told(
            str(told["word"]),
            Severity(told["severity"]),
            str(told["reason"]),
            str(told["advice"]),
        ),
        renewal_check_at=_maybe(document["renewal_check_at"]),
        last_success_at=_maybe(document["last_success_at"]),
        rotations=None
        if rotations is None
        else {str(Outcome(word)): int(count) for word, count in rotations.items()},
    )


def _heartbeat(document: dict[str, Any]) -> Heartbeat:
    interval = document["interval"]
    return Heartbeat(
        dag_id=str(document["dag_id"]),
        condition=str(document["condition"]),
        sentence=str(document["sentence"]),
        checked_at=_maybe(document["checked_at"]),
        deadline_at=_maybe(document["deadline_at"]),
        next_check_at=_maybe(document["next_check_at"]),
        interval=None if interval is None else timedelta(seconds=interval),
        patience=timedelta(seconds=document["patience"]),
    )


def _life(document: dict[str, Any] | None) -> Life | None:
    if document is None:
        return None
    issued_at, expires_at = _time(document["issued_at"]), _time(document["expires_at"])
    return Life(issued_at, expires_at, _maybe(document["renew_at"]))


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
