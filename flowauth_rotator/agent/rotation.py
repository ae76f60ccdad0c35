"""The rotation: read, decode, decide, renew, verify, swap, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, format_time, to_utc
from flowauth_rotator.core.errors import (
    Capped,
    ConflictingWrite,
    ExpiredToken,
    IssuerError,
    MalformedToken,
    Misconfigured,
    MissingToken,
    Refused,
    Rejected,
    RotatorError,
    ShadowedStore,
    StoreError,
)
from flowauth_rotator.core.policy import Decision, RotationPolicy, State, decide
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.succession import (
    Candidate,
    Row,
    best,
    check_budget,
    epoch,
    idempotency_key,
    judge,
    may_ask,
    own_row,
    successors,
)
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.agent.stores import TokenStore


A_YEAR = timedelta(days=366)


@dataclass(frozen=True)
class Check:
    """What the first three words found: the token in use, what it says, where it stands.

    Attributes:
        token: the token in use.
        claims: what it says.
        decision: where it stands.
        report: `healthy`, or why it is due.
        forced: since when a renewal is asked for that the token was made before, if one is.
    """

    token: Token
    claims: Claims
    decision: Decision
    report: Report
    forced: datetime | None = None

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return self.decision.due or self.forced is not None


def check(
    store: TokenStore,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    force: datetime | None = None,
) -> Check:
    """Read, decode and decide, with no request to anybody; the report says `healthy`, or due.

    A token that was made later than now is a warning: the clock here is behind.

    Args:
        store: where the token in use is kept.
        policy: when it is due.
        now: an aware time.
        name: the issuer's name of the token; without one, the JWT's own, or else the store's.
        force: when somebody asked for a renewal that need not be due; a token that was made since
            is the answer, however often it is looked at.

    Raises:
        RotatorError: the token is missing or malformed, or has another name.
    """
    token = store.read()
    claims = read_unverified(token)
    if name and claims.token_name and name != claims.token_name:
        raise Misconfigured(
            f"The token in {store.place} is named {claims.token_name!r}, not {name!r}.",
            advice="Correct the name, or store the token of that name.",
        )
    decision = decide(claims, policy, now)
    forced = force if force and claims.issued_at < force else None
    answered = force and not forced and not decision.due
    answer = "It was made since this renewal was asked for. " if answered else ""
    report = Report(
        name=name or claims.token_name or store.name,
        place=store.place,
        outcome=Outcome.HEALTHY,
        reason=f"{answer}{decision.reason}",
        checked_at=to_utc(now),
        predecessor_expires_at=claims.expires_at,
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        renew_at=decision.renew_at,
    )
    behind = claims.issued_at - to_utc(now)
    if behind > MAX_CLOCK_SKEW:
        report = replace(
            report,
            clock_skew=round(behind.total_seconds()),
            severity=Severity.WARNING,
            advice="The token is from the future: correct the clock of this machine.",
        )
    return Check(token, claims, decision, report, forced)


def rotate(
    store: TokenStore,
    issuer: Issuer,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    public_key: Callable[[], PublicKey | None] = lambda: None,
    on_token: Callable[[Token], None] = lambda _: None,
    force: datetime | None = None,
) -> Report:
    """Bring the token in `store` one step on, if it is due or that is forced, and report.

    May be called again at any time, after any crash: a successor that exists is found again.

    Args:
        store: where the token in use is kept.
        issuer: who renews it; left open.
        policy: when it is due, and what a successor must be worth.
        now: an aware time.
        name: the issuer's name of the token; without one, the JWT's own, or else the store's.
        description: what to write beside the token; without one, its name and expiry.
        public_key: loads the issuer's public key, to verify the successor's signature; called
            if the token is due, before anything is minted.
        on_token: called with the token in use, if it is due, and with each that may succeed it,
            before anything else is done with them.
        force: when somebody asked for a renewal that need not be due: renew a token that was made
            before.

    Raises:
        RotatorError: the token was not swapped; `severity` tells whether there is time left.
    """
    found = check(store, policy, now=now, name=name, force=force)
    if not found.due:
        return found.report
    issuer.begin()
    clocks = Clocks(found, issuer)
    candidates: list[Candidate] = []
    on_token(found.token)
    try:
        store.preflight()
        key = public_key()
        successor = _renew(found, clocks, policy, key, on_token, candidates)
        if successor is None:
            return _early(found, clocks, policy)
        claims = _verified(found.claims, successor, clocks)
        description = description or _described(found.report, claims)
        report = _swap(store, found, successor.token, description, clocks)
    except RotatorError as error:
        error.about = replace(
            clocks.told(found.report), newest_issued_expires_at=_newest(candidates)
        )
        error.severity = _severity(found, clocks, policy)
        raise
    report = replace(clocks.told(report), newest_issued_expires_at=_newest(candidates))
    if report.outcome is Outcome.SUPERSEDED:
        return report
    gained = f", {claims.expires_at - found.claims.expires_at} later" if found.forced else ""
    report = replace(
        report,
        outcome=Outcome.ADOPTED if successor.adopted else Outcome.ROTATED,
        reason=f"The successor expires at {format_time(claims.expires_at)}{gained}.",
        successor_expires_at=claims.expires_at,
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        renew_at=decide(claims, policy, now).renew_at,
    )
    if policy.lifetime_minutes is None and not successor.adopted:
        report = replace(report, longest_minutes=round(claims.lifetime / timedelta(minutes=1)))
    if successor.objections:
        report = replace(
            report,
            outcome=Outcome.CAPPED,
            reason=f"The issuer grants too little: {_clauses(successor)}.",
            advice=Capped.advice,
            severity=_severity(found, clocks, policy),
        )
    return report


def clock_skew(issuer: Issuer, began: datetime) -> timedelta | None:
    """By how much the issuer's clock was ahead of ours when it answered; None if it did not.

    Args:
        issuer: who was asked.
        began: our clock at its `begin`.
    """
    if issuer.answered_at is None:
        return None
    return issuer.answered_at - (began + timedelta(seconds=issuer.answered_after))


@dataclass(frozen=True)
class Clocks:
    """Our clock and the issuer's, of which either may be wrong.

    Ours is the one of the beginning of the rotation, the issuer's that of its last answer. While
    it has not answered, both are ours.
    """

    found: Check
    issuer: Issuer

    @property
    def ours(self) -> datetime:
        """When the rotation began."""
        return self.found.report.checked_at

    @property
    def theirs(self) -> datetime:
        """The `Date` of the last answer, unless it cannot be: before the token in use was made,
        or more than a year after it expires.
        """  # noqa: D205 - one sentence
        answered_at, claims = self.issuer.answered_at, self.found.claims
        if answered_at is None or answered_at < claims.issued_at - MAX_CLOCK_SKEW:
            return self.ours
        if answered_at > max(self.ours, claims.expires_at) + A_YEAR:
            return self.ours
        return answered_at

    @property
    def earliest(self) -> datetime:
        """By it nothing expires, is due or leaves the budget before both clocks say so."""
        return min(self.ours, self.theirs)

    @property
    def latest(self) -> datetime:
        """By it nothing is of the future unless both clocks say so."""
        return max(self.ours, self.theirs)

    def is_early(self, policy: RotationPolicy) -> bool:
        """Whether the clocks are far apart, and by the issuer's the token is not due.

        Of a renewal that is forced no clock decides.
        """
        apart = abs(self.theirs - self.ours) > MAX_CLOCK_SKEW
        due = self.found.forced or decide(self.found.claims, policy, self.theirs).due
        return apart and not due

    def told(self, report: Report) -> Report:
        """The report, with what the rotation cost and what it showed of the clocks."""
        skew = clock_skew(self.issuer, self.ours)
        return replace(
            report,
            renewal_requests=self.issuer.renewal_requests,
            clock_skew=None if skew is None else round(skew.total_seconds()),
        )


def _renew(
    found: Check,
    clocks: Clocks,
    policy: RotationPolicy,
    key: PublicKey | None,
    on_token: Callable[[Token], None],
    candidates: list[Candidate],
) -> Candidate | None:
    """Adopt a successor that the issuer already holds; otherwise ask for one.

    None if by the issuer's clock, far from ours, there is nothing to do. An ambiguous answer leads
    back to the start: look, then ask again with the same key. A replayed answer of no use is asked
    anew with the next key, as far as `epoch` permits; a new one ends it. What was seen is left in
    `candidates`.
    """
    token, claims, issuer = found.token, found.claims, clocks.issuer

    def consider(token: Token, *, adopted: bool = False) -> Candidate:
        on_token(token)
        candidates.append(
            judge(
                claims,
                token,
                policy,
                clocks.earliest,
                latest=clocks.latest,
                key=key,
                adopted=adopted,
                forced=None if found.decision.due else found.forced,
            )
        )
        return candidates[-1]

    def look_and_ask() -> Candidate | None:
        rows = issuer.rows(claims)
        candidates.clear()  # not before the rows are here: what was seen is better than nothing
        if clocks.is_early(policy):
            return None
        for row in successors(claims, rows):
            consider(row.token, adopted=True)
        chosen = best(claims, candidates, clocks.earliest)
        again = may_ask(claims, candidates, policy, clocks.earliest)
        if chosen and not (chosen.objections and again):
            return chosen
        if not again:
            return _least_bad(candidates)
        own = own_row(claims, rows)
        if own:
            check_budget(own.name, rows, clocks.earliest)
        return ask(own)

    def ask(own: Row | None) -> Candidate | None:
        expired = own is not None and claims.expires_at <= clocks.earliest
        number = epoch(claims, policy, clocks.earliest) if expired else 0
        while number <= epoch(claims, policy, clocks.earliest):
            request_key = idempotency_key(claims, policy.lifetime_minutes, number)
            renewal = issuer.renew(
                token, own, key=request_key, lifetime_minutes=policy.lifetime_minutes
            )
            useful = renewal.token and not consider(renewal.token).objections
            if clocks.is_early(policy):
                return None
            if useful or not renewal.replayed:
                break
            number += 1
        if not candidates:
            raise Capped("What the issuer granted in place of this token has expired before it.")
        return best(claims, candidates, clocks.earliest) or _least_bad(candidates)

    try:
        return issuer.retry(look_and_ask)
    except IssuerError as error:
        if held := best(claims, candidates, clocks.earliest):
            return held
        if not (isinstance(error, Refused) and claims.expires_at <= clocks.theirs):
            raise
        reason = f"It expired at {format_time(claims.expires_at)}. {error.reason}"
        advice = error.advice if error.advice != Refused.advice else None
        raise ExpiredToken(reason, advice=advice) from None


def _newest(candidates: list[Candidate]) -> datetime | None:
    """The latest expiry that was seen at the issuer."""
    return max((one.claims.expires_at for one in candidates if one.claims), default=None)


def _least_bad(candidates: list[Candidate]) -> Candidate:
    """Of those of no use, one that is only capped, if there is one."""
    return min(candidates, key=lambda one: bool(one.faults))


def _early(found: Check, clocks: Clocks, policy: RotationPolicy) -> Report:
    """Due by our clock, and not by the issuer's: one of the two is wrong."""
    return replace(
        clocks.told(found.report),
        reason=decide(found.claims, policy, clocks.theirs).reason,
        severity=_severity(found, clocks, policy),
        advice="Nothing was renewed: correct the clock that is wrong, here or at the issuer.",
    )


