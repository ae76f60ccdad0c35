"""Assess tokens and rotation DAGs: the one rule that turns facts into a state and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from flowauth_rotator.core.clock import to_utc
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.forecast import forecast_renewal
from flowauth_rotator.monitoring.formatting import format_duration, format_minute
from flowauth_rotator.monitoring.status import (
    DEFAULT_GRACE_PERIOD,
    CheckResult,
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
    sort_by_expiry,
)


class State(IntEnum):
    """The four states of a Nagios plugin, with their exit codes."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def rank(self) -> int:
        """The severity of the state: UNKNOWN is worse than OK, and better than WARNING."""
        return (State.OK, State.UNKNOWN, State.WARNING, State.CRITICAL).index(self)


def most_severe(*states: State) -> State:
    """Return the most severe of several states; OK if there are none."""
    return max(states, key=lambda state: state.rank, default=State.OK)


STATE_OF_SEVERITY = {
    Severity.OK: State.OK,
    Severity.WARNING: State.WARNING,
    Severity.CRITICAL: State.CRITICAL,
}


@dataclass(frozen=True)
class Thresholds:
    """The remaining lifetimes below which a token is a warning, or critical.

    Each is a duration, or a fraction of the renewal window: the time from due to expiry.

    Raises:
        Misconfigured: a fraction is not above 0 and up to 1, a duration is not positive, or
            `warning` is smaller than `critical`.
    """

    warning: float | timedelta = 0.6
    critical: float | timedelta = 0.3

    def __post_init__(self) -> None:
        for name in ("warning", "critical"):
            value = getattr(self, name)
            if isinstance(value, timedelta):
                if value <= timedelta(0):
                    raise Misconfigured(
                        f"`{name}` is {value}, which is not positive.",
                        hint="Use a longer duration.",
                    )
            elif not 0 < value <= 1:
                raise Misconfigured(
                    f"`{name}` is {value!r} of the renewal window.",
                    hint="Use a fraction above 0 and up to 1, or a duration like 2d.",
                )
        if type(self.warning) is type(self.critical) and self.warning < self.critical:  # type: ignore[operator]
            raise Misconfigured(
                f"`warning` ({_format_threshold(self.warning)}) is smaller than `critical` "
                f"({_format_threshold(self.critical)}).",
                hint="Use a larger `warning`.",
            )

    def resolve(self, validity: Validity) -> tuple[timedelta, timedelta]:
        """Return both as durations for one token.

        If the renewal is not due before the expiry, fractions are of the whole lifetime.
        """
        due, expires_at = validity.renew_at, validity.expires_at
        start = due if due and due < expires_at else validity.issued_at
        window = max(expires_at - start, timedelta(0))
        warning, critical = (
            value if isinstance(value, timedelta) else window * value
            for value in (self.warning, self.critical)
        )
        return warning, min(warning, critical)

    def __str__(self) -> str:
        warning, critical = map(_format_threshold, (self.warning, self.critical))
        return f"warning below {warning}, critical below {critical}"


@dataclass(frozen=True)
class ServiceStatus:
    """The state of one monitored service, and its reason.

    Attributes:
        state: the state.
        summary: the reason, as a clause: "expires in 3 d 4 h (2026-11-24 13:00 UTC)".
        hint: what the operator can do; empty if no action is needed.
    """

    state: State
    summary: str
    hint: str = ""


