"""Prints the figures; asserts nothing."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure
from benchmarks.page import showing
from benchmarks.rotation import rotating
from benchmarks.scrape import scraping
from benchmarks.startup import parsing, starting
from benchmarks.survey import surveying

WIDTH = 120  # where there is no terminal to tell

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def main() -> None:
    """Measure one after the other, then show all."""
    began = time.monotonic()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flowauth-rotator-") as folder:
        measures: dict[str, Callable[[], list[Figure]]] = {
            "parsing the DAG file": lambda: parsing(Path(folder) / "parsing"),
            "starting the package and its command": starting,
            "surveying in Airflow": lambda: surveying(Path(folder) / "survey"),
            "rotating": lambda: rotating(Path(folder) / "rotation"),
            "showing the page": lambda: showing(Path(folder) / "page"),
            "scraping the plugin": lambda: scraping(Path(folder) / "scrape"),
        }
        for doing, measure in measures.items():
            with console.status(f"{doing} ..."):
                figures += measure()
    console.print(_table(figures))
    console.print(
        "A pair is ours and what it stands against, one right after the other, in changing order.\n"
        "Shown are the medians of the times, the median of the pairs' ratios (x) or differences\n"
        "(ms), and the spread of the middle half of these.\n"
        f"Measured in {time.monotonic() - began:.0f} s."
    )


def _table(figures: list[Figure]) -> Table:
    table = Table(
        title="\nFigures",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for heading in ("", "ours", "time", "against", "time"):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    for heading in ("figure", "spread", "target", "pairs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure, following in zip_longest(figures, figures[1:]):
        low, high = (_shown(value, figure.unit) for value in figure.quartiles)
        colour = "green" if figure.median <= figure.target else "yellow"
        table.add_row(
            str(figure.number),
            figure.ours + (f"\n[dim]{figure.note}[/]" if figure.note else ""),
            _seconds(figure.pairs.ours),
            figure.baseline,
            _seconds(figure.pairs.baseline),
            f"[bold {colour}]{_shown(figure.median, figure.unit)} {figure.unit}[/]",
            f"{low} to {high}",
            f"≤ {_shown(figure.target, figure.unit)} {figure.unit}",
            str(len(figure.values)),
            end_section=following is not None and following.number != figure.number,
        )
    return table


def _shown(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "x" else f"{value:+.0f}"


def _seconds(times: list[float]) -> str:
    median = statistics.median(times)
    return f"{median:.2f} s" if median >= 1 else f"{median * 1000:.0f} ms"


if __name__ == "__main__":
    main()
