"""Rate limits, counted in the database for all workers and servers together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from limits import RateLimitItem
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import Connection, Executable, bindparam, case, delete, not_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError

from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import rate_counters

_MAX_CLOCK_SKEW = 60  # seconds between two servers


@dataclass(frozen=True)
class RateLimit:
    """The limit of one action.

    Attributes:
        limit: The permitted number of actions per window.
        keys: Identify the counter.
        description: The counted actions, as the message names them: "tokens were issued".
    """

    limit: RateLimitItem
    keys: tuple[str, ...]
    description: str

    def refuse_if_exceeded(self, connection: Connection, now: int) -> None:
        """Refuse the action if the limit is reached; do not count it.

        Args:
            connection: The transaction.
            now: Seconds since the epoch.
        """
        limiter = self._build_limiter(connection, now)
        if not limiter.test(self.limit, *self.keys):
            raise self._build_refusal(limiter, now)

    def count_or_refuse(self, connection: Connection, now: int) -> None:
        """Count the action, or refuse it if the limit is reached."""
        limiter = self._build_limiter(connection, now)
        if not limiter.hit(self.limit, *self.keys):
            raise self._build_refusal(limiter, now)

    def take_back(self, connection: Connection, now: int) -> None:
        """Reduce the count by one action, which turned out not to count."""
        storage = _Counters(connection, now, self.limit.get_expiry())
        key = self.limit.key_for(*self.keys)
        if storage.get(key) > 0:
            storage.incr(key, self.limit.get_expiry(), amount=-1)

    def _build_limiter(self, connection: Connection, now: int) -> FixedWindowRateLimiter:
        return FixedWindowRateLimiter(_Counters(connection, now, self.limit.get_expiry()))

    def _build_refusal(self, limiter: FixedWindowRateLimiter, now: int) -> Refused:
        reset_time = int(limiter.get_window_stats(self.limit, *self.keys).reset_time)
        seconds = max(1, reset_time - now)
        message = f"Too many {self.description}; try again in {seconds} s."
        return Refused(429, message, retry_after=seconds)


def delete_expired_counters(connection: Connection, now: int) -> None:
    """Delete the counters whose window has ended."""
    connection.execute(delete(rate_counters).where(rate_counters.c.expires_at <= now))


class _Counters(Storage):
    """The storage of the `limits` library, in the caller's transaction."""

    STORAGE_SCHEME = ["flowauth-rotator"]  # noqa: RUF012 - the library's attribute
    base_exceptions = DatabaseError

    def __init__(self, connection: Connection, now: int, window: int) -> None:
        super().__init__()
        self._connection = connection
        self._now = now
        # A counter that expires later than this was written by a clock that has been set back.
        self._window = {"now": now, "latest": now + window + _MAX_CLOCK_SKEW}

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment a counter; a new window starts with the first count after the last one."""
        statement = _INCREMENTS[self._connection.dialect.name]
        values = {"counter_key": key, "amount": amount, "until": self._now + expiry} | self._window
        return int(self._connection.execute(statement, values).scalar_one())

    def get(self, key: str) -> int:
        """Return the count of the current window, or 0."""
        row = self._connection.execute(_CURRENT, {"counter_key": key} | self._window).first()
        return 0 if row is None else row[0]

    def get_expiry(self, key: str) -> float:
        """Return the end of the current window in epoch seconds; now without a window."""
        row = self._connection.execute(_CURRENT, {"counter_key": key} | self._window).first()
        return self._now if row is None else row[1]

    def check(self) -> bool:
        """Return True: the counters are usable as long as the transaction is."""
        return True

    def reset(self) -> int:
        """Delete all counters."""
        return self._connection.execute(delete(rate_counters)).rowcount

    def clear(self, key: str) -> None:
        """Delete one counter."""
        self._connection.execute(delete(rate_counters).where(rate_counters.c.key == key))


_ENDED = not_(rate_counters.c.expires_at.between(bindparam("now") + 1, bindparam("latest")))
_CURRENT = select(rate_counters.c.count, rate_counters.c.expires_at).where(
    rate_counters.c.key == bindparam("counter_key"), ~_ENDED
)


def _build_increment(insertion: Any) -> Executable:  # noqa: ANN401 - of either dialect
    """Build the one statement that increments a counter or starts a new window."""
    insertion = insertion.values(
        key=bindparam("counter_key"), count=bindparam("amount"), expires_at=bindparam("until")
    )
    count, expires_at = rate_counters.c.count, rate_counters.c.expires_at
    new = insertion.excluded
    upsert: Executable = insertion.on_conflict_do_update(
        index_elements=[rate_counters.c.key],
        set_={
            "count": case((_ENDED, new.count), else_=count + new.count),
            "expires_at": case((_ENDED, new.expires_at), else_=expires_at),
        },
    ).returning(count)
    return upsert


_INCREMENTS = {
    "sqlite": _build_increment(sqlite.insert(rate_counters)),
    "postgresql": _build_increment(postgresql.insert(rate_counters)),
}
