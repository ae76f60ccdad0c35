"""Measure two ways of doing the same in turn, so that a busy machine slows both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import click

from benchmarks.load import LoadFailed
from demo.parts import PartFailed
from flowauth_rotator.core.errors import RotatorError


class AnyFigure(Protocol):
    """A line of either program's table."""

    @property
    def number(self) -> int:
        """Which figure the line belongs to."""

    @property
    def values(self) -> Sequence[float]:
        """The value of each repetition."""


F = TypeVar("F", bound=AnyFigure)


class FigureMissing(click.ClickException):
    """A benchmark did not produce a figure; the message says which benchmark, and why."""


@dataclass(frozen=True)
class Pairs:
    """Seconds, repetition by repetition: of the baseline, and of ours right before or after it."""

    baseline: list[float]
    ours: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times as long ours took."""
        return [ours / base for base, ours in zip(self.baseline, self.ours, strict=True)]

    @property
    def differences(self) -> list[float]:
        """How many milliseconds longer ours took."""
        return [(ours - base) * 1000 for base, ours in zip(self.baseline, self.ours, strict=True)]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        number: which figure the line belongs to.
        ours, baseline: what was done, and what it is compared with.
        pairs: what was measured.
        target: what the median should not exceed.
        unit: `x` for a ratio, `ms` for a difference.
        note: what else was seen.
    """

    number: int
    ours: str
    baseline: str
    pairs: Pairs
    target: float
    unit: str = "x"
    note: str = ""

    @property
    def values(self) -> list[float]:
        """The figure of each repetition."""
        return self.pairs.ratios if self.unit == "x" else self.pairs.differences

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between these lies the middle half of the repetitions."""
        low, _, high = statistics.quantiles(self.values, method="inclusive")
        return low, high


def alternate(baseline: Callable[[], float], ours: Callable[[], float], repetitions: int) -> Pairs:
    """Call both, each `repetitions` times, for the seconds that they took.

    Who goes first changes from one repetition to the next.
    """
    pairs = Pairs([], [])
    for repetition in range(repetitions):
        turns = [(baseline, pairs.baseline), (ours, pairs.ours)]
        for act, seconds in turns if repetition % 2 else reversed(turns):
            seconds.append(act())
    return pairs


def timed(
    act: Callable[[], object], *, before: Callable[[], object] = lambda: None
) -> Callable[[], float]:
    """A call of `act` that returns the seconds it took; `before` goes first and is not timed."""

    def run() -> float:
        before()
        began = time.perf_counter()
        act()
        return time.perf_counter() - began

    return run


def produce_figures(
    name: str, numbers: Iterable[int], measure: Callable[[], Sequence[F]]
) -> Sequence[F]:
    """Call `measure`, and make sure that it returns a line of finite values for each number.

    Raises:
        FigureMissing: A line or a value is missing, or `measure` failed.
    """
    try:
        figures = measure()
    except (LoadFailed, OSError, PartFailed, RotatorError) as error:
        raise FigureMissing(f"The benchmark {name!r} failed: {error}") from error
    missing = set(numbers) - {figure.number for figure in figures}
    missing |= {figure.number for figure in figures if not _are_finite(figure.values)}
    if missing:
        listed = ", ".join(map(str, sorted(missing)))
        raise FigureMissing(f"The benchmark {name!r} did not produce a value of figure {listed}.")
    return figures


def _are_finite(values: Sequence[float]) -> bool:
    return bool(values) and all(map(math.isfinite, values))
