"""`make bench`: measure the agent, and print the figures. No value is asserted."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from itertools import zip_longest
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure, produce_figures
from benchmarks.page import measure_page
from benchmarks.rotation import measure_rotation
from benchmarks.scrape import measure_scrape
from benchmarks.sizes import FULL, SMOKE, SMOKE_NOTE, smoke_option
from benchmarks.startup import measure_parsing, measure_starts
from benchmarks.survey import measure_survey
from demo.parts import prepare_process

WIDTH = 120  # without a terminal

console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


@click.command()
@smoke_option
def main(smoke: bool) -> None:
    """Measure one after the other, then print all figures."""
    prepare_process()
    began, sizes = time.monotonic(), SMOKE if smoke else FULL
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flowauth-rotator-") as name:
        folder = Path(name)
        for benchmark, numbers, measure in (
            ("parsing", {1}, lambda: measure_parsing(folder / "parsing", sizes)),
            ("starts", {2}, lambda: measure_starts(sizes)),
            ("survey", {3}, lambda: measure_survey(folder / "survey", sizes)),
            ("rotation", {4}, lambda: measure_rotation(folder / "rotation", sizes)),
            ("page", {5, 6}, lambda: measure_page(folder, sizes)),
            ("scrape", {7}, lambda: measure_scrape(folder, sizes)),
        ):
            with console.status(f"measuring: {benchmark} ..."):
                figures += produce_figures(benchmark, numbers, measure)
    console.print(_table(figures))
    console.print(
        "A pair is ours and what it stands against, one right after the other, in changing order.\n"
        "Shown are the medians of the times, the median of the pairs' ratios (x) or differences\n"
        "(ms), and the spread of the middle half of these.\n"
        f"Measured in {time.monotonic() - began:.0f} s."
    )
    if smoke:
        console.print(SMOKE_NOTE)


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
