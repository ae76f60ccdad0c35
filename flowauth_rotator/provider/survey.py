"""The survey of a check: inspect the managed tokens, and select those to rotate in this run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flowauth_rotator.core.errors import (
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.provider.compat import is_masked, read_connection, read_variable
from flowauth_rotator.provider.managed_tokens import (
    LIST_VARIABLE,
    InvalidEntry,
    ManagedToken,
    looks_like_token,
    parse_tokens,
)
from flowauth_rotator.provider.schedule import Schedule, count_checks
from flowauth_rotator.provider.variable_store import VariableStore, format_place

RECOMMENDED_CHECKS = 8  # between due and expiry: renewal survives an outage of a few checks
DEFERRED_HINT = "This run has reached its limit of rotations; the next check rotates the token."


@dataclass(frozen=True)
class SurveyedToken:
    """A managed token and the result of its inspection.

    Attributes:
        token: the settings of the token.
        report: the report of the token if this run does not rotate it.
        is_due: whether the token needs a rotation task: it is due, forced, or cannot be read.
        is_forced: whether an operator requested a renewal that need not be due.
        remaining: time until the token expires; None if it cannot be read.
        warnings: problems of the configuration, which the hint of the report contains.
    """

    token: ManagedToken
    report: Report
    is_due: bool = True
    is_forced: bool = False
    remaining: timedelta | None = None
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """The name and the Variable, by either of which a run may select the token."""
        return {self.report.name, self.token.variable}

    @property
    def urgency(self) -> tuple[bool, timedelta]:
        """The sort key: valid tokens first, by expiry; expired ones have nothing left to lose."""
        remaining = self.remaining or timedelta(0)
        return remaining <= timedelta(0), remaining

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `RotateTokenOperator`."""
        name = self.token.name if self.remaining is None else self.report.name
        return asdict(self.token) | {"name": name, "force": self.is_forced}

    def with_warning(self, warning: str) -> SurveyedToken:
        """Return a copy with a further warning."""
        report = _add_hint(self.report, warning)
        return replace(self, report=report, warnings=(*self.warnings, warning))


@dataclass(frozen=True)
class Survey:
    """The plan of a run.

    Attributes:
        due: the tokens that this run rotates, the most urgent first.
        deferred: tokens that are due, but exceed the limit of rotations of a run.
        healthy: the tokens that are not due.
        invalid_entries: invalid entries of the list of managed tokens.
    """

    due: Sequence[SurveyedToken]
    deferred: Sequence[SurveyedToken]
    healthy: Sequence[SurveyedToken]
    invalid_entries: Sequence[InvalidEntry]

    @property
    def connection_ids(self) -> list[str]:
        """The connections of the tokens that this run does not rotate."""
        tokens = [*self.healthy, *self.deferred]
        return list(dict.fromkeys(token.token.flowauth_conn_id for token in tokens))

    def report_tokens(self, errors: Mapping[str, Misconfigured], now: datetime) -> list[Report]:
        """Return the reports of the tokens that this run does not rotate.

        Args:
            errors: errors of connections, by connection id.
            now: an aware time.
        """
        healthy = [_report_token(token, errors, now) for token in self.healthy]
        deferred = [_report_token(token, errors, now) for token in self.deferred]
        return healthy + [
            report if report.failed else _add_hint(report, DEFERRED_HINT) for report in deferred
        ]

    def report_invalid_entries(self, now: datetime) -> list[Report]:
        """Return a report for each invalid entry of the list."""
        place = format_place(LIST_VARIABLE)
        return [
            entry.error.report(name=entry.label, place=place, checked_at=now)
            for entry in self.invalid_entries
        ]


def plan_survey(
    tokens: Sequence[SurveyedToken],
    invalid_entries: Sequence[InvalidEntry],
    *,
    names: Sequence[str] | None,
    lifetime_minutes: int | None,
    max_rotations: int,
) -> Survey:
    """Select the tokens that a run rotates.

    Args:
        tokens: all managed tokens.
        invalid_entries: invalid entries of the list of managed tokens.
        names: names or Variables of the tokens to which the run is limited; empty for all.
        lifetime_minutes: the lifetime to request in this run instead of each token's own.
        max_rotations: the number of rotations to which a run is limited.

    Raises:
        Misconfigured: a name is not that of a managed token.
    """
    tokens = _select_tokens(_warn_of_shared_names(tokens), invalid_entries, names)
    if lifetime_minutes:
        tokens = [
            replace(token, token=replace(token.token, lifetime_minutes=lifetime_minutes))
            for token in tokens
        ]
    due = sorted((token for token in tokens if token.is_due), key=lambda token: token.urgency)
    healthy = [token for token in tokens if not token.is_due]
    return Survey(due[:max_rotations], due[max_rotations:], healthy, invalid_entries)


def read_managed_tokens(
    tokens: Sequence[ManagedToken] | None,
) -> tuple[Sequence[ManagedToken], list[InvalidEntry]]:
    """Return the tokens of the DAG file, or else of the list Variable, or else the default."""
    if tokens is not None:
        return tokens, []
    try:
        text = read_variable(LIST_VARIABLE)
    except MalformedToken as error:
        hint = "If the Fernet key was changed, store the list again."
        return [], [InvalidEntry(LIST_VARIABLE, Misconfigured(error.message, hint=hint))]
    return ([ManagedToken()], []) if text is None else parse_tokens(text)


