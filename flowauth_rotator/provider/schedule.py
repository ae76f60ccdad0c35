"""The times at which a schedule checks: a cron expression, a preset of Airflow, or a duration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import TypeAlias

from flowauth_rotator.monitoring.status import DEFAULT_GRACE_PERIOD
from flowauth_rotator.provider.compat import compute_next_fire

Schedule: TypeAlias = "str | timedelta | None"  # None: unknown

CHECK_DURATION = timedelta(minutes=2)  # for a check to start and to finish


def count_checks(schedule: Schedule, start: datetime, end: datetime, limit: int) -> int | None:
    """Count the checks between two times, up to `limit`; None if the schedule is unknown."""
    if isinstance(schedule, timedelta):
        return min((end - start) // schedule, limit)
    with suppress(ValueError, TypeError):
        fires = takewhile(lambda time: time < end, _iterate_fires(schedule, start))
        return sum(1 for _ in islice(fires, limit))
    return None


def compute_interval(schedule: Schedule, now: datetime) -> timedelta | None:
    """Return the time from the next check to the one after it; None if the schedule is unknown."""
    if isinstance(schedule, timedelta):
        return schedule
    with suppress(ValueError, TypeError):
        first, second = islice(_iterate_fires(schedule, now), 2)
        return second - first
    return None


def compute_deadline(schedule: Schedule, checked_at: datetime) -> datetime | None:
    """Return when the two checks after `checked_at` are missed; None if the schedule is unknown."""
    if isinstance(schedule, timedelta):
        return checked_at + 2 * schedule + CHECK_DURATION
    with suppress(ValueError, TypeError):
        _, second = islice(_iterate_fires(schedule, checked_at), 2)
        return second + CHECK_DURATION
    return None


def compute_grace_period(schedule: Schedule, start: datetime) -> timedelta:
    """Return the time that two checks take; an hour if the schedule is unknown."""
    deadline = compute_deadline(schedule, start)
    return deadline - start if deadline else DEFAULT_GRACE_PERIOD


def find_first_check(
    schedule: Schedule, due_at: datetime, next_check_at: datetime | None
) -> datetime | None:
    """Return the first check at or after `due_at`; None if it is unknown.

    Args:
        schedule: the schedule of the checks.
        due_at: an aware time.
        next_check_at: the time of the next check; None if there will be none.
    """
    if next_check_at is None or due_at <= next_check_at:
        return next_check_at
    if isinstance(schedule, timedelta):
        return next_check_at + -(-(due_at - next_check_at) // schedule) * schedule
    with suppress(ValueError, TypeError):
        return next(_iterate_fires(schedule, due_at))
    return None


def estimate_next_check(
    schedule: Schedule, checked_at: datetime | None, now: datetime
) -> datetime | None:
    """Return the next check after `now`; None if the schedule or the last check is unknown.

    Airflow 2 has no time for the next run of a DAG while a run of it is active.
    """
    if isinstance(schedule, timedelta):
        return find_first_check(schedule, now, checked_at + schedule) if checked_at else None
    with suppress(ValueError, TypeError):
        return next(_iterate_fires(schedule, now))
    return None


def _iterate_fires(schedule: str | None, time: datetime) -> Iterator[datetime]:
    while True:
        time = compute_next_fire(str(schedule), time)
        yield time
        time += timedelta(seconds=1)