def _verified(predecessor: Claims, successor: Candidate, clocks: Clocks) -> Claims:
    """What the successor says, if it is better than what is in use, be it only a little."""
    claims, faults = successor.claims, successor.faults
    if claims is None or faults:
        clauses = tuple(fault.clause for fault in faults)
        raise Rejected(
            f"The issuer's answer was not written: {'; '.join(clauses)}.", objections=clauses
        )
    if claims.expires_at <= max(predecessor.expires_at, clocks.earliest):
        raise Capped(f"The issuer grants too little: {_clauses(successor)}.")
    return claims


def _swap(
    store: TokenStore, found: Check, successor: Token, description: str, clocks: Clocks
) -> Report:
    """Write the successor, unless somebody else wrote; then read what those who use it read."""
    if (current := _current(store)) != found.token:
        return _overtaken(store, found, current, clocks)
    failure: StoreError | None = None
    try:
        store.write(successor, description)
    except StoreError as error:
        failure = error  # it may have been written all the same
    current = _current(store)
    if current == successor:
        return found.report
    if failure:
        raise failure
    if current == found.token:
        raise ShadowedStore(
            f"The write to {store.place} was accepted, but reading still gives the old token.",
            advice="Remove what hides it: another secrets backend, or an environment variable.",
        )
    return _overtaken(store, found, current, clocks)


