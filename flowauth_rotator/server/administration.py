"""The operator's part of the accounts: add, change and list users, audiences, roles and grants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, insert, select, update

from flowauth_rotator.server.accounts import (
    MIN_PASSWORD,
    Accounts,
    Audience,
    Limit,
    Role,
    build_not_found,
)
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import audiences, grants, revision, roles, tokens, users


@dataclass(frozen=True)
class AudienceSummary:
    """An audience, and the names of its roles."""

    audience: Audience
    roles: tuple[str, ...]


@dataclass(frozen=True)
class RoleSummary:
    """A role, the name of its audience, and the names of its users."""

    role: Role
    audience: str
    users: tuple[str, ...]


@dataclass(frozen=True)
class UserSummary:
    """A user's name, and the names of the user's roles on each audience."""

    username: str
    roles: dict[str, list[str]]


class Administration(Accounts):
    """The accounts with the operator's commands.

    Each method is one transaction, which a refusal rolls back. A role can be named without its
    audience if no other audience has a role of that name.
    """

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """Open a write transaction that invalidates cached roles in all processes."""
        with self._database.writing() as connection:
            yield connection
            connection.execute(update(revision).values(number=revision.c.number + 1))

    def add_audience(self, name: str, limit: Limit) -> None:
        """Add an audience."""
        with self._changing() as connection:
            same = audiences.c.name == name
            _refuse_duplicate(connection, audiences, same, f"Audience {name!r}", "set-audience")
            connection.execute(insert(audiences).values(name=name, **vars(limit)))

    def set_audience(self, name: str, **limits: int | None) -> None:
        """Change limits of an audience, by their names in `Limit`."""
        with self._changing() as connection:
            audience = self._get_audience(connection, name)
            change = update(audiences).where(audiences.c.id == audience.id)
            connection.execute(change.values(**limits))

    def list_audiences(self) -> list[AudienceSummary]:
        """Return every audience, by name."""
        query = select(roles.c.audience_id, roles.c.name).order_by(roles.c.name)
        with self._database.reading() as connection:
            rows = connection.execute(select(audiences).order_by(audiences.c.name)).all()
            names: dict[int, list[str]] = {row.id: [] for row in rows}
            for role in connection.execute(query):
                names[role.audience_id].append(role.name)
        return [AudienceSummary(Audience.from_row(row), tuple(names[row.id])) for row in rows]

    def delete_audience(self, name: str) -> None:
        """Delete an audience without roles and tokens."""
        with self._changing() as connection:
            audience = self._get_audience(connection, name)
            where = f"Audience {name!r}"
            on_audience = roles.c.audience_id == audience.id
            _refuse_used(connection, roles, on_audience, where, "roles: delete them first")
            issued = tokens.c.audience_id == audience.id
            _refuse_used(connection, tokens, issued, where, "tokens in the history, which stays")
            connection.execute(delete(audiences).where(audiences.c.id == audience.id))

    def add_role(self, name: str, audience: str, scopes: Iterable[str], limit: Limit) -> None:
        """Add a role to an audience."""
        with self._changing() as connection:
            audience_id = self._get_audience(connection, audience).id
            same = and_(roles.c.audience_id == audience_id, roles.c.name == name)
            _refuse_duplicate(
                connection, roles, same, f"Role {name!r} of audience {audience!r}", "set-role"
            )
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
        if new_scopes := sorted(set(scopes)):
            changes["scopes"] = new_scopes
        with self._changing() as connection:
            role_id = self._get_role_id(connection, name, audience)
            connection.execute(update(roles).where(roles.c.id == role_id).values(**changes))

    def delete_role(self, name: str, audience: str | None = None) -> list[str]:
        """Delete a role, and return the names of its users.

        Its tokens can never be renewed again: a new role of the same name has another id.
        """
        with self._changing() as connection:
            role_id = self._get_role_id(connection, name, audience)
            holders = select(users.c.username).join(grants).where(grants.c.role_id == role_id)
            names = list(connection.execute(holders.order_by(users.c.username)).scalars())
            connection.execute(delete(roles).where(roles.c.id == role_id))
        return names

    def list_roles(self) -> list[RoleSummary]:
        """Return every role, by the names of its audience and itself."""
        query = select(roles, audiences.c.name.label("audience")).join(audiences)
        held = select(grants.c.role_id, users.c.username).join(users).order_by(users.c.username)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(audiences.c.name, roles.c.name)).all()
            holders: dict[int, list[str]] = {row.id: [] for row in rows}
            for grant in connection.execute(held):
                holders[grant.role_id].append(grant.username)
        return [
            RoleSummary(Role.from_row(row), row.audience, tuple(holders[row.id])) for row in rows
        ]

    def add_user(self, username: str, password: str) -> None:
        """Add a user without roles."""
        hashed = self._hash_password(password)
        with self._changing() as connection:
            same = users.c.username == username
            _refuse_duplicate(connection, users, same, f"User {username!r}", "set-password")
            connection.execute(insert(users).values(username=username, password_hash=hashed))

    def set_password(self, username: str, password: str) -> None:
        """Replace a user's password, and end all sessions of the user."""
        hashed = self._hash_password(password)
        with self._changing() as connection:
            user = self._get_user(connection, username)
            change = update(users).where(users.c.id == user.id)
            number = users.c.password_number + 1
            connection.execute(change.values(password_hash=hashed, password_number=number))

    def delete_user(self, username: str) -> None:
        """Delete a user without tokens, and take all roles from the user."""
        with self._changing() as connection:
            user = self._get_user(connection, username)
            _refuse_used(
                connection,
                tokens,
                tokens.c.owner_id == user.id,
                f"User {username!r}",
                "tokens in the history, which stays. Revoke all roles and set another password "
                "instead",
            )
            connection.execute(delete(users).where(users.c.id == user.id))

    def list_users(self) -> list[UserSummary]:
        """Return every user, by name."""
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
        return [UserSummary(row.username, held[row.id]) for row in rows]

    def grant(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Give roles to a user, all or none; ignore a role that the user already has."""
        with self._changing() as connection:
            user = self._get_user(connection, username)
            wanted = {self._get_role_id(connection, name, audience) for name in names}
            held = select(grants.c.role_id).where(grants.c.user_id == user.id)
            new = wanted - set(connection.execute(held).scalars())
            for role_id in sorted(new):
                connection.execute(insert(grants).values(user_id=user.id, role_id=role_id))

    def revoke(self, username: str, names: Sequence[str], audience: str | None = None) -> None:
        """Take roles from a user, all or none; refuse a role that the user does not have."""
        with self._changing() as connection:
            user = self._get_user(connection, username)
            for name in dict.fromkeys(names):
                role_id = self._get_role_id(connection, name, audience)
                held = and_(grants.c.user_id == user.id, grants.c.role_id == role_id)
                if connection.execute(delete(grants).where(held)).rowcount == 0:
                    raise Refused(
                        404,
                        f"User {username!r} does not have role {name!r}. "
                        "List the roles of each user with: flowauth-rotator server users.",
                    )

    def revoke_all(self, username: str) -> list[str]:
        """Take every role on every audience from a user, and return their names."""
        with self._changing() as connection:
            user = self._get_user(connection, username)
            held = select(roles.c.name).join(grants).where(grants.c.user_id == user.id)
            names = list(connection.execute(held.order_by(roles.c.name)).scalars())
            connection.execute(delete(grants).where(grants.c.user_id == user.id))
        return names

    def _hash_password(self, password: str) -> str:
        if len(password) < MIN_PASSWORD:
            raise Refused(400, f"The password must have at least {MIN_PASSWORD} characters.")
        return self._hasher.hash(password)

    def _get_role_id(self, connection: Connection, name: str, audience: str | None) -> int:
        """Return the id of a role; refuse a name that is unknown or on several audiences."""
        query = select(roles.c.id, audiences.c.name).join(audiences).where(roles.c.name == name)
        if audience is not None:
            query = query.where(audiences.c.id == self._get_audience(connection, audience).id)
        rows = connection.execute(query.order_by(audiences.c.name)).all()
        if not rows:
            raise build_not_found(
                "Role", name, "roles", f" on audience {audience!r}" if audience else ""
            )
        if len(rows) > 1:
            choices = ", ".join(row.name for row in rows)
            raise Refused(
                400,
                f"Role {name!r} exists on several audiences ({choices}): select one with "
                "--audience.",
            )
        role_id: int = rows[0].id
        return role_id


def _refuse_used(
    connection: Connection, table: Table, used: ColumnElement[bool], description: str, uses: str
) -> None:
    if connection.execute(select(table.c.id).where(used).limit(1)).first():
        raise Refused(409, f"{description} has {uses}; nothing was changed.")


def _refuse_duplicate(
    connection: Connection, table: Table, same: ColumnElement[bool], description: str, command: str
) -> None:
    if connection.execute(select(table.c.id).where(same)).first():
        raise Refused(
            409,
            f"{description} already exists; nothing was changed. "
            f"Change it with: flowauth-rotator server {command}.",
        )
