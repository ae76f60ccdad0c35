"""The survey of a check: inspect the managed tokens, and select those to rotate in this run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import (
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.text import format_count
from flowauth_rotator.provider.compat import is_masked, read_variable
from flowauth_rotator.provider.managed_tokens import (
    LIST_VARIABLE,
    InvalidEntry,
    ManagedToken,
    looks_like_token,
    parse_tokens,
    resolve_name,
)
from flowauth_rotator.provider.schedule import Schedule, count_checks
from flowauth_rotator.provider.secret_store import SecretStore
from flowauth_rotator.provider.signatures import PublicKeys
from flowauth_rotator.provider.stores import get_backend, open_stores
from flowauth_rotator.provider.variable_store import VariableStore, format_place

if TYPE_CHECKING:
    from flowauth_rotator.agent.rotation import Inspection
    from flowauth_rotator.core.tokens import Token
    from flowauth_rotator.monitoring.status import TokenStatus

ARGUMENTS = {field.name for field in fields(ManagedToken)} - {"rehearse_every"}
RECOMMENDED_CHECKS = 8  # between due and expiry: renewal survives an outage of a few checks
LONGEST_READ = 10  # seconds of one that failed, after which its backend is not asked again
DEFERRED_HINT = "This run has reached its limit of rotations; the next check rotates the token."


@dataclass(frozen=True)
class RunParameters:
    """The parameters of a run.

    Attributes:
        names: names or Variables of the tokens to which the run is limited; empty for all.
        force: whether tokens that are not due are renewed, too.
        dry_run: whether all tokens are rehearsed, and none is renewed.
        lifetime_minutes: the lifetime to request instead of each token's own.
    """

    names: frozenset[str] = frozenset()
    force: bool = False
    dry_run: bool = False
    lifetime_minutes: int | None = None

    @classmethod
    def parse(cls, params: Mapping[str, Any], conf: Mapping[str, Any] | None) -> RunParameters:
        """Parse the parameters of a run.

        With `[core] dag_run_conf_overrides_params = False`, Airflow neither merges the
        configuration of a run into its parameters nor validates it.

        Args:
            params: the parameters, validated by Airflow.
            conf: the configuration that the run was started with.

        Raises:
            Misconfigured: a parameter has another type.
        """
        values = {**params, **(conf or {})}
        names = values.get("names")
        minutes = values.get("lifetime_minutes")
        if names is not None and not (
            isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
        ):
            raise _reject_parameter("names", "a list of names or Variables")
        for switch in ("force", "dry_run"):
            if not isinstance(values.get(switch) or False, bool):
                raise _reject_parameter(switch, "true or false")
        is_number = isinstance(minutes, (int, float)) and not isinstance(minutes, bool)
        if minutes is not None and not (is_number and minutes == int(minutes) >= 1):
            raise _reject_parameter("lifetime_minutes", "a whole number of at least 1")
        if values.get("dry_run") and minutes is not None:
            raise Misconfigured(
                "The parameters `dry_run` and `lifetime_minutes` are set.",
                hint="A rehearsal is of the lifetime that each token is set to: leave out "
                "`lifetime_minutes`.",
            )
        return cls(
            frozenset(name.strip() for name in names or ()) - {""},
            bool(values.get("force")),
            bool(values.get("dry_run")),
            int(minutes) if minutes else None,  # a form may send 60.0
        )


@dataclass(frozen=True)
class SurveyedToken:
    """A managed token and the result of its inspection.

    Attributes:
        token: the settings of the token.
        report: the report of the token if this run does not rotate it.
        inspection: the inspection; None if the token cannot be read.
        warnings: problems of the configuration, which the hint of the report contains.
        setup: a fingerprint of token, settings and connection; None if one of them cannot be read.
        lacks_copies: whether one of `also_variables` is not known to contain the token.
    """

    token: ManagedToken
    report: Report
    inspection: Inspection | None = None
    warnings: tuple[str, ...] = ()
    setup: str | None = None
    lacks_copies: bool = False

    @property
    def is_due(self) -> bool:
        """Whether the token needs a rotation task: also to store copies, or if it is unreadable."""
        return self.inspection is None or self.inspection.due or self.lacks_copies

    @property
    def names(self) -> set[str]:
        """The name and the Variable, by either of which a run may select the token."""
        return {self.report.name, self.token.variable}

    @property
    def urgency(self) -> tuple[bool, timedelta]:
        """The sort key: valid tokens first, by expiry; expired ones have nothing left to lose."""
        remaining = self.inspection.decision.remaining if self.inspection else timedelta(0)
        return remaining <= timedelta(0), remaining

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `RotateTokenOperator`."""
        is_named = self.inspection is not None and self.report.name_is_known
        name = self.report.name if is_named else self.token.name
        is_forced = self.inspection is not None and self.inspection.forced is not None
        settings = {key: value for key, value in asdict(self.token).items() if key in ARGUMENTS}
        return settings | {"name": name, "force": is_forced}

    def with_warning(self, warning: str) -> SurveyedToken:
        """Return a copy with a further warning."""
        return replace(self.with_hint(warning), warnings=(*self.warnings, warning))

    def with_hint(self, hint: str) -> SurveyedToken:
        """Return a copy whose report has a further hint."""
        return replace(self, report=replace(self.report, hint=f"{self.report.hint} {hint}".strip()))