def _current(store: TokenStore) -> Token | None:
    try:
        return store.read()
    except MissingToken:
        return None


def _overtaken(store: TokenStore, found: Check, current: Token | None, clocks: Clocks) -> Report:
    """Somebody else wrote: well, if it is a token that will do for a while."""
    if current is None:
        raise ConflictingWrite(f"The token in {store.place} was removed during the rotation.")
    try:
        claims = read_unverified(current)
    except MalformedToken as error:
        raise ConflictingWrite(
            f"{store.place} was changed during the rotation, to no token: {error.reason}"
        ) from None
    if claims.expires_at <= max(found.claims.expires_at, clocks.earliest):
        raise ConflictingWrite(
            f"{store.place} was changed during the rotation, to a token that expires at "
            f"{format_time(claims.expires_at)}, no better than the one before."
        )
    return replace(
        found.report,
        outcome=Outcome.SUPERSEDED,
        reason=f"Somebody else stored a token that expires at {format_time(claims.expires_at)}.",
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        renew_at=None,
    )


def _described(report: Report, successor: Claims) -> str:
    expiry = format_time(successor.expires_at)
    return f"FlowAPI token {report.name}, expires {expiry}, renewed by flowauth-rotator"


def _clauses(candidate: Candidate) -> str:
    return "; ".join(objection.clause for objection in candidate.objections)


def _severity(found: Check, clocks: Clocks, policy: RotationPolicy) -> Severity:
    """A warning as long as by neither clock the token is critical or has expired."""
    states = {decide(found.claims, policy, now).state for now in (clocks.ours, clocks.theirs)}
    return Severity.CRITICAL if states & {State.CRITICAL, State.EXPIRED} else Severity.WARNING
