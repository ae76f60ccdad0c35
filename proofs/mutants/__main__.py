"""Puts each bug into a copy of the package, and prints what noticed it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from proofs.mutants.table import AGENT, MUTANTS, ROOT, SERVER, Mutant, mutate
from proofs.mutants.trees import PlaceMissing

COPIED = (
    *("flowauth_rotator", "proofs", "tests", "demo", "dags", "plugins"),
    *("docs", "pyproject.toml"),
)
SCHEDULES = 3_000
LONGEST = 600  # seconds for the simulation, and for the tests


@dataclass(frozen=True)
class Catch:
    """By what a mutant was caught; empty where nothing was noticed."""

    simulation: str
    tests: str

    def __bool__(self) -> bool:
        return bool(self.simulation or self.tests)


def evaluate_candidate(sources: Mapping[Path, str], tests: Sequence[str]) -> Catch:
    """Let the simulation and the tests look at a copy of the project.

    Args:
        sources: other texts of some of its files, whose paths are relative to the root.
        tests: the paths of the tests.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        for path, text in sources.items():
            (copy / path).write_text(text)
        return Catch(_simulate(copy), _test(copy, tests))


def _simulate(folder: Path) -> str:
    """Return the first violation that the simulation finds, with its seed."""
    done = _run(folder, "-m", "proofs.simulation", "--schedules", str(SCHEDULES), "--stop")
    if done is None:
        return "never ends"
    violation = re.search(r"^  (.*): python -m .* (\d+)$", done.stdout, re.MULTILINE)
    return f"{violation[1]} (seed {violation[2]})" if violation else ""


def _test(folder: Path, tests: Sequence[str]) -> str:
    """Return the first test that fails.

    Raises:
        ClickException: pytest could not run the tests, so that they say nothing.
    """
    done = _run(folder, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests)
    if done is None:
        return "never ends"
    failure = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py)(?:::(\S+))?", done.stdout, re.MULTILINE)
    if done.returncode == 0 or (done.returncode == 1 and failure):
        return " ".join(filter(None, failure.groups())) if failure else ""
    raise click.ClickException(f"pytest could not run {' '.join(tests)}:\n{done.stdout[-2000:]}")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run Python in a folder; return None if it does not end in time."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return None


def judge_unchanged() -> Catch:
    """Look at the package without a bug: what notices something there notices anything.

    Its modules are written from their syntax trees, as those with a bug are.
    """
    files = {mutant.file for mutant in MUTANTS}
    sources = {file: ast.unparse(ast.parse((ROOT / file).read_text())) for file in files}
    return evaluate_candidate(sources, (*AGENT, *SERVER))


def judge_mutant(mutant: Mutant) -> Catch:
    """Look at the package with one bug."""
    catch = evaluate_candidate({mutant.file: mutate(mutant)}, mutant.tests)
    click.echo(f"{mutant.name}: {catch}", err=True)
    return catch


@click.command()
@click.option("--only", default="", help="Those with this in their name.")
def main(*, only: str) -> None:
    """Put known bugs into the protocol, one by one, and tell by what each is caught."""
    began = time.perf_counter()
    chosen = [mutant for mutant in MUTANTS if only in mutant.name]
    _check_places(chosen)
    table = Table("bug", "seen in", "caught by the simulation", "caught by the tests")
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        unchanged = pool.submit(judge_unchanged)
        catches = pool.map(judge_mutant, chosen)
        if false_alarm := unchanged.result():
            pool.shutdown(cancel_futures=True)
            raise click.ClickException(f"The unchanged package is caught, by {false_alarm}.")
        for mutant, catch in zip(chosen, catches, strict=True):
            missed += not catch
            table.add_row(mutant.name, mutant.seen_in, catch.simulation or "-", catch.tests or "-")
    Console(markup=False, width=None if sys.stdout.isatty() else 200).print(table)
    seconds = time.perf_counter() - began
    click.echo(f"{len(chosen)} mutants in {seconds:.0f} s, {missed} not caught")
    raise SystemExit(bool(missed))


def _check_places(mutants: Sequence[Mutant]) -> None:
    """Report every mutant that the code has no place for, before any of them runs.

    Raises:
        ClickException: there is such a mutant.
    """
    if problems := list(filter(None, map(_find_problem, mutants))):
        raise click.ClickException("\n".join(problems))


def _find_problem(mutant: Mutant) -> str:
    try:
        mutate(mutant)
    except PlaceMissing as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
