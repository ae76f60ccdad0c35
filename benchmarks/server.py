"""`make bench-server`: measure the bundled server beside what one core can sign.

The figures are printed. No value is asserted.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

import click
from argon2 import PasswordHasher

from benchmarks.load import (
    THREADS,
    Account,
    Load,
    flood_sign_ins,
    list_active,
    renew_at,
    renew_steadily,
    unfinished_requests,
)
from benchmarks.measure import Pairs, alternate, produce_figures, timed
from benchmarks.runs import Figure, Run, console, once, table
from benchmarks.serving import SCOPES, LoadedServer, Memory, embedded_postgres, syncs
from benchmarks.sizes import FULL, SMOKE, SMOKE_NOTE, Sizes, smoke_option
from demo.parts import prepare_process

UNKNOWN_PASSWORD = "a password for the hash alone"  # noqa: S105 - of no user

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """Where is measured, by which client, and how much."""

    folder: Path
    client: ProcessPoolExecutor
    sizes: Sizes

    def server(self, name: str, **settings: str) -> LoadedServer:
        """A server of its own, set up."""
        with console.status(f"setting up: {name} ..."):
            server = LoadedServer(self.folder / name.replace(" ", "-"), **settings)
            server.set_up()
        return server

    def load(self, act: Callable[P, Load], *args: P.args, **options: P.kwargs) -> Load:
        """What the client saw when it did this."""
        return self.client.submit(act, *args, **options).result()

    def steadily(self, account: Account, *, bearer: bool, threads: int = THREADS) -> Load:
        """Renewals as fast as so many threads can ask for them."""
        return self.load(
            renew_steadily, account, bearer=bearer, seconds=self.sizes.seconds, threads=threads
        )

    def repeat(self, what: str, act: Callable[[int], T], tell: Callable[[T], str]) -> list[Run[T]]:
        """All runs; `act` gets the number of each."""
        return [
            once(f"{what}, {number + 1} of {self.sizes.runs}", partial(act, number), tell)
            for number in range(self.sizes.runs)
        ]


def measure_renewals(bench: Bench) -> list[Figure]:
    """Figures 1 to 3: how many, how soon, in how many requests."""
    server = bench.server("renewals")
    with server.running():
        account = server.sign_in(bench.sizes.active_tokens)
        rotations = bench.repeat(
            "rotating as bearer",
            lambda number: server.requests_of_rotation(f"DUE_{number}"),
            lambda count: f"{count} request{'' if count == 1 else 's'}",
        )
        return [
            *_measure_credential(bench, account, bearer=False),
            *_measure_credential(bench, account, bearer=True),
            Figure(
                3,
                "requests of a bearer's rotation",
                rotations,
                lambda run: run.result,
                "",
                at_most=1,
            ),
        ]


def _measure_credential(bench: Bench, account: Account, *, bearer: bool) -> list[Figure]:
    how = "as bearer" if bearer else "signed in"
    steady = bench.repeat(
        f"renewing {how}", lambda _: bench.steadily(account, bearer=bearer), _told
    )
    rate = median(run.result.rate for run in steady) / 2
    half = bench.repeat(
        f"renewing {how} at half load",
        lambda number: bench.load(
            renew_at, account, bearer=bearer, rate=rate, seconds=bench.sizes.seconds, seed=number
        ),
        _told,
    )
    client = f"client: {median(run.result.cpu for run in steady):.0%} of a core"
    due = f"{rate:.0f} /s, at random moments"
    return [
        Figure(1, f"renewals a second, {how}", steady, _rate, "/s", note=client),
        Figure(1, "... in signatures of RSA-3072", steady, _of_3072, "x", at_least=0.9),
        Figure(1, "... in signatures of RSA-4096", steady, _of_4096, "x", at_least=0.5),
        Figure(2, f"p50 at half load, {how}", half, _quantile(0.50), "ms", note=due),
        Figure(2, f"p99 at half load, {how}", half, _quantile(0.99), "ms", at_most=25),
    ]


def measure_history(bench: Bench) -> list[Figure]:
    """Figures 4 and 5: renewals and the list, where a user has many rows."""
    rows, active_tokens = bench.sizes.history_rows, bench.sizes.active_tokens
    empty, full = bench.server("empty history"), bench.server("long history")
    with console.status(f"writing {rows:,} rows ..."):
        full.add_history(rows)
    with empty.running(), full.running():
        without, within = (server.sign_in(active_tokens) for server in (empty, full))
        lists = bench.repeat(
            f"listing {active_tokens} of {rows:,} rows",
            lambda _: bench.load(list_active, within, times=bench.sizes.lists),
            _told,
        )
        one = partial(bench.steadily, bearer=False, threads=1)
        pairs = bench.repeat(
            f"renewing without and with {rows:,} rows", _in_turn(one, without, within), _both_told
        )
    renewal = f"a renewal at {rows:,} rows against one at none"
    note = f"one thread, {_medians(pairs)}"
    active = f"the list of {active_tokens} active of {rows:,} rows"
    return [
        Figure(4, renewal, pairs, _slower, "x", at_most=1.2, note=note),
        Figure(5, active, lists, _quantile(0.50), "ms", at_most=50),
    ]


def measure_memory(bench: Bench) -> list[Figure]:
    """Figure 6: what the larger of the workers holds, at start and ever after."""
    chunks = bench.sizes.chunks
    server, chunk = bench.server("memory"), bench.sizes.renewals // chunks
    with server.running():
        start = once("memory at start", server.memory, str)
        account = server.sign_in(bench.sizes.active_tokens)

        def renew(_number: int) -> Memory:
            bench.load(renew_steadily, account, bearer=True, renewals=chunk)
            return server.memory()

        later = [
            once(f"memory after {number * chunk:,} renewals", partial(renew, number), str)
            for number in range(1, chunks + 1)
        ]
    first, last = later[0].result, later[-1].result
    growth = "... the last against the first of these"
    return [
        *(
            Figure(
                6,
                f"memory of a worker {when}",
                [run],
                _rss,
                "MB",
                at_most=120,
                note=str(run.result),
            )
            for when, run in (
                ("at start", start),
                (f"after {chunk:,} renewals", later[0]),
                (f"after {chunks * chunk:,} renewals", later[-1]),
            )
        ),
        Figure(6, growth, later[-1:], lambda _: last.rss / first.rss, "x", at_most=1.05),
    ]


def measure_postgres(bench: Bench) -> list[Figure]:
    """Figure 7: the same renewals in either database."""
    with ExitStack() as stack:
        with console.status("starting PostgreSQL ..."):
            url = stack.enter_context(embedded_postgres(bench.folder / "postgres"))
        servers = bench.server("SQLite"), bench.server("PostgreSQL", DATABASE_URL=url)
        accounts = [
            stack.enter_context(server.running()).sign_in(bench.sizes.active_tokens)
            for server in servers
        ]
        pairs = bench.repeat(
            "renewing in SQLite and in PostgreSQL",
            _in_turn(partial(bench.steadily, bearer=False), *accounts),
            _both_told,
        )
    note = f"embedded, with fsync; {_medians(pairs)}"
    what = "renewals a second in PostgreSQL against SQLite"
    return [Figure(7, what, pairs, lambda run: 1 / _slower(run), "x", at_least=0.5, note=note)]


def measure_scrapes(bench: Bench) -> list[Figure]:
    """Figure 8: /metrics with many names, against the shortest SELECT of the same, in either."""
    names, tokens_of_a_name = bench.sizes.names, bench.sizes.tokens_of_a_name
    with ExitStack() as stack:
        with console.status("starting PostgreSQL ..."):
            url = stack.enter_context(embedded_postgres(bench.folder / "postgres-names"))
        figures = []
        for kind, settings in (("SQLite", {}), ("PostgreSQL", {"DATABASE_URL": url})):
            server = bench.server(f"names in {kind}", **settings)
            with console.status(f"writing {names * tokens_of_a_name:,} rows ..."):
                server.add_names(names, tokens_of_a_name)
            stack.enter_context(server.running())
            side_by_side = partial(
                alternate,
                timed(server.select_names),
                timed(server.scrape),
                bench.sizes.server_scrapes,
            )
            pairs = bench.repeat(
                f"scraping {names:,} names in {kind}", partial(_regardless, side_by_side), _scrapes
            )
            of_each = f"{tokens_of_a_name} tokens of each; {server.scrape() // 1024} KiB"
            figures += [
                Figure(
                    8,
                    f"a scrape of {names:,} names in {kind}",
                    pairs,
                    lambda run: _scrape(run.result),
                    "ms",
                    at_most=2000,
                    note=of_each,
                ),
                Figure(
                    8,
                    "... against a SELECT of their newest expiries",
                    pairs,
                    lambda run: _against_select(run.result),
                    "x",
                ),
            ]
        return figures


def measure_hostile(bench: Bench) -> list[Figure]:
    """Figure 9: renewals beside unfinished requests and beside a flood of sign-ins."""
    server = bench.server("hostile clients", TRUSTED_PROXIES="1")
    with server.running():
        account = server.sign_in(bench.sizes.active_tokens)
        renew = partial(bench.steadily, account, bearer=True)
        statuses: list[str] = []

        def beside_unfinished(_number: int) -> tuple[Load, Load]:
            quiet = renew()
            with unfinished_requests(account, 60):
                return renew(), quiet

        def beside_sign_ins(_number: int) -> tuple[Load, Load]:
            quiet = renew()
            flood = bench.client.submit(flood_sign_ins, account, seconds=bench.sizes.seconds + 3)
            time.sleep(1)
            renewals = renew()
            statuses.append(str(dict(flood.result())))
            return renewals, quiet

        unfinished = bench.repeat("renewing beside slow clients", beside_unfinished, _both_told)
        flooded = bench.repeat("renewing beside sign-ins", beside_sign_ins, _both_told)
    what = "renewals beside {}, against none"
    return [
        Figure(9, what.format("60 unfinished requests"), unfinished, _slower, "x", at_least=0.8),
        Figure(
            9,
            what.format("24 clients that sign in"),
            flooded,
            _slower,
            "x",
            at_least=0.5,
            note=f"statuses of the sign-ins: {statuses[-1]}",
        ),
    ]


def measure_accounts(bench: Bench) -> list[Figure]:
    """Figures 10 to 12: a sign-in against one hash, a long list, and a command."""
    server, sizes = bench.server("accounts", SIGNIN_RATE_LIMIT="1000000/second"), bench.sizes
    hasher = PasswordHasher()
    hashed = hasher.hash(UNKNOWN_PASSWORD)
    verify = timed(partial(hasher.verify, hashed, UNKNOWN_PASSWORD))
    with server.running():
        side_by_side = partial(alternate, verify, timed(server.sign_in_once), sizes.sign_ins)
        sign_ins = bench.repeat("signing in", partial(_regardless, side_by_side), _ratio_told)
        with console.status(f"minting {sizes.listed_rows:,} tokens ..."):
            account = server.sign_in(sizes.listed_rows)
        lists = bench.repeat(
            f"listing {sizes.listed_rows:,} rows",
            lambda _: bench.load(list_active, account, times=3),
            _told,
        )
        commands = bench.repeat(
            "running a command",
            lambda _: median(server.run_command() for _ in range(sizes.commands)),
            lambda seconds: f"{seconds:.2f} s",
        )
    seconds = "processor time of `server users`"
    return [
        Figure(10, "a sign-in against one hash", sign_ins, _ratio_to_baseline, "x", at_most=1.2),
        Figure(
            11, f"a list of {sizes.listed_rows:,} rows", lists, _quantile(0.5), "ms", at_most=150
        ),
        Figure(12, seconds, commands, lambda run: run.result * 1000, "ms", at_most=600),
    ]


def _regardless(act: Callable[[], T], _number: int) -> T:
    """Whatever the number of the run."""
    return act()


def _scrapes(pairs: Pairs) -> str:
    return f"{_scrape(pairs):.0f} ms, {_against_select(pairs):.1f} x"


def _scrape(pairs: Pairs) -> float:
    """Milliseconds."""
    return median(pairs.ours) * 1000


def _against_select(pairs: Pairs) -> float:
    return median(pairs.ratios)


def _ratio_to_baseline(run: Run[Pairs]) -> float:
    return median(run.result.ratios)


def _ratio_told(pairs: Pairs) -> str:
    return f"{median(pairs.ratios):.2f} x"


def _in_turn(
    load: Callable[[Account], Load], one: Account, other: Account
) -> Callable[[int], tuple[Load, Load]]:
    """The loads of both, one right after the other; who goes first changes with the number."""

    def run(number: int) -> tuple[Load, Load]:
        if number % 2:
            second = load(other)
            return load(one), second
        return load(one), load(other)

    return run


def _slower(run: Run[tuple[Load, Load]]) -> float:
    """How many times as long a renewal took in the second load."""
    first, second = run.result
    return first.rate / second.rate


def _rate(run: Run[Load]) -> float:
    return run.result.rate


def _of_3072(run: Run[Load]) -> float:
    return run.result.rate / run.signing.rsa_3072


def _of_4096(run: Run[Load]) -> float:
    return run.result.rate / run.signing.rsa_4096


def _rss(run: Run[Memory]) -> float:
    return run.result.rss


def _quantile(share: float) -> Callable[[Run[Load]], float]:
    """In milliseconds."""
    return lambda run: run.result.quantile(share) * 1000


def _told(load: Load) -> str:
    p50, p99 = (load.quantile(share) * 1000 for share in (0.50, 0.99))
    return f"{load.rate:.0f} /s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, client {load.cpu:.0%}"


def _both_told(loads: tuple[Load, Load]) -> str:
    return " and ".join(f"{load.rate:.0f} /s" for load in loads)


def _medians(pairs: Sequence[Run[tuple[Load, Load]]]) -> str:
    first, second = (median(run.result[which].rate for run in pairs) for which in (0, 1))
    return f"{second:.0f} against {first:.0f} /s"


BENCHMARKS: dict[str, tuple[set[int], Callable[[Bench], list[Figure]]]] = {
    "renewals": ({1, 2, 3}, measure_renewals),
    "history": ({4, 5}, measure_history),
    "memory": ({6}, measure_memory),
    "postgres": ({7}, measure_postgres),
    "scrapes": ({8}, measure_scrapes),
    "hostile": ({9}, measure_hostile),
    "accounts": ({10, 11, 12}, measure_accounts),
}


@click.command()
@smoke_option
@click.option(
    "--only",
    type=click.Choice(list(BENCHMARKS)),
    multiple=True,
    help="Measure this alone; may be repeated.",
)
def main(smoke: bool, only: tuple[str, ...]) -> None:
    """Measure one after the other, then print all figures."""
    prepare_process()
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    figures: list[Figure] = []
    with (
        tempfile.TemporaryDirectory(prefix="flowauth-rotator-") as folder,
        ProcessPoolExecutor(2, mp_context=spawn) as client,
    ):
        bench = Bench(Path(folder), client, SMOKE if smoke else FULL)
        durable = syncs(bench.folder)
        for name in only or BENCHMARKS:
            numbers, measure = BENCHMARKS[name]
            figures += produce_figures(name, numbers, partial(measure, bench))
    console.print(table(sorted(figures, key=lambda figure: figure.number)))
    console.print(
        f"Two workers, {THREADS} client threads in one process of the same machine, RSA-3072, "
        f"roles of {len(SCOPES)} scopes. Shown are\n"
        "medians of the runs, their lowest and highest, and how many signatures a second one core\n"
        "made with either key right before and after each run. The disk of the temporary folder\n"
        f"makes {durable:,.0f} durable writes a second. "
        f"Measured in {time.monotonic() - began:.0f} s."
    )
    if smoke:
        console.print(SMOKE_NOTE)


if __name__ == "__main__":
    main()
