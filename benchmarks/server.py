"""`make bench-server`: measure the bundled server beside what one core can sign.

The figures are printed. No value is asserted.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import click
from argon2 import PasswordHasher

from benchmarks.bench import (
    Bench,
    describe_load,
    describe_loads,
    describe_medians,
    describe_ratio,
    describe_scrapes,
    ignore_number,
    in_turn,
    median_ratio,
    quantile,
    rate_in_rsa_3072,
    rate_in_rsa_4096,
    renewal_rate,
    resident_memory,
    scrape_milliseconds,
    slowdown,
)
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
from benchmarks.measure import alternate, produce_figures, timed
from benchmarks.runs import Figure, console, once, table
from benchmarks.serving import SCOPES, Memory, embedded_postgres, syncs
from benchmarks.sizes import FULL, SMOKE, SMOKE_NOTE, smoke_option
from demo.parts import prepare_process

UNKNOWN_PASSWORD = "a password for the hash alone"  # noqa: S105 - of no user


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
        f"renewing {how}", lambda _: bench.steadily(account, bearer=bearer), describe_load
    )
    rate = median(run.result.rate for run in steady) / 2
    half = bench.repeat(
        f"renewing {how} at half load",
        lambda number: bench.load(
            renew_at, account, bearer=bearer, rate=rate, seconds=bench.sizes.seconds, seed=number
        ),
        describe_load,
    )
    client = f"client: {median(run.result.cpu for run in steady):.0%} of a core"
    due = f"{rate:.0f} /s, at random moments"
    return [
        Figure(1, f"renewals a second, {how}", steady, renewal_rate, "/s", note=client),
        Figure(1, "... in signatures of RSA-3072", steady, rate_in_rsa_3072, "x", at_least=0.9),
        Figure(1, "... in signatures of RSA-4096", steady, rate_in_rsa_4096, "x", at_least=0.5),
        Figure(2, f"p50 at half load, {how}", half, quantile(0.50), "ms", note=due),
        Figure(2, f"p99 at half load, {how}", half, quantile(0.99), "ms", at_most=25),
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
            describe_load,
        )
        one = partial(bench.steadily, bearer=False, threads=1)
        pairs = bench.repeat(
            f"renewing without and with {rows:,} rows",
            in_turn(one, without, within),
            describe_loads,
        )
    renewal = f"a renewal at {rows:,} rows against one at none"
    note = f"one thread, {describe_medians(pairs)}"
    active = f"the list of {active_tokens} active of {rows:,} rows"
    return [
        Figure(4, renewal, pairs, slowdown, "x", at_most=1.2, note=note),
        Figure(5, active, lists, quantile(0.50), "ms", at_most=50),
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
                resident_memory,
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
            in_turn(partial(bench.steadily, bearer=False), *accounts),
            describe_loads,
        )
    note = f"embedded, with fsync; {describe_medians(pairs)}"
    what = "renewals a second in PostgreSQL against SQLite"
    return [Figure(7, what, pairs, lambda run: 1 / slowdown(run), "x", at_least=0.5, note=note)]


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
                f"scraping {names:,} names in {kind}",
                partial(ignore_number, side_by_side),
                describe_scrapes,
            )
            of_each = f"{tokens_of_a_name} tokens of each; {server.scrape() // 1024} KiB"
            figures += [
                Figure(
                    8,
                    f"a scrape of {names:,} names in {kind}",
                    pairs,
                    lambda run: scrape_milliseconds(run.result),
                    "ms",
                    at_most=2000,
                    note=of_each,
                ),
                Figure(
                    8,
                    "... against a SELECT of their newest expiries",
                    pairs,
                    lambda run: median_ratio(run.result),
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

        unfinished = bench.repeat("renewing beside slow clients", beside_unfinished, describe_loads)
        flooded = bench.repeat("renewing beside sign-ins", beside_sign_ins, describe_loads)
    what = "renewals beside {}, against none"
    return [
        Figure(9, what.format("60 unfinished requests"), unfinished, slowdown, "x", at_least=0.8),
        Figure(
            9,
            what.format("24 clients that sign in"),
            flooded,
            slowdown,
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
        sign_ins = bench.repeat("signing in", partial(ignore_number, side_by_side), describe_ratio)
        with console.status(f"minting {sizes.listed_rows:,} tokens ..."):
            account = server.sign_in(sizes.listed_rows)
        lists = bench.repeat(
            f"listing {sizes.listed_rows:,} rows",
            lambda _: bench.load(list_active, account, times=3),
            describe_load,
        )
        commands = bench.repeat(
            "running a command",
            lambda _: median(server.run_command() for _ in range(sizes.commands)),
            lambda seconds: f"{seconds:.2f} s",
        )
    seconds = "processor time of `server users`"
    return [
        Figure(
            10,
            "a sign-in against one hash",
            sign_ins,
            lambda run: median_ratio(run.result),
            "x",
            at_most=1.2,
        ),
        Figure(
            11, f"a list of {sizes.listed_rows:,} rows", lists, quantile(0.5), "ms", at_most=150
        ),
        Figure(12, seconds, commands, lambda run: run.result * 1000, "ms", at_most=600),
    ]


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
