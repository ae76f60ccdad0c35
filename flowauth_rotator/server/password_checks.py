"""Password hashing that leaves the machine to other requests: one at a time, at low priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

from flowauth_rotator.server.errors import Refused

MAX_WAITING = 3  # of a process; more are refused at once
_NICENESS = 19  # the lowest priority: renewals keep most of a busy processor

P = ParamSpec("P")
T = TypeVar("T")


class PasswordChecks:
    """Runs the password checks of this process one after the other, in a thread of their own.

    Hashing takes all processors for longer than ten renewals take, and anybody can request it.
    """

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(1 + MAX_WAITING)
        self._executor = ThreadPoolExecutor(1, "password-checks", initializer=_lower_priority)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue for the block.

        Raises:
            Refused: Too many checks are waiting.
        """
        if not self._places.acquire(blocking=False):
            raise Refused(503, "Too many clients sign in at once; try again.", retry_after=1)
        try:
            yield
        finally:
            self._places.release()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that hashes, and return its result.

        It must not hold a lock that others wait for: its thread may wait long for a processor.
        """
        return self._executor.submit(function, *args, **kwargs).result()


def _lower_priority() -> None:
    """Lower the priority of this thread, where the system has one for each thread, as Linux."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
