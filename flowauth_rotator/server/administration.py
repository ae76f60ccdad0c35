"""The accounts in the hands of the operator: adding, changing and listing what there is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, select, update

from flowauth_rotator.server.accounts import SHORTEST_PASSWORD, Accounts, Audience, Limit, Role
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import audiences, grants, revision, roles, users


@dataclass(frozen=True)
class ListedAudience:
    """An audience, and the names of its roles."""

    audience: Audience
    roles: tuple[str, ...]


@dataclass(frozen=True)
class ListedRole:
    """A role, the name of its audience, and the names of the users who hold it."""

    role: Role
    audience: str
    users: tuple[str, ...]


@dataclass(frozen=True)
class ListedUser:
    """A user's name, and the names of the roles held on each audience."""

    username: str
    roles: dict[str, list[str]]


class Administration(Accounts):
    """The accounts, with all that only the operator may do to them.

    Each method is one transaction: it does all that it says or, when it is refused, nothing.
    A role can be named without its audience as long as no other audience has one of that name.
    """

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """A transaction after which nobody relies on what was read before it."""
        with self._database.writing() as connection:
            yield connection
            connection.execute(update(revision).values(number=revision.c.number + 1))

    def add_audience(self, name: str, limit: Limit) -> None:
        """Add a server that tokens can be for."""
        with self._changing() as connection:
            _refuse_duplicate(connection, audiences, audiences.c.name == name, f"Audience {name}")
            connection.execute(insert(audiences).values(name=name, **vars(limit)))

    def set_audience(self, name: str, **limits: int | None) -> None:
        """Change limits of an audience, by their names in `Limit`."""
        with self._changing() as connection:
            audience = self._named_audience(connection, name)
            change = update(audiences).where(audiences.c.id == audience.id)
            connection.execute(change.values(**limits))

    def all_audiences(self) -> list[ListedAudience]:
        """Every audience, by name."""
        query = select(roles.c.audience_id, roles.c.name).order_by(roles.c.name)
        with self._database.reading() as connection:
            rows = connection.execute(select(audiences).order_by(audiences.c.name)).all()
            names: dict[int, list[str]] = {row.id: [] for row in rows}
            for role in connection.execute(query):
                names[role.audience_id].append(role.name)
        return [ListedAudience(Audience.of(row), tuple(names[row.id])) for row in rows]

    def add_role(self, name: str, audience: str, scopes: Iterable[str], limit: Limit) -> None:
        """Add a role to an audience."""
        with self._changing() as connection:
            audience_id = self._named_audience(connection, audience).id
            same = and_(roles.c.audience_id == audience_id, roles.c.name == name)
            _refuse_duplicate(connection, roles, same, f"Role {name} of {audience}")
            values = {"name": name, "audience_id": audience_id, "scopes": sorted(set(scopes))}
            connection.execute(insert(roles).values(**values, **vars(limit)))

    def set_role(
        self,
        name: str,
        audience: str | None = None,
        *,
        scopes: Iterable[str] = (),
        **limits: int | None,
    ) -> None:
        """Replace the scopes of a role, if any are given, and change limits as for an audience."""
        changes: dict[str, object] = {**limits}
        if wanted := sorted(set(scopes)):
            changes["scopes"] = wanted
        with self._changing() as connection:
            role_id = self._role_id(connection, name, audience)
            connection.execute(update(roles).where(roles.c.id == role_id).values(**changes))

    def delete_role(self, name: str, audience: str | None = None) -> list[str]:
        """Delete a role, and name the users who have held it.

        For every token that has it that is as if it had been revoked, for good: a new role of
        the same name is another one.
        """
        with self._changing() as connection:
            role_id = self._role_id(connection, name, audience)
            holders = select(users.c.username).join(grants).where(grants.c.role_id == role_id)
            names = list(connection.execute(holders.order_by(users.c.username)).scalars())
            connection.execute(delete(roles).where(roles.c.id == role_id))
        return names

    def all_roles(self) -> list[ListedRole]:
        """Every role, by the names of its audience and of itself."""
        query = select(roles, audiences.c.name.label("audience")).join(audiences)
        held = select(grants.c.role_id, users.c.username).join(users).order_by(users.c.username)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(audiences.c.name, roles.c.name)).all()
            holders: dict[int, list[str]] = {row.id: [] for row in rows}
            for grant in connection.execute(held):
                holders[grant.role_id].append(grant.username)
        return [ListedRole(Role.of(row), row.audience, tuple(holders[row.id])) for row in rows]

    def add_user(self, username: str, password: str) -> None:
        """Add somebody who may sign in, holding nothing yet."""
        hashed = self._hashed(password)
        with self._changing() as connection:
            _refuse_duplicate(connection, users, users.c.username == username, f"User {username}")
            connection.execute(insert(users).values(username=username, password_hash=hashed))

    def set_password(self, username: str, password: str) -> None:
        """Give a user another password, and end every session that the old one has begun."""
        hashed = self._hashed(password)
        with self._changing() as connection:
            user = self._named_user(connection, username)
            change = update(users).where(users.c.id == user.id)
            number = users.c.password_number + 1
            connection.execute(change.values(password_hash=hashed, password_number=number))

    def all_users(self) -> list[ListedUser]:
        """Every user, by name."""
        query = (
            select(grants.c.user_id, roles.c.name, audiences.c.name.label("audience"))
            .join(roles, grants.c.role_id == roles.c.id)
            .join(audiences, roles.c.audience_id == audiences.c.id)
            .order_by(audiences.c.name, roles.c.name)
        )
        with self._database.reading() as connection:
            rows = connection.execute(select(users).order_by(users.c.username)).all()
            held: dict[int, dict[str, list[str]]] = {row.id: {} for row in rows}
            for grant in connection.execute(query):
                held[grant.user_id].setdefault(grant.audience, []).append(grant.name)
        return [ListedUser(row.username, held[row.id]) for row in rows]

    def grant(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Give roles to a user, all or none; one that is held already stays held."""
        with self._changing() as connection:
            user = self._named_user(connection, username)
            wanted = {self._role_id(connection, name, audience) for name in names}
            held = select(grants.c.role_id).where(grants.c.user_id == user.id)
            new = wanted - set(connection.execute(held).scalars())
            for role_id in sorted(new):
                connection.execute(insert(grants).values(user_id=user.id, role_id=role_id))

    def revoke(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Take roles from a user, all or none; one that is not held is refused."""
        with self._changing() as connection:
            user = self._named_user(connection, username)
            for name in dict.fromkeys(names):
                role_id = self._role_id(connection, name, audience)
                held = and_(grants.c.user_id == user.id, grants.c.role_id == role_id)
                if connection.execute(delete(grants).where(held)).rowcount == 0:
                    raise Refused(404, f"User {username} does not hold role {name}.")

    def revoke_all(self, username: str) -> list[str]:
        """Take every role on every audience from a user, and name them."""
        with self._changing() as connection:
            user = self._named_user(connection, username)
            held = select(roles.c.name).join(grants).where(grants.c.user_id == user.id)
            names = list(connection.execute(held.order_by(roles.c.name)).scalars())
            connection.execute(delete(grants).where(grants.c.user_id == user.id))
        return names

    def _hashed(self, password: str) -> str:
        if len(password) < SHORTEST_PASSWORD:
            raise Refused(400, f"A password needs at least {SHORTEST_PASSWORD} characters.")
        return self._hasher.hash(password)

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


def _refuse_duplicate(
    connection: Connection, table: Table, same: ColumnElement[bool], what: str
) -> None:
    if connection.execute(select(table.c.id).where(same)).first():
        raise Refused(409, f"{what} exists already; nothing was changed.")