@dataclass(frozen=True)
class AssessedToken:
    """A token and its state.

    Attributes:
        token: the facts.
        status: the state.
        validity: of the assessed token; None if it cannot be decoded.
        remaining: time until it expires; negative afterwards.
        used: the elapsed fraction of its lifetime, from 0 to 1.
        warning: the remaining lifetime below which the state is a warning.
        critical: the remaining lifetime below which the state is critical.
        forecast: what the next check will do, in one sentence; may be empty.
    """

    token: TokenStatus
    status: ServiceStatus
    validity: Validity | None = None
    remaining: timedelta = timedelta(0)
    used: float = 1.0
    warning: timedelta = timedelta(0)
    critical: timedelta = timedelta(0)
    forecast: str = ""

    @property
    def used_levels(self) -> tuple[float, float]:
        """The elapsed fractions above which the state is a warning, and critical."""
        if self.validity is None or self.validity.expires_at <= self.validity.issued_at:
            return 0.0, 0.0
        lifetime = self.validity.expires_at - self.validity.issued_at
        warning, critical = (1 - left / lifetime for left in (self.warning, self.critical))
        return min(max(warning, 0.0), 1.0), min(max(critical, 0.0), 1.0)

    @property
    def details(self) -> list[str]:
        """Hint, forecast and place, as sentences."""
        place = f"Stored in {self.token.place}." if self.token.place else ""
        return [sentence for sentence in (self.status.hint, self.forecast, place) if sentence]


@dataclass(frozen=True)
class Assessment:
    """The states of all tokens and of the rotation DAGs.

    Attributes:
        snapshot: the facts.
        thresholds: the thresholds that were applied.
        tokens: one for each name, in the order of names; the most severe of those that share it.
        dags: the state of all rotation DAGs together; None in an issuer's snapshot.
    """

    snapshot: Snapshot
    thresholds: Thresholds
    tokens: Sequence[AssessedToken]
    dags: ServiceStatus | None

    @property
    def state(self) -> State:
        """The most severe state of all."""
        states = [token.status.state for token in self.tokens]
        if self.dags:
            states.append(self.dags.state)
        if self.issuer_failure:
            states.append(State.UNKNOWN)
        if not states:  # an issuer is monitored because it should have tokens
            states.append(State.WARNING)
        return most_severe(*states)

    @property
    def issuer_failure(self) -> str:
        """A clause if the tokens of the issuer could not be listed, or an empty text."""
        message = self.snapshot.issuer_trouble
        if not message:
            return ""
        return f"the tokens at the issuer could not be listed: {message.rstrip('.')}"

    @property
    def by_severity(self) -> list[AssessedToken]:
        """The tokens, the most severe first."""
        return sorted(self.tokens, key=lambda token: -token.status.state.rank)


def assess(snapshot: Snapshot, thresholds: Thresholds | None = None) -> Assessment:
    """Assess a snapshot at the moment when it was taken.

    The state of a name is that of the token in use, or in an issuer's snapshot that of the newest.
    """
    thresholds, now = thresholds or Thresholds(), snapshot.taken_at
    dags = {dag.dag_id: dag for dag in snapshot.rotation_dags or ()}
    by_name: dict[str, AssessedToken] = {}
    for token in sort_by_expiry(snapshot.tokens):
        validity = token.issued if snapshot.rotation_dags is None else token.in_use
        dag = dags.get(token.dag_id or "")
        grace_period = dag.grace_period if dag else DEFAULT_GRACE_PERIOD
        assessed = assess_token(token, validity, thresholds, now, grace_period)
        assessed = replace(assessed, forecast=forecast_renewal(token, validity, dag, now))
        rival = by_name.get(token.name, assessed)
        by_name[token.name] = max(rival, assessed, key=lambda each: each.status.state.rank)
    return Assessment(
        snapshot,
        thresholds,
        tokens=[by_name[name] for name in sorted(by_name)],
        dags=None if snapshot.rotation_dags is None else assess_dags(snapshot.rotation_dags, now),
    )


