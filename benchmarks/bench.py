"""What the measurements of the server share: how they run, and how their results read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

from benchmarks.load import THREADS, Account, Load, renew_steadily
from benchmarks.measure import Pairs
from benchmarks.runs import Run, console, once
from benchmarks.serving import LoadedServer, Memory
from benchmarks.sizes import Sizes

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """The folder of the servers, the client process, and the sizes of a measurement."""

    folder: Path
    client: ProcessPoolExecutor
    sizes: Sizes

    def server(self, name: str, **settings: str) -> LoadedServer:
        """Set up a server of its own."""
        with console.status(f"setting up: {name} ..."):
            server = LoadedServer(self.folder / name.replace(" ", "-"), **settings)
            server.set_up()
        return server

    def load(self, act: Callable[P, Load], *args: P.args, **options: P.kwargs) -> Load:
        """Let the client process do something, and return its load."""
        return self.client.submit(act, *args, **options).result()

    def steadily(self, account: Account, *, bearer: bool, threads: int = THREADS) -> Load:
        """Renew as fast as so many threads can."""
        return self.load(
            renew_steadily, account, bearer=bearer, seconds=self.sizes.seconds, threads=threads
        )

    def repeat(
        self, what: str, act: Callable[[int], T], describe: Callable[[T], str]
    ) -> list[Run[T]]:
        """Repeat a run; `act` gets the number of each."""
        return [
            once(f"{what}, {number + 1} of {self.sizes.runs}", partial(act, number), describe)
            for number in range(self.sizes.runs)
        ]


def ignore_number(act: Callable[[], T], _number: int) -> T:
    """Call a function that needs no number of the run."""
    return act()


def describe_scrapes(pairs: Pairs) -> str:
    """Format the median scrape, and its ratio to the SELECT."""
    return f"{scrape_milliseconds(pairs):.0f} ms, {median_ratio(pairs):.1f} x"


def scrape_milliseconds(pairs: Pairs) -> float:
    """Return the median of the scrapes, in milliseconds."""
    return median(pairs.ours) * 1000


def median_ratio(pairs: Pairs) -> float:
    """Return the median ratio to the baseline of the same run."""
    return median(pairs.ratios)


def describe_ratio(pairs: Pairs) -> str:
    """Format the median ratio to the baseline."""
    return f"{median_ratio(pairs):.2f} x"


def in_turn(
    load: Callable[[Account], Load], one: Account, other: Account
) -> Callable[[int], tuple[Load, Load]]:
    """Run both loads, one right after the other; which one is first alternates."""

    def run(number: int) -> tuple[Load, Load]:
        if number % 2:
            second = load(other)
            return load(one), second
        return load(one), load(other)

    return run


def slowdown(run: Run[tuple[Load, Load]]) -> float:
    """Return how many times as long a renewal took in the second load."""
    first, second = run.result
    return first.rate / second.rate


def renewal_rate(run: Run[Load]) -> float:
    """Return the renewals a second."""
    return run.result.rate


def rate_in_rsa_3072(run: Run[Load]) -> float:
    """Return the renewals for each RSA-3072 signature of one core."""
    return run.result.rate / run.signing.rsa_3072


def rate_in_rsa_4096(run: Run[Load]) -> float:
    """Return the renewals for each RSA-4096 signature of one core."""
    return run.result.rate / run.signing.rsa_4096


def resident_memory(run: Run[Memory]) -> float:
    """Return the resident memory of the larger worker, in MB."""
    return run.result.rss


def quantile(share: float) -> Callable[[Run[Load]], float]:
    """Return a function that reads a quantile, in milliseconds."""
    return lambda run: run.result.quantile(share) * 1000


def describe_load(load: Load) -> str:
    """Format the rate, the median, the 99th percentile and the client's share of a core."""
    p50, p99 = (load.quantile(share) * 1000 for share in (0.50, 0.99))
    return f"{load.rate:.0f} /s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, client {load.cpu:.0%}"


def describe_loads(loads: tuple[Load, Load]) -> str:
    """Format the rates of two loads."""
    return " and ".join(f"{load.rate:.0f} /s" for load in loads)


def describe_medians(pairs: Sequence[Run[tuple[Load, Load]]]) -> str:
    """Format the median rates of the second and of the first loads."""
    first, second = (median(run.result[which].rate for run in pairs) for which in (0, 1))
    return f"{second:.0f} against {first:.0f} /s"
