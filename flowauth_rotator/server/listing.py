"""Lists of the history, in batches that bound memory and the length of each transaction."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.fernet import InvalidToken

from flowauth_rotator.server.accounts import Accounts, User
from flowauth_rotator.server.database import Database
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import BATCH, History, HistoryRow, RowFilter
from flowauth_rotator.server.settings import Settings

_ALL_ROWS = RowFilter()


class Listing:
    """Lists issued tokens."""

    def __init__(
        self, database: Database, accounts: Accounts, history: History, settings: Settings
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._history = history
        self._settings = settings

    def list_renewable(
        self, owner: User, audience_id: int, *, now: int
    ) -> Iterator[tuple[HistoryRow, str]]:
        """Yield the renewable rows of an owner on an audience with their tokens, oldest first."""
        conditions = RowFilter(
            owner_id=owner.id,
            audience_id=audience_id,
            expiring_after=now - self._settings.renew_expired_grace,
            with_revoked=False,
        )
        return self._list(audience_id, conditions)

    def list_all(self, owner: User, audience_id: int) -> Iterator[tuple[HistoryRow, str]]:
        """Yield every row of an owner on an audience, oldest first, with its token if stored."""
        return self._list(audience_id, RowFilter(owner_id=owner.id, audience_id=audience_id))

    def iterate_rows(self, conditions: RowFilter = _ALL_ROWS) -> Iterator[HistoryRow]:
        """Yield the rows that meet all conditions, oldest first."""
        return (row for rows in self._read_batches(conditions) for row in rows)

    def _list(self, audience_id: int, conditions: RowFilter) -> Iterator[tuple[HistoryRow, str]]:
        with self._database.reading() as connection:
            if self._accounts.find_audience(connection, audience_id) is None:
                raise Refused(404, "There is no server with this id.")
        batches = self._read_batches(conditions)
        return (pair for rows in batches for pair in self._decrypt_rows(rows))

    def _read_batches(self, conditions: RowFilter) -> Iterator[list[HistoryRow]]:
        """Read rows in batches, to bound memory and the length of each transaction."""
        last_id = 0
        while True:
            with self._database.reading() as connection:
                rows = self._history.list_rows(
                    connection, conditions, after_id=last_id, limit=BATCH
                )
            yield rows
            if len(rows) < BATCH:
                return
            last_id = rows[-1].id

    def _decrypt_rows(self, rows: list[HistoryRow]) -> list[tuple[HistoryRow, str]]:
        try:
            return [(row, self._history.reveal(row)) for row in rows]
        except InvalidToken:  # the encryption key was replaced after the rows were read
            with self._database.reading() as connection:
                reread = [self._history.find_row(connection, row.id) for row in rows]
            return [(row, self._history.reveal_if_possible(row)) for row in reread if row]
