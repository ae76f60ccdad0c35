"""The database and its transactions: an SQLite file, or PostgreSQL for several servers."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from flowauth_rotator.server.errors import SetupError

BUSY_SECONDS = 5
_WRITE_LOCK_ID = 7279  # the PostgreSQL advisory lock that serializes writers
_BACKUP_PAGES = 1024  # between two progress reports
_POLL_INTERVAL = 0.0005  # seconds between two attempts to start a write transaction
# Timeouts for an unresponsive PostgreSQL: libpq's names and units.
_TIMEOUTS = {"connect_timeout": "5", "tcp_user_timeout": "10000", "keepalives_idle": "30"}
_STUCK_TIMEOUT = 0.1  # seconds for the write lock while its holder cannot start


class DatabaseBusy(Exception):
    """Another writer did not finish in time; a retry may succeed."""

    def __init__(self) -> None:
        super().__init__("another writer did not finish in time")


class Database:
    """A database with durable commits, readers that never wait, and one writer at a time.

    With one writer at a time, data that a write transaction has read stays valid until it
    commits. SQLite enforces this itself; on PostgreSQL an advisory lock does.

    Args:
        engine: See `sqlite` and `postgresql`.
        busy_seconds: The time that a writer waits for another one.
    """

    def __init__(self, engine: Engine, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.engine = engine
        self._writer = engine.execution_options(flowauth_writes=True)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._write_lock = threading.Lock()
        self._busy_seconds = busy_seconds
        self._is_stuck = False

    @classmethod
    def sqlite(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """Use an SQLite file, which must exist: the data directory creates it with its mode."""
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": busy_seconds},
            hide_parameters=True,  # keep ciphertexts and password hashes out of error messages
            pool_reset_on_return=None,  # every transaction here is ended explicitly
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", lambda connection: _begin(connection, busy_seconds))
        return cls(engine, busy_seconds=busy_seconds)

    @classmethod
    def postgresql(cls, url: URL, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """Use a PostgreSQL database, which other servers may share.

        A connection pooler may give each transaction to another session: no setting and no
        prepared statement outlives a transaction.
        """
        query = {**_TIMEOUTS, **url.query}
        engine = create_engine(
            url.set(drivername="postgresql+psycopg", query=query),
            connect_args={"prepare_threshold": None},
            isolation_level="READ COMMITTED",  # a statement sees all earlier commits
            hide_parameters=True,
        )
        return cls(engine, busy_seconds=busy_seconds)

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a transaction without a lock; on SQLite a consistent snapshot."""
        return self.engine.begin()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that holds the write lock from start to end.

        It commits at the end of the block and rolls back if the block raises. Threads queue for
        a lock of our own, since a thread that waits in SQLite sleeps and is not woken. After a
        timeout only one thread keeps waiting, so that the others can serve reads.

        Raises:
            DatabaseBusy: Another writer did not finish in time.
        """
        if not self._write_lock.acquire(
            timeout=_STUCK_TIMEOUT if self._is_stuck else self._busy_seconds
        ):
            raise DatabaseBusy
        try:
            with ExitStack() as transaction:
                connection = self._start_writing(transaction)
                yield connection
        finally:
            self._write_lock.release()

    def _start_writing(self, transaction: ExitStack) -> Connection:
        """Start a transaction that holds the write lock, and return its connection."""
        try:
            connection = transaction.enter_context(self._writer.begin())
            if not self._is_sqlite:
                timeout = {"milliseconds": f"{self._busy_seconds * 1000:.0f}"}
                connection.execute(_SET_LOCK_TIMEOUT, timeout)
                connection.execute(_TAKE_WRITE_LOCK)
        except (DatabaseBusy, OperationalError):
            self._is_stuck = True
            raise
        self._is_stuck = False
        return connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Open a write transaction that may recreate tables; verify foreign keys at its end.

        Raises:
            SetupError: A row references a missing row; the transaction was rolled back.
        """
        if not self._is_sqlite:
            with self.writing() as connection:
                yield connection
            return
        # SQLite ignores this inside a transaction; see "ALTER TABLE" in its documentation.
        with self._writer.connect() as connection:
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            driver.execute("PRAGMA foreign_keys=OFF").close()
            try:
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                    if broken:
                        raise SetupError(
                            f"{len(broken)} rows of the database reference missing rows; nothing "
                            "was changed. Restore the database from a backup."
                        )
            finally:
                driver.execute("PRAGMA foreign_keys=ON").close()

    def backup(self, path: Path, progress: Callable[[int, int], object]) -> None:
        """Copy a snapshot of an SQLite database into a file while others keep writing.

        Args:
            path: The file to write, which must exist and be empty.
            progress: Called with the number of remaining pages and of all pages.
        """
        with (
            self.reading() as connection,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # starts the snapshot
            source = cast("sqlite3.Connection", connection.connection.driver_connection)
            source.backup(
                copy,
                pages=_BACKUP_PAGES,
                progress=lambda _status, left, total: progress(left, total),
            )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


_SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :milliseconds, true)")
_TAKE_WRITE_LOCK = text(f"SELECT pg_advisory_xact_lock({_WRITE_LOCK_ID})")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    """Leave transactions to `_begin`, and make commits survive a power failure."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "wal_autocheckpoint=8000",  # pages; with 1000, one renewal in a hundred waits for it
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection, busy_seconds: float) -> None:
    """Begin explicitly, as SQLAlchemy's documentation advises: the SQLite driver begins late."""
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    if not connection.get_execution_options().get("flowauth_writes"):
        driver.execute("BEGIN").close()
        return
    # Poll: SQLite itself sleeps for up to 100 ms, while a writer needs 1 ms.
    deadline = time.monotonic() + busy_seconds
    driver.execute("PRAGMA busy_timeout=0").close()
    try:
        while not _try_begin(connection, driver):
            if time.monotonic() > deadline:
                raise DatabaseBusy
            time.sleep(_POLL_INTERVAL)
    finally:
        driver.execute(f"PRAGMA busy_timeout={busy_seconds * 1000:.0f}").close()


def _try_begin(connection: Connection, driver: sqlite3.Connection) -> bool:
    """Try to start a write transaction; other errors than a lock are raised by SQLAlchemy."""
    try:
        driver.execute("BEGIN IMMEDIATE").close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    return True
