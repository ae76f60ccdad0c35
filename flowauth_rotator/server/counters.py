"""Counters of requests, in memory that the workers of one server share.

The memory is anonymous: no file can be emptied, cut or left without space under a worker. Each
worker writes a slot of its own, so that a worker that is killed spoils no other, and the worker in
its place counts on from what it left.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from dataclasses import dataclass, field

RENEWAL_RESULTS = ("renewed", "replayed", "rehearsed", "refused", "failed")
EVENTS = (*RENEWAL_RESULTS, "forked")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# The names of the views; a request that matches no route, or one added later, has the first.
VIEWS = (
    *("", "signin", "is_signed_in", "signout", "version", "servers", "roles", "tokens", "mint"),
    *("renew", "renew_presented", "jwks", "openapi", "healthz", "readyz", "metrics"),
)

# A slot is an array of doubles: one for each event, then the series of each view and status.
_MAX_SERIES = 256
_STATUS, _VIEW, _BUCKETS = 0, 1, 2  # in a series; a status of 0 marks the first unused series
_SUM = _BUCKETS + len(BOUNDS) + 1
_SERIES = _SUM + 1
_SLOT = len(EVENTS) + _MAX_SERIES * _SERIES


@dataclass
class Histogram:
    """The durations of requests: the number in each bucket, the last without bound, and the sum."""

    buckets: list[float] = field(default_factory=lambda: [0.0] * (len(BOUNDS) + 1))
    sum: float = 0.0


class Counters:
    """Counts requests; a process that has no slot counts nothing.

    Args:
        slots: The maximum number of processes.
    """

    def __init__(self, slots: int = 1) -> None:
        size = 8 * slots * _SLOT
        self._memory = mmap.mmap(-1, size)
        self._memory.write(bytes(size))  # reserve it now: no later access needs a new page
        self._values = memoryview(self._memory).cast("d")
        self._slots = slots
        self._lock = threading.Lock()
        self.use_slot(0)

    def use_slot(self, slot: int | None) -> None:
        """Let this process count in a slot that no other process uses."""
        self._slot = slot
        self._offsets: dict[tuple[str, int], int] = {}
        if slot is not None:
            self._offsets = dict(self._list_series(slot))

    def count_request(self, view: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            view: The name of the view.
            status: The status of the response.
            seconds: The duration.
        """
        with self._lock:
            if self._slot is None:
                return
            offset = self._find_series(self._slot, view if view in VIEWS else "", status)
            if offset is not None:
                self._values[offset + _BUCKETS + bisect_left(BOUNDS, seconds)] += 1
                self._values[offset + _SUM] += seconds

    def count_event(self, event: str) -> None:
        """Count one of `EVENTS`."""
        with self._lock:
            if self._slot is not None:
                self._values[self._slot * _SLOT + EVENTS.index(event)] += 1

    def sum_event(self, event: str) -> float:
        """Return how often an event was counted, by all processes."""
        index = EVENTS.index(event)
        return sum(self._values[slot * _SLOT + index] for slot in range(self._slots))

    def sum_requests(self) -> dict[tuple[str, int], Histogram]:
        """Return the durations of requests by view and status, of all processes."""
        sums: dict[tuple[str, int], Histogram] = {}
        for slot in range(self._slots):
            for key, offset in self._list_series(slot):
                histogram = sums.setdefault(key, Histogram())
                for index in range(len(BOUNDS) + 1):
                    histogram.buckets[index] += self._values[offset + _BUCKETS + index]
                histogram.sum += self._values[offset + _SUM]
        return sums

    def _find_series(self, slot: int, view: str, status: int) -> int | None:
        """Return the offset of a series, a new one if needed; None if there is no more room."""
        if (view, status) not in self._offsets:
            if len(self._offsets) == _MAX_SERIES:
                return None
            offset = _compute_offset(slot, len(self._offsets))
            self._values[offset + _VIEW] = VIEWS.index(view)
            self._values[offset + _STATUS] = status  # last: it makes the series visible to others
            self._offsets[view, status] = offset
        return self._offsets[view, status]

    def _list_series(self, slot: int) -> list[tuple[tuple[str, int], int]]:
        series = []
        for number in range(_MAX_SERIES):
            offset = _compute_offset(slot, number)
            status = int(self._values[offset + _STATUS])
            if not status:
                break
            series.append(((VIEWS[int(self._values[offset + _VIEW])], status), offset))
        return series


def _compute_offset(slot: int, series: int) -> int:
    return slot * _SLOT + len(EVENTS) + series * _SERIES
