"""Assess tokens and rotation DAGs: the one rule that turns facts into severities and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, to_utc
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import TokenState
from flowauth_rotator.core.report import Outcome, Severity, most_severe
from flowauth_rotator.core.text import quote
from flowauth_rotator.monitoring.forecast import expires_before_renewal, forecast_renewal
from flowauth_rotator.monitoring.formatting import format_minute
from flowauth_rotator.monitoring.status import (
    DEFAULT_GRACE_PERIOD,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
    sort_by_expiry,
)

STALE_HINT = "Look for a cache between here and Airflow, and compare the clocks of both."
SEVERAL_DAGS_HINT = "Remove the Variable from all DAGs but one."


class Condition(str, Enum):
    """The conditions of a rotation DAG."""

    OK = "ok"
    EMPTY = "empty"
    NEW = "new"
    FAILED = "failed"
    MISCONFIGURED = "misconfigured"
    LATE = "late"
    PAUSED = "paused"
    MISSING = "missing"
    BROKEN = "broken"

    __str__ = str.__str__

    @property
    def is_renewing(self) -> bool:
        """Whether the next check of the DAG renews tokens that are due."""
        return self in (
            *(Condition.OK, Condition.EMPTY),
            *(Condition.NEW, Condition.MISCONFIGURED),
        )

    @property
    def has_stopped(self) -> bool:
        """Whether the DAG has no next check before somebody changes it or its file."""
        return self in (Condition.PAUSED, Condition.MISSING, Condition.BROKEN)


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
                        f"`{name}` is {format_duration(value)}, which is not positive.",
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

    def resolve(self, token: TokenStatus) -> tuple[timedelta, timedelta]:
        """Return both as durations for one token, whose expiry must be known.

        If the renewal is not due before the expiry, fractions are of the whole lifetime.
        """
        due, expires_at = token.renew_at, token.expires_at
        if expires_at is None:
            raise ValueError("the expiry of the token is unknown")
        start = due if due and due < expires_at else token.issued_at
        window = max(expires_at - start, timedelta(0)) if start else timedelta(0)
        warning, critical = (
            value if isinstance(value, timedelta) else window * value
            for value in (self.warning, self.critical)
        )
        return warning, min(warning, critical)

    def __str__(self) -> str:
        warning, critical = map(_format_threshold, (self.warning, self.critical))
        return f"warning below {warning}, critical below {critical}"


@dataclass(frozen=True)
class Verdict:
    """The severity of a token or of rotation DAGs, and why.

    Attributes:
        severity: the severity.
        message: why, without a full stop: "Expires in 3 d 4 h (2026-11-24 13:00 UTC)".
        hint: what the operator can do; empty if no action is needed.
        reasons: the clauses of the message of a token, without its expiry.
    """

    severity: Severity
    message: str
    hint: str = ""
    reasons: Sequence[str] = ()


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
        """Hint, forecast, place, and what is special about the name, as sentences."""
        token = self.token
        place = f"Stored in Variable {token.variable}." if token.variable else ""
        substitute = former_name = ""
        if not token.name_is_known:
            source = "the key of its Variable" if token.variable else "the name of its file"
            substitute = f"The issuer's name of the token is not known yet; {source} stands in."
        if token.former_name and token.renamed_at:
            time = format_minute(token.renamed_at)
            former_name = f"Until {time} its name was {quote(token.former_name)}."
        sentences = (self.verdict.hint, self.forecast, place, substitute, former_name)
        return [each for each in sentences if each]


@dataclass(frozen=True)
class AssessedDag:
    """A rotation DAG, its condition and its verdict."""

    dag: RotationDagStatus
    condition: Condition
    verdict: Verdict


@dataclass(frozen=True)
class Assessment:
    """The verdicts on all tokens and rotation DAGs of a document at one moment.

    Attributes:
        document: the facts.
        now: the moment, in aware UTC.
        thresholds: the thresholds that were applied.
        tokens: each token, in the order of names.
        dags: each rotation DAG; None in an issuer's list.
    """

    document: StatusDocument
    now: datetime
    thresholds: Thresholds
    tokens: Sequence[AssessedToken]
    dags: Sequence[AssessedDag] | None

    @property
    def severity(self) -> Severity:
        """The most severe of all."""
        severities = [token.severity for token in self.tokens]
        if self.dags_verdict:
            severities.append(self.dags_verdict.severity)
        if self.issuer_failure:
            severities.append(Severity.UNKNOWN)
        if not severities:  # an issuer is monitored because it should have tokens
            severities.append(Severity.WARNING)
        return most_severe(*severities)

    @property
    def issuer_failure(self) -> str:
        """A clause if the tokens of the issuer could not be listed, or an empty text."""
        reason = self.document.issuer_failure
        if not reason:
            return ""
        return f"the tokens at the issuer could not be listed: {reason.rstrip('.')}"

    @property
    def by_name(self) -> dict[str, AssessedToken]:
        """The tokens by name; the most severe, or first to expire, of those that share it."""
        tokens: dict[str, AssessedToken] = {}
        for token in sorted(self.tokens, key=lambda each: each.token.name):
            rival = tokens.get(token.token.name, token)
            tokens[token.token.name] = min(rival, token, key=rank_token)
        return tokens

    @property
    def by_severity(self) -> list[AssessedToken]:
        """The tokens of different names, in the order of `rank_token`."""
        return sorted(self.by_name.values(), key=rank_token)

    @property
    def dags_verdict(self) -> Verdict | None:
        """The verdict on all rotation DAGs together; None in an issuer's list."""
        if self.dags is None:
            return None
        if not self.dags:
            return Verdict(
                Severity.CRITICAL,
                "There is no rotation DAG",
                "Put the DAG file into the dags folder, and check that Airflow imports it without "
                "errors.",
            )
        dags = sorted(self.dags, key=lambda each: -each.verdict.severity.rank)
        return Verdict(
            dags[0].verdict.severity,
            "; ".join(f"{each.dag.dag_id}: {each.verdict.message}" for each in dags),
            " ".join(
                f"{each.dag.dag_id}: {each.verdict.hint}" for each in dags if each.verdict.hint
            ),
        )


