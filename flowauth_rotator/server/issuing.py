"""Minting and renewal: plan a token by the rules, sign it, record it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import Connection

from flowauth_rotator.server.accounts import Accounts, Limit, Role, User
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import History, HistoryRow, NewRow, Parent
from flowauth_rotator.server.issue_rules import (
    compute_expiry,
    compute_family_end,
    compute_latest_expiry,
    record_roles,
    refuse_expired,
    refuse_revoked,
    select_renewed_roles,
    select_roles,
    validate_minutes,
    validate_name,
)
from flowauth_rotator.server.rate_limit import RateLimit
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Keyring, UntrustedToken, compress_claims


@dataclass(frozen=True)
class IssuedToken:
    """A token to return to its owner, and its row in the history.

    Attributes:
        replayed: Whether it was issued by an earlier request with the same idempotency key.
        is_fork: Whether its parent has another successor: two clients hold the parent.
    """

    row_id: int
    owner: str
    name: str
    expires_at: int
    token: str = field(repr=False)
    replayed: bool = False
    is_fork: bool = False


@dataclass(frozen=True)
class IssuePlan:
    """A permitted token: everything that will be signed and recorded.

    Attributes:
        owner: The username.
        audience: The name of the audience.
        roles: The current roles, whose scopes are signed.
        limit: The limit of the audience, or of the family if that ends earlier.
        is_requested: Whether it is a first token that its owner requests, not the operator.
        is_fork: As in `IssuedToken`.
    """

    row: NewRow
    owner: str
    audience: str
    roles: tuple[Role, ...]
    limit: Limit = field(compare=False)  # the signed token does not contain it, nor `is_fork`
    is_fork: bool = field(default=False, compare=False)
    is_requested: bool = False


Planner: TypeAlias = Callable[[Connection], "IssuePlan | IssuedToken"]
ParentFinder: TypeAlias = Callable[[Connection], Parent]


class TokenIssuer:
    """Mints and renews tokens; every refusal is a `Refused` with FlowAuth's status and message.

    `now` is in seconds since the epoch. `lifetime_minutes` is the unvalidated value from the
    request; None requests the longest permitted lifetime.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        history: History,
        keyring: Keyring,
        settings: Settings,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._history = history
        self._keyring = keyring
        self._settings = settings

    def mint(
        self,
        owner: User,
        audience_id: int,
        name: str,
        role_names: Sequence[str],
        lifetime_minutes: object,
        *,
        is_requested: bool = False,
        now: int,
    ) -> IssuedToken:
        """Issue a first token of this name, for roles that its owner has on the audience.

        If the owner requests it, its owner's first tokens of all names are limited too.
        """

        def build_plan(connection: Connection) -> IssuePlan:
            held = self._accounts.read_held_roles(connection, owner.id, audience_id)
            if held is None:
                raise Refused(404, "There is no server with this id.")
            roles = select_roles(role_names, held, owner.username)
            limit = compute_latest_expiry(held.audience, roles, owner.username, now, "minted")
            minutes = validate_minutes(lifetime_minutes)
            row = NewRow(
                parent_id=None,
                idempotency_key=None,
                requested_minutes=None,
                owner_id=owner.id,
                audience_id=audience_id,
                name=validate_name(name),
                roles=record_roles(roles),
                family_began_at=now,
                issued_at=now,
                expires_at=compute_expiry(minutes, limit, now),
            )
            audience = held.audience
            return IssuePlan(
                *(row, owner.username, audience.name, roles, audience.limit),
                is_requested=is_requested,
            )

        return self._issue(build_plan, now)

    def renew(
        self,
        caller: User,
        row_id: int,
        lifetime_minutes: object,
        *,
        idempotency_key: str | None,
        now: int,
    ) -> IssuedToken:
        """Issue a successor of a row, with the same name and roles; the row does not change.

        The same idempotency key returns the same successor until that has expired.
        """
        find_parent = self._find_own(caller, row_id, idempotency_key, now)
        return self._renew(find_parent, lifetime_minutes, idempotency_key, now)

    def renew_presented(
        self, token: str, lifetime_minutes: object, *, idempotency_key: str | None, now: int
    ) -> IssuedToken:
        """Issue a successor of the token that the client presents as its credential."""
        find_parent = self._find_presented(token, idempotency_key, now)
        return self._renew(find_parent, lifetime_minutes, idempotency_key, now)

    def rehearse(
        self, caller: User, row_id: int, lifetime_minutes: object, *, now: int
    ) -> IssuePlan:
        """Judge the renewal of a row by all rules, and issue nothing."""
        return self._rehearse(self._find_own(caller, row_id, None, now), lifetime_minutes, now)

    def rehearse_presented(self, token: str, lifetime_minutes: object, *, now: int) -> IssuePlan:
        """Judge the renewal of the token that the client presents, and issue nothing."""
        return self._rehearse(self._find_presented(token, None, now), lifetime_minutes, now)

    def _find_own(
        self, caller: User, row_id: int, idempotency_key: str | None, now: int
    ) -> ParentFinder:
        """Return what finds a row of this user in a transaction, and refuses any other."""

        def find_parent(connection: Connection) -> Parent:
            parent = self._history.find_parent(connection, row_id, idempotency_key)
            if parent is None:
                raise Refused(404, "There is no token with this id.")
            if parent.row.owner_id != caller.id:
                raise Refused(401, "You can only renew your own tokens.")
            refuse_expired(parent.row, now - self._settings.renew_expired_grace)
            return parent

        return find_parent

    def _find_presented(self, token: str, idempotency_key: str | None, now: int) -> ParentFinder:
        """Return what finds the row of a presented token in a transaction; verify the token."""
        if not self._settings.bearer_renewal:
            raise Refused(
                401, "This server does not renew a token that is presented: sign in instead."
            )
        try:
            claims = self._keyring.verify(token)
        except UntrustedToken:
            raise Refused(401, "The presented token was not issued by this server.") from None

        def find_parent(connection: Connection) -> Parent:
            jti = str(claims["jti"])
            parent = self._history.find_presented(connection, jti, idempotency_key)
            return _match_claims(parent, claims, now)

        return find_parent

    def _rehearse(self, find_parent: ParentFinder, lifetime_minutes: object, now: int) -> IssuePlan:
        """Plan a successor of a row; refuse it as a renewal would be refused now."""
        with self._database.reading() as connection:
            plan = self._plan_renewal(
                connection, find_parent(connection), lifetime_minutes, None, now
            )
            assert isinstance(plan, IssuePlan)  # noqa: S101 - nothing is replayed without a key
            for limit in self._rate_limits(plan):
                limit.refuse_if_exceeded(connection, now)
        return plan

    def _renew(
        self,
        find_parent: ParentFinder,
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> IssuedToken:
        """Issue a successor of a row, or return the one already issued for this key."""

        def build_plan(connection: Connection) -> IssuePlan | IssuedToken:
            parent = find_parent(connection)
            return self._plan_renewal(connection, parent, lifetime_minutes, idempotency_key, now)

        return self._issue(build_plan, now)

    def _issue(self, build_plan: Planner, now: int) -> IssuedToken:
        """Plan and sign without the write lock, then commit if the plan is still valid under it.

        Signing takes longer than everything else. If a role was revoked or the idempotency key
        used in the meantime, the second plan differs and replaces the first.
        """
        with self._database.reading() as connection:
            plan = build_plan(connection)
            if isinstance(plan, IssuePlan):
                for limit in self._rate_limits(plan):
                    limit.refuse_if_exceeded(connection, now)
        while isinstance(plan, IssuePlan):
            signer = self._keyring.current_signer()
            jti = str(uuid.uuid4())
            token = signer.sign(self._build_claims(plan, jti))
            with self._database.writing() as connection:
                confirmed = build_plan(connection)
                if isinstance(confirmed, IssuePlan) and confirmed == plan:
                    for limit in self._rate_limits(plan):
                        limit.count_or_refuse(connection, now)
                    row_id = self._history.add_row(
                        connection, plan.row, token=token, jti=jti, kid=signer.kid
                    )
                    return IssuedToken(
                        *(row_id, plan.owner, plan.row.name, plan.row.expires_at, token),
                        is_fork=confirmed.is_fork,
                    )
            plan = confirmed
        return plan

    def _build_claims(self, plan: IssuePlan, jti: str) -> dict[str, object]:
        """Build the claims of a JWT as FlowAPI reads them, plus our own `token_name`."""
        is_plain = self._settings.user_claims == "plain"
        return {
            "iat": plan.row.issued_at,
            "nbf": plan.row.issued_at,
            "exp": plan.row.expires_at,
            "jti": jti,
            "sub": plan.owner,
            "aud": plan.audience,
            "user_claims": (_build_user_claims if is_plain else _pack_claims)(plan.roles),
            "token_name": plan.row.name,
        }

    def _rate_limits(self, plan: IssuePlan) -> list[RateLimit]:
        """Return the limit of the token's name, and for a requested first token of its owner."""
        item, owner = self._settings.renewal_limit, str(plan.row.owner_id)
        keys = ("token", owner, str(plan.row.audience_id), plan.row.name)
        limits = [RateLimit(item, keys, "tokens of this name were issued")]
        if plan.is_requested:
            description = "first tokens of this user were issued"
            limits.append(RateLimit(item, ("first token", owner), description))
        return limits

    def _plan_renewal(
        self,
        connection: Connection,
        parent: Parent,
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> IssuePlan | IssuedToken:
        """Plan a successor of a row, or return the one already issued for this key."""
        row = parent.row
        refuse_revoked(row)
        held = self._accounts.read_held_roles(
            connection, row.owner_id, row.audience_id, revision=parent.accounts_revision
        )
        assert held is not None  # noqa: S101 - by the foreign key
        roles = select_renewed_roles(row, held.roles)
        minutes = validate_minutes(lifetime_minutes)
        if parent.successor_id is not None:
            earlier = self._history.find_row(connection, parent.successor_id)
            assert earlier is not None  # noqa: S101 - rows are never deleted
            return self._replay(earlier, minutes, now)
        limit = compute_latest_expiry(held.audience, roles, row.owner, now, "renewed")
        family_end = compute_family_end(row, self._settings.max_family_age, now)
        successor = NewRow(
            parent_id=row.id,
            idempotency_key=idempotency_key,
            requested_minutes=minutes,
            owner_id=row.owner_id,
            audience_id=row.audience_id,
            name=row.name,
            roles=record_roles(roles),
            family_began_at=row.family_began_at,
            issued_at=now,
            expires_at=compute_expiry(minutes, limit.cap(family_end), now),
        )
        audience = held.audience
        return IssuePlan(
            *(successor, row.owner, audience.name, roles, audience.limit.cap(family_end)),
            is_fork=parent.has_successor,
        )

    def _replay(self, earlier: HistoryRow, minutes: int | None, now: int) -> IssuedToken:
        if earlier.requested_minutes != minutes:
            raise Refused(
                422,
                "This Idempotency-Key was used for this token with another lifetime_minutes.",
                "lifetime_minutes",
            )
        token = self._history.reveal(earlier)
        if not token or earlier.expires_at <= now or earlier.revoked_at is not None:
            fate = "has expired" if earlier.revoked_at is None else "was revoked"
            raise Refused(
                410, f"The token issued for this Idempotency-Key {fate}; use another key."
            )
        return IssuedToken(
            earlier.id, earlier.owner, earlier.name, earlier.expires_at, token, replayed=True
        )


def _match_claims(parent: Parent | None, claims: dict[str, Any], now: int) -> Parent:
    """Return the row of a verified token; refuse one that is unrecorded or expired."""
    if parent is None or (claims["sub"], claims["aud"]) != (parent.row.owner, parent.row.audience):
        raise Refused(401, "This server has no record of the presented token.")
    if parent.row.expires_at <= now or claims["exp"] != parent.row.expires_at:
        raise Refused(401, "The presented token has expired.")
    return parent


def _build_user_claims(roles: tuple[Role, ...]) -> dict[str, list[str]]:
    return {role.name: sorted(role.scopes) for role in roles}


@lru_cache(maxsize=256)
def _pack_claims(roles: tuple[Role, ...]) -> str:
    """Compress the user claims; cached, since the roles of a token seldom change."""
    return compress_claims(_build_user_claims(roles))
