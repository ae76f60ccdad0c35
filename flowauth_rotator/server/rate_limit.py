"""Rate limits, counted in the database for all workers and servers together."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from sqlalchemy import Connection, Executable, bindparam, case, delete, not_, select, update

from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.schema import rate_counters

_MAX_CLOCK_SKEW = 60  # seconds between two servers
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True)
class Rate:
    """A number of actions per window of so many seconds."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse a rate like 10/minute.

        Raises:
            ValueError: The text is not a rate.
        """
        match = re.fullmatch(rf"([1-9][0-9]{{0,8}})/({'|'.join(_SECONDS)})", text, re.ASCII)
        if match is None:
            raise ValueError(text)
        return cls(int(match[1]), _SECONDS[match[2]])


@dataclass(frozen=True)
class RateLimit:
    """The limit of one action; a window starts with the first count after the last one.

    Attributes:
        rate: The permitted number of actions per window.
        keys: Identify the counter.
        description: The counted actions, as the message names them: "tokens were issued".
    """

    rate: Rate
    keys: tuple[str, ...]
    description: str

    def refuse_if_exceeded(self, connection: Connection, now: int) -> None:
        """Refuse the action if the limit is reached; do not count it.

        Args:
            connection: The transaction.
            now: Seconds since the epoch.
        """
        count, expires_at = connection.execute(_CURRENT, self._build_values(now)).first() or (
            0,
            now,
        )
        if count >= self.rate.amount:
            raise self._build_refusal(expires_at, now)

    def count_or_refuse(self, connection: Connection, now: int) -> None:
        """Count the action, or refuse it if the limit is reached."""
        increment = _build_increment(connection.dialect.name)
        count, expires_at = connection.execute(increment, self._build_values(now)).one()
        if count > self.rate.amount:
            raise self._build_refusal(expires_at, now)

    def take_back(self, connection: Connection, now: int) -> None:
        """Reduce the count by one action, which turned out not to count."""
        connection.execute(_DECREMENT, self._build_values(now))

    def _build_values(self, now: int) -> dict[str, object]:
        until = now + self.rate.seconds
        # A counter that expires later than this was written by a clock that has been set back.
        latest = until + _MAX_CLOCK_SKEW
        # Hashed: what a client typed as a name may be a password.
        key = hashlib.sha256(json.dumps(self.keys).encode()).hexdigest()
        return {"counter_key": key, "now": now, "until": until, "latest": latest}

    def _build_refusal(self, expires_at: int, now: int) -> Refused:
        seconds = max(1, expires_at - now)
        message = f"Too many {self.description}; try again in {seconds} s."
        return Refused(429, message, retry_after=seconds)


def delete_expired_counters(connection: Connection, now: int) -> None:
    """Delete the counters whose window has ended."""
    connection.execute(delete(rate_counters).where(rate_counters.c.expires_at <= now))


_HAS_ENDED = not_(rate_counters.c.expires_at.between(bindparam("now") + 1, bindparam("latest")))
_IS_CURRENT = (rate_counters.c.key == bindparam("counter_key")) & ~_HAS_ENDED
_CURRENT = select(rate_counters.c.count, rate_counters.c.expires_at).where(_IS_CURRENT)
_DECREMENT = (
    update(rate_counters)
    .where(_IS_CURRENT, rate_counters.c.count > 0)
    .values(count=rate_counters.c.count - 1)
)


@cache
def _build_increment(dialect: str) -> Executable:
    """Build the one statement that increments a counter or starts a new window.

    The module of a dialect is imported when it is used: that of PostgreSQL takes long.
    """
    insertion = import_module(f"sqlalchemy.dialects.{dialect}").insert(rate_counters)
    insertion = insertion.values(
        key=bindparam("counter_key"), count=1, expires_at=bindparam("until")
    )
    count, expires_at = rate_counters.c.count, rate_counters.c.expires_at
    upsert: Executable = insertion.on_conflict_do_update(
        index_elements=[rate_counters.c.key],
        set_={
            "count": case((_HAS_ENDED, 1), else_=count + 1),
            "expires_at": case((_HAS_ENDED, insertion.excluded.expires_at), else_=expires_at),
        },
    ).returning(count, expires_at)
    return upsert
