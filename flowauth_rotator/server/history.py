"""The history of every issued token: encrypted, with its lineage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import InvalidToken, MultiFernet
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    exists,
    func,
    insert,
    select,
    update,
)

from flowauth_rotator.core.policy import ABANDONED
from flowauth_rotator.server.schema import audiences, grants, revision, roles, tokens, users

logger = logging.getLogger(__name__)

BATCH = 500  # rows that are read or changed in one transaction


@dataclass(frozen=True)
class RecordedRole:
    """A role as it was when the token was issued."""

    id: int
    name: str


@dataclass(frozen=True)
class HistoryRow:
    """One issued token; its text stays encrypted until `History.reveal`."""

    id: int
    parent_id: int | None
    requested_minutes: int | None
    owner_id: int
    owner: str
    audience_id: int
    audience: str
    name: str
    roles: tuple[RecordedRole, ...]
    family_began_at: int
    issued_at: int
    expires_at: int
    revoked_at: int | None
    ciphertext: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Parent:
    """A row to renew, with what decides about its successor; all of it read at once.

    Attributes:
        successor_id: The successor already issued for the idempotency key of the request.
        has_successor: Whether it has any successor.
        accounts_revision: The revision of the accounts.
    """

    row: HistoryRow
    successor_id: int | None
    has_successor: bool
    accounts_revision: int


@dataclass(frozen=True)
class NewRow:
    """A row to add when a token is issued."""

    parent_id: int | None
    idempotency_key: str | None
    requested_minutes: int | None
    owner_id: int
    audience_id: int
    name: str
    roles: tuple[RecordedRole, ...]
    family_began_at: int
    issued_at: int
    expires_at: int


@dataclass(frozen=True)
class RowFilter:
    """The conditions of a list of rows; None means any.

    Attributes:
        expiring_after: Only rows that expire after this time, in seconds since the epoch.
        with_revoked: Whether to include revoked rows.
    """

    owner_id: int | None = None
    audience_id: int | None = None
    expiring_after: int | None = None
    with_revoked: bool = True


@dataclass(frozen=True)
class NewestToken:
    """The token of a name with the latest expiry; of equals, the first issued.

    Attributes:
        is_renewable: Whether its owner still has any role on its audience.
    """

    owner: str
    audience: str
    name: str
    issued_at: int
    expires_at: int
    is_renewable: bool

    def lacks_successor(self, now: int) -> bool:
        """Return whether it is in the last tenth of its lifetime or expired."""
        return 10 * (self.expires_at - now) <= self.expires_at - self.issued_at

    def is_abandoned(self, now: int) -> bool:
        """Return whether it expired so long ago that the name counts as abandoned."""
        return self.expires_at + ABANDONED.total_seconds() <= now


# Statements are built once: building one costs more than executing it.
_ROWS = (
    select(tokens, users.c.username.label("owner"), audiences.c.name.label("audience"))
    .join(users, tokens.c.owner_id == users.c.id)
    .join(audiences, tokens.c.audience_id == audiences.c.id)
    .order_by(tokens.c.id)
)
_ROW = _ROWS.where(tokens.c.id == bindparam("row_id"))
_CHILDREN = tokens.alias("children")
_IS_CHILD = _CHILDREN.c.parent_id == tokens.c.id
_PARENTS = _ROWS.add_columns(
    select(_CHILDREN.c.id)
    .where(_IS_CHILD, _CHILDREN.c.idempotency_key == bindparam("idempotency_key"))
    .scalar_subquery()
    .label("successor_id"),
    exists().where(_IS_CHILD).label("has_successor"),
    select(revision.c.number).scalar_subquery().label("accounts_revision"),
)
_PARENT = _PARENTS.where(tokens.c.id == bindparam("row_id"))
_PARENT_BY_JTI = _PARENTS.where(tokens.c.jti == bindparam("jti"))
# A window function: a join with the maximum of each name takes ten times as long.
_NAME = (tokens.c.owner_id, tokens.c.audience_id, tokens.c.name)
_RANKED_ROWS = select(
    *(*_NAME, tokens.c.issued_at, tokens.c.expires_at),
    func.row_number()
    .over(partition_by=_NAME, order_by=(tokens.c.expires_at.desc(), tokens.c.issued_at))
    .label("rank"),
)
_RANKED = _RANKED_ROWS.where(tokens.c.revoked_at.is_(None)).subquery()
_NEWEST = (
    select(
        users.c.username.label("owner"),
        audiences.c.name.label("audience"),
        *(_RANKED.c.name, _RANKED.c.issued_at, _RANKED.c.expires_at),
        exists()
        .where(
            grants.c.user_id == _RANKED.c.owner_id,
            grants.c.role_id == roles.c.id,
            roles.c.audience_id == _RANKED.c.audience_id,
        )
        .label("is_renewable"),
    )
    .join(users, _RANKED.c.owner_id == users.c.id)
    .join(audiences, _RANKED.c.audience_id == audiences.c.id)
    .where(_RANKED.c.rank == 1)
    .order_by(users.c.username, audiences.c.name, _RANKED.c.name)
)
_INSERT = insert(tokens).returning(tokens.c.id)
_CIPHERTEXTS = (
    select(tokens.c.id, tokens.c.ciphertext)
    .where(tokens.c.ciphertext.is_not(None), tokens.c.id > bindparam("after_id"))
    .order_by(tokens.c.id)
)
_REENCRYPTION = (
    update(tokens)
    .where(tokens.c.id == bindparam("row_id"))
    .values(ciphertext=bindparam("new_ciphertext"))
)


class History:
    """Every issued token, encrypted, with its lineage.

    Each method takes the connection of the caller's transaction, so that rules read and write in
    one transaction.

    Args:
        load_cipher: Returns the current keys; called each time, since keys can be replaced.
    """

    def __init__(self, load_cipher: Callable[[], MultiFernet]) -> None:
        self._load_cipher = load_cipher

    def find_row(self, connection: Connection, row_id: int) -> HistoryRow | None:
        """Return the row of this id, or None."""
        return _find_first(connection, _ROW, row_id=row_id)

    def find_parent(self, connection: Connection, row_id: int, key: str | None) -> Parent | None:
        """Return the row of this id, to be renewed with an idempotency key; or None."""
        return _find_parent(connection, _PARENT, row_id=row_id, idempotency_key=key)

    def find_presented(self, connection: Connection, jti: str, key: str | None) -> Parent | None:
        """Return the row of the token with this `jti`, to be renewed with a key; or None."""
        return _find_parent(connection, _PARENT_BY_JTI, jti=jti, idempotency_key=key)

    def find_first_ancestor(self, connection: Connection, row_id: int) -> int:
        """Return the id of the row that a row's family began with."""
        above = select(tokens.c.id, tokens.c.parent_id).where(tokens.c.id == row_id)
        ancestors = above.cte("ancestors", recursive=True)
        parents = select(tokens.c.id, tokens.c.parent_id).join(
            ancestors, tokens.c.id == ancestors.c.parent_id
        )
        ancestors = ancestors.union_all(parents)
        first = select(ancestors.c.id).where(ancestors.c.parent_id.is_(None))
        row: int = connection.execute(first).scalar_one()
        return row

    def revoke(self, connection: Connection, condition: ColumnElement[bool], now: int) -> list[int]:
        """Mark the rows that meet a condition as revoked; return the expiry of each new one."""
        change = update(tokens).where(condition, tokens.c.revoked_at.is_(None))
        changed = change.values(revoked_at=now).returning(tokens.c.expires_at)
        return list(connection.execute(changed).scalars())

    def list_rows(
        self,
        connection: Connection,
        conditions: RowFilter,
        *,
        after_id: int = 0,
        limit: int | None = None,
    ) -> list[HistoryRow]:
        """Return the rows that meet all conditions, oldest first.

        Args:
            connection: The transaction to read in.
            conditions: The conditions.
            after_id: Only rows with a greater id.
            limit: The maximum number of rows.
        """
        query = _ROWS.where(tokens.c.id > after_id).limit(limit)
        if conditions.owner_id is not None:
            query = query.where(tokens.c.owner_id == conditions.owner_id)
        if conditions.audience_id is not None:
            query = query.where(tokens.c.audience_id == conditions.audience_id)
        if not conditions.with_revoked:
            query = query.where(tokens.c.revoked_at.is_(None))
        if conditions.expiring_after is not None:
            query = query.where(tokens.c.expires_at > conditions.expiring_after)
        return [_build_history_row(row) for row in connection.execute(query)]

    def add_row(
        self, connection: Connection, row: NewRow, *, token: str, jti: str, kid: str | None
    ) -> int:
        """Add a row with its encrypted token, and return its id."""
        values = vars(row) | {
            "roles": [[role.id, role.name] for role in row.roles],
            "jti": jti,
            "kid": kid,
            "ciphertext": self._load_cipher().encrypt(token.encode()),
        }
        row_id: int = connection.execute(_INSERT, values).scalar_one()
        return row_id

    def reveal(self, row: HistoryRow) -> str:
        """Decrypt a row's token; return an empty string if it was dropped.

        Raises:
            cryptography.fernet.InvalidToken: No encryption key decrypts it.
        """
        if row.ciphertext is None:
            return ""
        return self._load_cipher().decrypt(row.ciphertext).decode()

    def reveal_if_possible(self, row: HistoryRow) -> str:
        """Decrypt a row's token; log an unreadable one and return an empty string."""
        try:
            return self.reveal(row)
        except InvalidToken:
            logger.error("token_unreadable", extra={"facts": {"row": row.id}})  # noqa: TRY400
            return ""

    def drop_expired(self, connection: Connection, expired_at: int) -> int:
        """Drop the ciphertext of a batch of rows expired by then; return their number."""
        batch = (
            select(tokens.c.id)
            .where(tokens.c.ciphertext.is_not(None), tokens.c.expires_at <= expired_at)
            .limit(BATCH)
        )
        change = update(tokens).where(tokens.c.id.in_(batch)).values(ciphertext=None)
        return connection.execute(change).rowcount

    def drop_unreadable(self, connection: Connection, *, after_id: int) -> tuple[int, int, int]:
        """Drop the ciphertexts that no key decrypts, in a batch of rows.

        Returns:
            The number of rows read, the number dropped, and the id of the last row.
        """
        rows = connection.execute(_CIPHERTEXTS.limit(BATCH), {"after_id": after_id}).all()
        unreadable = [row.id for row in rows if not self._is_readable(row.ciphertext)]
        change = update(tokens).where(tokens.c.id.in_(unreadable)).values(ciphertext=None)
        connection.execute(change)
        return len(rows), len(unreadable), rows[-1].id if rows else after_id

    def _is_readable(self, ciphertext: bytes) -> bool:
        try:
            self._load_cipher().decrypt(ciphertext)
        except InvalidToken:
            return False
        return True

    def count_ciphertexts(self, connection: Connection, expired_at: int | None = None) -> int:
        """Count the rows with a ciphertext, or only those that had expired by then."""
        query = select(func.count()).where(tokens.c.ciphertext.is_not(None))
        if expired_at is not None:
            query = query.where(tokens.c.expires_at <= expired_at)
        return connection.execute(query).scalar_one()

    def reencrypt(self, connection: Connection, *, after_id: int) -> tuple[int, int]:
        """Encrypt a batch of rows with the newest key.

        Returns:
            The number of rows, and the id of the last one.
        """
        cipher = self._load_cipher()
        rows = connection.execute(_CIPHERTEXTS.limit(BATCH), {"after_id": after_id})
        changes = [
            {"row_id": row.id, "new_ciphertext": cipher.rotate(row.ciphertext)} for row in rows
        ]
        if not changes:
            return 0, after_id
        connection.execute(_REENCRYPTION, changes)
        return len(changes), changes[-1]["row_id"]

    def list_newest(self, connection: Connection) -> Iterator[NewestToken]:
        """Yield the newest token of each owner, audience and name, sorted by these."""
        return (NewestToken(**row._mapping) for row in connection.execute(_NEWEST))

    def verify_keys(self, connection: Connection) -> None:
        """Decrypt the newest stored token.

        Raises:
            cryptography.fernet.InvalidToken: No encryption key decrypts it.
        """
        newest = _ROWS.where(tokens.c.ciphertext.is_not(None)).order_by(None)
        row = _find_first(connection, newest.order_by(tokens.c.expires_at.desc()).limit(1))
        if row is not None:
            self.reveal(row)


