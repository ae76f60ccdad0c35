"""Who may be issued what, and for how long: the rules of minting and of renewal."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from sqlalchemy import Connection

from flowauth_rotator.server.accounts import MINUTE, Accounts, Audience, Refused, Role, User
from flowauth_rotator.server.history import Database, History, HistoryRow, NewRow, RecordedRole
from flowauth_rotator.server.signing import NotOurs, compress_claims

LONGEST_TOKEN_NAME = 200


class Signer(Protocol):
    """What signs tokens and recognises its own."""

    def sign(self, claims: dict[str, object]) -> str:
        """The compact JWT of these claims."""

    def read(self, token: str) -> dict[str, object]:
        """The verified claims of a token, or `NotOurs`."""


@dataclass(frozen=True)
class Issued:
    """A token on its way to its owner."""

    row_id: int
    owner: str
    name: str
    expires_at: int
    token: str = field(repr=False)
    replayed: bool = False


@dataclass(frozen=True)
class Renewal:
    """How a new row descends from another one."""

    parent_id: int
    idempotency_key: str | None
    requested_minutes: int | None


@dataclass(frozen=True)
class Grant:
    """A token that may be issued: everything that will be signed and written down."""

    owner: User
    audience: Audience
    name: str
    roles: tuple[Role, ...]
    issued_at: int
    expires_at: int
    renewal: Renewal | None = None

    def claims(self, jti: str) -> dict[str, object]:
        """The claims of the JWT, as FlowAPI reads them; `token_name` is this server's own."""
        return {
            "iat": self.issued_at,
            "nbf": self.issued_at,
            "exp": self.expires_at,
            "jti": jti,
            "sub": self.owner.username,
            "aud": self.audience.name,
            "user_claims": compress_claims({role.name: sorted(role.scopes) for role in self.roles}),
            "token_name": self.name,
        }

    def row(self, jti: str) -> NewRow:
        """The row of the history."""
        descent = self.renewal
        return NewRow(
            parent_id=descent.parent_id if descent else None,
            idempotency_key=descent.idempotency_key if descent else None,
            requested_minutes=descent.requested_minutes if descent else None,
            owner_id=self.owner.id,
            audience_id=self.audience.id,
            name=self.name,
            jti=jti,
            issued_at=self.issued_at,
            expires_at=self.expires_at,
            roles=tuple(RecordedRole(role.id, role.name) for role in self.roles),
        )


Plan = Callable[[Connection], "Grant | Issued"]


