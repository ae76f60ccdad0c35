"""What makes a successor: the objections to one, and the choice among those that exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowauth_rotator.core.errors import BudgetExhausted, MalformedToken
from flowauth_rotator.core.policy import RotationPolicy, clock, decide, share, utc
from flowauth_rotator.core.tokens import Claims, Token, read_unverified

MINTS_AN_HOUR = 6
MINTS_A_DAY = 24


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


def objections(
    predecessor: Claims, successor: Claims, policy: RotationPolicy, now: datetime
) -> tuple[Objection, ...]:
    """All that speaks against putting `successor` in the place of `predecessor`; empty is good.

    The signature is not looked at: see `PublicKey`.
    """
    now = utc(now)
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
    if max(successor.issued_at, successor.not_before) > now + policy.leeway:
        found.append(Objection("it is not valid yet (`nbf` or `iat` is in the future)"))
    gain = successor.expires_at - predecessor.expires_at
    least = share(policy.minimum_gain, predecessor.lifetime)
    if gain < least:
        found.append(
            Objection(
                f"it expires at {clock(successor.expires_at)}, "
                f"which is not at least {least} later than the token in use",
                capped=True,
            )
        )
    if decide(successor, policy, now).due:
        found.append(Objection("it would be due for renewal at once", capped=True))
    return tuple(found)


def idempotency_key(predecessor: Claims) -> str:
    """The key of the one renewal of this predecessor: the same for any agent, after any crash."""
    return hashlib.sha256(f"flowauth-rotator renewal of {predecessor.digest}".encode()).hexdigest()


def own_row(predecessor: Claims, rows: Iterable[Row]) -> Row | None:
    """The row of the predecessor itself."""
    return next((row for row in rows if row.token.digest == predecessor.digest), None)


def choose_successor(
    predecessor: Claims, rows: Iterable[Row], policy: RotationPolicy, now: datetime
) -> Row | None:
    """The row to adopt: of those without objections the one that lives longest, then the oldest.

    A row qualifies with the owner, audience, name and roles of the predecessor's row, issued no
    earlier than the predecessor. Times come from the JWTs. Rivals who see the same rows choose
    the same one.
    """
    rows = list(rows)
    own = own_row(predecessor, rows)
    if own is None:
        return None
    candidates = []
    for row in rows:
        if row.id == own.id or _identity(row) != _identity(own):
            continue
        claims = _claims(row)
        if claims is None or claims.issued_at < predecessor.issued_at:
            continue
        if not objections(predecessor, claims, policy, now):
            candidates.append((claims.expires_at, -row.id, row))
    return max(candidates, key=lambda candidate: candidate[:2])[2] if candidates else None


def check_budget(name: str, rows: Iterable[Row], now: datetime) -> None:
    """Refuse a further mint of `name` when its history shows too many.

    Raises:
        BudgetExhausted: 6 were issued within an hour, or 24 within a day.
    """
    now = utc(now)
    issued = [claims.issued_at for row in rows if row.name == name and (claims := _claims(row))]
    for period, word, most in (
        (timedelta(hours=1), "hour", MINTS_AN_HOUR),
        (timedelta(days=1), "day", MINTS_A_DAY),
    ):
        recent = sum(time > now - period for time in issued)
        if recent >= most:
            raise BudgetExhausted(
                f"The issuer minted {recent} tokens named {name!r} within a {word}; "
                f"the most is {most}."
            )


def _identity(row: Row) -> tuple[str, str, str, frozenset[str]]:
    return row.owner, row.audience, row.name, row.roles


def _claims(row: Row) -> Claims | None:
    """What a row's token says; None where FlowAuth keeps something else in its place."""
    try:
        return read_unverified(row.token)
    except MalformedToken:
        return None
