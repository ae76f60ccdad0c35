"""Kills everything everywhere, and prints what the runs after it found."""

from __future__ import annotations

import argparse
import itertools
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.serving import embedded_postgres
from demo.parts import prepare_process
from flowauth_rotator.server import Settings
from proofs.processes.points import POINTS, Point
from proofs.processes.serving import prepare
from proofs.processes.trials import Trial, campaign

TIMES = 25

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def main() -> int:
    """Every point on both databases; 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m proofs.processes", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="how often (%(default)s)")
    times = parser.parse_args().times
    prepare_process()
    began = time.monotonic()
    with TemporaryDirectory(prefix="proofs-") as name:
        folder = Path(name)
        trials = {"SQLite": list(_conducted("SQLite", folder / "sqlite", {}, times))}
        with embedded_postgres(folder / "postgresql") as url:
            settings = {"DATABASE_URL": url}
            trials["PostgreSQL"] = list(
                _conducted("PostgreSQL", folder / "server", settings, times)
            )
    console.print(_table(trials))
    sentences = [
        f"{trial.death} on {database}: {clause}."
        for database, those in trials.items()
        for trial in those
        for clause in trial.violations
    ]
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)
    deaths = sum(map(len, trials.values()))
    seconds = time.monotonic() - began
    console.print(f"{deaths} deaths, {len(sentences)} violations, in {seconds:.0f} s.")
    return 1 if sentences else 0


def _conducted(
    database: str, data_dir: Path, settings: Mapping[str, str], times: int
) -> Iterator[Trial]:
    """All trials on one database.

    Raises:
        RuntimeError: a log shows a part of a secret.
    """
    password = secrets.token_urlsafe(18)
    prepare(Settings.load(data_dir, settings), password)
    with campaign(data_dir, settings, password) as conducted, console.status("") as status:
        for point in POINTS:
            status.update(f"{point.name} on {database} ...")
            yield from (conducted.trial(point, number) for number in range(times))
        if leaks := conducted.leaks():
            raise RuntimeError(f"Parts of secrets stand in {', '.join(leaks)}")


def _table(trials: Mapping[str, Iterable[Trial]]) -> Table:
    table = Table(
        title="\nKilled, and run again",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for heading in ("point", "", "database"):
        table.add_column(heading)
    for heading in ("trials", "violations"):
        table.add_column(heading, justify="right")
    for heading in ("that run ended", "the next run ended"):
        table.add_column(heading)
    for point, (database, those) in itertools.product(POINTS, trials.items()):
        table.add_row(*_cells(point, database, [one for one in those if one.death.point == point]))
    return table


def _cells(point: Point, database: str, trials: list[Trial]) -> tuple[str, ...]:
    return (
        *(point.name, point.when, database, str(len(trials))),
        str(sum(len(trial.violations) for trial in trials)),
        *(_counted(trial.first for trial in trials), _counted(trial.next for trial in trials)),
    )


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


if __name__ == "__main__":
    sys.exit(main())
