"""Users, audiences and roles, as requests read them; the operator's changes are in a subclass."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Row, bindparam, delete, exists, insert, select, update

from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.password_checks import PasswordChecks
from flowauth_rotator.server.rate_limit import Rate, RateLimit, delete_expired_counters
from flowauth_rotator.server.schema import (
    audiences,
    ended_sessions,
    grants,
    revision,
    roles,
    users,
)

if TYPE_CHECKING:
    from flowauth_rotator.server.sessions import Session

MINUTE = 60
SESSION_SECONDS = 20 * 60
MIN_PASSWORD = 8
MAX_NAME = 100


@dataclass(frozen=True)
class User:
    """A user who can sign in."""

    id: int
    username: str
    password_number: int = 0


@dataclass(frozen=True)
class Limit:
    """The limits on the lifetime of an audience's or a role's tokens."""

    max_lifetime_minutes: int
    latest_expiry: int | None = None

    def compute_latest_expiry(self, now: int) -> int:
        """Return the latest expiry of a token issued now, which may be in the past."""
        longest = now + self.max_lifetime_minutes * MINUTE
        return longest if self.latest_expiry is None else min(longest, self.latest_expiry)

    def cap(self, latest_expiry: int) -> Limit:
        """Return this limit, but without an expiry later than a time."""
        latest = min(self.latest_expiry or latest_expiry, latest_expiry)
        return Limit(self.max_lifetime_minutes, latest)

    @classmethod
    def from_row(cls, row: Row[Any]) -> Limit:
        """Build the limit from a database row."""
        return cls(row.max_lifetime_minutes, row.latest_expiry)


@dataclass(frozen=True)
class Audience:
    """A server that accepts tokens: FlowAuth's "server", the `aud` of a JWT."""

    id: int
    name: str
    limit: Limit

    @classmethod
    def from_row(cls, row: Row[Any]) -> Audience:
        """Build the audience from a database row."""
        return cls(row.id, row.name, Limit.from_row(row))


@dataclass(frozen=True)
class Role:
    """A named set of scopes on one audience."""

    id: int
    name: str
    scopes: tuple[str, ...]
    limit: Limit

    @classmethod
    def from_row(cls, row: Row[Any]) -> Role:
        """Build the role from a database row."""
        return cls(row.id, row.name, tuple(row.scopes), Limit.from_row(row))


@dataclass(frozen=True)
class HeldRoles:
    """The roles of a user on an audience, at one revision of the accounts."""

    revision: int
    audience: Audience
    roles: tuple[Role, ...]


