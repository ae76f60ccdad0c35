"""Who may be issued what, and for how long: the rules of minting and of renewal."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from cryptography.fernet import InvalidToken
from sqlalchemy import Connection

from flowauth_rotator.server import rate_limit
from flowauth_rotator.server.accounts import MINUTE, Accounts, Audience, Role, User
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import BATCH, History, HistoryRow, NewRow, RecordedRole
from flowauth_rotator.server.settings import Settings
from flowauth_rotator.server.signing import Keyring, NotOurs, compress_claims

LONGEST_TOKEN_NAME = 200


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
    family_began_at: int
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

    def row(self) -> NewRow:
        """The row of the history."""
        descent = self.renewal
        return NewRow(
            parent_id=descent.parent_id if descent else None,
            idempotency_key=descent.idempotency_key if descent else None,
            requested_minutes=descent.requested_minutes if descent else None,
            owner_id=self.owner.id,
            audience_id=self.audience.id,
            name=self.name,
            roles=tuple(RecordedRole(role.id, role.name) for role in self.roles),
            family_began_at=descent.family_began_at if descent else self.issued_at,
            issued_at=self.issued_at,
            expires_at=self.expires_at,
        )


class Issuing:
    """Mints and renews; every refusal is a `Refused` with FlowAuth's status and words.

    `now` is in seconds since the epoch. `lifetime_minutes` is what the caller asked for, of
    whatever type; None asks for the longest lifetime that is permitted.
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
        now: int,
    ) -> Issued:
        """Issue a first token of this name, for roles that its owner holds on the audience."""

        def plan(connection: Connection) -> Grant:
            held = self._accounts.holding(connection, owner.id, audience_id)
            if held is None:
                raise Refused(404, "There is no server with this id.")
            chosen = _chosen_roles(role_names, held.roles)
            limit = _latest_expiry(held.audience, chosen, owner, now, "minted")
            expires_at = _granted_expiry(_positive_minutes(lifetime_minutes), limit, now)
            return Grant(owner, held.audience, _valid_name(name), chosen, now, expires_at)

        with self._database.reading() as connection:
            planned = plan(connection)
            self._limit(rate_limit.refuse_beyond, connection, planned, now)
        return self._issue(planned, plan, now)

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

        def find(connection: Connection) -> HistoryRow:
            parent = self._history.row(connection, row_id)
            if parent is None:
                raise Refused(404, "There is no token with this id.")
            if parent.owner_id != caller.id:
                raise Refused(401, "You can only renew your own tokens.")
            _refuse_expired(parent, now - self._settings.renew_expired_grace)
            return parent

        return self._renew(find, lifetime_minutes, idempotency_key, now)

    def renew_presented(
        self, token: str, lifetime_minutes: object, *, idempotency_key: str | None, now: int
    ) -> Issued:
        """Issue a successor of the very token that the caller presents as its credential."""
        try:
            claims = self._keyring.read(token)
        except NotOurs:
            raise Refused(401, "The presented token was not issued by this server.") from None

        def find(connection: Connection) -> HistoryRow:
            return self._presented_row(connection, claims, now)

        return self._renew(find, lifetime_minutes, idempotency_key, now)

    def listing(
        self, owner: User, audience_id: int, *, now: int
    ) -> Iterator[tuple[HistoryRow, str]]:
        """The rows of an owner on an audience that can be renewed, with tokens, oldest first."""
        return self._listing(
            owner, audience_id, expiring_after=now - self._settings.renew_expired_grace
        )

    def full_listing(self, owner: User, audience_id: int) -> Iterator[tuple[HistoryRow, str]]:
        """Every row of an owner on an audience, oldest first, with its token while it has one."""
        return self._listing(owner, audience_id)

    def _listing(
        self, owner: User, audience_id: int, expiring_after: int | None = None
    ) -> Iterator[tuple[HistoryRow, str]]:
        with self._database.reading() as connection:
            if self._accounts.audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
        batches = self._batches(
            owner_id=owner.id, audience_id=audience_id, expiring_after=expiring_after
        )
        return (listed for rows in batches for listed in self._revealed(rows))

    def each_row(self, **conditions: int | None) -> Iterator[HistoryRow]:
        """The rows that meet the conditions of `History.rows`, oldest first."""
        return (row for rows in self._batches(**conditions) for row in rows)

    def _batches(self, **conditions: int | None) -> Iterator[list[HistoryRow]]:
        """Read some at a time, so that their number is no matter."""
        last = 0
        while True:
            with self._database.reading() as connection:
                rows = self._history.rows(connection, **conditions, following=last, limit=BATCH)
            yield rows
            if len(rows) < BATCH:
                return
            last = rows[-1].id

    def _revealed(self, rows: list[HistoryRow]) -> list[tuple[HistoryRow, str]]:
        try:
            return [(row, self._history.reveal(row)) for row in rows]
        except InvalidToken:  # the encryption key was replaced after they had been read
            with self._database.reading() as connection:
                anew = [self._history.row(connection, row.id) for row in rows]
            return [(row, self._history.reveal_if_possible(row)) for row in anew if row]

    def _renew(
        self,
        find: Callable[[Connection], HistoryRow],
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> Issued:
        """Issue a successor of the row that is found: once, since no row ever changes."""

        def plan(connection: Connection) -> Grant | Issued:
            return self._renewed(connection, parent, lifetime_minutes, idempotency_key, now)

        with self._database.reading() as connection:
            parent = find(connection)
            planned = plan(connection)
            if isinstance(planned, Grant):  # so that what is refused costs no signature
                self._limit(rate_limit.refuse_beyond, connection, planned, now)
        return self._issue(planned, plan, now)

    def _issue(
        self, planned: Grant | Issued, plan: Callable[[Connection], Grant | Issued], now: int
    ) -> Issued:
        """Sign without holding the right to write, then commit what is still true under it.

        Signing takes longer than everything else; a role revoked or a key used in the meantime
        shows in the second plan, and then that one counts.
        """
        while isinstance(planned, Grant):
            signer = self._keyring.current()
            jti = str(uuid.uuid4())
            token = signer.sign(self._claims(planned, jti))
            with self._database.writing() as connection:
                confirmed = plan(connection)
                if confirmed == planned:
                    self._limit(rate_limit.count, connection, planned, now)
                    row_id = self._history.add(
                        connection, planned.row(), token=token, jti=jti, kid=signer.kid
                    )
                    owner = planned.owner.username
                    return Issued(row_id, owner, planned.name, planned.expires_at, token)
            planned = confirmed
        return planned

    def _claims(self, grant: Grant, jti: str) -> dict[str, object]:
        """The claims of a JWT, as FlowAPI reads them; `token_name` is this server's own."""
        is_plain = self._settings.user_claims == "plain"
        return {
            "iat": grant.issued_at,
            "nbf": grant.issued_at,
            "exp": grant.expires_at,
            "jti": jti,
            "sub": grant.owner.username,
            "aud": grant.audience.name,
            "user_claims": (_user_claims if is_plain else _packed_claims)(grant.roles),
            "token_name": grant.name,
        }

    def _limit(
        self, heed: Callable[..., None], connection: Connection, grant: Grant, now: int
    ) -> None:
        heed(
            self._settings.renewal_limit,
            *("token", str(grant.owner.id), str(grant.audience.id), grant.name),
            what="tokens of this name were issued",
            connection=connection,
            now=now,
        )

    def _renewed(
        self,
        connection: Connection,
        parent: HistoryRow,
        lifetime_minutes: object,
        idempotency_key: str | None,
        now: int,
    ) -> Grant | Issued:
        """The successor that there may be of a row: a new one, or the one it has already."""
        held = self._accounts.holding(connection, parent.owner_id, parent.audience_id)
        assert held is not None  # noqa: S101 - a foreign key says so
        kept = _kept_roles(parent, held.roles)
        minutes = _positive_minutes(lifetime_minutes)
        if idempotency_key is not None:
            earlier = self._history.successor(connection, parent.id, idempotency_key)
            if earlier is not None:
                return self._replayed(earlier, minutes, now)
        owner = User(parent.owner_id, parent.owner)
        limit = _latest_expiry(held.audience, kept, owner, now, "renewed")
        family_ends_at = parent.family_began_at + self._settings.max_family_age
        if family_ends_at <= now:
            raise Refused(
                401,
                f"Token for {owner.username} cannot be renewed: its first ancestor was issued at "
                f"{_moment(parent.family_began_at)}; mint a new token instead.",
                "token_id",
            )
        expires_at = _granted_expiry(minutes, min(limit, family_ends_at), now)
        renewal = Renewal(parent.id, parent.family_began_at, idempotency_key, minutes)
        return Grant(owner, held.audience, parent.name, kept, now, expires_at, renewal)

    def _replayed(self, earlier: HistoryRow, minutes: int | None, now: int) -> Issued:
        if earlier.requested_minutes != minutes:
            raise Refused(
                422,
                "This Idempotency-Key was used for this token with another lifetime_minutes.",
                "lifetime_minutes",
            )
        token = self._history.reveal(earlier)
        if not token or earlier.expires_at <= now:
            raise Refused(410, "What this Idempotency-Key was answered with expired; use another.")
        return Issued(
            earlier.id, earlier.owner, earlier.name, earlier.expires_at, token, replayed=True
        )

    def _presented_row(
        self, connection: Connection, claims: dict[str, Any], now: int
    ) -> HistoryRow:
        """The row of a token of ours that is a credential as it stands: known here and alive."""
        row = self._history.row_of_jti(connection, str(claims["jti"]))
        if row is None or (claims["sub"], claims["aud"]) != (row.owner, row.audience):
            raise Refused(401, "The presented token is not known here.")
        if row.expires_at <= now or claims["exp"] != row.expires_at:
            raise Refused(401, "The presented token has expired.")
        return row


def _user_claims(roles: tuple[Role, ...]) -> dict[str, list[str]]:
    return {role.name: sorted(role.scopes) for role in roles}


@lru_cache(maxsize=256)
def _packed_claims(roles: tuple[Role, ...]) -> str:
    """Remembered, since the roles of a token hardly ever change from one renewal to the next."""
    return compress_claims(_user_claims(roles))


def _refuse_expired(parent: HistoryRow, expired_at: int) -> None:
    if parent.expires_at <= expired_at:
        raise Refused(
            400,
            f"This token expired at {_moment(parent.expires_at)} and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        )


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


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