def assess(
    document: StatusDocument, now: datetime, thresholds: Thresholds | None = None
) -> Assessment:
    """Assess a document: facts that a DAG has written, and live facts of its reader.

    Args:
        document: the facts.
        now: an aware time.
        thresholds: the remaining lifetimes that are a warning, or critical.
    """
    thresholds, now = thresholds or Thresholds(), to_utc(now)
    dags = [assess_dag(dag, now) for dag in document.dags or ()]
    by_id = {each.dag.dag_id: each for each in dags}
    doubt = _describe_age(document.taken_at, now)
    dag_ids = _collect_dag_ids(document.tokens)
    tokens = [
        assess_token(
            token,
            by_id.get(token.dag_id or ""),
            now,
            thresholds,
            dag_ids=dag_ids.get(token.variable or "", ()),
        )
        for token in sort_by_expiry(document.tokens)
    ]
    if doubt:
        tokens = [replace(each, verdict=_add_doubt(each.verdict, doubt)) for each in tokens]
        dags = [replace(each, verdict=_add_doubt(each.verdict, doubt)) for each in dags]
    return Assessment(
        document,
        now,
        thresholds,
        tokens=sorted(tokens, key=lambda each: each.token.name),
        dags=None if document.dags is None else dags,
    )


def assess_dag(dag: RotationDagStatus, now: datetime) -> AssessedDag:
    """Return the condition of a rotation DAG, and the verdict on it."""
    checked_at = format_minute(dag.checked_at) if dag.checked_at else ""
    last = f"last check {checked_at}" if checked_at else "no check yet"
    is_late = dag.deadline_at is not None and now > dag.deadline_at
    condition, severity, hint = Condition.OK, Severity.CRITICAL, ""
    if dag.has_import_error:
        condition, hint = Condition.BROKEN, "The DAG file has an import error: correct the file."
    elif not dag.exists:
        condition = Condition.MISSING
        hint = "The DAG does not exist: put its file back into the dags folder."
    elif dag.is_paused:
        condition = Condition.PAUSED
        hint = "Unpause to resume."
    elif dag.failure:
        condition, hint = Condition.FAILED, f"{dag.failure.message} {dag.failure.hint}".strip()
        severity = Severity.CRITICAL if is_late else Severity.WARNING
    elif dag.checked_at is None:
        condition, severity = Condition.NEW, Severity.WARNING
        hint = "The next run of the DAG checks its tokens."
    elif is_late:
        condition = Condition.LATE
        hint = "Two checks were missed: check that the scheduler and a worker run."
    elif dag.configuration_errors:
        condition, hint = Condition.MISCONFIGURED, " ".join(dag.configuration_errors)
    elif dag.token_count == 0:
        condition, hint = Condition.EMPTY, "Add a token to the list of managed tokens."
        message = f"No tokens are managed, {last}"
        return AssessedDag(dag, condition, Verdict(Severity.WARNING, message, hint))
    if condition is Condition.OK:
        following = f", next {format_minute(dag.next_check_at)}" if dag.next_check_at else ""
        return AssessedDag(
            dag, condition, Verdict(Severity.OK, f"Last check {checked_at}{following}")
        )
    if condition is Condition.NEW:
        return AssessedDag(dag, condition, Verdict(severity, "First check pending", hint))
    if condition.has_stopped:
        message = f"{condition.capitalize()}: tokens are not being renewed"
        return AssessedDag(dag, condition, Verdict(severity, message, hint))
    return AssessedDag(dag, condition, Verdict(severity, f"{condition.capitalize()}, {last}", hint))


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
        return replace(_assess_unreadable(token, dag, now, dag_ids), dag_ids=dag_ids)
    remaining = token.expires_at - now
    warning_below, critical_below = thresholds.resolve(token)
    state: str = compute_state(token, now)
    severities = [_assess_remaining(remaining, warning_below, critical_below)]
    reasons: list[str] = []
    hints: list[str] = []
    if has_unused_successor(token, dag.dag if dag else None, now):
        severities.append(Severity.WARNING)
        seen_at = (
            f", issued {format_minute(token.newest_issued_at)}," if token.newest_issued_at else ""
        )
        reasons.append(f"a newer token{seen_at} is not in use")
        hints.append("Check the last runs of the rotation DAG for the reason.")
    if result := token.current_result:
        hints = [result.hint] if result.hint else hints
        if result.has_failed:
            severities.append(result.severity)
            if result.outcome == Outcome.HEALTHY:  # the only reason, and the hint says more
                reasons.append("the clocks here and at the issuer differ")
            else:
                state = result.outcome
                reasons.append(describe_failure(result.outcome, result.message))
    if problem := SIGNATURE_PROBLEMS.get(token.signature):
        severities.append(problem.severity)
        reasons.append(problem.message)
        hints.append(problem.hint)
        if token.signature is Signature.INVALID:
            state = INVALID_SIGNATURE
    if dag and _is_waiting(dag, state):
        severities.append(Severity.WARNING)
        reasons.append(f"{dag.dag.dag_id} is {dag.condition}")
    if len(dag_ids) > 1:
        severities.append(Severity.WARNING)
        reasons.append(_describe_dags(token, dag_ids))
        hints.append(SEVERAL_DAGS_HINT)
    if dag and expires_before_renewal(token, dag, now):
        severities.append(Severity.CRITICAL)
        reasons.append("no check can renew it before that")
        hints.append(f"Start a run of {dag.dag.dag_id}, and give it a schedule with more checks.")
    lifetime = token.expires_at - token.issued_at
    used = (now - token.issued_at) / lifetime if lifetime > timedelta(0) else 1.0
    return AssessedToken(
        token,
        state,
        Verdict(
            most_severe(*severities),
            "; ".join((_describe_expiry(token.expires_at, now), *reasons)),
            " ".join(hints),
            reasons,
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


def compute_state(token: TokenStatus, now: datetime) -> TokenState:
    """Return the state of a token, whose expiry is known, between issue and expiry."""
    for time, state in (
        (token.expires_at, TokenState.EXPIRED),
        (token.critical_at, TokenState.CRITICAL),
        (token.renew_at, TokenState.DUE),
    ):
        if time and now >= time:
            return state
    return TokenState.HEALTHY


def _assess_unreadable(
    token: TokenStatus, dag: AssessedDag | None, now: datetime, dag_ids: Sequence[str]
) -> AssessedToken:
    """Assess a token that cannot be read, from the error or the last result."""
    last = token.last_check
    is_shadowed = last is not None and last.outcome == Outcome.SHADOWED
    event = last if is_shadowed else token.read_error or last
    if event is None or not event.has_failed:
        message = "No information about this token is available"
        return AssessedToken(token, "unknown", Verdict(Severity.UNKNOWN, message))
    reasons, hint = [event.message.rstrip(".")], event.hint
    if len(dag_ids) > 1:
        reasons.append(_describe_dags(token, dag_ids))
        hint = f"{hint} {SEVERAL_DAGS_HINT}".lstrip()
    verdict = Verdict(event.severity, "; ".join(reasons), hint, reasons)
    return AssessedToken(token, event.outcome, verdict, forecast_renewal(token, dag, now))


def _collect_dag_ids(tokens: Iterable[TokenStatus]) -> dict[str, list[str]]:
    """Return the ids of the DAGs that manage each Variable."""
    dag_ids: dict[str, set[str]] = {}
    for token in tokens:
        if token.variable and token.dag_id:
            dag_ids.setdefault(token.variable, set()).add(token.dag_id)
    return {variable: sorted(ids) for variable, ids in dag_ids.items()}


def _is_waiting(dag: AssessedDag, state: str) -> bool:
    """Whether a token waits for a DAG that has stopped or, if it is due, for one that is late."""
    is_late = not dag.condition.is_renewing and state != TokenState.HEALTHY
    return dag.condition.has_stopped or is_late


def _describe_dags(token: TokenStatus, dag_ids: Sequence[str]) -> str:
    return f"{len(dag_ids)} DAGs manage Variable {token.variable}: {', '.join(dag_ids)}"


def has_unused_successor(token: TokenStatus, dag: RotationDagStatus | None, now: datetime) -> bool:
    """Whether a newer token was issued longer ago than two checks, and is not in use."""
    grace_period = dag.grace_period if dag else DEFAULT_GRACE_PERIOD
    newest, seen_at = token.newest_issued_expires_at, token.newest_issued_at
    if newest is None or token.expires_at is None or newest <= token.expires_at:
        return False
    return seen_at is None or now - seen_at > grace_period


def _assess_remaining(remaining: timedelta, warning: timedelta, critical: timedelta) -> Severity:
    if remaining <= timedelta(0) or remaining < critical:
        return Severity.CRITICAL
    return Severity.WARNING if remaining < warning else Severity.OK


def _describe_age(taken_at: datetime | None, now: datetime) -> str:
    """Return a clause if the response of a remote Airflow is not of this time, or an empty text."""
    age = timedelta(0) if taken_at is None else now - taken_at
    if taken_at is None or abs(age) <= MAX_CLOCK_SKEW:
        return ""
    direction = "ago" if age > timedelta(0) else "from now"
    time = format_minute(taken_at)
    return f"Airflow's response was made {format_duration(abs(age))} {direction} ({time})"


def _add_doubt(verdict: Verdict, doubt: str) -> Verdict:
    """Return the verdict on facts that may not hold any more: at least UNKNOWN."""
    severity = most_severe(verdict.severity, Severity.UNKNOWN)
    clauses = (verdict.message, doubt) if verdict.severity is severity else (doubt, verdict.message)
    return Verdict(severity, "; ".join(clauses), f"{STALE_HINT} {verdict.hint}".rstrip())


def _describe_expiry(expires_at: datetime, now: datetime) -> str:
    remaining, time = expires_at - now, format_minute(expires_at)
    if remaining <= timedelta(0):
        return f"Expired {format_duration(-remaining)} ago ({time})"
    return f"Expires in {format_duration(remaining)} ({time})"


def _format_threshold(value: float | timedelta) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return f"{value:.4g} of the renewal window"