class Issuing:
    """Mints and renews; every refusal is a `Refused` with FlowAuth's status and words.

    `now` is in seconds since the epoch. `lifetime_minutes` is what the caller asked for, of
    whatever type; None asks for the longest lifetime that is permitted.
    """

    def __init__(
        self, database: Database, accounts: Accounts, history: History, signer: Signer
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._history = history
        self._signer = signer

    def mint(
        self,
        owner: User,
        audience_id: int,
        name: str,
        role_names: Sequence[str],
        lifetime_minutes: object,
        *,
        now: int,
    ) -> Issued:
        """Issue a first token of this name, for roles that its owner holds on the audience."""

        def plan(connection: Connection) -> Grant:
            audience = self._accounts.audience(connection, audience_id)
            if audience is None:
                raise Refused(404, "There is no server with this id.")
            held = self._accounts.held_roles(connection, owner.id, audience_id)
            chosen = _chosen_roles(role_names, held)
            limit = _latest_expiry(audience, chosen, owner, now, "minted")
            expires_at = _granted_expiry(_positive_minutes(lifetime_minutes), limit, now)
            return Grant(owner, audience, _valid_name(name), chosen, now, expires_at)

        return self._issue(plan)

    def renew(
        self,
        caller: User,
        row_id: int,
        lifetime_minutes: object,
        *,
        idempotency_key: str | None,
        now: int,
    ) -> Issued:
        """Issue a successor of a row: same name, same roles. The row itself stays as it is.

        The same idempotency key gives the same successor again until the row has expired.
        """

        def plan(connection: Connection) -> Grant | Issued:
            parent = self._history.row(connection, row_id)
            if parent is None:
                raise Refused(404, "There is no token with this id.")
            return self._renewed(
                connection, parent, caller.id, lifetime_minutes, idempotency_key, now
            )

        return self._issue(plan)

    def renew_presented(
        self, token: str, lifetime_minutes: object, *, idempotency_key: str | None, now: int
    ) -> Issued:
        """Issue a successor of the very token that the caller presents as its credential."""
        claims = self._presented_claims(token, now)

        def plan(connection: Connection) -> Grant | Issued:
            parent = self._history.row_of_jti(connection, str(claims["jti"]))
            presented = (claims["sub"], claims["aud"])
            if parent is None or presented != (parent.owner, parent.audience):
                raise Refused(401, "The presented token is not known here.")
            return self._renewed(
                connection, parent, parent.owner_id, lifetime_minutes, idempotency_key, now
            )

        return self._issue(plan)

    def listing(self, owner: User, audience_id: int) -> list[tuple[HistoryRow, str]]:
        """Every row of an owner on an audience with its token, oldest first."""
        with self._database.reading() as connection:
            if self._accounts.audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
            rows = self._history.rows(connection, owner_id=owner.id, audience_id=audience_id)
        return [(row, self._history.reveal(row)) for row in rows]

    def rows(self, owner: User | None = None) -> list[HistoryRow]:
        """Every row of the history, or of one owner, oldest first, without tokens."""
        with self._database.reading() as connection:
            return self._history.rows(connection, owner_id=owner.id if owner else None)

    def _issue(self, plan: Plan) -> Issued:
        """Sign without holding the write lock, then commit what is still true under it.

        Signing takes longer than everything else; a role revoked or a key used in the meantime
        shows in the second plan, and then that one counts.
        """
        with self._database.reading() as connection:
            planned = plan(connection)
        while isinstance(planned, Grant):
            jti = str(uuid.uuid4())
            token = self._signer.sign(planned.claims(jti))
            with self._database.writing() as connection:
                confirmed = plan(connection)
                if confirmed == planned:
                    row_id = self._history.add(connection, planned.row(jti), token)
                    owner = planned.owner.username
                    return Issued(row_id, owner, planned.name, planned.expires_at, token)
            planned = confirmed
        return planned

    def _renewed(
        self,
        connection: Connection,
        parent: HistoryRow,
        caller_id: int,
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> Grant | Issued:
        """The successor that a caller may have of a row: a new one, or the one it has already."""
        _refuse_foreign_or_expired(parent, caller_id, now)
        held = self._accounts.held_roles(connection, parent.owner_id, parent.audience_id)
        kept = _kept_roles(parent, held)
        minutes = _positive_minutes(lifetime_minutes)
        if idempotency_key is not None:
            earlier = self._history.successor(connection, parent.id, idempotency_key)
            if earlier is not None:
                return self._replayed(earlier, minutes)
        owner = User(parent.owner_id, parent.owner)
        audience = self._accounts.audience(connection, parent.audience_id)
        assert audience is not None  # noqa: S101 - a foreign key says so
        limit = _latest_expiry(audience, kept, owner, now, "renewed")
        expires_at = _granted_expiry(minutes, limit, now)
        renewal = Renewal(parent.id, idempotency_key, minutes)
        return Grant(owner, audience, parent.name, kept, now, expires_at, renewal)

    def _replayed(self, earlier: HistoryRow, minutes: int | None) -> Issued:
        if earlier.requested_minutes != minutes:
            raise Refused(
                422,
                "This Idempotency-Key was used for this token with another lifetime_minutes.",
                "lifetime_minutes",
            )
        token = self._history.reveal(earlier)
        return Issued(
            earlier.id, earlier.owner, earlier.name, earlier.expires_at, token, replayed=True
        )

    def _presented_claims(self, token: str, now: int) -> dict[str, object]:
        try:
            claims = self._signer.read(token)
        except NotOurs:
            raise Refused(401, "The presented token was not issued by this server.") from None
        expires_at = claims["exp"]
        if not isinstance(expires_at, int) or expires_at <= now:
            raise Refused(401, "The presented token has expired.")
        return claims


def _refuse_foreign_or_expired(parent: HistoryRow, caller_id: int, now: int) -> None:
    if parent.owner_id != caller_id:
        raise Refused(401, "You can only renew your own tokens.")
    if parent.expires_at <= now:
        expired = datetime.fromtimestamp(parent.expires_at, timezone.utc)
        raise Refused(
            400,
            f"This token expired at {expired:%Y-%m-%d %H:%M:%S} UTC and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )


def _kept_roles(parent: HistoryRow, held: Sequence[Role]) -> tuple[Role, ...]:
    """The roles of a row as they are now; each must still be held by its owner.

    Held means by id: a role deleted since, even if another has its name now, is not held.
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


def _chosen_roles(names: Sequence[str], held: Sequence[Role]) -> tuple[Role, ...]:
    """The roles of these names, by name; each must be held, and named once."""
    if not names:
        raise Refused(400, "No roles.", "roles")
    by_name = {role.name: role for role in held}
    for name in names:
        if name not in by_name:
            raise Refused(401, f"Role '{name}' is not permitted for the current user", "roles")
    if len(set(names)) != len(names):
        raise Refused(400, "Each role can be named only once.", "roles")
    return tuple(by_name[name] for name in sorted(names))


def _valid_name(name: str) -> str:
    if not (name.strip() and name.isprintable() and len(name) <= LONGEST_TOKEN_NAME):
        raise Refused(400, f"A name is 1 to {LONGEST_TOKEN_NAME} printable characters.", "name")
    return name


def _positive_minutes(lifetime_minutes: object) -> int | None:
    """A lifetime as asked for: a whole number of minutes, or None for the longest there is."""
    if lifetime_minutes is None:
        return None
    if type(lifetime_minutes) is int and lifetime_minutes > 0:  # a bool is an int by inheritance
        return lifetime_minutes
    raise Refused(400, "lifetime_minutes must be a positive integer", "lifetime_minutes")


def _latest_expiry(
    audience: Audience, chosen: Sequence[Role], owner: User, now: int, verb: str
) -> int:
    """The latest expiry that the server and every role permit."""
    limits = [audience.limit, *(role.limit for role in chosen)]
    latest = min(limit.expiry(now) for limit in limits)
    if latest <= now:
        raise Refused(
            401,
            f"Token for {owner.username} cannot be {verb}: "
            "maximum permitted expiry has already passed.",
        )
    return latest


def _granted_expiry(minutes: int | None, latest: int, now: int) -> int:
    if minutes is None:
        return latest
    if now + minutes * MINUTE > latest:
        raise Refused(
            400,
            "Requested lifetime exceeds the maximum permitted by the server and original roles",
            "lifetime_minutes",
        )
    return now + minutes * MINUTE
