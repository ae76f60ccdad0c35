"""The status of tokens and rotation DAGs at one moment: facts without a severity rule.

Every output format is rendered from a snapshot, and Airflow's page serves it as JSON. It contains
no part of a token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from flowauth_rotator.core.report import Outcome, Report, Severity

VERSION = 2  # of the JSON
DEFAULT_GRACE_PERIOD = timedelta(hours=1)  # if the check interval is unknown


class InvalidSnapshot(ValueError):
    """A document is not a snapshot of this version."""


@dataclass(frozen=True)
class Validity:
    """The period in which a token is valid, in aware UTC.

    Attributes:
        issued_at: when the token was issued.
        expires_at: its `exp`.
        renew_at: when its renewal is due, if known.
    """

    issued_at: datetime
    expires_at: datetime
    renew_at: datetime | None = None


@dataclass(frozen=True)
class CheckResult:
    """The result of the last check of a token.

    Attributes:
        outcome: an `Outcome`, or the `TokenState` if the token is due and not yet renewed.
        severity: its severity.
        message: why, in a sentence.
        hint: what the operator can do; empty if no action is needed.
    """

    outcome: str
    severity: Severity
    message: str
    hint: str = ""


@dataclass(frozen=True)
class TokenStatus:
    """The status of one monitored token.

    Attributes:
        name: the issuer's name of the token, or the name of its store while that is unknown.
        place: where the token in use is stored, for people; empty in an issuer's snapshot.
        dag_id: the rotation DAG that manages it, if known.
        in_use: the token in use, if it can be decoded.
        issued: the newest token at the issuer. If only a rotation has seen it, `issued_at` is the
            time of the first rotation that did.
        last_check: the result of its last check, if there was one.
        renewal_check_at: the first check at which its renewal is due, if known.
        last_success_at: when it was last swapped, if known.
        rotations: the number of rotations by outcome; None without counters.
    """

    name: str
    place: str = ""
    dag_id: str | None = None
    in_use: Validity | None = None
    issued: Validity | None = None
    last_check: CheckResult | None = None
    renewal_check_at: datetime | None = None
    last_success_at: datetime | None = None
    rotations: Mapping[str, int] | None = None


@dataclass(frozen=True)
class RotationDagStatus:
    """The status of one rotation DAG.

    Attributes:
        dag_id: the DAG.
        condition: ok, new, failed, misconfigured, late, paused, missing or broken.
        hint: what the operator can do if the condition is not ok.
        checked_at: the end of its last check of all tokens; None before the first.
        deadline_at: when two checks will have been missed, if the schedule is known.
        next_check_at: the time of its next check, if one is scheduled.
        interval: the time from one check to the next, if known.
        grace_period: how long an issued token may remain unused: two checks.
    """

    dag_id: str
    condition: str = "ok"
    hint: str = ""
    checked_at: datetime | None = None
    deadline_at: datetime | None = None
    next_check_at: datetime | None = None
    interval: timedelta | None = None
    grace_period: timedelta = DEFAULT_GRACE_PERIOD


@dataclass(frozen=True)
class Snapshot:
    """The status of all monitored tokens and rotation DAGs.

    Attributes:
        taken_at: when the snapshot was taken, in aware UTC.
        tokens: the tokens.
        rotation_dags: the rotation DAGs; None in an issuer's snapshot.
        clock_skews: by connection, the seconds by which the issuer's clock was ahead of ours.
        issuer: the address of the issuer whose tokens were listed, if any.
        issuer_trouble: why the issuer's list failed; empty if it did not.
    """

    taken_at: datetime
    tokens: Sequence[TokenStatus] = ()
    rotation_dags: Sequence[RotationDagStatus] | None = None
    clock_skews: Mapping[str, int] = field(default_factory=dict)
    issuer: str = ""
    issuer_trouble: str = ""

    def select(self, names: Collection[str]) -> Snapshot:
        """Return a snapshot of these names alone; an unknown name becomes a missing token."""
        tokens = [token for token in self.tokens if token.name in names]
        known = {token.name for token in tokens}
        tokens += [self._missing(name) for name in dict.fromkeys(names) if name not in known]
        return replace(self, tokens=tokens)

    def with_issued(self, issued: Snapshot) -> Snapshot:
        """Return a snapshot that adds the tokens of an issuer's snapshot, by name.

        If tokens for several audiences share a name, the one that expires first counts.
        """
        by_name = {token.name: token.issued for token in reversed(sort_by_expiry(issued.tokens))}
        tokens = [
            replace(token, issued=by_name.get(token.name, token.issued)) for token in self.tokens
        ]
        return replace(self, tokens=tokens, issuer=issued.issuer)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON values; times are epoch seconds, durations seconds."""
        document: dict[str, Any] = _to_json_value(self)
        return {"version": VERSION, **document}

    @classmethod
    def from_json(cls, document: object) -> Snapshot:
        """Parse a document that `to_json` returned.

        Raises:
            InvalidSnapshot: the document is not a snapshot, or one of another version.
        """
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise InvalidSnapshot(
                f"The response is not a snapshot of token states of version {VERSION}."
            )
        try:
            rotation_dags = document["rotation_dags"]
            return cls(
                taken_at=_parse_time(document["taken_at"]),
                tokens=[_parse_token(token) for token in document["tokens"]],
                rotation_dags=None
                if rotation_dags is None
                else [_parse_dag(dag) for dag in rotation_dags],
                clock_skews={
                    str(key): int(value) for key, value in document["clock_skews"].items()
                },
                issuer=str(document["issuer"]),
                issuer_trouble=str(document["issuer_trouble"]),
            )
        except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError):
            pass
        raise InvalidSnapshot("The response is not a snapshot of token states.")

    def _missing(self, name: str) -> TokenStatus:
        if self.rotation_dags is None:
            message = f"{self.issuer} has no current or recently expired token of this name."
            hint = "Correct the name, or mint a token of this name at the issuer."
        else:
            message = "No managed token has this name."
            hint = "Correct the name, or add the token to the list of managed tokens."
        result = CheckResult(Outcome.MISSING, Severity.CRITICAL, message, hint)
        return TokenStatus(name, last_check=result)


