"""The history of every token ever issued: encrypted, with its lineage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import InvalidToken, MultiFernet
from sqlalchemy import Connection, Row, Select, bindparam, exists, func, insert, select, update

from flowauth_rotator.core.policy import ABANDONED
from flowauth_rotator.server.schema import audiences, grants, roles, tokens, users

logger = logging.getLogger(__name__)

BATCH = 500  # rows that are read, or changed in one transaction, at a time


@dataclass(frozen=True)
class RecordedRole:
    """A role as a row of the history remembers it, whatever has become of it since."""

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
    ciphertext: bytes | None = field(repr=False)


@dataclass(frozen=True)
class NewRow:
    """What the history writes down when a token is issued."""

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
class NewestToken:
    """The token of a name that expires last; of several that do, the one that was issued first.

    Attributes:
        is_renewable: Whether its owner still holds any role on its audience.
    """

    owner: str
    audience: str
    name: str
    issued_at: int
    expires_at: int
    is_renewable: bool

    def lacks_successor(self, now: int) -> bool:
        """Whether it is in the last tenth of its lifetime, or has expired."""
        return 10 * (self.expires_at - now) <= self.expires_at - self.issued_at

    def is_abandoned(self, now: int) -> bool:
        """Whether it expired so long ago that nobody waits for a successor."""
        return self.expires_at + ABANDONED.total_seconds() <= now


# Each statement is put together once: doing it anew for each request costs more than running it.
_ROWS = (
    select(tokens, users.c.username.label("owner"), audiences.c.name.label("audience"))
    .join(users, tokens.c.owner_id == users.c.id)
    .join(audiences, tokens.c.audience_id == audiences.c.id)
    .order_by(tokens.c.id)
)
_ROW = _ROWS.where(tokens.c.id == bindparam("row_id"))
_ROW_OF_JTI = _ROWS.where(tokens.c.jti == bindparam("jti"))
_SUCCESSOR = _ROWS.where(
    tokens.c.parent_id == bindparam("parent_id"),
    tokens.c.idempotency_key == bindparam("idempotency_key"),
)
# Joining each name with its maximum instead takes ten times as long.
_NAME = (tokens.c.owner_id, tokens.c.audience_id, tokens.c.name)
_RANKED = select(
    *(*_NAME, tokens.c.issued_at, tokens.c.expires_at),
    func.row_number()
    .over(partition_by=_NAME, order_by=(tokens.c.expires_at.desc(), tokens.c.issued_at))
    .label("rank"),
).subquery()
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
_INSERTION = insert(tokens).returning(tokens.c.id)
_SOME_TEXTS = (
    select(tokens.c.id, tokens.c.ciphertext)
    .where(tokens.c.ciphertext.is_not(None), tokens.c.id > bindparam("following"))
    .order_by(tokens.c.id)
)
_ENCRYPTION_ANEW = (
    update(tokens).where(tokens.c.id == bindparam("row_id")).values(ciphertext=bindparam("anew"))
)


class History:
    """Every token issued, encrypted, with its lineage.

    Each method takes the connection of the caller's transaction, so that what a rule has read
    and what it then writes are one step.

    Args:
        cipher: What encrypts now; asked each time, since a key can be replaced at any moment.
    """

    def __init__(self, cipher: Callable[[], MultiFernet]) -> None:
        self._cipher = cipher

    def row(self, connection: Connection, row_id: int) -> HistoryRow | None:
        """The row of this id, or None."""
        return _first(connection, _ROW, row_id=row_id)

    def row_of_jti(self, connection: Connection, jti: str) -> HistoryRow | None:
        """The row of the token that carries this `jti`, or None."""
        return _first(connection, _ROW_OF_JTI, jti=jti)

    def successor(self, connection: Connection, parent_id: int, key: str) -> HistoryRow | None:
        """The row that this idempotency key has already made of this parent, or None."""
        return _first(connection, _SUCCESSOR, parent_id=parent_id, idempotency_key=key)

    def rows(
        self,
        connection: Connection,
        *,
        owner_id: int | None = None,
        audience_id: int | None = None,
        expiring_after: int | None = None,
        following: int = 0,
        limit: int | None = None,
    ) -> list[HistoryRow]:
        """Rows, oldest first: all, or those that meet each condition that is given.

        Args:
            connection: The transaction to read in.
            owner_id: Of this owner.
            audience_id: For this audience.
            expiring_after: Not expired at this time.
            following: Newer than the row of this id.
            limit: So many of them at most.
        """
        query = _ROWS.where(tokens.c.id > following).limit(limit)
        if owner_id is not None:
            query = query.where(tokens.c.owner_id == owner_id)
        if audience_id is not None:
            query = query.where(tokens.c.audience_id == audience_id)
        if expiring_after is not None:
            query = query.where(tokens.c.expires_at > expiring_after)
        return [_history_row(row) for row in connection.execute(query)]

    def add(
        self, connection: Connection, row: NewRow, *, token: str, jti: str, kid: str | None
    ) -> int:
        """Write one row with its token, encrypted, and return its id."""
        values = vars(row) | {
            "roles": [[role.id, role.name] for role in row.roles],
            "jti": jti,
            "kid": kid,
            "ciphertext": self._cipher().encrypt(token.encode()),
        }
        row_id: int = connection.execute(_INSERTION, values).scalar_one()
        return row_id

    def reveal(self, row: HistoryRow) -> str:
        """The text of a row's token, or nothing once it has been dropped.

        Raises:
            cryptography.fernet.InvalidToken: The encryption key is not the one it was stored with.
        """
        if row.ciphertext is None:
            return ""
        return self._cipher().decrypt(row.ciphertext).decode()

    def reveal_if_possible(self, row: HistoryRow) -> str:
        """The text of a row's token, or nothing, and a line in the log, when it is damaged."""
        try:
            return self.reveal(row)
        except InvalidToken:
            logger.error("token_unreadable", extra={"facts": {"row": row.id}})  # noqa: TRY400
            return ""

    def drop_expired(self, connection: Connection, expired_at: int) -> int:
        """Drop the ciphertext of some rows that had expired by then, and say of how many."""
        some = (
            select(tokens.c.id)
            .where(tokens.c.ciphertext.is_not(None), tokens.c.expires_at <= expired_at)
            .limit(BATCH)
        )
        change = update(tokens).where(tokens.c.id.in_(some)).values(ciphertext=None)
        return connection.execute(change).rowcount

    def drop_unreadable(self, connection: Connection, *, following: int) -> tuple[int, int, int]:
        """Drop the ciphertext of those among some rows that no key of ours decrypts.

        Returns:
            How many rows there were, how many of them were dropped, and the id of the last.
        """
        rows = connection.execute(_SOME_TEXTS.limit(BATCH), {"following": following}).all()
        lost = [row.id for row in rows if not self._is_readable(row.ciphertext)]
        change = update(tokens).where(tokens.c.id.in_(lost)).values(ciphertext=None)
        connection.execute(change)
        return len(rows), len(lost), rows[-1].id if rows else following

    def _is_readable(self, ciphertext: bytes) -> bool:
        try:
            self._cipher().decrypt(ciphertext)
        except InvalidToken:
            return False
        return True

    def count_texts(self, connection: Connection, expired_at: int | None = None) -> int:
        """How many rows have their ciphertext, or had expired by then and still have it."""
        query = select(func.count()).where(tokens.c.ciphertext.is_not(None))
        if expired_at is not None:
            query = query.where(tokens.c.expires_at <= expired_at)
        return connection.execute(query).scalar_one()

    def encrypt_anew(self, connection: Connection, *, following: int) -> tuple[int, int]:
        """Encrypt some rows with the newest key.

        Returns:
            How many rows there were, and the id of the last of them.
        """
        cipher = self._cipher()
        rows = connection.execute(_SOME_TEXTS.limit(BATCH), {"following": following})
        changes = [{"row_id": row.id, "anew": cipher.rotate(row.ciphertext)} for row in rows]
        if not changes:
            return 0, following
        connection.execute(_ENCRYPTION_ANEW, changes)
        return len(changes), changes[-1]["row_id"]

    def newest(self, connection: Connection) -> Iterator[NewestToken]:
        """The newest token of each owner, audience and name, in the order of these."""
        return (NewestToken(**row._mapping) for row in connection.execute(_NEWEST))

    def check_keys(self, connection: Connection) -> None:
        """Decrypt the newest text there is.

        Raises:
            cryptography.fernet.InvalidToken: The encryption key is not the one it was stored with.
        """
        newest = _ROWS.where(tokens.c.ciphertext.is_not(None)).order_by(None)
        row = _first(connection, newest.order_by(tokens.c.expires_at.desc()).limit(1))
        if row is not None:
            self.reveal(row)


def _first(connection: Connection, query: Select[Any], **values: object) -> HistoryRow | None:
    row = connection.execute(query, values).first()
    return None if row is None else _history_row(row)


_NAMES = tuple(HistoryRow.__dataclass_fields__.keys() - {"roles"})


def _history_row(row: Row[Any]) -> HistoryRow:
    found = row._mapping  # public, by its documentation
    recorded = tuple(RecordedRole(role_id, name) for role_id, name in found["roles"])
    return HistoryRow(roles=recorded, **{name: found[name] for name in _NAMES})