_USER_BY_NAME = select(users).where(users.c.username == bindparam("username"))
_USER_BY_SESSION = select(users).where(
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
    """Users, audiences, roles and grants, as far as requests need them.

    Methods with a `connection` run in the caller's transaction; the others use one of their own.
    Every refusal is a `Refused`.
    """

    def __init__(self, database: Database, hasher: PasswordHasher, sign_in_limit: Rate) -> None:
        self._database = database
        self._hasher = hasher
        self._sign_in_limit = sign_in_limit
        self._checks = PasswordChecks()
        self._held_roles: dict[tuple[int, int], HeldRoles] = {}

    def sign_in(self, username: str, password: str, *, address: str, now: int) -> User:
        """Return the user of this name and password; an unknown name takes equally long.

        Too many failures from one address, for one name or ten times as many for all names, also
        refuse the correct password for a while: otherwise the response would reveal it. Attempts
        that are being checked count as failed.

        Args:
            username: As the client typed it.
            password: As the client typed it.
            address: The IP address of the client; empty if unknown.
            now: Seconds since the epoch.
        """
        name = username if username.isprintable() and len(username) <= MAX_NAME else ""
        secret = password.encode("utf-8", "surrogatepass")
        with self._checks.place():
            return self._check_password(name, secret, address, now)

    def _check_password(self, name: str, secret: bytes, address: str, now: int) -> User:
        """Count an attempt before it is checked, and take a success back."""
        limits = self._sign_in_limits(address, name)
        with self._database.reading() as connection:  # a flood of refusals must lock out no writer
            for limit in limits:
                limit.refuse_if_exceeded(connection, now)
        with self._database.writing() as connection:
            delete_expired_counters(connection, now)
            for limit in limits:
                limit.count_or_refuse(connection, now)
            row = connection.execute(_USER_BY_NAME, {"username": name}).first()
        if row is None:
            self._checks.run(self._hasher.hash, secret)  # takes as long as verifying
            raise Refused(401, "Incorrect username or password.")
        if not self._checks.run(self._is_password, row.password_hash, secret):
            raise Refused(401, "Incorrect username or password.")
        with self._database.writing() as connection:
            for limit in limits:
                limit.take_back(connection, now)
        self._upgrade_hash(row.id, row.password_hash, secret)
        return User(row.id, row.username, row.password_number)

    def _sign_in_limits(self, address: str, name: str) -> list[RateLimit]:
        description, network = "failed attempts to sign in", _find_network(address)
        item = self._sign_in_limit
        tenfold = Rate(10 * item.amount, item.seconds)
        return [
            RateLimit(item, ("sign-in", network, name), description),
            RateLimit(tenfold, ("sign-in", network), description),
        ]

    def find_session_user(self, session: Session) -> User | None:
        """Return the user of an active session, or None."""
        if session.user_id is None:
            return None
        with self._database.reading() as connection:
            row = connection.execute(_USER_BY_SESSION, vars(session)).first()
        return User(row.id, row.username, row.password_number) if row else None

    def end_session(self, session: Session, *, now: int) -> None:
        """End a session for every holder of its cookie."""
        until = now + 2 * SESSION_SECONDS  # covers a cookie from a server whose clock is ahead
        with self._database.writing() as connection:
            connection.execute(delete(ended_sessions).where(ended_sessions.c.expires_at <= now))
            ended = select(ended_sessions.c.id).where(ended_sessions.c.id == session.id)
            if connection.execute(ended).first() is None:
                connection.execute(insert(ended_sessions).values(id=session.id, expires_at=until))

    def has_user(self, username: str) -> bool:
        """Return whether there is a user of this name."""
        if not username.isprintable():
            return False
        with self._database.reading() as connection:
            return connection.execute(_USER_BY_NAME, {"username": username}).first() is not None

    def get_user(self, username: str) -> User:
        """Return the user of this name."""
        with self._database.reading() as connection:
            return self._get_user(connection, username)

    def get_audience(self, name: str) -> Audience:
        """Return the audience of this name."""
        with self._database.reading() as connection:
            return self._get_audience(connection, name)

    def list_user_audiences(self, user: User) -> list[Audience]:
        """Return the audiences on which a user has a role, by name."""
        held = select(roles.c.audience_id).join(grants).where(grants.c.user_id == user.id)
        query = select(audiences).where(audiences.c.id.in_(held)).order_by(audiences.c.name)
        with self._database.reading() as connection:
            return [Audience.from_row(row) for row in connection.execute(query)]

    def find_audience(self, connection: Connection, audience_id: int) -> Audience | None:
        """Return the audience of this id, or None."""
        row = connection.execute(_AUDIENCE, {"audience_id": audience_id}).first()
        return Audience.from_row(row) if row else None

    def read_held_roles(
        self,
        connection: Connection,
        user_id: int,
        audience_id: int,
        *,
        revision: int | None = None,
    ) -> HeldRoles | None:
        """Return the roles of a user on an audience, by name; None for an unknown audience.

        They are cached for each revision of the accounts: reading hundreds of scopes costs more
        than the rest of a renewal.
        """
        number = connection.execute(_REVISION).scalar_one() if revision is None else revision
        key = {"user_id": user_id, "audience_id": audience_id}
        cached = self._held_roles.get((user_id, audience_id))
        if cached is None or cached.revision != number:
            audience = self.find_audience(connection, audience_id)
            if audience is None:
                return None
            held = tuple(Role.from_row(row) for row in connection.execute(_HELD_ROLES, key))
            cached = self._held_roles[user_id, audience_id] = HeldRoles(number, audience, held)
        return cached

    def list_roles_with_holders(self, audience_id: int) -> list[tuple[Role, list[int]]]:
        """Return the roles of an audience, by name, each with the ids of its users."""
        on_audience = roles.c.audience_id == audience_id
        grants_query = select(grants).join(roles).where(on_audience).order_by(grants.c.user_id)
        with self._database.reading() as connection:
            if self.find_audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
            query = select(roles).where(on_audience).order_by(roles.c.name)
            rows = connection.execute(query).all()
            holders: dict[int, list[int]] = {row.id: [] for row in rows}
            for grant in connection.execute(grants_query):
                holders[grant.role_id].append(grant.user_id)
        return [(Role.from_row(row), holders[row.id]) for row in rows]

    def _is_password(self, password_hash: str, secret: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, secret)
        except (VerificationError, InvalidHashError):
            return False

    def _upgrade_hash(self, user_id: int, password_hash: str, secret: bytes) -> None:
        """Store a stronger hash if the hasher's parameters have changed.

        A password that was changed in the meantime is not overwritten.
        """
        if self._hasher.check_needs_rehash(password_hash):
            same = (users.c.id == user_id) & (users.c.password_hash == password_hash)
            change = update(users).where(same)
            stronger = self._checks.run(self._hasher.hash, secret)
            with self._database.writing() as connection:
                connection.execute(change.values(password_hash=stronger))

    def _get_user(self, connection: Connection, username: str) -> User:
        row = connection.execute(select(users).where(users.c.username == username)).first()
        if row is None:
            raise build_not_found("User", username, "users")
        return User(row.id, row.username)

    def _get_audience(self, connection: Connection, name: str) -> Audience:
        row = connection.execute(select(audiences).where(audiences.c.name == name)).first()
        if row is None:
            raise build_not_found("Audience", name, "audiences")
        return Audience.from_row(row)


def _find_network(address: str) -> str:
    """Return the /64 network of an IPv6 address, which one client can have all of."""
    if not address:
        return ""
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ip_network(f"{parsed}/64", strict=False))


def build_not_found(kind: str, name: str, command: str, place: str = "") -> Refused:
    """Build the refusal of an unknown name, with the command that lists the known ones."""
    return Refused(
        404,
        f"{kind} {name!r} does not exist{place}. "
        f"List the {command.split()[0]} with: flowauth-rotator server {command}.",
    )
