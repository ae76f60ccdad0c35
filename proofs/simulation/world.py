"""Time, chance and the order of events: all of a schedule follows from its seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import NoReturn

from greenlet import GreenletExit, getcurrent, greenlet

BEGINNING = 1_800_000_000.0  # in the year 2027


class World:
    """One schedule's clock, dice and queue of events.

    Args:
        seed: what everything that happens by chance follows from.
        is_traced: whether to keep a readable line of each thing that happens.

    Attributes:
        now: the true time, in seconds since the epoch; the clocks of processes may differ.
        random: the dice.
        is_calm: whether all faults have ended.
        trace: what happened, in order.
        seen: how often what kind of thing happened.
    """

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.random = random.Random(seed)  # noqa: S311 - to be replayed
        random.seed(seed)  # of the pauses between two attempts
        self.now = BEGINNING
        self.is_calm = False
        self.trace: list[str] = []
        self.seen: list[str] = []
        self._is_traced = is_traced
        self._queue: list[tuple[float, float, int, Callable[[], object]]] = []
        self._number = 0

    def at(self, moment: float, act: Callable[[], object]) -> None:
        """Let something happen then; of what happens at once, any may come first."""
        self._number += 1
        heapq.heappush(self._queue, (moment, self.random.random(), self._number, act))

    def run(self) -> None:
        """Let everything happen, until nothing is to come."""
        while self._queue:
            moment, _, _, act = heapq.heappop(self._queue)
            self.now = max(self.now, moment)
            act()

    def chance(self, probability: float) -> bool:
        """Throw the dice; nothing untoward happens once it is calm."""
        return not self.is_calm and probability > 0 and self.random.random() < probability

    def say(self, who: str, what: str) -> None:
        """Keep a line of the trace."""
        if self._is_traced:
            self.trace.append(f"{self.now - BEGINNING:12.3f}  {who:<8}  {what}")

    def count(self, kind: str) -> None:
        """Keep count of a kind of event, for the figures."""
        self.seen.append(kind)


class Process:
    """What runs beside others and may die at any point: a greenlet.

    Args:
        world: where.
        name: who, in the trace.
        act: what it does.
    """

    def __init__(self, world: World, name: str, act: Callable[[Process], object]) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.crash_at: str | None = None
        self.crash_rate = 0.0
        self._hub = getcurrent()
        self._greenlet = greenlet(act, parent=self._hub)

    def start(self) -> None:
        """Begin, or go on."""
        if not self.is_dead:
            self._greenlet.switch(self)

    def sleep(self, seconds: float) -> None:
        """Let others act for so long."""
        if self.is_dead:
            raise GreenletExit
        self.world.at(self.world.now + seconds, self.start)
        self._hub.switch()

    def breathe(self) -> None:
        """Let others act for a moment."""
        self.sleep(self.world.random.choice((0.001, 0.01, 0.1, 1.0)) * self.world.random.random())

    def point(self, name: str) -> None:
        """One of the points P0 to P13: here it may die, as by `kill -9`."""
        if self.is_dead:
            raise GreenletExit
        if (self.crash_at == name and not self.world.is_calm) or self.world.chance(self.crash_rate):
            self.die(name)

    def die(self, where: str) -> NoReturn:
        """End at once."""
        self.is_dead = True
        self.world.count(f"killed at {where}")
        self.world.say(self.name, f"killed at {where}")
        raise GreenletExit
