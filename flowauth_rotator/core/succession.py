"""Rules for successors: which tokens qualify, which one to choose, when to request another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, ClockReading, format_time, to_utc
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.errors import BudgetExhausted, MalformedToken
from flowauth_rotator.core.policy import RotationPolicy, decide, resolve_duration
from flowauth_rotator.core.text import quote
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified

MINTS_AN_HOUR = 6
MINTS_A_DAY = 24
HOUR = timedelta(hours=1)
LAST_RETRY_GENERATION = MINTS_AN_HOUR - 1  # keeps even a short renewal window within the budget


@dataclass(frozen=True)
class Violation:
    """One rule that a successor breaks.

    Attributes:
        text: the violation as a clause; quotes no part of a token.
        capped: whether it only says that the successor does not live long enough.
    """

    text: str
    capped: bool = False


@dataclass(frozen=True)
class Row:
    """One token in the issuer's history.

    Attributes:
        id: the issuer's number of the row; a larger one is newer.
        name: the issuer's name of the token, as `shorten_name` returns it.
        owner: the user who owns the token.
        audience: the server that the token is for.
        roles: the names of its roles.
        token: the token.
        listed_expiry: its expiry as the issuer lists it, which FlowAuth does in its local time.
    """

    id: int
    name: str
    owner: str
    audience: str
    roles: frozenset[str]
    token: Token
    listed_expiry: datetime | None = None

    @cached_property
    def claims(self) -> Claims | None:
        """The claims; None if the row holds something other than a JWT, as FlowAuth's demo does."""
        try:
            return read_unverified(self.token)
        except MalformedToken:
            return None

    @property
    def clock_offset(self) -> timedelta:
        """The time by which the issuer's dates are later than those of its JWTs."""
        if self.listed_expiry is None or self.claims is None:
            return timedelta(0)
        return self.listed_expiry - self.claims.expires_at

    @property
    def identity(self) -> tuple[str, str, str, frozenset[str]]:
        """What a successor has in common with its predecessor."""
        return self.owner, self.audience, self.name, self.roles


@dataclass(frozen=True)
class History:
    """The tokens that an issuer has issued to a user for an audience.

    Attributes:
        rows: one for each token; none if the issuer shows no history.
        clock: the issuer's clock in its last response; None without one.
    """

    rows: Sequence[Row] = ()
    clock: ClockReading | None = None


@dataclass(frozen=True)
class RenewalResponse:
    """An issuer's response to a renewal request.

    Attributes:
        token: the token that it minted; None if that has expired since.
        replayed: whether the issuer minted it for an earlier request with the same key.
        renewal_requests: the number of requests that it took.
        clock: the issuer's clock in its last response; None without one.
    """

    token: Token | None
    replayed: bool = False
    renewal_requests: int = 1
    clock: ClockReading | None = None


@dataclass(frozen=True)
class Candidate:
    """A token that may become the successor.

    Attributes:
        token: the token.
        claims: its claims; None if it cannot be decoded.
        violations: the rules that it breaks.
        adopted: whether the issuer already held it.
    """

    token: Token
    claims: Claims | None
    violations: tuple[Violation, ...]
    adopted: bool = False

    @property
    def faults(self) -> tuple[Violation, ...]:
        """The violations because of which it must not be stored."""
        return tuple(violation for violation in self.violations if not violation.capped)


def evaluate_candidate(
    predecessor: Claims,
    token: Token,
    policy: RotationPolicy,
    now: datetime,
    *,
    latest: datetime | None = None,
    key: PublicKey | None = None,
    adopted: bool = False,
    forced: datetime | None = None,
) -> Candidate:
    """Return a token as a candidate, with its violations; `key` verifies its signature."""
    try:
        claims = read_unverified(token)
    except MalformedToken as error:
        message = error.message[0].lower() + error.message[1:].rstrip(".")
        return Candidate(token, None, (Violation(f"it cannot be decoded: {message}"),), adopted)
    violations = find_violations(predecessor, claims, policy, now, latest=latest, forced=forced)
    if key and not key.verifies(token):
        violations = (*violations, Violation("its signature does not match the configured key"))
    return Candidate(token, claims, violations, adopted)


def find_violations(
    predecessor: Claims,
    successor: Claims,
    policy: RotationPolicy,
    now: datetime,
    *,
    latest: datetime | None = None,
    forced: datetime | None = None,
) -> tuple[Violation, ...]:
    """Return every rule that `successor` breaks as a replacement of `predecessor`.

    Args:
        predecessor: the claims of the token in use.
        successor: the claims of the candidate.
        policy: how much a successor must gain.
        now: an aware time; where two clocks disagree, the earlier one.
        latest: the later of the two clocks.
        forced: when a renewal was forced before it was due: a token that was issued after that
            need only expire later than the predecessor.
    """
    now = to_utc(now)
    violations = []
    if successor.digest == predecessor.digest:
        violations.append(Violation("it is the same token"))
    if successor.algorithm[:2] != predecessor.algorithm[:2]:
        violations.append(Violation("it is signed with another family of algorithms"))
    for claim, expected, actual in (
        ("user (`sub`)", predecessor.subject, successor.subject),
        ("audience (`aud`)", predecessor.audience, successor.audience),
        ("issuer (`iss`)", predecessor.issuer, successor.issuer),
        ("set of roles", predecessor.roles, successor.roles),
        ("token name", predecessor.token_name, successor.token_name),
    ):
        if expected != actual:
            violations.append(Violation(f"it has another {claim}"))
    if max(successor.issued_at, successor.not_before) > (latest or now) + policy.leeway:
        violations.append(Violation("it is not valid yet (`nbf` or `iat` is in the future)"))
    gain = successor.expires_at - predecessor.expires_at
    least = resolve_duration(policy.minimum_gain, predecessor.lifetime)
    if forced and successor.issued_at >= forced - MAX_CLOCK_SKEW:
        least = timedelta(seconds=1)
    if gain < least:
        violations.append(
            Violation(
                f"it expires at {format_time(successor.expires_at)}, "
                f"which is not at least {format_duration(least)} later than the token in use",
                capped=True,
            )
        )
    if decide(successor, policy, now).due:
        violations.append(Violation("it would be due for renewal immediately", capped=True))
    return tuple(violations)


