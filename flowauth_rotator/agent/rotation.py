"""The rotation: read, decode, decide, renew, verify, swap, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flowauth_rotator.agent.clocks import Clocks
from flowauth_rotator.agent.copies import read_current, update_copies
from flowauth_rotator.agent.issuer_calls import IssuerCalls, Timer
from flowauth_rotator.agent.probe import Probe, Trial
from flowauth_rotator.agent.renewal import Renewal
from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, format_time, to_utc
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import (
    Capped,
    ConflictingWrite,
    MalformedToken,
    Misconfigured,
    Rejected,
    RotatorError,
    ShadowedStore,
    StoreError,
    UnexpectedError,
    wrap_unexpected_errors,
)
from flowauth_rotator.core.policy import Decision, RotationPolicy, decide
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.succession import Candidate
from flowauth_rotator.core.text import quote, remove_control_characters
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.agent.stores import TokenStore


@dataclass(frozen=True)
class Inspection:
    """The token in use, decoded, and the decision about it.

    Attributes:
        token: the token in use.
        claims: its claims.
        decision: what the policy says of it.
        report: the report `healthy`, or why the token is due.
        forced: when a renewal was requested that the token is older than; None without one.
    """

    token: Token
    claims: Claims
    decision: Decision
    report: Report
    forced: datetime | None = None

    @property
    def due(self) -> bool:
        """Whether the token is to be renewed now."""
        return self.decision.due or self.forced is not None


@wrap_unexpected_errors
def inspect_token(
    store: TokenStore,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    force: datetime | None = None,
    decode: Callable[[Token], Claims] = read_unverified,
) -> Inspection:
    """Read, decode and decide, without a network request.

    A token that was issued later than now makes the report a warning: the clock here is behind.

    Args:
        store: where the token in use is kept.
        policy: when it is due.
        now: an aware time.
        name: the issuer's name of the token; by default the one in the JWT, or else the store's.
        force: when an operator requested a renewal that need not be due. Tokens issued after that
            are not renewed again.
        decode: returns the claims of a token, as `read_unverified` does.

    Raises:
        RotatorError: the token is missing or malformed, or has another name.
    """
    token = store.read()
    claims = decode(token)
    if name and claims.token_name and name != claims.token_name:
        raise Misconfigured(
            f"The token in {store.place} has the name {quote(claims.token_name)}, not "
            f"{quote(name)}.",
            hint="Correct the name, or store the token of that name.",
        )
    decision = decide(claims, policy, now)
    forced = force if force and claims.issued_at < force else None
    is_done = force and not forced and not decision.due
    prefix = "It was issued after this renewal was requested. " if is_done else ""
    report = Report(
        name=name or claims.token_name or store.name,
        place=store.place,
        outcome=Outcome.HEALTHY,
        message=f"{prefix}{decision.message}",
        checked_at=to_utc(now),
        predecessor_expires_at=claims.expires_at,
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        renew_at=decision.renew_at,
        critical_at=decision.critical_at,
        name_is_known=bool(name or claims.token_name),
        fingerprint=token.fingerprint,
    )
    behind = claims.issued_at - to_utc(now)
    if behind > MAX_CLOCK_SKEW:
        report = replace(
            report,
            clock_skew=round(behind.total_seconds()),
            severity=Severity.WARNING,
            hint="The token was issued in the future: correct the clock of this machine.",
        )
    return Inspection(token, claims, decision, report, forced)


@wrap_unexpected_errors
def rotate(
    store: TokenStore,
    issuer: Issuer,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    public_key: Callable[[], PublicKey | None] = lambda: None,
    probe: Probe | None = None,
    on_token: Callable[[Token], None] = lambda _: None,
    force: datetime | None = None,
    copies: Sequence[TokenStore] = (),
    timer: Timer = time,
) -> Report:
    """Renew the token in `store` if it is due or the renewal is forced, and report.

    It may be called again at any time, after any crash: it finds a successor that already exists.

    Args:
        store: where the token in use is kept.
        issuer: the issuer that renews it; not closed.
        policy: when it is due, and what a successor must be worth.
        now: an aware time.
        name: the issuer's name of the token; by default the one in the JWT, or else the store's.
        description: the description to store with the token; by default its name and expiry.
        public_key: loads the issuer's public key, which verifies the successor's signature. It is
            called only if the token is due, before anything is minted.
        probe: tries the successor at FlowAPI before it is stored, and the predecessor afterwards.
        on_token: called with the token in use, if it is due, and with each possible successor,
            before anything else is done with them.
        force: when an operator requested a renewal that need not be due: a token that was issued
            before that is renewed.
        copies: further stores of the token. They get a successor before `store` does, so that the
            next run completes what a crash has interrupted. A copy that cannot be updated makes
            the report a warning, and does not stop the rotation: the next run tries again. If the
            token is not due, it is an error.
        timer: measures time and pauses between attempts.

    Raises:
        RotatorError: the token was not swapped; its severity says whether there is time left.
        BaseException: what ended the process or its task, such as a timeout, as it is, with the
            attributes `details` and `severity` of a `RotatorError`.
    """
    inspection = inspect_token(store, policy, now=now, name=name, force=force)
    if not inspection.due:
        return _complete_copies(copies, inspection, description, on_token)
    calls = IssuerCalls(issuer, timer)
    trial = Trial(probe, calls) if probe else None
    rotation = _Rotation(store, copies, calls, policy, inspection, trial)
    try:
        on_token(inspection.token)
        return rotation.run(public_key, on_token, description)
    except Exception as error:  # noqa: BLE001 - a library may raise any error
        known = error if isinstance(error, RotatorError) else UnexpectedError.wrap(error)
        detailed = known.with_details(rotation.annotated_report, rotation.severity)
        failure = detailed.with_traceback(error.__traceback__)
    except BaseException as end:
        vars(end).update(details=rotation.annotated_report, severity=rotation.severity)
        raise
    raise failure  # outside the block, so that it chains nothing that holds a secret


def _complete_copies(
    copies: Sequence[TokenStore],
    inspection: Inspection,
    description: str | None,
    on_token: Callable[[Token], None],
) -> Report:
    """Report a token that is not due, after its copies have been updated.

    Raises:
        RotatorError: a copy could not be updated: `ConflictingWrite`, unless a retry may help.
    """
    if not copies:
        return inspection.report
    on_token(inspection.token)
    report, claims = inspection.report, inspection.claims
    description = description or _describe_token(report.name, claims)
    errors = update_copies(copies, inspection.token, claims, description)
    if not errors:
        return report
    failure = next((error for error in errors if error.retryable), None) or ConflictingWrite(
        " ".join(error.message for error in errors),
        hint=" ".join(dict.fromkeys(error.hint for error in errors)),
    )
    raise failure.with_details(report, Severity.WARNING)


@dataclass
class _Rotation:
    """One rotation of a token that is due."""

    _store: TokenStore
    _copies: Sequence[TokenStore]
    _calls: IssuerCalls
    _policy: RotationPolicy
    _inspection: Inspection
    _trial: Trial | None
    _renewal: Renewal | None = None

    def __post_init__(self) -> None:
        self._clocks = Clocks(self._inspection, self._calls)

    @property
    def annotated_report(self) -> Report:
        """The report of the inspection, with what the rotation has found out so far."""
        return self._annotate(self._inspection.report)

    @property
    def severity(self) -> Severity:
        """The severity of a failure now; critical at once if FlowAPI refuses the successor."""
        if self._trial and self._trial.would_lose_access:
            return Severity.CRITICAL
        return self._clocks.find_severity(self._policy)

    def run(
        self,
        public_key: Callable[[], PublicKey | None],
        on_token: Callable[[Token], None],
        description: str | None,
    ) -> Report:
        """Renew, verify and swap."""
        self._store.preflight()
        self._renewal = Renewal(
            self._inspection, self._calls, self._clocks, self._policy, public_key(), on_token
        )
        successor = self._renewal.find_or_request()
        if successor is None:
            return self._report_clock_conflict()
        claims = self._verify(successor)
        if self._trial:
            self._trial.admit(
                successor.token, self._inspection.token, has_expired=self._has_expired
            )
        description = description or _describe_token(self.annotated_report.name, claims)
        problems = update_copies(self._copies, successor.token, claims, description)
        report = self._swap(successor.token, description)
        if report.outcome is Outcome.SUPERSEDED:
            return self._annotate(report)
        report = _add_problems(self._report_swap(successor, claims), problems)
        if self._trial:
            return self._trial.add_to(report, self._inspection.token, has_expired=self._has_expired)
        return report

    @property
    def _has_expired(self) -> bool:
        """Whether the token that was in use has expired, by either clock."""
        return self._inspection.claims.expires_at <= self._clocks.latest

    def _verify(self, successor: Candidate) -> Claims:
        """Return the successor's claims if it may be stored and expires later, even a little."""
        claims, faults = successor.claims, successor.faults
        if claims is None or faults:
            violations = tuple(fault.text for fault in faults)
            raise Rejected(
                f"The issuer's token was not stored: {'; '.join(violations)}.",
                violations=violations,
            )
        if claims.expires_at <= max(self._inspection.claims.expires_at, self._clocks.earliest):
            raise Capped(f"The issuer grants too little: {_join_violations(successor)}.")
        return claims

    def _swap(self, successor: Token, description: str) -> Report:
        """Write the successor unless another writer did, then read back what readers see."""
        store, inspection = self._store, self._inspection
        if (current := read_current(store)) != inspection.token:
            return self._report_other_writer(current)
        failure: StoreError | None = None
        try:
            store.write(successor, description)
        except StoreError as error:
            failure = error  # the store may have taken the write before it failed
        current = read_current(store)
        if current == successor:
            return inspection.report
        if failure and (current == inspection.token or not isinstance(failure, ConflictingWrite)):
            raise failure
        if current == inspection.token:
            raise ShadowedStore(
                f"The write to {store.place} succeeded, but reading it returns the old token.",
                hint="Remove what hides it: another secrets backend or an environment variable.",
            )
        return self._report_other_writer(current)

    def _report_other_writer(self, current: Token | None) -> Report:
        """Report `superseded` if another writer stored a better token.

        Raises:
            ConflictingWrite: it did not.
        """
        place = self._store.place
        if current is None:
            raise ConflictingWrite(f"The token in {place} was removed during the rotation.")
        try:
            claims = read_unverified(current)
        except MalformedToken as error:
            raise ConflictingWrite(
                f"{place} was changed during the rotation, to a value that is not a token. "
                f"{error.message}"
            ) from None
        if claims.expires_at <= max(self._inspection.claims.expires_at, self._clocks.earliest):
            raise ConflictingWrite(
                f"{place} was changed during the rotation, to a token that expires at "
                f"{format_time(claims.expires_at)}, not later than the one before."
            )
        return replace(
            self._inspection.report,
            outcome=Outcome.SUPERSEDED,
            message=f"Another writer stored a token that expires at "
            f"{format_time(claims.expires_at)}.",
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
            renew_at=None,
            critical_at=None,
            fingerprint=current.fingerprint,
        )

    def _report_clock_conflict(self) -> Report:
        """Report a token that is due by our clock and not by the issuer's."""
        claims = self._inspection.claims
        return replace(
            self._clocks.annotate(self._inspection.report),
            message=decide(claims, self._policy, self._clocks.theirs).message,
            severity=self.severity,
            hint="The token was not renewed: correct the wrong clock, here or at the issuer.",
        )

    def _report_swap(self, successor: Candidate, claims: Claims) -> Report:
        """Report `rotated` or `adopted`, or `capped` if the successor is hardly better."""
        inspection, policy = self._inspection, self._policy
        gain = claims.expires_at - inspection.claims.expires_at
        suffix = f", {format_duration(gain)} later" if inspection.forced else ""
        subject = "Newer token found and stored: it" if successor.adopted else "The successor"
        decision = decide(claims, policy, self._clocks.ours)
        report = replace(
            self.annotated_report,
            outcome=Outcome.ADOPTED if successor.adopted else Outcome.ROTATED,
            message=f"{subject} expires at {format_time(claims.expires_at)}{suffix}.",
            successor_expires_at=claims.expires_at,
            issued_at=claims.issued_at,
            expires_at=claims.expires_at,
            renew_at=decision.renew_at,
            critical_at=decision.critical_at,
            fingerprint=successor.token.fingerprint,
        )
        if policy.lifetime_minutes is None and not successor.adopted:
            report = replace(report, longest_minutes=round(claims.lifetime / timedelta(minutes=1)))
        if successor.violations:
            report = replace(
                report,
                outcome=Outcome.CAPPED,
                message=f"The issuer grants too little: {_join_violations(successor)}.",
                hint=Capped.hint,
                severity=self.severity,
            )
        return report

    def _annotate(self, report: Report) -> Report:
        """Add what the issuer has shown so far: its clock, its newest token, the token's name."""
        report = self._clocks.annotate(report)
        if self._renewal is None:
            return report
        report = report.add_name(self._renewal.row_name)
        return replace(report, newest_issued_expires_at=self._renewal.newest_expiry)


def _describe_token(name: str, claims: Claims) -> str:
    expiry = format_time(claims.expires_at)
    shown = remove_control_characters(name)
    return f"FlowAPI token {shown}, expires {expiry}, renewed by flowauth-rotator"


def _add_problems(report: Report, problems: Sequence[RotatorError]) -> Report:
    """Return the report as a warning at least, if copies of the token could not be updated."""
    if not problems:
        return report
    severity = report.severity if report.failed else Severity.WARNING
    hint = " ".join([report.hint, *map(str, problems)]).strip()
    return replace(report, severity=severity, hint=hint)


def _join_violations(candidate: Candidate) -> str:
    return "; ".join(violation.text for violation in candidate.violations)
