"""The benchmarks fail when a figure is missing; `make bench-smoke` runs them."""

import math

import pytest

from benchmarks.measure import Figure, FigureMissing, Pairs, produce_figures
from demo.parts import PartFailed


def figure(number, *seconds):
    """A line of the table whose baseline took a second each time."""
    return Figure(number, "ours", "baseline", Pairs([1.0] * len(seconds), list(seconds)), 1.0)


def fail():
    raise PartFailed("A due token was not rotated.")


def test_figures_with_values_are_returned():
    """A number may have several lines."""
    figures = [figure(5, 1.0), figure(6, 1.0), figure(6, 2.0)]
    assert produce_figures("page", {5, 6}, lambda: figures) == figures


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: [figure(5, 1.0)], "The benchmark 'page' did not produce a value of figure 6."),
        (lambda: [figure(5), figure(6, math.nan)], ".* did not produce a value of figure 5, 6."),
        (lambda: [figure(5, 1.0), figure(6, 1.0), figure(6)], ".* a value of figure 6."),
        (fail, "The benchmark 'page' failed: A due token was not rotated."),
    ],
    ids=["no line", "no value or not finite", "one line of two", "error"],
)
def test_a_missing_figure_is_an_error_that_names_the_benchmark(measure, message):
    """So a benchmark that no longer runs is noticed."""
    with pytest.raises(FigureMissing, match=f"^{message}$"):
        produce_figures("page", {5, 6}, measure)
