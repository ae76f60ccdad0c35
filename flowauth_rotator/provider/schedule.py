"""When the checks of a schedule fall: a cron expression, a word of Airflow's, or a duration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import TypeAlias

from flowauth_rotator.monitoring.snapshot import PATIENCE
from flowauth_rotator.provider.compat import cron_after

Schedule: TypeAlias = "str | timedelta | None"  # None: nobody knows it

GRACE = timedelta(minutes=2)  # for a check to begin and to end


def checks_between(schedule: Schedule, since: datetime, until: datetime, most: int) -> int | None:
    """How many checks fall between two times, up to `most`; None if nobody knows."""
    if isinstance(schedule, timedelta):
        return min((until - since) // schedule, most)
    with suppress(ValueError, TypeError):
        fires = takewhile(lambda time: time < until, _fires(schedule, since))
        return sum(1 for _ in islice(fires, most))
    return None


def interval(schedule: Schedule, now: datetime) -> timedelta | None:
    """The time from the next check to the one after it; None if nobody knows."""
    if isinstance(schedule, timedelta):
        return schedule
    with suppress(ValueError, TypeError):
        first, second = islice(_fires(schedule, now), 2)
        return second - first
    return None


def deadline(schedule: Schedule, checked_at: datetime) -> datetime | None:
    """When two checks after that one have been missed; None if nobody knows."""
    if isinstance(schedule, timedelta):
        return checked_at + 2 * schedule + GRACE
    with suppress(ValueError, TypeError):
        _, second = islice(_fires(schedule, checked_at), 2)
        return second + GRACE
    return None


def two_checks(schedule: Schedule, since: datetime) -> timedelta:
    """How long two checks take; an hour where nobody knows."""
    until = deadline(schedule, since)
    return until - since if until else PATIENCE


def first_check(schedule: Schedule, due: datetime, following: datetime | None) -> datetime | None:
    """The first check from `due` on, if it is known.

    Args:
        schedule: how often is checked.
        due: an aware time.
        following: when the next check comes; None if none does.
    """
    if following is None or due <= following:
        return following
    if isinstance(schedule, timedelta):
        return following + -(-(due - following) // schedule) * schedule
    with suppress(ValueError, TypeError):
        return next(_fires(schedule, due))
    return None


def _fires(schedule: str | None, moment: datetime) -> Iterator[datetime]:
    while True:
        moment = cron_after(str(schedule), moment)
        yield moment
        moment += timedelta(seconds=1)