def assess_token(
    token: TokenStatus,
    validity: Validity | None,
    thresholds: Thresholds,
    now: datetime,
    grace_period: timedelta = DEFAULT_GRACE_PERIOD,
) -> AssessedToken:
    """Assess one token; the most severe of remaining lifetime, last check and deployment counts.

    Args:
        token: the facts.
        validity: of the token in use, or of the newest at the issuer; None if it is unknown.
        thresholds: the thresholds.
        now: an aware time.
        grace_period: how long an issued token may remain unused.
    """
    now = to_utc(now)
    if validity is None:
        return AssessedToken(token, _assess_unreadable(token.last_check))
    remaining = validity.expires_at - now
    warning, critical = thresholds.resolve(validity)
    states, clauses = [_assess_remaining(remaining, warning, critical)], [_expiry(validity, now)]
    hint, newer = "", token.issued
    if newer and newer.expires_at > validity.expires_at and now - newer.issued_at > grace_period:
        states.append(State.WARNING)
        clauses.append(f"a newer token, issued {format_minute(newer.issued_at)}, is not in use")
        hint = "Check the last runs of the rotation DAG for the reason."
    if last_check := token.last_check:
        hint = last_check.hint or hint
        if last_check.severity is not Severity.OK:
            states.append(STATE_OF_SEVERITY[last_check.severity])
            clauses.append(f"{last_check.outcome}: {last_check.message}")
    lifetime = validity.expires_at - validity.issued_at
    used = (now - validity.issued_at) / lifetime if lifetime > timedelta(0) else 1.0
    return AssessedToken(
        token,
        ServiceStatus(most_severe(*states), "; ".join(clauses), hint),
        validity,
        remaining,
        min(max(used, 0.0), 1.0),
        warning,
        critical,
    )


def assess_dag(dag: RotationDagStatus, now: datetime) -> ServiceStatus:
    """Assess one rotation DAG."""
    last = f"last check {format_minute(dag.checked_at)}" if dag.checked_at else "no check yet"
    if dag.condition == "ok":
        following = f", next {format_minute(dag.next_check_at)}" if dag.next_check_at else ""
        return ServiceStatus(State.OK, f"{last}{following}")
    is_late = dag.deadline_at is not None and to_utc(now) > dag.deadline_at
    is_transient = dag.condition in ("new", "failed") and not is_late
    state = State.WARNING if is_transient else State.CRITICAL
    return ServiceStatus(state, f"{dag.condition}, {last}", dag.hint)


def assess_dags(dags: Sequence[RotationDagStatus], now: datetime) -> ServiceStatus:
    """Assess all rotation DAGs together: the most severe state counts, and each has a clause."""
    if not dags:
        return ServiceStatus(
            State.CRITICAL,
            "there is no rotation DAG",
            "Put the DAG file into the dags folder, and check that Airflow imports it without "
            "errors.",
        )
    statuses = [(dag.dag_id, assess_dag(dag, now)) for dag in dags]
    by_severity = sorted(statuses, key=lambda item: -item[1].state.rank)
    return ServiceStatus(
        by_severity[0][1].state,
        "; ".join(f"{dag_id}: {status.summary}" for dag_id, status in by_severity),
        " ".join(f"{dag_id}: {status.hint}" for dag_id, status in by_severity if status.hint),
    )


def _assess_unreadable(last_check: CheckResult | None) -> ServiceStatus:
    if last_check is None:
        return ServiceStatus(State.UNKNOWN, "No information about this token is available.")
    state = STATE_OF_SEVERITY[last_check.severity]
    return ServiceStatus(state, last_check.message, last_check.hint)


def _assess_remaining(remaining: timedelta, warning: timedelta, critical: timedelta) -> State:
    if remaining <= timedelta(0) or remaining < critical:
        return State.CRITICAL
    return State.WARNING if remaining < warning else State.OK


def _expiry(validity: Validity, now: datetime) -> str:
    remaining, expires_at = validity.expires_at - now, format_minute(validity.expires_at)
    if remaining <= timedelta(0):
        return f"expired {format_duration(remaining)} ago ({expires_at})"
    return f"expires in {format_duration(remaining)} ({expires_at})"


def _format_threshold(value: float | timedelta) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:.4g} of the renewal window"
