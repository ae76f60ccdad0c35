"""The database: its schema, its transactions, and the history of every token ever issued.

Times are integers, seconds since the epoch in UTC. The history only grows: a renewal adds a row
that names its parent, and nothing changes the rows that are there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.fernet import MultiFernet
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Select,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    select,
)

metadata = MetaData(
    naming_convention={  # named constraints are what a later migration can alter
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(100), nullable=False, unique=True),
    Column("password_hash", String(255), nullable=False),
    sqlite_autoincrement=True,
)

audiences = Table(
    "audiences",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("max_lifetime_minutes", Integer, nullable=False),
    Column("latest_expiry", BigInteger),
    sqlite_autoincrement=True,
)

# Autoincrement, so that a new role never gets the id of a deleted one and, with it, the tokens.
roles = Table(
    "roles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("audience_id", ForeignKey(audiences.c.id), nullable=False),
    Column("name", String(100), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("max_lifetime_minutes", Integer, nullable=False),
    Column("latest_expiry", BigInteger),
    UniqueConstraint("audience_id", "name"),
    sqlite_autoincrement=True,
)

grants = Table(
    "grants",
    metadata,
    Column("user_id", ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("role_id", ForeignKey(roles.c.id, ondelete="CASCADE"), primary_key=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("parent_id", ForeignKey("tokens.id")),
    Column("idempotency_key", String(200)),
    Column("requested_minutes", Integer),
    Column("owner_id", ForeignKey(users.c.id), nullable=False),
    Column("audience_id", ForeignKey(audiences.c.id), nullable=False),
    Column("name", String(200), nullable=False, index=True),
    Column("jti", String(36), nullable=False, unique=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    UniqueConstraint("parent_id", "idempotency_key"),
    Index(None, "owner_id", "audience_id"),
    sqlite_autoincrement=True,
)

# No foreign key to roles: the history remembers a role that has been deleted since.
token_roles = Table(
    "token_roles",
    metadata,
    Column("token_id", ForeignKey(tokens.c.id), primary_key=True),
    Column("role_id", Integer, primary_key=True),
    Column("role_name", String(100), nullable=False),
)


class Database:
    """One SQLite file: durable commits, readers that never wait, one writer at a time.

    Args:
        path: The database file, which must exist: the data directory makes it with its mode.
        busy_seconds: How long a writer waits for another one before it gives up.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 5) -> None:
        self._engine = create_engine(
            f"sqlite:///{path}",
            connect_args={"timeout": busy_seconds},
            hide_parameters=True,  # an error message must not carry ciphertext or a password hash
        )
        self._turn = threading.Lock()
        self._writer = self._engine.execution_options(flowauth_begin="BEGIN IMMEDIATE")
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)

    def reading(self) -> AbstractContextManager[Connection]:
        """A consistent view of the database that takes no lock."""
        return self._engine.begin()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, so that what it read stays true.

        It commits at the end of the block and rolls back when the block raises. Threads queue
        here for their turn, since those that wait in SQLite sleep and are not woken.
        """
        with self._turn, self._writer.begin() as connection:
            yield connection

    def create(self) -> None:
        """Make the tables in an empty database."""
        with self.writing() as connection:
            metadata.create_all(connection)

    def check(self) -> None:
        """Read from every table once.

        Raises:
            sqlalchemy.exc.DatabaseError: The file is no database, or not this server's.
        """
        with self.reading() as connection:
            for table in metadata.sorted_tables:
                connection.execute(select(table).limit(1)).first()

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    """Leave transactions to `_begin`, and make each commit survive a power cut."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Begin as the SQLAlchemy documentation advises for SQLite, since its driver begins late."""
    connection.exec_driver_sql(connection.get_execution_options().get("flowauth_begin", "BEGIN"))


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
    issued_at: int
    expires_at: int
    roles: tuple[RecordedRole, ...]
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True)
class NewRow:
    """What the history writes down when a token is issued."""

    parent_id: int | None
    idempotency_key: str | None
    requested_minutes: int | None
    owner_id: int
    audience_id: int
    name: str
    jti: str
    issued_at: int
    expires_at: int
    roles: tuple[RecordedRole, ...]


