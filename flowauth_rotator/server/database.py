"""The database and its transactions: one SQLite file, or a PostgreSQL for several servers."""

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
_WRITERS = 7279  # the advisory lock of PostgreSQL that stands for the right to write
_PAGES = 1024  # of a backup between two reports of its progress
_NAP = 0.0005  # seconds between two attempts to become the writer
# How long to wait for a PostgreSQL that has gone silent: libpq's names, in its units.
_PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "10000", "keepalives_idle": "30"}
_SHORT_WAIT = 0.1  # seconds for a turn while the one whose turn it is waits in vain


class Busy(Exception):
    """Another writer did not end in time; a later attempt may succeed."""

    def __init__(self) -> None:
        super().__init__("another writer did not end in time")


class Database:
    """Durable commits, readers that never wait, one writer at a time.

    One writer at a time is what makes the rules simple: what a transaction has read is still true
    when it commits. SQLite has it by nature, and PostgreSQL by an advisory lock.

    Args:
        engine: Where the database is; see `sqlite` and `postgresql`.
        busy_seconds: How long a writer waits for another one before it gives up.
    """

    def __init__(self, engine: Engine, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.engine = engine
        self._writer = engine.execution_options(flowauth_in_turn=True)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._turn = threading.Lock()
        self._busy_seconds = busy_seconds
        self._is_stuck = False

    @classmethod
    def sqlite(cls, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """One file, which must exist: the data directory makes it with its mode."""
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": busy_seconds},
            hide_parameters=True,  # an error message must not carry ciphertext or a password hash
            pool_reset_on_return=None,  # each transaction here ends by itself
        )
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", lambda connection: _begin(connection, busy_seconds))
        return cls(engine, busy_seconds=busy_seconds)

    @classmethod
    def postgresql(cls, url: URL, *, busy_seconds: float = BUSY_SECONDS) -> Database:
        """A PostgreSQL that perhaps other servers use too."""
        options = url.query.get("options", "")
        options = options if isinstance(options, str) else " ".join(options)
        query = {**_PATIENCE, **url.query, "options": f"{options} -c lock_timeout={busy_seconds}s"}
        engine = create_engine(
            url.set(drivername="postgresql+psycopg", query=query),
            isolation_level="READ COMMITTED",  # a statement sees what was committed before it
            hide_parameters=True,
        )
        return cls(engine, busy_seconds=busy_seconds)

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that takes no lock; on SQLite a consistent view of the whole."""
        return self.engine.begin()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the right to write from its start to its end.

        It commits at the end of the block and rolls back when the block raises. Threads queue
        here for their turn, since those that wait in SQLite sleep and are not woken. Once a wait
        was in vain, only one thread goes on waiting, so that the others can answer what needs no
        turn.

        Raises:
            Busy: Another writer did not end in time.
        """
        if not self._turn.acquire(timeout=_SHORT_WAIT if self._is_stuck else self._busy_seconds):
            raise Busy
        try:
            with ExitStack() as transaction:
                connection = self._begun(transaction)
                yield connection
        finally:
            self._turn.release()

    def _begun(self, transaction: ExitStack) -> Connection:
        """The connection of a transaction that holds the right to write."""
        try:
            connection = transaction.enter_context(self._writer.begin())
            if not self._is_sqlite:
                connection.execute(_LOCK)
        except (Busy, OperationalError):
            self._is_stuck = True
            raise
        self._is_stuck = False
        return connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A transaction in which tables can be made anew: references are checked at its end.

        Nobody else writes meanwhile, and a failure leaves everything as it was.

        Raises:
            SetupError: A row refers to one that is not there.
        """
        if not self._is_sqlite:
            with self.writing() as connection:
                yield connection
            return
        # SQLite heeds this only outside a transaction; see "ALTER TABLE" in its documentation.
        with self._writer.connect() as connection:
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            driver.execute("PRAGMA foreign_keys=OFF").close()
            try:
                with connection.begin():
                    yield connection
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                    if broken:
                        raise SetupError(
                            f"In the database {len(broken)} rows refer to rows that are not "
                            "there; nothing was changed."
                        )
            finally:
                driver.execute("PRAGMA foreign_keys=ON").close()

    def backup(self, path: Path, progress: Callable[[int, int], object]) -> None:
        """Copy an SQLite database as it is at this moment into a file, while others write on.

        Args:
            path: The file to write, which must exist and be empty.
            progress: Called with the pages that are left and the pages that there are.
        """
        with (
            self.reading() as connection,
            closing(sqlite3.connect(path, isolation_level=None)) as copy,
        ):
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # the snapshot
            source = cast("sqlite3.Connection", connection.connection.driver_connection)
            source.backup(
                copy, pages=_PAGES, progress=lambda _status, left, total: progress(left, total)
            )

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


_LOCK = text(f"SELECT pg_advisory_xact_lock({_WRITERS})")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    """Leave transactions to `_begin`, and make each commit survive a power cut."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "wal_autocheckpoint=8000",  # pages; at 1000 one renewal in a hundred would wait for it
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection, busy_seconds: float) -> None:
    """Begin as the SQLAlchemy documentation advises for SQLite, since its driver begins late."""
    driver = cast("sqlite3.Connection", connection.connection.driver_connection)
    if not connection.get_execution_options().get("flowauth_in_turn"):
        driver.execute("BEGIN").close()
        return
    # SQLite itself would sleep for up to a tenth of a second where a writer needs a millisecond.
    give_up_at = time.monotonic() + busy_seconds
    driver.execute("PRAGMA busy_timeout=0").close()
    try:
        while not _has_begun(connection, driver):
            if time.monotonic() > give_up_at:
                raise Busy
            time.sleep(_NAP)
    finally:
        driver.execute(f"PRAGMA busy_timeout={busy_seconds * 1000:.0f}").close()


def _has_begun(connection: Connection, driver: sqlite3.Connection) -> bool:
    """Whether this is the writer now; what is wrong otherwise is raised as SQLAlchemy's error."""
    try:
        driver.execute("BEGIN IMMEDIATE").close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    return True
