"""Assess a token: the rule that turns its facts into a state, a severity and a message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.policy import TokenState
from flowauth_rotator.core.report import Outcome, Severity, most_severe
from flowauth_rotator.core.text import quote
from flowauth_rotator.monitoring.dag_assessment import AssessedDag
from flowauth_rotator.monitoring.forecast import expires_before_renewal, forecast_renewal
from flowauth_rotator.monitoring.formatting import format_minute
from flowauth_rotator.monitoring.status import (
    DEFAULT_GRACE_PERIOD,
    Event,
    RotationDagStatus,
    Signature,
    TokenStatus,
)
from flowauth_rotator.monitoring.thresholds import Thresholds
from flowauth_rotator.monitoring.verdict import Verdict

UNUSED_HINT = "Check the last runs of the rotation DAG for the reason."
UNREAD_HINT = "A check reads some of many tokens: one of the next checks reads this one."
INVALID_SIGNATURE = "invalid_signature"  # a state
SIGNATURE_PROBLEMS: dict[Signature | None, Verdict] = {
    Signature.INVALID: Verdict(
        Severity.CRITICAL,
        "its signature is not valid",
        "FlowAPI rejects it: store a new token. If the issuer has a new key instead, correct "
        "`public_key` of its connection.",
    ),
    Signature.UNVERIFIED: Verdict(
        Severity.UNKNOWN,
        "its signature is not verified",
        "No public key of its `kid` has been read from `public_key` of its connection; the next "
        "check tries again.",
    ),
}


@dataclass(frozen=True)
class AssessedToken:
    """A token and its verdict.

    Attributes:
        token: the facts.
        state: a `TokenState`, `INVALID_SIGNATURE`, or the `Outcome` of the failure that decides
            the severity.
        verdict: the verdict.
        forecast: what the next check will do, in a sentence; may be empty.
        remaining: the time until it expires, negative afterwards; None if it cannot be read.
        warning_below: the remaining lifetime below which the token is a warning.
        critical_below: the remaining lifetime below which it is critical.
        used: the elapsed fraction of its lifetime, from 0 to 1.
        dag_ids: the ids of all DAGs that manage its Variable, in the order of the alphabet.
    """

    token: TokenStatus
    state: str
    verdict: Verdict
    forecast: str = ""
    remaining: timedelta | None = None
    warning_below: timedelta = timedelta(0)
    critical_below: timedelta = timedelta(0)
    used: float = 1.0
    dag_ids: Sequence[str] = ()

    @property
    def severity(self) -> Severity:
        """The severity of the token."""
        return self.verdict.severity

    @property
    def used_levels(self) -> tuple[float, float]:
        """The elapsed fractions above which the token is a warning, and critical."""
        issued_at, expires_at = self.token.issued_at, self.token.expires_at
        if issued_at is None or expires_at is None or expires_at <= issued_at:
            return 0.0, 0.0
        lifetime = expires_at - issued_at
        warning, critical = (
            1 - below / lifetime for below in (self.warning_below, self.critical_below)
        )
        return min(max(warning, 0.0), 1.0), min(max(critical, 0.0), 1.0)

    @property
    def details(self) -> list[str]:
        """Hint, forecast, rehearsal, place, and what is special about the name, as sentences."""
        token = self.token
        store = f" of {token.settings['store']}" if token.settings.get("store") else ""
        place = f"Stored in Variable {token.variable}{store}." if token.variable else ""
        substitute = former_name = rehearsal = ""
        if (event := token.current_rehearsal) and not event.has_failed:
            rehearsal = f"A rehearsal of the renewal succeeded at {format_minute(event.at)}."
        if not token.name_is_known:
            source = "the key of its Variable" if token.variable else "the name of its file"
            substitute = f"The issuer's name of the token is not known yet; {source} is used."
        if token.former_name and token.renamed_at:
            time = format_minute(token.renamed_at)
            former_name = f"Until {time} its name was {quote(token.former_name)}."
        sentences = (self.verdict.hint, self.forecast, rehearsal, place, substitute, former_name)
        return [each for each in sentences if each]


def assess_token(
    token: TokenStatus,
    dag: AssessedDag | None,
    now: datetime,
    thresholds: Thresholds,
    *,
    dag_ids: Sequence[str] = (),
) -> AssessedToken:
    """Assess one token; the most severe of remaining lifetime, last result and its DAGs counts.

    Args:
        token: the facts.
        dag: the rotation DAG that manages it; None if there is none.
        now: a time in UTC.
        thresholds: the thresholds.
        dag_ids: the ids of all DAGs that manage its Variable.
    """
    if token.read_error or token.issued_at is None or token.expires_at is None:
        return _assess_unreadable(token, dag, now, dag_ids)
    remaining = token.expires_at - now
    warning_below, critical_below = thresholds.resolve(token)
    state = _find_state(token, now)
    problems = list(_find_problems(token, dag, state, now, dag_ids))
    lifetime = token.expires_at - token.issued_at
    used = (now - token.issued_at) / lifetime if lifetime > timedelta(0) else 1.0
    return AssessedToken(
        token,
        state,
        _combine(
            problems,
            _assess_remaining(remaining, warning_below, critical_below),
            _describe_expiry(token.expires_at, now),
        ),
        forecast_renewal(token, dag, now),
        remaining,
        warning_below,
        critical_below,
        min(max(used, 0.0), 1.0),
        dag_ids,
    )


def describe_failure(outcome: str, message: str) -> str:
    """Return the clause about a failed check or rotation: "unavailable: No response"."""
    return f"{outcome}: {message.rstrip('.')}"


def rank_token(token: AssessedToken) -> tuple[int, bool, timedelta, str]:
    """Return the sort key of a token: the most severe first, then the first to expire.

    A token that cannot be read comes before those of its severity that have an expiry.
    """
    remaining = token.remaining
    return (
        -token.severity.rank,
        remaining is not None,
        timedelta(0) if remaining is None else remaining,
        token.token.name,
    )


def has_unused_successor(token: TokenStatus, dag: RotationDagStatus | None, now: datetime) -> bool:
    """Whether a newer token was issued longer ago than two checks, and is not in use."""
    grace_period = dag.grace_period if dag else DEFAULT_GRACE_PERIOD
    newest, seen_at = token.newest_issued_expires_at, token.newest_issued_at
    if newest is None or token.expires_at is None or newest <= token.expires_at:
        return False
    return seen_at is None or now - seen_at > grace_period


def _assess_unreadable(
    token: TokenStatus, dag: AssessedDag | None, now: datetime, dag_ids: Sequence[str]
) -> AssessedToken:
    """Assess a token that cannot be read, from the error or the last result."""
    last = token.last_check
    is_shadowed = last is not None and last.outcome == Outcome.SHADOWED
    event = last if is_shadowed else token.read_error or last
    state, forecast = "unknown", ""
    problem = Verdict(Severity.UNKNOWN, "No information about this token is available")
    if token.is_unread:
        problem = Verdict(Severity.UNKNOWN, "Not checked yet", UNREAD_HINT)
    if event and event.has_failed:
        state, forecast = event.outcome, forecast_renewal(token, dag, now)
        problem = Verdict(event.severity, event.message.rstrip("."), event.hint)
    verdict = _combine([problem, *_find_several_dags(token, dag_ids)])
    return AssessedToken(token, state, verdict, forecast, dag_ids=dag_ids)


def _find_state(token: TokenStatus, now: datetime) -> str:
    """Return the state of a token whose expiry is known."""
    result = token.current_result
    if token.signature is Signature.INVALID:
        return INVALID_SIGNATURE
    if result and result.has_failed and result.outcome != Outcome.HEALTHY:
        return result.outcome
    for time, state in (
        (token.expires_at, TokenState.EXPIRED),
        (token.critical_at, TokenState.CRITICAL),
        (token.renew_at, TokenState.DUE),
    ):
        if time and now >= time:
            return state
    return TokenState.HEALTHY


def _find_problems(
    token: TokenStatus,
    dag: AssessedDag | None,
    state: str,
    now: datetime,
    dag_ids: Sequence[str],
) -> Iterator[Verdict]:
    """Yield what is wrong with a token beside its remaining lifetime; each message is a clause."""
    result = token.current_result
    if has_unused_successor(token, dag.dag if dag else None, now):
        seen_at = token.newest_issued_at
        issued = f", issued {format_minute(seen_at)}," if seen_at else ""
        hint = "" if result and result.hint else UNUSED_HINT
        yield Verdict(Severity.WARNING, f"a newer token{issued} is not in use", hint)
    if result and (result.has_failed or result.hint):
        yield Verdict(result.severity, _describe_result(result), result.hint)
    if (event := token.failed_rehearsal) and state == TokenState.HEALTHY:
        yield _build_rehearsal_problem(token, event)
    if problem := SIGNATURE_PROBLEMS.get(token.signature):
        yield problem
    if dag and _is_waiting(dag, state):
        yield Verdict(Severity.WARNING, f"{dag.dag.dag_id} is {dag.condition}")
    yield from _find_several_dags(token, dag_ids)
    if dag and expires_before_renewal(token, dag, now):
        hint = f"Start a run of {dag.dag.dag_id}, and give it a schedule with more checks."
        yield Verdict(Severity.CRITICAL, "no check can renew it before that", hint)


def _build_rehearsal_problem(token: TokenStatus, event: Event) -> Verdict:
    """Return the problem of a token whose renewal will fail when it is due."""
    verb = "may" if event.outcome == Outcome.UNAVAILABLE else "will"
    due = f"the renewal due on {format_minute(token.renew_at)}" if token.renew_at else "its renewal"
    message = describe_failure(event.outcome, event.message)
    return Verdict(event.severity, f"{due} {verb} fail: {message}", event.hint)


def _find_several_dags(token: TokenStatus, dag_ids: Sequence[str]) -> Iterator[Verdict]:
    if len(dag_ids) > 1:
        managed = f"{len(dag_ids)} DAGs manage Variable {token.variable}: {', '.join(dag_ids)}"
        yield Verdict(Severity.WARNING, managed, "Remove the Variable from all DAGs but one.")


def _combine(
    problems: Sequence[Verdict], severity: Severity = Severity.OK, expiry: str = ""
) -> Verdict:
    """Return the verdict on a token from its problems and its remaining lifetime.

    Args:
        problems: what is wrong beside it.
        severity: the severity of its remaining lifetime.
        expiry: when it expires, as the beginning of the message.
    """
    reasons = [problem.message for problem in problems if problem.message]
    return Verdict(
        most_severe(severity, *(problem.severity for problem in problems)),
        "; ".join(filter(None, (expiry, *reasons))),
        " ".join(problem.hint for problem in problems if problem.hint),
        reasons,
    )


def _describe_result(result: Event) -> str:
    """Return the clause about a failed result; an empty text about one that only has a hint."""
    if not result.has_failed:
        return ""
    if result.outcome == Outcome.HEALTHY:  # the only reason, and the hint says more
        return "the clocks here and at the issuer differ"
    return describe_failure(result.outcome, result.message)


def _is_waiting(dag: AssessedDag, state: str) -> bool:
    """Whether a token waits for a DAG that has stopped or, if it is due, for one that is late."""
    is_late = not dag.condition.is_renewing and state != TokenState.HEALTHY
    return dag.condition.has_stopped or is_late


def _assess_remaining(remaining: timedelta, warning: timedelta, critical: timedelta) -> Severity:
    if remaining <= timedelta(0) or remaining < critical:
        return Severity.CRITICAL
    return Severity.WARNING if remaining < warning else Severity.OK


def _describe_expiry(expires_at: datetime, now: datetime) -> str:
    remaining, time = expires_at - now, format_minute(expires_at)
    if remaining <= timedelta(0):
        return f"Expired {format_duration(-remaining)} ago ({time})"
    return f"Expires in {format_duration(remaining)} ({time})"
