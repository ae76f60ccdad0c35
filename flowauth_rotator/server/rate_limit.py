"""How often something may be done, counted in the database for all workers and servers together."""

from __future__ import annotations

from typing import Any

from limits import RateLimitItem
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import Connection, Executable, bindparam, case, delete, not_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError

from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import rate_counters

_CLOCKS_DIFFER = 60  # seconds by which two servers' clocks may


def refuse_beyond(
    limit: RateLimitItem, *who: str, what: str, connection: Connection, now: int
) -> None:
    """Refuse what would be once too often.

    Args:
        limit: How often it may be done.
        who: What is counted together.
        what: What there were too many of, for the message.
        connection: The transaction.
        now: Seconds since the epoch.
    """
    limiter = FixedWindowRateLimiter(_Counters(connection, now, limit.get_expiry()))
    if not limiter.test(limit, *who):
        _refuse(limiter, limit, who, what, now)


def count(limit: RateLimitItem, *who: str, what: str, connection: Connection, now: int) -> None:
    """Count what is being done, and refuse it when it is once too often."""
    limiter = FixedWindowRateLimiter(_Counters(connection, now, limit.get_expiry()))
    if not limiter.hit(limit, *who):
        _refuse(limiter, limit, who, what, now)


def forget_passed(connection: Connection, now: int) -> None:
    """Delete the counters whose window has passed."""
    connection.execute(delete(rate_counters).where(rate_counters.c.expires_at <= now))


def _refuse(
    limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: tuple[str, ...], what: str, now: int
) -> None:
    seconds = max(1, int(limiter.get_window_stats(limit, *who).reset_time) - now)
    raise Refused(429, f"Too many {what}; try again in {seconds} s.", retry_after=seconds)


class _Counters(Storage):
    """Counters of the `limits` library in the database of the caller's transaction."""

    STORAGE_SCHEME = ["flowauth-rotator"]  # noqa: RUF012 - as the library has it
    base_exceptions = DatabaseError

    def __init__(self, connection: Connection, now: int, window: int) -> None:
        super().__init__()
        self._connection = connection
        self._now = now
        # A window that ends later than one that begins now was begun by a clock since set back.
        self._open = {"now": now, "latest": now + window + _CLOCKS_DIFFER}

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a window that begins with the first count after the last one has passed."""
        counting = _COUNTING[self._connection.dialect.name]
        values = {"which": key, "amount": amount, "until": self._now + expiry} | self._open
        return int(self._connection.execute(counting, values).scalar_one())

    def get(self, key: str) -> int:
        """The count of the open window, or 0."""
        found = self._connection.execute(_OPEN, {"which": key} | self._open).first()
        return 0 if found is None else found[0]

    def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since the epoch; now without one."""
        found = self._connection.execute(_OPEN, {"which": key} | self._open).first()
        return self._now if found is None else found[1]

    def check(self) -> bool:
        """Whether the counters can be used: as long as the transaction can."""
        return True

    def reset(self) -> int:
        """Forget every counter."""
        return self._connection.execute(delete(rate_counters)).rowcount

    def clear(self, key: str) -> None:
        """Forget one counter."""
        self._connection.execute(delete(rate_counters).where(rate_counters.c.key == key))


_PASSED = not_(rate_counters.c.expires_at.between(bindparam("now") + 1, bindparam("latest")))
_OPEN = select(rate_counters.c.count, rate_counters.c.expires_at).where(
    rate_counters.c.key == bindparam("which"), ~_PASSED
)


def _counting(insertion: Any) -> Executable:  # noqa: ANN401 - of either dialect
    """One statement that counts, or begins to count anew in a new window."""
    first = insertion.values(
        key=bindparam("which"), count=bindparam("amount"), expires_at=bindparam("until")
    )
    counted, until = rate_counters.c.count, rate_counters.c.expires_at
    upsert: Executable = first.on_conflict_do_update(
        index_elements=[rate_counters.c.key],
        set_={
            "count": case((_PASSED, first.excluded.count), else_=counted + first.excluded.count),
            "expires_at": case((_PASSED, first.excluded.expires_at), else_=until),
        },
    ).returning(counted)
    return upsert


_COUNTING = {
    "sqlite": _counting(sqlite.insert(rate_counters)),
    "postgresql": _counting(postgresql.insert(rate_counters)),
}
