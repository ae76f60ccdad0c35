"""Who there is and what they may hold: users, audiences, roles, grants and the sign-in check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from limits import RateLimitItem
from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update

from flowauth_rotator.server import rate_limit
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import (
    audiences,
    ended_sessions,
    grants,
    revision,
    roles,
    users,
)
from flowauth_rotator.server.sessions import SESSION_SECONDS, Session

MINUTE = 60
SHORTEST_PASSWORD = 8
LONGEST_NAME = 100


@dataclass(frozen=True)
class User:
    """Somebody who may sign in."""

    id: int
    username: str
    password_number: int = 0


@dataclass(frozen=True)
class Limit:
    """How long the tokens of an audience or of a role may live."""

    max_lifetime_minutes: int
    latest_expiry: int | None = None

    def expiry(self, now: int) -> int:
        """The latest expiry that a token issued now may have, perhaps one that has passed."""
        longest = now + self.max_lifetime_minutes * MINUTE
        return longest if self.latest_expiry is None else min(longest, self.latest_expiry)

    @classmethod
    def of(cls, row: Row[Any]) -> Limit:
        """The limit that a row of the database sets."""
        return cls(row.max_lifetime_minutes, row.latest_expiry)


@dataclass(frozen=True)
class Audience:
    """A server that tokens are for; FlowAuth calls it a server, a JWT `aud`."""

    id: int
    name: str
    limit: Limit

    @classmethod
    def of(cls, row: Row[Any]) -> Audience:
        """The audience that is a row of the database."""
        return cls(row.id, row.name, Limit.of(row))


@dataclass(frozen=True)
class Role:
    """A named set of scopes on one audience."""

    id: int
    name: str
    scopes: tuple[str, ...]
    limit: Limit

    @classmethod
    def of(cls, row: Row[Any]) -> Role:
        """The role that is a row of the database."""
        return cls(row.id, row.name, tuple(row.scopes), Limit.of(row))


@dataclass(frozen=True)
class Holding:
    """What a user holds on an audience, as it was at one revision of the accounts."""

    revision: int
    audience: Audience
    roles: tuple[Role, ...]


_SIGN_INS = "failed attempts to sign in"
_USER_OF_NAME = select(users).where(users.c.username == bindparam("username"))
_USER_OF_SESSION = select(users).where(
    users.c.id == bindparam("user_id"),
    users.c.password_number == bindparam("password_number"),
    ~exists().where(ended_sessions.c.id == bindparam("id")),
)
_REVISION = select(revision.c.number)
_AUDIENCE = select(audiences).where(audiences.c.id == bindparam("audience_id"))
_HELD_ROLES = (
    select(roles)
    .join(grants)
    .where(grants.c.user_id == bindparam("user_id"))
    .where(roles.c.audience_id == bindparam("audience_id"))
    .order_by(roles.c.name)
)


class Accounts:
    """Users, audiences, roles, and who holds what, as far as requests need to know.

    Methods that rules share within one transaction take its connection; the others are one
    transaction each. Every refusal is a `Refused`.
    """

    def __init__(
        self, database: Database, hasher: PasswordHasher, sign_in_limit: RateLimitItem
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._limit = sign_in_limit
        self._holdings: dict[tuple[int, int], Holding] = {}

    def sign_in(self, username: str, password: str, *, address: str, now: int) -> User:
        """The user of this name and password, in equal time whether the name exists or not.

        After too many failures from one address, for one name or ten times as many for any, even
        the right password is refused for a while: else the answer would tell which one it is.
        """
        name = username if username.isprintable() and len(username) <= LONGEST_NAME else ""
        tenfold = type(self._limit)(10 * self._limit.amount, self._limit.multiples)
        limits = [(self._limit, ("sign-in", address, name)), (tenfold, ("sign-in", address))]
        with self._database.reading() as connection:
            for limit, who in limits:
                rate_limit.refuse_beyond(
                    limit, *who, what=_SIGN_INS, connection=connection, now=now
                )
            row = connection.execute(_USER_OF_NAME, {"username": name}).first()
        secret = password.encode("utf-8", "surrogatepass")
        if row is None:
            self._hasher.hash(secret)  # costs what verifying costs
        elif self._matches(row.password_hash, secret):
            self._rehash(row.id, row.password_hash, secret)
            return User(row.id, row.username, row.password_number)
        with self._database.writing() as connection:
            rate_limit.forget_passed(connection, now)
            for limit, who in limits:
                rate_limit.count(limit, *who, what=_SIGN_INS, connection=connection, now=now)
        raise Refused(401, "Incorrect username or password.")

    def user_of(self, session: Session) -> User | None:
        """The user who has signed in to a session that has not been ended since, or None."""
        if session.user_id is None:
            return None
        with self._database.reading() as connection:
            row = connection.execute(_USER_OF_SESSION, vars(session)).first()
        return User(row.id, row.username, row.password_number) if row else None

    def end(self, session: Session, *, now: int) -> None:
        """End a session, for whoever else has its cookie, too."""
        until = now + 2 * SESSION_SECONDS  # a cookie is good for that long around its time
        with self._database.writing() as connection:
            connection.execute(delete(ended_sessions).where(ended_sessions.c.expires_at <= now))
            ended = select(ended_sessions.c.id).where(ended_sessions.c.id == session.id)
            if connection.execute(ended).first() is None:
                connection.execute(insert(ended_sessions).values(id=session.id, expires_at=until))

    def named_user(self, username: str) -> User:
        """The user of this name."""
        with self._database.reading() as connection:
            return self._named_user(connection, username)

    def named_audience(self, name: str) -> Audience:
        """The audience of this name."""
        with self._database.reading() as connection:
            return self._named_audience(connection, name)

    def audiences_of(self, user: User) -> list[Audience]:
        """The audiences on which a user holds a role, by name."""
        held = select(roles.c.audience_id).join(grants).where(grants.c.user_id == user.id)
        query = select(audiences).where(audiences.c.id.in_(held)).order_by(audiences.c.name)
        with self._database.reading() as connection:
            return [Audience.of(row) for row in connection.execute(query)]

    def audience(self, connection: Connection, audience_id: int) -> Audience | None:
        """The audience of this id, or None."""
        row = connection.execute(_AUDIENCE, {"audience_id": audience_id}).first()
        return Audience.of(row) if row else None

    def holding(self, connection: Connection, user_id: int, audience_id: int) -> Holding | None:
        """What a user holds on an audience, by name of the role; None if there is no such audience.

        It is read only once for each revision of the accounts: hundreds of scopes cost more than
        all else.
        """
        number = connection.execute(_REVISION).scalar_one()
        whose = {"user_id": user_id, "audience_id": audience_id}
        known = self._holdings.get((user_id, audience_id))
        if known is None or known.revision != number:
            audience = self.audience(connection, audience_id)
            if audience is None:
                return None
            held = tuple(Role.of(row) for row in connection.execute(_HELD_ROLES, whose))
            known = self._holdings[user_id, audience_id] = Holding(number, audience, held)
        return known

    def roles_on(self, audience_id: int) -> list[tuple[Role, list[int]]]:
        """The roles of an audience, by name, each with the ids of the users who hold it."""
        on_audience = roles.c.audience_id == audience_id
        holders = select(grants).join(roles).where(on_audience).order_by(grants.c.user_id)
        with self._database.reading() as connection:
            if self.audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
            found = select(roles).where(on_audience).order_by(roles.c.name)
            rows = connection.execute(found).all()
            held: dict[int, list[int]] = {row.id: [] for row in rows}
            for grant in connection.execute(holders):
                held[grant.role_id].append(grant.user_id)
        return [(Role.of(row), held[row.id]) for row in rows]

    def _matches(self, password_hash: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, secret)
        except (VerificationError, InvalidHashError):
            return False

    def _rehash(self, user_id: int, password_hash: str, secret: bytes) -> None:
        """Store a stronger hash when the hasher's parameters have changed since the last one.

        A password that was changed in the meantime stays as it is.
        """
        if self._hasher.check_needs_rehash(password_hash):
            same = (users.c.id == user_id) & (users.c.password_hash == password_hash)
            change = update(users).where(same)
            stronger = self._hasher.hash(secret)
            with self._database.writing() as connection:
                connection.execute(change.values(password_hash=stronger))

    def _named_user(self, connection: Connection, username: str) -> User:
        row = connection.execute(select(users).where(users.c.username == username)).first()
        if row is None:
            raise Refused(404, f"There is no user {username}.")
        return User(row.id, row.username)

    def _named_audience(self, connection: Connection, name: str) -> Audience:
        row = connection.execute(select(audiences).where(audiences.c.name == name)).first()
        if row is None:
            raise Refused(404, f"There is no audience {name}.")
        return Audience.of(row)