def sort_by_expiry(tokens: Iterable[TokenStatus]) -> list[TokenStatus]:
    """Sort tokens by expiry, those with an unknown expiry first."""
    return sorted(tokens, key=_expiry_timestamp)


def build_token_status(report: Report, dag_id: str) -> TokenStatus:
    """Build the status of a token from the report of its last check.

    Facts that only the report of a rotation has, such as the time of the last swap, are left out:
    the next check would not know them.
    """
    return TokenStatus(
        name=report.name,
        place=report.place,
        dag_id=dag_id,
        in_use=(
            Validity(report.issued_at, report.expires_at, report.renew_at)
            if report.issued_at and report.expires_at
            else None
        ),
        last_check=CheckResult(report.outcome, report.severity, report.message, report.hint),
    )


def _expiry_timestamp(token: TokenStatus) -> float:
    validity = token.in_use or token.issued
    return validity.expires_at.timestamp() if validity else 0.0


def _to_json_value(value: Any) -> Any:  # noqa: ANN401 - JSON
    if is_dataclass(value):
        return {
            attribute.name: _to_json_value(getattr(value, attribute.name))
            for attribute in fields(value)
        }
    if isinstance(value, datetime):
        return round(value.timestamp())
    if isinstance(value, timedelta):
        return round(value.total_seconds())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_value(item) for item in value]
    return value


def _parse_token(document: dict[str, Any]) -> TokenStatus:
    last_check, rotations = document["last_check"], document["rotations"]
    dag_id = document["dag_id"]
    return TokenStatus(
        name=str(document["name"]),
        place=str(document["place"]),
        dag_id=None if dag_id is None else str(dag_id),
        in_use=_parse_validity(document["in_use"]),
        issued=_parse_validity(document["issued"]),
        last_check=None
        if last_check is None
        else CheckResult(
            str(last_check["outcome"]),
            Severity(last_check["severity"]),
            str(last_check["message"]),
            str(last_check["hint"]),
        ),
        renewal_check_at=_parse_optional_time(document["renewal_check_at"]),
        last_success_at=_parse_optional_time(document["last_success_at"]),
        rotations=None
        if rotations is None
        else {str(Outcome(outcome)): int(count) for outcome, count in rotations.items()},
    )


def _parse_dag(document: dict[str, Any]) -> RotationDagStatus:
    interval = document["interval"]
    return RotationDagStatus(
        dag_id=str(document["dag_id"]),
        condition=str(document["condition"]),
        hint=str(document["hint"]),
        checked_at=_parse_optional_time(document["checked_at"]),
        deadline_at=_parse_optional_time(document["deadline_at"]),
        next_check_at=_parse_optional_time(document["next_check_at"]),
        interval=None if interval is None else timedelta(seconds=interval),
        grace_period=timedelta(seconds=document["grace_period"]),
    )


def _parse_validity(document: dict[str, Any] | None) -> Validity | None:
    if document is None:
        return None
    issued_at, expires_at = _parse_time(document["issued_at"]), _parse_time(document["expires_at"])
    return Validity(issued_at, expires_at, _parse_optional_time(document["renew_at"]))


def _parse_optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _parse_time(seconds)


def _parse_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