def survey_token(
    token: ManagedToken,
    schedule: Schedule,
    now: datetime,
    force: datetime | None,
    *,
    is_scheduled: bool = False,
) -> SurveyedToken:
    """Read a token from its Variable and decide whether it is due.

    Args:
        token: the settings of the token.
        schedule: the schedule of the checks. If there are few checks between due and expiry, the
            report has a warning; if there is none, a scheduled run reports an error.
        now: an aware time.
        force: when an operator requested a renewal that need not be due.
        is_scheduled: whether the schedule started the run.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    from flowauth_rotator.agent.rotation import inspect_token

    store = VariableStore(token.variable)
    try:
        inspection = inspect_token(store, token.policy, now=now, name=token.name, force=force)
    except StoreUnavailable:
        raise
    except RotatorError as error:
        name = token.name or token.variable
        return SurveyedToken(token, error.report(name=name, place=store.place, checked_at=now))
    decision, expires_at = inspection.decision, inspection.claims.expires_at
    is_forced = inspection.forced is not None
    surveyed = SurveyedToken(
        token, inspection.report, inspection.due, is_forced, decision.remaining
    )
    surveyed = _warn_of_slow_schedule(
        surveyed, schedule, decision.renew_at, expires_at, is_scheduled=is_scheduled
    )
    if not is_masked(token.variable):
        surveyed = surveyed.with_warning(
            f"Airflow does not mask the value of {store.place}: {_get_masking_advice()}."
        )
    return surveyed


def _get_masking_advice() -> str:
    if is_masked("token"):
        return "rename the Variable to a key that contains `token`"
    return (
        "set `hide_sensitive_var_conn_fields = True` in the section `[core]` of its configuration"
    )


def _warn_of_slow_schedule(
    token: SurveyedToken,
    schedule: Schedule,
    renew_at: datetime,
    expires_at: datetime,
    *,
    is_scheduled: bool,
) -> SurveyedToken:
    checks = count_checks(schedule, renew_at, expires_at, RECOMMENDED_CHECKS)
    if checks is None or checks >= RECOMMENDED_CHECKS:
        return token
    seconds = max(1, (expires_at - renew_at) // timedelta(seconds=RECOMMENDED_CHECKS))
    token = token.with_warning(
        f"The schedule has {checks} instead of {RECOMMENDED_CHECKS} checks between due and "
        f"expiry: check every {timedelta(seconds=seconds)}, increase `renew_before`, "
        "or request a longer lifetime."
    )
    if checks or not is_scheduled:
        return token
    report = replace(token.report, outcome=Outcome.MISCONFIGURED, severity=Severity.CRITICAL)
    return replace(token, report=report)


def read_connection_errors(connection_ids: Iterable[str]) -> dict[str, Misconfigured]:
    """Return an error for each connection that does not exist.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    errors = {conn_id: _find_connection_error(conn_id) for conn_id in connection_ids}
    return {conn_id: error for conn_id, error in errors.items() if error}


def _find_connection_error(connection_id: str) -> Misconfigured | None:
    try:
        read_connection(connection_id)
    except Misconfigured as error:
        return error
    return None


def _report_token(
    token: SurveyedToken, errors: Mapping[str, Misconfigured], now: datetime
) -> Report:
    """Return the report of a token, or the error of its connection if it did not fail otherwise."""
    report, error = token.report, errors.get(token.token.flowauth_conn_id)
    if error is None or report.failed:
        return report
    return error.with_details(report).report(name=report.name, place=report.place, checked_at=now)


def _add_hint(report: Report, hint: str) -> Report:
    return replace(report, hint=f"{report.hint} {hint}".strip())


def _warn_of_shared_names(tokens: Sequence[SurveyedToken]) -> list[SurveyedToken]:
    counts = Counter(token.report.name for token in tokens)
    warning = "Another managed token has the same name: give each a name of its own at the issuer."
    return [
        token.with_warning(warning) if counts[token.report.name] > 1 else token for token in tokens
    ]


def _select_tokens(
    tokens: list[SurveyedToken],
    invalid_entries: Sequence[InvalidEntry],
    names: Sequence[str] | None,
) -> list[SurveyedToken]:
    """Return the tokens with these names or Variables, or all of them without names.

    Raises:
        Misconfigured: a name is not that of a managed token.
    """
    selected = {name.strip() for name in names or ()} - {""}
    if not selected:
        return tokens
    known = {name for token in tokens for name in token.names}
    if unknown := sorted(selected - known):
        sentence = (
            f"No managed token has the name or Variable {' or '.join(map(_quote, unknown))}. "
            f"Known names and Variables: {', '.join(sorted(known)) or 'none'}."
        )
        errors = [str(entry.error) for entry in invalid_entries]
        raise Misconfigured("\n".join([sentence, *errors]))
    variables = {token.token.variable for token in tokens} & selected
    return [
        token
        for token in tokens
        if token.token.variable in variables or token.report.name in selected - variables
    ]


def _quote(name: str) -> str:
    return "[a text that looks like a token]" if looks_like_token(name) else repr(name)
