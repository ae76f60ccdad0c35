"""The rules of minting and renewal: who may receive which token, and for how long."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, TypeAlias

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection

from flowauth_rotator.core.clock import format_time
from flowauth_rotator.core.tokens import LONGEST_NAME
from flowauth_rotator.server.accounts import MINUTE, Accounts, Audience, HeldRoles, Role, User
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import BATCH, History, HistoryRow, NewRow, RecordedRole
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
class Renewal:
    """The link from a new row to its parent."""

    parent_id: int
    family_began_at: int
    idempotency_key: str | None
    requested_minutes: int | None
    is_fork: bool = field(compare=False)  # no reason to sign again


@dataclass(frozen=True)
class IssuePlan:
    """A permitted token: everything that will be signed and recorded.

    Attributes:
        is_requested: Whether it is a first token that its owner requests, not the operator.
    """

    owner: User
    audience: Audience
    name: str
    roles: tuple[Role, ...]
    issued_at: int
    expires_at: int
    renewal: Renewal | None = None
    is_requested: bool = False

    def build_row(self) -> NewRow:
        """Build the row for the history."""
        renewal = self.renewal
        return NewRow(
            parent_id=renewal.parent_id if renewal else None,
            idempotency_key=renewal.idempotency_key if renewal else None,
            requested_minutes=renewal.requested_minutes if renewal else None,
            owner_id=self.owner.id,
            audience_id=self.audience.id,
            name=self.name,
            roles=tuple(RecordedRole(role.id, role.name) for role in self.roles),
            family_began_at=renewal.family_began_at if renewal else self.issued_at,
            issued_at=self.issued_at,
            expires_at=self.expires_at,
        )


Planner: TypeAlias = Callable[[Connection], "IssuePlan | IssuedToken"]


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
            roles = _select_roles(role_names, held, owner)
            limit = _compute_latest_expiry(held.audience, roles, owner, now, "minted")
            minutes = _validate_minutes(lifetime_minutes)
            expires_at = _compute_expiry(minutes, limit.latest_expiry, now, limit.description)
            return IssuePlan(
                *(owner, held.audience, _validate_name(name), roles, now, expires_at),
                is_requested=is_requested,
            )

        with self._database.reading() as connection:
            plan = build_plan(connection)
            for limit in self._rate_limits(plan):
                limit.refuse_if_exceeded(connection, now)
        return self._issue(plan, build_plan, now)

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

        def find_parent(connection: Connection) -> HistoryRow:
            parent = self._history.find_row(connection, row_id)
            if parent is None:
                raise Refused(404, "There is no token with this id.")
            if parent.owner_id != caller.id:
                raise Refused(401, "You can only renew your own tokens.")
            _refuse_expired(parent, now - self._settings.renew_expired_grace)
            return parent

        return self._renew(find_parent, lifetime_minutes, idempotency_key, now)

    def renew_presented(
        self, token: str, lifetime_minutes: object, *, idempotency_key: str | None, now: int
    ) -> IssuedToken:
        """Issue a successor of the token that the client presents as its credential."""
        if not self._settings.bearer_renewal:
            raise Refused(
                401, "This server does not renew a token that is presented: sign in instead."
            )
        try:
            claims = self._keyring.verify(token)
        except UntrustedToken:
            raise Refused(401, "The presented token was not issued by this server.") from None

        def find_parent(connection: Connection) -> HistoryRow:
            return self._find_presented_row(connection, claims, now)

        return self._renew(find_parent, lifetime_minutes, idempotency_key, now)

    def list_renewable(
        self, owner: User, audience_id: int, *, now: int
    ) -> Iterator[tuple[HistoryRow, str]]:
        """Yield the renewable rows of an owner on an audience with their tokens, oldest first."""
        return self._list(
            owner,
            audience_id,
            expiring_after=now - self._settings.renew_expired_grace,
            with_revoked=False,
        )

    def list_all(self, owner: User, audience_id: int) -> Iterator[tuple[HistoryRow, str]]:
        """Yield every row of an owner on an audience, oldest first, with its token if stored."""
        return self._list(owner, audience_id)

    def iterate_rows(self, **conditions: int | None) -> Iterator[HistoryRow]:
        """Yield the rows that meet the conditions of `History.list_rows`, oldest first."""
        return (row for rows in self._read_batches(**conditions) for row in rows)

    def _list(
        self,
        owner: User,
        audience_id: int,
        *,
        expiring_after: int | None = None,
        with_revoked: bool = True,
    ) -> Iterator[tuple[HistoryRow, str]]:
        with self._database.reading() as connection:
            if self._accounts.find_audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
        batches = self._read_batches(
            owner_id=owner.id,
            audience_id=audience_id,
            expiring_after=expiring_after,
            with_revoked=with_revoked,
        )
        return (pair for rows in batches for pair in self._decrypt_rows(rows))

    def _read_batches(self, **conditions: int | None) -> Iterator[list[HistoryRow]]:
        """Read rows in batches, to bound memory and the length of each transaction."""
        last_id = 0
        while True:
            with self._database.reading() as connection:
                rows = self._history.list_rows(
                    connection, **conditions, after_id=last_id, limit=BATCH
                )
            yield rows
            if len(rows) < BATCH:
                return
            last_id = rows[-1].id

    def _decrypt_rows(self, rows: list[HistoryRow]) -> list[tuple[HistoryRow, str]]:
        try:
            return [(row, self._history.reveal(row)) for row in rows]
        except InvalidToken:  # the encryption key was replaced after the rows were read
            with self._database.reading() as connection:
                reread = [self._history.find_row(connection, row.id) for row in rows]
            return [(row, self._history.reveal_if_possible(row)) for row in reread if row]

    def _renew(
        self,
        find_parent: Callable[[Connection], HistoryRow],
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> IssuedToken:
        """Issue a successor of a row; the row is read once, since rows never change."""

        def build_plan(connection: Connection) -> IssuePlan | IssuedToken:
            return self._plan_renewal(connection, parent, lifetime_minutes, idempotency_key, now)

        with self._database.reading() as connection:
            parent = find_parent(connection)
            plan = build_plan(connection)
            if isinstance(plan, IssuePlan):  # before signing, which costs the most
                for limit in self._rate_limits(plan):
                    limit.refuse_if_exceeded(connection, now)
        return self._issue(plan, build_plan, now)

    def _issue(self, plan: IssuePlan | IssuedToken, build_plan: Planner, now: int) -> IssuedToken:
        """Sign without the write lock, then commit if the plan is still valid under it.

        Signing takes longer than everything else. If a role was revoked or the idempotency key
        used in the meantime, the second plan differs and replaces the first.
        """
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
                        connection, plan.build_row(), token=token, jti=jti, kid=signer.kid
                    )
                    owner = plan.owner.username
                    is_fork = confirmed.renewal is not None and confirmed.renewal.is_fork
                    return IssuedToken(
                        row_id, owner, plan.name, plan.expires_at, token, is_fork=is_fork
                    )
            plan = confirmed
        return plan

    def _build_claims(self, plan: IssuePlan, jti: str) -> dict[str, object]:
        """Build the claims of a JWT as FlowAPI reads them, plus our own `token_name`."""
        is_plain = self._settings.user_claims == "plain"
        return {
            "iat": plan.issued_at,
            "nbf": plan.issued_at,
            "exp": plan.expires_at,
            "jti": jti,
            "sub": plan.owner.username,
            "aud": plan.audience.name,
            "user_claims": (_build_user_claims if is_plain else _pack_claims)(plan.roles),
            "token_name": plan.name,
        }

    def _rate_limits(self, plan: IssuePlan) -> list[RateLimit]:
        """Return the limits of a name, and of its owner's names: these bound all renewals."""
        item, owner = self._settings.renewal_limit, str(plan.owner.id)
        keys = ("token", owner, str(plan.audience.id), plan.name)
        limits = [RateLimit(item, keys, "tokens of this name were issued")]
        if plan.is_requested:
            description = "first tokens of this user were issued"
            limits.append(RateLimit(item, ("first token", owner), description))
        return limits

    def _plan_renewal(
        self,
        connection: Connection,
        parent: HistoryRow,
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> IssuePlan | IssuedToken:
        """Plan a successor of a row, or return the one already issued for this key."""
        held = self._accounts.read_held_roles(connection, parent.owner_id, parent.audience_id)
        assert held is not None  # noqa: S101 - by the foreign key
        lineage = self._history.read_lineage(connection, parent.id)
        if lineage.revoked_at is not None:
            raise Refused(
                401,
                f"This token was revoked at {_format_epoch(lineage.revoked_at)} and cannot be "
                "renewed; mint a new token instead.",
                "token_id",
            )
        roles = _select_renewed_roles(parent, held.roles)
        minutes = _validate_minutes(lifetime_minutes)
        if idempotency_key is not None and idempotency_key in lineage.successors:
            earlier_id = lineage.successors[idempotency_key]
            earlier = self._history.find_row(connection, earlier_id)
            assert earlier is not None  # noqa: S101 - rows are never deleted
            return self._replay(earlier, minutes, now)
        owner = User(parent.owner_id, parent.owner)
        limit = _compute_latest_expiry(held.audience, roles, owner, now, "renewed")
        family_ends_at = self._compute_family_end(parent, now)
        latest = min(limit.latest_expiry, family_ends_at)
        expires_at = _compute_expiry(minutes, latest, now, limit.description)
        renewal = Renewal(
            parent.id,
            parent.family_began_at,
            idempotency_key,
            minutes,
            is_fork=bool(lineage.successors),
        )
        return IssuePlan(owner, held.audience, parent.name, roles, now, expires_at, renewal)

    def _compute_family_end(self, parent: HistoryRow, now: int) -> int:
        """Return the latest expiry of a row's descendants; refuse if that has passed."""
        family_ends_at = parent.family_began_at + self._settings.max_family_age
        if family_ends_at <= now:
            raise Refused(
                401,
                f"Token for {parent.owner} cannot be renewed: its first ancestor was issued at "
                f"{_format_epoch(parent.family_began_at)}; mint a new token instead.",
                "token_id",
            )
        return family_ends_at

    def _replay(self, earlier: HistoryRow, minutes: int | None, now: int) -> IssuedToken:
        if earlier.requested_minutes != minutes:
            raise Refused(
                422,
                "This Idempotency-Key was used for this token with another lifetime_minutes.",
                "lifetime_minutes",
            )
        token = self._history.reveal(earlier)
        if not token or earlier.expires_at <= now:
            raise Refused(
                410, "The token issued for this Idempotency-Key has expired; use another key."
            )
        return IssuedToken(
            earlier.id, earlier.owner, earlier.name, earlier.expires_at, token, replayed=True
        )

    def _find_presented_row(
        self, connection: Connection, claims: dict[str, Any], now: int
    ) -> HistoryRow:
        """Find the row of a verified token; refuse one that is unrecorded or expired."""
        row = self._history.find_row_by_jti(connection, str(claims["jti"]))
        if row is None or (claims["sub"], claims["aud"]) != (row.owner, row.audience):
            raise Refused(401, "This server has no record of the presented token.")
        if row.expires_at <= now or claims["exp"] != row.expires_at:
            raise Refused(401, "The presented token has expired.")
        return row


def _build_user_claims(roles: tuple[Role, ...]) -> dict[str, list[str]]:
    return {role.name: sorted(role.scopes) for role in roles}


@lru_cache(maxsize=256)
def _pack_claims(roles: tuple[Role, ...]) -> str:
    """Compress the user claims; cached, since the roles of a token seldom change."""
    return compress_claims(_build_user_claims(roles))


def _refuse_expired(parent: HistoryRow, expired_at: int) -> None:
    if parent.expires_at <= expired_at:
        raise Refused(
            400,
            f"This token expired at {_format_epoch(parent.expires_at)} and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )


def _format_epoch(seconds: int) -> str:
    return format_time(datetime.fromtimestamp(seconds, timezone.utc))


def _select_renewed_roles(parent: HistoryRow, held: Sequence[Role]) -> tuple[Role, ...]:
    """Return the current roles of a row; refuse if its owner has lost any of them.

    Roles are compared by id: a new role with the name of a deleted one is another role.
    """
    if not parent.roles:
        raise Refused(
            400,
            "This token has no roles recorded against it and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )
    by_id = {role.id: role for role in held}
    missing = sorted(role.name for role in parent.roles if role.id not in by_id)
    if missing:
        raise Refused(
            401,
            "Cannot renew: the following roles are no longer assigned to you: "
            + ", ".join(missing),
        )
    return tuple(by_id[role.id] for role in parent.roles)


def _select_roles(names: Sequence[str], held: HeldRoles, owner: User) -> tuple[Role, ...]:
    """Return the named roles, sorted by name; refuse a role that is not held or named twice."""
    if not names:
        raise Refused(400, "No roles.", "roles")
    by_name = {role.name: role for role in held.roles}
    for name in names:
        if name not in by_name:
            audience = held.audience.name
            raise Refused(
                401,
                f"Role '{name}' is not permitted for the current user",
                "roles",
                reason="A requested role is not permitted for the user",
                operator_message=f"User {owner.username!r} does not have role {name!r} on audience "
                f"{audience!r}, only: {', '.join(by_name) or 'none'}. Grant it with: "
                f"flowauth-rotator server grant {owner.username} {name} --audience {audience}",
            )
    if len(set(names)) != len(names):
        raise Refused(400, "Each role can be named only once.", "roles")
    return tuple(by_name[name] for name in sorted(names))


def _validate_name(name: str) -> str:
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_NAME):
        raise Refused(400, f"name must have 1 to {LONGEST_NAME} printable characters.", "name")
    return name


def _validate_minutes(lifetime_minutes: object) -> int | None:
    """Return the requested lifetime, or None for the longest permitted one."""
    if lifetime_minutes is None:
        return None
    if type(lifetime_minutes) is int and lifetime_minutes > 0:  # bool is a subclass of int
        return lifetime_minutes
    raise Refused(400, "lifetime_minutes must be a positive integer", "lifetime_minutes")


@dataclass(frozen=True)
class _TightestLimit:
    """The limit that decides the latest expiry of a token.

    Attributes:
        latest_expiry: In seconds since the epoch.
        description: The limit, and the command that changes it, for the operator.
    """

    latest_expiry: int
    description: str


def _compute_latest_expiry(
    audience: Audience, roles: Sequence[Role], owner: User, now: int, verb: str
) -> _TightestLimit:
    """Return the latest expiry that the audience and every role permit."""
    holders: list[Audience | Role] = [audience, *roles]
    holder = min(holders, key=lambda holder: holder.limit.compute_latest_expiry(now))
    limit = _TightestLimit(
        holder.limit.compute_latest_expiry(now), _describe_limit(holder, audience.name)
    )
    if limit.latest_expiry <= now:
        raise Refused(
            401,
            f"Token for {owner.username} cannot be {verb}: "
            "maximum permitted expiry has already passed.",
            operator_message=f"No token can be {verb}. {limit.description}",
        )
    return limit


def _describe_limit(holder: Audience | Role, audience: str) -> str:
    maximum = f"{holder.limit.max_lifetime_minutes} minutes"
    if holder.limit.latest_expiry is not None:
        maximum += f", and no expiry after {_format_epoch(holder.limit.latest_expiry)}"
    if isinstance(holder, Role):
        who, command = f"Role {holder.name!r}", f"set-role {holder.name} --audience {audience}"
    else:
        who, command = f"Audience {holder.name!r}", f"set-audience {holder.name}"
    return f"{who} permits {maximum}. Change its limits with: flowauth-rotator server {command}"


def _compute_expiry(minutes: int | None, latest: int, now: int, description: str) -> int:
    if minutes is None:
        return latest
    if now + minutes * MINUTE > latest:
        raise Refused(
            400,
            "Requested lifetime exceeds the maximum permitted by the server and original roles",
            "lifetime_minutes",
            operator_message=f"A lifetime of {minutes} minutes is too long. {description}",
        )
    return now + minutes * MINUTE