def idempotency_key(
    predecessor: Claims, lifetime_minutes: int | None, retry_generation: int = 0
) -> str:
    """Return the key of a renewal of this predecessor: the same for any agent, after any crash.

    Args:
        predecessor: the token to renew.
        lifetime_minutes: the requested lifetime; another lifetime is another request.
        retry_generation: 0, and one more for each earlier key whose response was useless.
    """
    seed = f"flowauth-rotator renewal {retry_generation} {lifetime_minutes} {predecessor.digest}"
    return hashlib.sha256(seed.encode()).hexdigest()


def retry_generation(predecessor: Claims, policy: RotationPolicy, now: datetime) -> int:
    """Return how many further renewals, after the first, may have been requested by `now`.

    An issuer that honours the key replays a useless response for as long as the key is the same.
    A new key is therefore allowed each time the remaining lifetime has halved, and not more often:
    a low limit at the issuer is noticed early with few requests. After the expiry one more key is
    allowed each hour.
    """
    remaining = predecessor.expires_at - to_utc(now)
    if remaining <= timedelta(0):
        return LAST_RETRY_GENERATION + -remaining // HOUR
    window = resolve_duration(policy.renew_before, predecessor.lifetime)
    return min(LAST_RETRY_GENERATION, max(0, int(math.log2(window / remaining))))


def may_request_renewal(
    predecessor: Claims, candidates: Iterable[Candidate], policy: RotationPolicy, now: datetime
) -> bool:
    """Whether none of the candidates was minted in the current retry generation.

    A candidate that cannot be decoded has no known issue time: one of them is allowed for each
    generation.
    """
    generation = retry_generation(predecessor, policy, now)
    if generation > LAST_RETRY_GENERATION:
        began = predecessor.expires_at + (generation - LAST_RETRY_GENERATION) * HOUR
    else:
        window = resolve_duration(policy.renew_before, predecessor.lifetime)
        began = predecessor.expires_at - window / 2**generation
    minted = [candidate.claims for candidate in candidates]
    # A fast clock may have requested the first renewal early.
    tolerance = policy.leeway if generation else MAX_CLOCK_SKEW
    is_answered = any(claims and claims.issued_at >= began - tolerance for claims in minted)
    return not is_answered and minted.count(None) <= generation


def find_current_row(predecessor: Claims, rows: Iterable[Row]) -> Row | None:
    """Return the row that holds the predecessor itself."""
    return next((row for row in rows if row.token.digest == predecessor.digest), None)


def find_successors(predecessor: Claims, rows: Iterable[Row]) -> list[Row]:
    """Return the rows, oldest first, that may be renewals of the predecessor.

    They have its owner, audience, name and roles, and their JWTs were not issued earlier. A row
    whose JWT cannot be decoded qualifies if it was added later.
    """
    rows = sorted(rows, key=lambda row: row.id)
    current = find_current_row(predecessor, rows)
    if current is None:
        return []

    def is_later(row: Row) -> bool:
        if row.claims is None:
            return row.id > current.id
        return row.claims.issued_at >= predecessor.issued_at

    return [
        row
        for row in rows
        if row.id != current.id and row.identity == current.identity and is_later(row)
    ]


def choose_successor(
    predecessor: Claims, candidates: Iterable[Candidate], now: datetime
) -> Candidate | None:
    """Return the candidate without violations that expires last, the first of equals.

    Without one, return the last to expire of those that are only capped and still expire later
    than the predecessor. Agents that see the same rows choose the same candidate.
    """
    earliest_expiry = max(predecessor.expires_at, to_utc(now))
    ranked = [
        ((not candidate.violations, candidate.claims.expires_at), candidate)
        for candidate in candidates
        if candidate.claims
        and not candidate.faults
        and candidate.claims.expires_at > earliest_expiry
    ]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def check_budget(name: str, rows: Iterable[Row], now: datetime) -> None:
    """Refuse a further mint of `name` if its history shows too many.

    Raises:
        BudgetExhausted: 6 tokens were issued within an hour, or 24 within a day.
    """
    now = to_utc(now)
    issued = [row.claims.issued_at for row in rows if row.name == name and row.claims]
    for period, label, limit in (
        (timedelta(hours=1), "an hour", MINTS_AN_HOUR),
        (timedelta(days=1), "a day", MINTS_A_DAY),
    ):
        count = sum(time > now - period for time in issued)
        if count >= limit:
            raise BudgetExhausted(
                f"The issuer minted {count} tokens with the name {quote(name)} within {label}; "
                f"the limit is {limit}."
            )