def is_descendant(row_id: int) -> ColumnElement[bool]:
    """Return the condition that selects a row and all its descendants.

    A query, and no list of ids: whoever has a token can renew it more often than a statement has
    parameters.
    """
    found = select(tokens.c.id).where(tokens.c.id == row_id).cte("found", recursive=True)
    children = select(tokens.c.id).join(found, tokens.c.parent_id == found.c.id)
    return tokens.c.id.in_(select(found.union_all(children).c.id))


def _find_first(connection: Connection, query: Select[Any], **values: object) -> HistoryRow | None:
    row = connection.execute(query, values).first()
    return None if row is None else _build_history_row(row)


def _find_parent(connection: Connection, query: Select[Any], **values: object) -> Parent | None:
    row = connection.execute(query, values).first()
    if row is None:
        return None
    return Parent(
        _build_history_row(row), row.successor_id, bool(row.has_successor), row.accounts_revision
    )


_FIELDS = tuple(HistoryRow.__dataclass_fields__.keys() - {"roles"})


def _build_history_row(row: Row[Any]) -> HistoryRow:
    values = row._mapping  # public, by its documentation
    recorded = tuple(RecordedRole(role_id, name) for role_id, name in values["roles"])
    return HistoryRow(roles=recorded, **{name: values[name] for name in _FIELDS})
