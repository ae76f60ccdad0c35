"""How much the benchmarks measure: in full, and in the smallest form that has every figure."""

from __future__ import annotations

from dataclasses import dataclass

import click

SMOKE_NOTE = "This was the smallest form: it shows that each figure is produced, not its value."


@dataclass(frozen=True)
class Sizes:
    """How much both programs measure, in the order of their figures."""

    # python -m benchmarks
    airflows: tuple[str, ...]  # figure 1: what follows `.venv` in the names of their environments
    parses: int
    starts: int  # figure 2
    survey_tokens: int  # figure 3
    masking_tokens: int  # figure 3, too: with keys that make Airflow mask the values
    surveys: int
    session_rotations: int  # figure 4
    bearer_rotations: int
    page_tokens: int  # figures 5 and 6
    page_views: int
    scrape_tokens: int  # figure 7
    scrapes: int

    # python -m benchmarks.server
    runs: int  # of each figure
    seconds: float  # that a run renews as fast as it can, or at half of that rate
    active_tokens: int  # of the user; at least as many as the client has threads
    history_rows: int  # figures 4 and 5
    lists: int  # in a run
    renewals: int  # figure 6
    chunks: int  # in which the renewals are made; the memory is read after each
    names: int  # figure 8
    tokens_of_a_name: int
    server_scrapes: int  # in a run
    sign_ins: int  # figure 10, in a run
    listed_rows: int  # figure 11
    commands: int  # figure 12, in a run


FULL = Sizes(
    airflows=("", "-airflow-2", "-airflow-2-10"),
    parses=12,
    starts=30,
    survey_tokens=1000,
    masking_tokens=40,
    surveys=4,
    session_rotations=25,
    bearer_rotations=100,
    page_tokens=200,
    page_views=12,
    scrape_tokens=1000,
    scrapes=8,
    runs=5,
    seconds=5,
    active_tokens=20,
    history_rows=100_000,
    lists=50,
    renewals=100_000,
    chunks=10,
    names=1000,
    tokens_of_a_name=30,
    server_scrapes=10,
    sign_ins=10,
    listed_rows=1000,
    commands=5,
)

# Two repetitions, since who goes first changes; one Airflow for the page and for the scrape.
SMOKE = Sizes(
    airflows=("",),
    parses=2,
    starts=2,
    survey_tokens=4,
    masking_tokens=4,
    surveys=2,
    session_rotations=2,
    bearer_rotations=2,
    page_tokens=4,
    page_views=2,
    scrape_tokens=4,
    scrapes=2,
    runs=1,
    seconds=1,
    active_tokens=4,
    history_rows=100,
    lists=2,
    renewals=40,
    chunks=2,
    names=4,
    tokens_of_a_name=2,
    server_scrapes=2,
    sign_ins=2,
    listed_rows=5,
    commands=2,
)

smoke_option = click.option(
    "--smoke",
    is_flag=True,
    help="Measure as little as possible: a check that each figure is produced.",
)