@dataclass(frozen=True)
class Survey:
    """The plan of a run.

    Attributes:
        due: the tokens that this run rotates, the most urgent first.
        deferred: tokens that are due, but exceed the limit of rotations of a run.
        healthy: the tokens that are not due; in a dry run all tokens.
        invalid_entries: invalid entries of the list of managed tokens.
        is_complete: whether the run checks all managed tokens.
        lifetime_minutes: the lifetime to request in this run instead of each token's own.
        public_keys: the public keys of the connections of these tokens.
        rehearsals: those of the healthy tokens whose renewal this run rehearses.
        unread: the settings of the managed tokens that this run did not read.
    """

    due: Sequence[SurveyedToken]
    deferred: Sequence[SurveyedToken]
    healthy: Sequence[SurveyedToken]
    invalid_entries: Sequence[InvalidEntry]
    is_complete: bool = True
    lifetime_minutes: int | None = None
    public_keys: PublicKeys = field(default_factory=dict)
    rehearsals: Sequence[SurveyedToken] = ()
    unread: Sequence[ManagedToken] = ()

    @property
    def tokens_in_use(self) -> list[tuple[str, Token | None]]:
        """The connection and the token in use of each entry."""
        return [
            (each.token.flowauth_conn_id, each.inspection.token if each.inspection else None)
            for each in (*self.due, *self.deferred, *self.healthy)
        ]

    @property
    def arguments(self) -> list[dict[str, Any]]:
        """The arguments of `RotateTokenOperator` for each rotation and rehearsal of this run."""
        lifetime = {"lifetime_minutes": self.lifetime_minutes} if self.lifetime_minutes else {}
        return [
            token.arguments | lifetime | {"rehearse": rehearse}
            for tokens, rehearse in ((self.due, False), (self.rehearsals, True))
            for token in tokens
        ]

    @property
    def has_lost_list(self) -> bool:
        """Whether the list of managed tokens cannot be read as a whole."""
        tokens = [*self.due, *self.deferred, *self.healthy]
        return not tokens and bool(self.invalid_entries)

    def complete_reports(self, errors: Mapping[str, Misconfigured], now: datetime) -> Survey:
        """Return the plan with the final reports of the tokens that this run does not rotate.

        Args:
            errors: errors of connections, by connection id.
            now: an aware time.
        """
        deferred = [
            token if token.report.failed else token.with_hint(DEFERRED_HINT)
            for token in self.deferred
        ]
        return replace(
            self,
            deferred=[_add_connection_error(token, errors, now) for token in deferred],
            healthy=[_add_connection_error(token, errors, now) for token in self.healthy],
        )


def plan_survey(
    tokens: Sequence[SurveyedToken],
    invalid_entries: Sequence[InvalidEntry],
    parameters: RunParameters,
    *,
    max_rotations: int,
    unread: Mapping[ManagedToken, str] | None = None,
) -> Survey:
    """Select the tokens that a run rotates.

    Args:
        tokens: the managed tokens that the run has read.
        invalid_entries: invalid entries of the list of managed tokens.
        parameters: the parameters of the run.
        max_rotations: the number of rotations to which a run is limited.
        unread: the other managed tokens, with the name of each.

    Raises:
        Misconfigured: a name is not that of a managed token.
    """
    unread = unread or {}
    tokens = _warn_of_shared_names(tokens, unread.values())
    tokens = _select_tokens(tokens, invalid_entries, parameters.names)
    rotated = [token for token in tokens if token.is_due and not parameters.dry_run]
    due = sorted(rotated, key=lambda token: token.urgency)
    healthy = [token for token in tokens if parameters.dry_run or not token.is_due]
    return Survey(
        due[:max_rotations],
        due[max_rotations:],
        healthy,
        invalid_entries,
        is_complete=not parameters.names,
        lifetime_minutes=parameters.lifetime_minutes,
        unread=list(unread),
    )


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