_ROWS = (
    select(tokens, users.c.username.label("owner"), audiences.c.name.label("audience"))
    .join(users, tokens.c.owner_id == users.c.id)
    .join(audiences, tokens.c.audience_id == audiences.c.id)
    .order_by(tokens.c.id)
)


class History:
    """Every token issued, encrypted, with its lineage.

    Each method takes the connection of the caller's transaction, so that what a rule has read
    and what it then writes are one step.
    """

    def __init__(self, cipher: MultiFernet) -> None:
        self._cipher = cipher

    def row(self, connection: Connection, row_id: int) -> HistoryRow | None:
        """The row of this id, or None."""
        return _first(connection, _ROWS.where(tokens.c.id == row_id))

    def row_of_jti(self, connection: Connection, jti: str) -> HistoryRow | None:
        """The row of the token that carries this `jti`, or None."""
        return _first(connection, _ROWS.where(tokens.c.jti == jti))

    def successor(self, connection: Connection, parent_id: int, key: str) -> HistoryRow | None:
        """The row that this idempotency key has already made of this parent, or None."""
        same = (tokens.c.parent_id == parent_id) & (tokens.c.idempotency_key == key)
        return _first(connection, _ROWS.where(same))

    def rows(
        self,
        connection: Connection,
        *,
        owner_id: int | None = None,
        audience_id: int | None = None,
    ) -> list[HistoryRow]:
        """All rows, oldest first, or those of one owner, of one audience, or of both."""
        query = _ROWS
        if owner_id is not None:
            query = query.where(tokens.c.owner_id == owner_id)
        if audience_id is not None:
            query = query.where(tokens.c.audience_id == audience_id)
        return _all(connection, query)

    def add(self, connection: Connection, row: NewRow, token: str) -> int:
        """Write one row with its token, encrypted, and return its id."""
        values = {column: value for column, value in vars(row).items() if column != "roles"} | {
            "ciphertext": self._cipher.encrypt(token.encode())
        }
        insertion = tokens.insert().values(values).returning(tokens.c.id)
        row_id: int = connection.execute(insertion).scalar_one()
        recorded = [
            {"token_id": row_id, "role_id": role.id, "role_name": role.name} for role in row.roles
        ]
        connection.execute(token_roles.insert(), recorded)
        return row_id

    def reveal(self, row: HistoryRow) -> str:
        """The text of a row's token.

        Raises:
            cryptography.fernet.InvalidToken: The encryption key is not the one it was stored with.
        """
        return self._cipher.decrypt(row.ciphertext).decode()


def _first(connection: Connection, query: Select[Any]) -> HistoryRow | None:
    return next(iter(_all(connection, query)), None)


def _all(connection: Connection, query: Select[Any]) -> list[HistoryRow]:
    """Run a query of `_ROWS` and put each row's roles beside it: two statements, however many."""
    found = connection.execute(query).all()
    recorded = _roles_of(connection, query)
    return [_history_row(row, tuple(recorded.get(row.id, ()))) for row in found]


def _roles_of(connection: Connection, query: Select[Any]) -> dict[int, list[RecordedRole]]:
    """The recorded roles of the rows that a query selects, by row, each list sorted by name."""
    chosen = query.with_only_columns(tokens.c.id).order_by(None)
    rows = connection.execute(
        select(token_roles)
        .where(token_roles.c.token_id.in_(chosen))
        .order_by(token_roles.c.role_name)
    )
    recorded: dict[int, list[RecordedRole]] = {}
    for row in rows:
        recorded.setdefault(row.token_id, []).append(RecordedRole(row.role_id, row.role_name))
    return recorded


def _history_row(row: Row[Any], recorded: tuple[RecordedRole, ...]) -> HistoryRow:
    names = HistoryRow.__dataclass_fields__.keys() - {"roles"}
    return HistoryRow(roles=recorded, **{name: getattr(row, name) for name in names})
