"""What makes a successor: the objections to one, and the choice among those that there are."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, format_time, to_utc
from flowauth_rotator.core.errors import BudgetExhausted, MalformedToken
from flowauth_rotator.core.policy import RotationPolicy, decide, share
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified

MINTS_AN_HOUR = 6
MINTS_A_DAY = 24
HOUR = timedelta(hours=1)
LAST_EPOCH = MINTS_AN_HOUR - 1  # so that however short the time is, it is within the budget


@dataclass(frozen=True)
class Objection:
    """One reason against a successor.

    Attributes:
        clause: the reason, for people; shows no part of a token.
        capped: whether it only says that the successor does not live long enough.
    """

    clause: str
    capped: bool = False


@dataclass(frozen=True)
class Row:
    """One token in the issuer's history.

    Attributes:
        id: the issuer's number of it; larger is newer.
        name: the issuer's name of the token.
        owner: whose token it is.
        audience: the server that it is for.
        roles: the names of its roles.
        token: the token.
    """

    id: int
    name: str
    owner: str
    audience: str
    roles: frozenset[str]
    token: Token


@dataclass(frozen=True)
class Renewal:
    """An issuer's answer to a renewal.

    Attributes:
        token: the token that it answered with; None if that has expired since.
        replayed: whether it said that it had made this token for the same key before.
    """

    token: Token | None
    replayed: bool = False


@dataclass(frozen=True)
class Candidate:
    """A token that might succeed.

    Attributes:
        token: the token.
        claims: what it says; None if it cannot be read.
        objections: all that speaks against it.
        adopted: whether the issuer held it already.
    """

    token: Token
    claims: Claims | None
    objections: tuple[Objection, ...]
    adopted: bool = False

    @property
    def faults(self) -> tuple[Objection, ...]:
        """The objections for which it may never be written."""
        return tuple(objection for objection in self.objections if not objection.capped)


def judge(
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
    """A token as a candidate, with all that speaks against it; `key` verifies its signature."""
    try:
        claims = read_unverified(token)
    except MalformedToken as error:
        reason = error.reason[0].lower() + error.reason[1:].rstrip(".")
        return Candidate(token, None, (Objection(f"it cannot be read: {reason}"),), adopted)
    found = objections(predecessor, claims, policy, now, latest=latest, forced=forced)
    if key and not key.verifies(token):
        found = (*found, Objection("its signature was not made with the configured key"))
    return Candidate(token, claims, found, adopted)


def objections(
    predecessor: Claims,
    successor: Claims,
    policy: RotationPolicy,
    now: datetime,
    *,
    latest: datetime | None = None,
    forced: datetime | None = None,
) -> tuple[Objection, ...]:
    """All that its claims say against putting `successor` in the place of `predecessor`.

    Where two clocks disagree, `now` is the earlier one, and `latest` the other. What was made since
    a renewal was `forced` before it was due need only expire later.
    """
    now = to_utc(now)
    found = []
    if successor.digest == predecessor.digest:
        found.append(Objection("it is the same token"))
    if successor.algorithm[:2] != predecessor.algorithm[:2]:
        found.append(Objection("it is signed with another family of algorithms"))
    for what, ours, theirs in (
        ("user (`sub`)", predecessor.subject, successor.subject),
        ("audience (`aud`)", predecessor.audience, successor.audience),
        ("issuer (`iss`)", predecessor.issuer, successor.issuer),
        ("set of roles", predecessor.roles, successor.roles),
        ("token name", predecessor.token_name, successor.token_name),
    ):
        if ours != theirs:
            found.append(Objection(f"it has another {what}"))
    if max(successor.issued_at, successor.not_before) > (latest or now) + policy.leeway:
        found.append(Objection("it is not valid yet (`nbf` or `iat` is in the future)"))
    gain = successor.expires_at - predecessor.expires_at
    least = share(policy.minimum_gain, predecessor.lifetime)
    if forced and successor.issued_at >= forced - MAX_CLOCK_SKEW:
        least = timedelta(seconds=1)
    if gain < least:
        found.append(
            Objection(
                f"it expires at {format_time(successor.expires_at)}, "
                f"which is not at least {least} later than the token in use",
                capped=True,
            )
        )
    if decide(successor, policy, now).due:
        found.append(Objection("it would be due for renewal at once", capped=True))
    return tuple(found)


def idempotency_key(predecessor: Claims, lifetime_minutes: int | None, number: int = 0) -> str:
    """The key of a renewal of this predecessor: the same for any agent, after any crash.

    Args:
        predecessor: the token to renew.
        lifetime_minutes: the lifetime that is asked for; asking for another is another request.
        number: 0, and up to `epoch` once the answers to the numbers before it were of no use.
    """
    seed = f"flowauth-rotator renewal {number} {lifetime_minutes} {predecessor.digest}"
    return hashlib.sha256(seed.encode()).hexdigest()


def epoch(predecessor: Claims, policy: RotationPolicy, now: datetime) -> int:
    """How often, beyond the first time, a renewal may have been asked for by `now`.

    An issuer that honours the key repeats an answer of no use for as long as it is asked with the
    same key. So a useless answer is asked anew each time the time left has halved, and no more
    often: an issuer that grants little is noticed, while there is time, with few requests. After
    the expiry it is once more each hour.
    """
    left = predecessor.expires_at - to_utc(now)
    if left <= timedelta(0):
        return LAST_EPOCH + -left // HOUR
    window = share(policy.renew_before, predecessor.lifetime)
    return min(LAST_EPOCH, max(0, int(math.log2(window / left))))


def may_ask(
    predecessor: Claims, candidates: Iterable[Candidate], policy: RotationPolicy, now: datetime
) -> bool:
    """Whether nothing that the issuer made is an answer in the epoch of `now`.

    Of one that cannot be read nobody knows when it was made: there may be as many as epochs.
    """
    number = epoch(predecessor, policy, now)
    if number > LAST_EPOCH:
        began = predecessor.expires_at + (number - LAST_EPOCH) * HOUR
    else:
        window = share(policy.renew_before, predecessor.lifetime)
        began = predecessor.expires_at - window / 2**number
    made = [candidate.claims for candidate in candidates]
    early = (
        policy.leeway if number else MAX_CLOCK_SKEW
    )  # the first may be asked for by a fast clock
    answered = any(claims and claims.issued_at >= began - early for claims in made)
    return not answered and made.count(None) <= number


def own_row(predecessor: Claims, rows: Iterable[Row]) -> Row | None:
    """The row of the predecessor itself."""
    return next((row for row in rows if row.token.digest == predecessor.digest), None)


def successors(predecessor: Claims, rows: Iterable[Row]) -> list[Row]:
    """The rows, oldest first, that may descend from the predecessor's.

    They have its owner, audience, name and roles, and are issued no earlier, by their JWTs. One
    whose JWT cannot be read is among them if it was added later.
    """
    rows = sorted(rows, key=lambda row: row.id)
    own = own_row(predecessor, rows)
    if own is None:
        return []
    return [
        row
        for row in rows
        if row.id != own.id
        and _identity(row) == _identity(own)
        and (
            issued_at >= predecessor.issued_at
            if (issued_at := _issued_at(row))
            else row.id > own.id
        )
    ]


def best(predecessor: Claims, candidates: Iterable[Candidate], now: datetime) -> Candidate | None:
    """The candidate without objections that lives longest, of equals the first.

    Without one, the longest-lived that is only capped and still better than the predecessor.
    Rivals who see the same rows choose the same one.
    """
    useful = max(predecessor.expires_at, to_utc(now))
    ranked = [
        ((not candidate.objections, candidate.claims.expires_at), candidate)
        for candidate in candidates
        if candidate.claims and not candidate.faults and candidate.claims.expires_at > useful
    ]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def check_budget(name: str, rows: Iterable[Row], now: datetime) -> None:
    """Refuse a further mint of `name` when its history shows too many.

    Raises:
        BudgetExhausted: 6 were issued within an hour, or 24 within a day.
    """
    now = to_utc(now)
    issued = [time for row in rows if row.name == name and (time := _issued_at(row))]
    for period, word, most in (
        (timedelta(hours=1), "an hour", MINTS_AN_HOUR),
        (timedelta(days=1), "a day", MINTS_A_DAY),
    ):
        recent = sum(time > now - period for time in issued)
        if recent >= most:
            raise BudgetExhausted(
                f"The issuer minted {recent} tokens named {name!r} within {word}; "
                f"the most is {most}."
            )


def _identity(row: Row) -> tuple[str, str, str, frozenset[str]]:
    return row.owner, row.audience, row.name, row.roles


def _issued_at(row: Row) -> datetime | None:
    """When a row's token was issued; None where FlowAuth keeps something else in its place."""
    try:
        return read_unverified(row.token).issued_at
    except MalformedToken:
        return None
