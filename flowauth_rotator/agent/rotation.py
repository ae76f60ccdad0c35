"""The rotation: read, decode, decide, renew, verify, swap, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

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
from flowauth_rotator.core.policy import Decision, RotationPolicy, State, clock, decide, utc
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.succession import (
    Candidate,
    best,
    check_budget,
    epoch,
    idempotency_key,
    judge,
    own_row,
    successors,
)
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified

if TYPE_CHECKING:
    from flowauth_rotator.agent.issuer import Issuer
    from flowauth_rotator.agent.stores import TokenStore


@dataclass(frozen=True)
class Check:
    """What the first three words found: the token in use, what it says, where it stands."""

    token: Token
    claims: Claims
    decision: Decision
    report: Report


def check(
    store: TokenStore,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
) -> Check:
    """Read, decode and decide, with no request to anybody; the report says `healthy`, or due.

    Args:
        store: where the token in use is kept.
        policy: when it is due.
        now: an aware time.
        name: the issuer's name of the token; without one, the JWT's own, or else the store's.

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
    report = Report(
        name=name or claims.token_name or store.name,
        place=store.place,
        outcome=Outcome.HEALTHY,
        reason=decision.reason,
        checked_at=utc(now),
        predecessor_expires_at=claims.expires_at,
        renew_at=decision.renew_at,
    )
    return Check(token, claims, decision, report)


def rotate(
    store: TokenStore,
    issuer: Issuer,
    policy: RotationPolicy,
    *,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    public_key: str | None = None,
    on_token: Callable[[Token], None] = lambda _: None,
) -> Report:
    """Bring the token in `store` one step on, if it is due, and report.

    May be called again at any time, after any crash: a successor that exists is found again.

    Args:
        store: where the token in use is kept.
        issuer: who renews it; left open.
        policy: when it is due, and what a successor must be worth.
        now: an aware time.
        name: the issuer's name of the token; without one, the JWT's own, or else the store's.
        description: what to write beside the token; without one, its name and expiry.
        public_key: the issuer's public key (PEM), to verify the successor's signature.
        on_token: called with the token in use, if it is due, and with each that may succeed it,
            before anything else is done with them.

    Raises:
        RotatorError: the token was not swapped; `severity` tells whether there is time left.
    """
    found = check(store, policy, now=now, name=name)
    if not found.decision.due:
        return found.report
    asked_before = issuer.renewal_requests
    on_token(found.token)
    try:
        store.preflight()
        key = PublicKey(public_key) if public_key else None
        successor = _renew(found, issuer, policy, now, key, on_token)
        claims = _verified(found.claims, successor, now)
        report = _swap(
            store, found, successor.token, description or _described(found.report, claims)
        )
    except RotatorError as error:
        asked = issuer.renewal_requests - asked_before
        error.about = replace(found.report, renewal_requests=asked)
        error.severity = _severity(found.decision)
        raise
    report = replace(report, renewal_requests=issuer.renewal_requests - asked_before)
    if report.outcome is Outcome.SUPERSEDED:
        return report
    report = replace(
        report,
        outcome=Outcome.ADOPTED if successor.adopted else Outcome.ROTATED,
        reason=f"The successor expires at {clock(claims.expires_at)}.",
        successor_expires_at=claims.expires_at,
        renew_at=decide(claims, policy, now).renew_at,
    )
    if successor.objections:
        report = replace(
            report,
            outcome=Outcome.CAPPED,
            reason=f"The issuer grants too little: {_clauses(successor)}.",
            advice=Capped.advice,
            severity=_severity(found.decision),
        )
    return report


