"""A timer for rotations that do not wait between two attempts."""

from __future__ import annotations

import time


class InstantTimer:
    """Notes pauses instead of making them.

    Attributes:
        pauses: the pauses, in seconds.
    """

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Note a pause."""
        self.pauses.append(seconds)
