"""Who there is and what they may hold: users, audiences, roles, grants and the sign-in check."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, delete, insert, select, update

from flowauth_rotator.server.history import Database, audiences, grants, roles, users

MINUTE = 60
SHORTEST_PASSWORD = 8
LONGEST_NAME = 100


class Refused(Exception):
    """The one way to say no: a status, a sentence for the user, and the field it is about."""

    def __init__(self, code: int, message: str, bad_field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.bad_field = bad_field


@dataclass(frozen=True)
class User:
    """Somebody who may sign in."""

    id: int
    username: str


@dataclass(frozen=True)
class Limit:
    """How long the tokens of an audience or of a role may live."""

    max_lifetime_minutes: int
    latest_expiry: int | None = None

    def expiry(self, now: int) -> int:
        """The latest expiry that a token issued now may have, perhaps one that has passed."""
        longest = now + self.max_lifetime_minutes * MINUTE
        return longest if self.latest_expiry is None else min(longest, self.latest_expiry)


@dataclass(frozen=True)
class Audience:
    """A server that tokens are for; FlowAuth calls it a server, a JWT `aud`."""

    id: int
    name: str
    limit: Limit


@dataclass(frozen=True)
class Role:
    """A named set of scopes on one audience."""

    id: int
    name: str
    scopes: tuple[str, ...]
    limit: Limit


class Accounts:
    """Users, audiences, roles, and who holds what.

    Methods that rules share within one transaction take its connection; the others are one
    transaction each. Every refusal is a `Refused`.
    """

    def __init__(self, database: Database, hasher: PasswordHasher) -> None:
        self._database = database
        self._hasher = hasher

    def sign_in(self, username: str, password: str) -> User:
        """The user of this name and password, in equal time whether the name exists or not."""
        known = users.c.username == username if username.isprintable() else users.c.id.is_(None)
        with self._database.reading() as connection:
            row = connection.execute(select(users).where(known)).first()
        secret = password.encode("utf-8", "surrogatepass")
        if row is None:
            self._hasher.hash(secret)  # costs what verifying costs
        elif self._matches(row.password_hash, secret):
            self._rehash(row.id, row.password_hash, secret)
            return User(row.id, row.username)
        raise Refused(401, "Incorrect username or password.")

    def user(self, user_id: int) -> User | None:
        """The user of this id, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(users).where(users.c.id == user_id)).first()
        return User(row.id, row.username) if row else None

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
            return [_audience(row) for row in connection.execute(query)]

    def audience(self, connection: Connection, audience_id: int) -> Audience | None:
        """The audience of this id, or None."""
        row = connection.execute(select(audiences).where(audiences.c.id == audience_id)).first()
        return _audience(row) if row else None

    def held_roles(self, connection: Connection, user_id: int, audience_id: int) -> list[Role]:
        """The roles that a user holds on an audience, by name."""
        query = (
            select(roles)
            .join(grants)
            .where(grants.c.user_id == user_id, roles.c.audience_id == audience_id)
            .order_by(roles.c.name)
        )
        return [
            Role(row.id, row.name, tuple(row.scopes), _limit(row))
            for row in connection.execute(query)
        ]

    def add_user(self, username: str, password: str) -> None:
        """Add somebody who may sign in, holding nothing yet."""
        if len(password) < SHORTEST_PASSWORD:
            raise Refused(400, f"A password needs at least {SHORTEST_PASSWORD} characters.")
        hashed = self._hasher.hash(password)
        with self._database.writing() as connection:
            _refuse_duplicate(connection, users, users.c.username == username, f"User {username}")
            connection.execute(insert(users).values(username=username, password_hash=hashed))

    def add_audience(self, name: str, limit: Limit) -> None:
        """Add a server that tokens can be for."""
        with self._database.writing() as connection:
            _refuse_duplicate(connection, audiences, audiences.c.name == name, f"Audience {name}")
            connection.execute(insert(audiences).values(name=name, **vars(limit)))

    def add_role(self, name: str, audience: str, scopes: Iterable[str], limit: Limit) -> None:
        """Add a role to an audience."""
        with self._database.writing() as connection:
            audience_id = self._named_audience(connection, audience).id
            same = and_(roles.c.audience_id == audience_id, roles.c.name == name)
            _refuse_duplicate(connection, roles, same, f"Role {name} of {audience}")
            values = {"name": name, "audience_id": audience_id, "scopes": sorted(set(scopes))}
            connection.execute(insert(roles).values(**values, **vars(limit)))

    def grant(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Give roles to a user, all or none; one that is held already stays held."""
        with self._database.writing() as connection:
            user = self._named_user(connection, username)
            wanted = {self._role_id(connection, name, audience) for name in names}
            held = select(grants.c.role_id).where(grants.c.user_id == user.id)
            new = wanted - set(connection.execute(held).scalars())
            for role_id in sorted(new):
                connection.execute(insert(grants).values(user_id=user.id, role_id=role_id))

    def revoke(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Take roles from a user, all or none; one that is not held is refused."""
        with self._database.writing() as connection:
            user = self._named_user(connection, username)
            for name in names:
                role_id = self._role_id(connection, name, audience)
                held = (grants.c.user_id == user.id) & (grants.c.role_id == role_id)
                if connection.execute(delete(grants).where(held)).rowcount == 0:
                    raise Refused(404, f"User {username} does not hold role {name}.")

    def _matches(self, password_hash: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, secret)
        except (VerificationError, InvalidHashError):
            return False

    def _rehash(self, user_id: int, password_hash: str, secret: bytes) -> None:
        """Store a stronger hash when the hasher's parameters have changed since the last one."""
        if self._hasher.check_needs_rehash(password_hash):
            change = update(users).where(users.c.id == user_id)
            with self._database.writing() as connection:
                connection.execute(change.values(password_hash=self._hasher.hash(secret)))

    def _named_user(self, connection: Connection, username: str) -> User:
        row = connection.execute(select(users).where(users.c.username == username)).first()
        if row is None:
            raise Refused(404, f"There is no user {username}.")
        return User(row.id, row.username)

    def _named_audience(self, connection: Connection, name: str) -> Audience:
        row = connection.execute(select(audiences).where(audiences.c.name == name)).first()
        if row is None:
            raise Refused(404, f"There is no audience {name}.")
        return _audience(row)

    def _role_id(self, connection: Connection, name: str, audience: str | None) -> int:
        """The id of a named role; several audiences may each have one of that name."""
        query = select(roles.c.id, audiences.c.name).join(audiences).where(roles.c.name == name)
        if audience is not None:
            query = query.where(audiences.c.id == self._named_audience(connection, audience).id)
        found = connection.execute(query.order_by(audiences.c.name)).all()
        if not found:
            raise Refused(404, f"There is no role {name}{f' of {audience}' if audience else ''}.")
        if len(found) > 1:
            choices = ", ".join(row.name for row in found)
            raise Refused(400, f"Role {name} exists on several audiences ({choices}): name one.")
        role_id: int = found[0].id
        return role_id


def _audience(row: Row[Any]) -> Audience:
    return Audience(row.id, row.name, _limit(row))


def _limit(row: Row[Any]) -> Limit:
    return Limit(row.max_lifetime_minutes, row.latest_expiry)


def _refuse_duplicate(
    connection: Connection, table: Table, same: ColumnElement[bool], what: str
) -> None:
    if connection.execute(select(table.c.id).where(same)).first():
        raise Refused(409, f"{what} exists already; nothing was changed.")