def survey_tokens(
    tokens: Sequence[ManagedToken],
    survey: Callable[[ManagedToken, Collection[str]], SurveyedToken],
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[SurveyedToken]:
    """Survey tokens one after the other, and wait for a backend that does not respond once.

    The survey would end at its `execution_timeout` otherwise, before it has read other tokens.

    Args:
        tokens: the settings of the tokens.
        survey: surveys a token, given the backends that are not to be asked.
        monotonic: measures the seconds of each.
    """
    silent: set[str] = set()
    surveyed = []
    for token in tokens:
        began = monotonic()
        surveyed.append(survey(token, silent))
        is_unavailable = surveyed[-1].report.outcome is Outcome.UNAVAILABLE
        if token.store and is_unavailable and monotonic() - began > LONGEST_READ:
            silent.add(get_backend(token.store))
    return surveyed


def survey_token(
    token: ManagedToken,
    schedule: Schedule,
    now: datetime,
    force: datetime | None,
    *,
    known: TokenStatus | None = None,
    is_scheduled: bool = False,
    silent: Collection[str] = (),
) -> SurveyedToken:
    """Read a token from its store and decide whether it is due.

    Args:
        token: the settings of the token.
        schedule: the schedule of the checks. If there are few checks between due and expiry, the
            report has a warning; if there is none, a scheduled run reports an error.
        now: an aware time.
        force: when an operator requested a renewal that need not be due.
        known: the status of the token after the last check, which may have its name.
        is_scheduled: whether the schedule started the run.
        silent: the backends that have not responded in this run, and are not asked again.

    Raises:
        StoreUnavailable: Airflow did not respond.
    """
    from flowauth_rotator.agent.copies import has_copies
    from flowauth_rotator.agent.rotation import inspect_token

    try:
        if token.store and (backend := get_backend(token.store)) in silent:
            raise StoreUnavailable(f"The token was not read: {backend} did not respond before.")
        store, copies = open_stores(token.variable, token.also_variables, token.store)
        inspection = inspect_token(store, token.policy, now=now, name=token.name, force=force)
        lacks_copies = not has_copies(copies, inspection.token)
    except RotatorError as error:
        if isinstance(error, StoreUnavailable) and token.store is None:
            raise  # as for all tokens
        name, is_known = resolve_name(token, None, None, known)
        report = error.report(name=name, place=format_place(token.variable), checked_at=now)
        return SurveyedToken(token, replace(report, name_is_known=is_known))
    claims = inspection.claims
    name, is_known = resolve_name(token, claims.token_name, inspection.token.fingerprint, known)
    report = replace(inspection.report, name=name, name_is_known=is_known)
    surveyed = SurveyedToken(token, report, inspection, lacks_copies=lacks_copies)
    surveyed = _warn_of_slow_schedule(surveyed, inspection, schedule, is_scheduled=is_scheduled)
    for each in (store, *copies):
        if isinstance(each, (VariableStore, SecretStore)) and not is_masked(each.key):
            surveyed = surveyed.with_warning(
                f"Airflow does not mask the value of {each.place}: {_get_masking_advice()}."
            )
    return surveyed


def _get_masking_advice() -> str:
    if is_masked("token"):
        return "rename the Variable to a key that contains `token`"
    return (
        "set `hide_sensitive_var_conn_fields = True` in the section `[core]` of its configuration"
    )


def _warn_of_slow_schedule(
    token: SurveyedToken, inspection: Inspection, schedule: Schedule, *, is_scheduled: bool
) -> SurveyedToken:
    renew_at, expires_at = inspection.decision.renew_at, inspection.claims.expires_at
    checks = count_checks(schedule, renew_at, expires_at, RECOMMENDED_CHECKS)
    if checks is None or checks >= RECOMMENDED_CHECKS:
        return token
    seconds = max(1, (expires_at - renew_at) // timedelta(seconds=RECOMMENDED_CHECKS))
    count = f"Only {format_count(checks, 'check')}" if checks else "No check"
    verb = "fits" if checks <= 1 else "fit"
    interval = format_duration(timedelta(seconds=seconds))
    token = token.with_warning(
        f"{count} {verb} between due and expiry ({RECOMMENDED_CHECKS} recommended). Check every "
        f"{interval}, increase `renew_before`, or request a longer lifetime."
    )
    if checks or not is_scheduled:
        return token
    report = replace(token.report, outcome=Outcome.MISCONFIGURED, severity=Severity.CRITICAL)
    return replace(token, report=report)


def _add_connection_error(
    token: SurveyedToken, errors: Mapping[str, Misconfigured], now: datetime
) -> SurveyedToken:
    """Return the token with the error of its connection, unless it failed otherwise."""
    report, error = token.report, errors.get(token.token.flowauth_conn_id)
    if error is None or report.failed:
        return token
    failed = error.with_details(report).report(name=report.name, place=report.place, checked_at=now)
    return replace(token, report=failed)


def _warn_of_shared_names(
    tokens: Sequence[SurveyedToken], unread: Iterable[str]
) -> list[SurveyedToken]:
    counts = Counter([*(token.report.name for token in tokens), *unread])
    warning = "Another managed token has the same name: give each a name of its own at the issuer."
    return [
        token.with_warning(warning) if counts[token.report.name] > 1 else token for token in tokens
    ]


def _select_tokens(
    tokens: list[SurveyedToken],
    invalid_entries: Sequence[InvalidEntry],
    names: Collection[str],
) -> list[SurveyedToken]:
    """Return the tokens with these names or Variables, or all of them without names.

    Raises:
        Misconfigured: a name is not that of a managed token.
    """
    selected = set(names)
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


def _reject_parameter(parameter: str, kind: str) -> Misconfigured:
    return Misconfigured(
        f"The parameter `{parameter}` of this run is not {kind}.",
        hint="Start the run again with a valid configuration.",
    )


def _quote(name: str) -> str:
    return "[a text that looks like a token]" if looks_like_token(name) else repr(name)