def _renew(
    found: Check,
    issuer: Issuer,
    policy: RotationPolicy,
    now: datetime,
    key: PublicKey | None,
    on_token: Callable[[Token], None],
) -> Candidate:
    """Adopt a successor that the issuer already holds; otherwise ask for one.

    An ambiguous answer leads back to the start: look, then ask again with the same key. A replayed
    answer of no use is asked anew with the next key, as far as `epoch` permits; a new one ends it.
    """
    token, claims = found.token, found.claims
    expired = found.decision.state is State.EXPIRED
    if expired and not issuer.renews_expired:
        raise ExpiredToken(f"{found.decision.reason} An expired token is no credential.")

    candidates: list[Candidate] = []

    def consider(token: Token, *, adopted: bool = False) -> Candidate:
        on_token(token)
        candidates.append(judge(claims, token, policy, now, key=key, adopted=adopted))
        return candidates[-1]

    def ask() -> Candidate:
        candidates.clear()
        rows = issuer.rows(claims)
        for row in successors(claims, rows):
            consider(row.token, adopted=True)
        chosen = best(claims, candidates, now)
        may_ask = expired or _asked(candidates, found, policy) <= epoch(claims, policy, now)
        if chosen and not (chosen.objections and may_ask):
            return chosen
        if not may_ask:
            return candidates[-1]
        own = own_row(claims, rows)
        if own:
            check_budget(own.name, rows, now)
        minutes = policy.lifetime_minutes
        for number in range(epoch(claims, policy, now) + 1):
            request_key = idempotency_key(claims, minutes, number)
            renewal = issuer.renew(token, own, key=request_key, lifetime_minutes=minutes)
            answer = consider(renewal.token)
            if not (renewal.replayed and answer.objections):
                break
        return best(claims, candidates, now) or answer

    try:
        return issuer.retry(ask)
    except IssuerError as error:
        if held := best(claims, candidates, now):
            return held
        if not (expired and isinstance(error, Refused)):
            raise
        reason = f"{found.decision.reason} {error.reason}"
        advice = error.advice if error.advice != Refused.advice else None
        raise ExpiredToken(reason, advice=advice) from None


def _asked(candidates: list[Candidate], found: Check, policy: RotationPolicy) -> int:
    """How many of the issuer's rows may be answers to this renewal: those made since it was due."""
    since = found.decision.renew_at - policy.leeway
    return sum(one.claims is not None and one.claims.issued_at >= since for one in candidates)


def _verified(predecessor: Claims, successor: Candidate, now: datetime) -> Claims:
    """What the successor says, if it is better than what is in use, be it only a little."""
    claims, faults = successor.claims, successor.faults
    if claims is None or faults:
        clauses = tuple(fault.clause for fault in faults)
        raise Rejected(
            f"The issuer's answer was not written: {'; '.join(clauses)}.", objections=clauses
        )
    if claims.expires_at <= max(predecessor.expires_at, utc(now)):
        raise Capped(f"The issuer grants too little: {_clauses(successor)}.")
    return claims


def _swap(store: TokenStore, found: Check, successor: Token, description: str) -> Report:
    """Write the successor, unless somebody else wrote; then read what those who use it read."""
    if (current := _current(store)) != found.token:
        return _overtaken(store, found, current)
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
    return _overtaken(store, found, current)


def _current(store: TokenStore) -> Token | None:
    try:
        return store.read()
    except MissingToken:
        return None


def _overtaken(store: TokenStore, found: Check, current: Token | None) -> Report:
    """Somebody else wrote: well, if it is a token that will do for a while."""
    if current is None:
        raise ConflictingWrite(f"The token in {store.place} was removed during the rotation.")
    try:
        claims = read_unverified(current)
    except MalformedToken as error:
        raise ConflictingWrite(
            f"{store.place} was changed during the rotation, to no token: {error.reason}"
        ) from None
    if claims.expires_at <= max(found.claims.expires_at, found.report.checked_at):
        raise ConflictingWrite(
            f"{store.place} was changed during the rotation, to a token that expires at "
            f"{clock(claims.expires_at)}, no better than the one before."
        )
    return replace(
        found.report,
        outcome=Outcome.SUPERSEDED,
        reason=f"Somebody else stored a token that expires at {clock(claims.expires_at)}.",
        renew_at=None,
    )


def _described(report: Report, successor: Claims) -> str:
    expiry = clock(successor.expires_at)
    return f"FlowAPI token {report.name}, expires {expiry}, renewed by flowauth-rotator"


def _clauses(candidate: Candidate) -> str:
    return "; ".join(objection.clause for objection in candidate.objections)


def _severity(decision: Decision) -> Severity:
    """There is time left as long as the token is due and not yet critical."""
    return Severity.WARNING if decision.state is State.DUE else Severity.CRITICAL
