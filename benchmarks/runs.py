"""Runs of the server's figures, what one core signs beside each, and the table of all."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import Any, Generic, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.speed import signatures_per_second

T = TypeVar("T")

WIDTH = 120  # without a terminal
DIGITS = {"ms": 1, "x": 2}

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


@dataclass(frozen=True)
class Signing:
    """Signatures a second of one core."""

    rsa_3072: float
    rsa_4096: float


@dataclass(frozen=True)
class Run(Generic[T]):
    """What was measured once, and what one core signed right before and after."""

    result: T
    signing: Signing


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        number: which of the eight it belongs to.
        what: what was measured.
        runs: what was seen each time.
        value: what a run counts for.
        unit: in what; `x` is a ratio.
        at_least: what the median should not fall below.
        at_most: what it should not exceed.
        note: what else was seen.
    """

    number: int
    what: str
    runs: Sequence[Run[Any]]
    value: Callable[[Run[Any]], float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def values(self) -> list[float]:
        """Of all runs, in order of size."""
        return sorted(map(self.value, self.runs))

    @property
    def reached(self) -> bool:
        """Whether the median is where it should be."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= median(self.values) <= high

    @property
    def target(self) -> str:
        """Where the median should be."""
        if self.at_least is not None:
            return f"≥ {self.shown(self.at_least)}"
        return "" if self.at_most is None else f"≤ {self.shown(self.at_most)}"

    def shown(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.{DIGITS.get(self.unit, 0)}f} {self.unit}".rstrip()


def once(what: str, act: Callable[[], T], tell: Callable[[T], str]) -> Run[T]:
    """One run, described in a line."""
    with console.status(f"{what} ...", refresh_per_second=1):
        run = Run(*beside_signing(act))
    signed = f"{run.signing.rsa_3072:.0f} and {run.signing.rsa_4096:.0f} /s"
    console.print(f"[dim]{what}: {tell(run.result)}; a core signs {signed}[/]")
    return run


def beside_signing(act: Callable[[], T]) -> tuple[T, Signing]:
    """What `act` returns, and how fast one core signed right before and right after it."""
    before = _signing()
    result = act()
    after = _signing()
    return result, Signing(
        (before.rsa_3072 + after.rsa_3072) / 2, (before.rsa_4096 + after.rsa_4096) / 2
    )


def _signing() -> Signing:
    return Signing(*map(signatures_per_second, (3072, 4096)))


def table(figures: Sequence[Figure]) -> Table:
    """The figures, a line between those of different numbers."""
    shown = Table(
        title="\nFigures of the renewal server",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    shown.add_column("")
    shown.add_column("what")
    for heading in ("figure", "spread", "target", "RSA-3072", "RSA-4096", "runs"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for figure, following in zip_longest(figures, figures[1:]):
        shown.add_row(
            *_cells(figure),
            end_section=following is not None and following.number != figure.number,
        )
    return shown


def _cells(figure: Figure) -> tuple[str, ...]:
    low, high = figure.values[0], figure.values[-1]
    colour = "green" if figure.reached else "yellow"
    return (
        str(figure.number),
        figure.what + (f"\n[dim]{figure.note}[/]" if figure.note else ""),
        f"[bold {colour}]{figure.shown(median(figure.values))}[/]",
        f"{figure.shown(low).split()[0]} to {figure.shown(high).split()[0]}" if low < high else "",
        figure.target,
        f"{median(run.signing.rsa_3072 for run in figure.runs):.0f} /s",
        f"{median(run.signing.rsa_4096 for run in figure.runs):.0f} /s",
        str(len(figure.runs)),
    )
