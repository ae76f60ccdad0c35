"""Figures 1 and 2: what it costs to load us, in fresh processes."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import Figure, Pairs, alternate, timed
from benchmarks.sizes import Sizes
from demo.names import DAG
from demo.parts import BIN, ROOT, PartFailed, clean_environment

EMPTY = 'from airflow import DAG\n\ndag = DAG("empty")\n'
PLAIN = """
from datetime import datetime

from airflow.decorators import dag, task

@task
def act(what=None):
    pass

@dag(schedule=None, start_date=datetime(2024, 1, 1), params={"names": [], "force": False})
def plain():
    act() >> act.expand(what=[None]) >> act()

plain()
"""
PARSE = """
import sys, time
began = time.perf_counter()
import airflow
from airflow.models import DagBag
loaded = time.perf_counter()
bag = DagBag(sys.argv[1])
print(airflow.__version__, loaded - began, time.perf_counter() - loaded)
sys.exit(bag.import_errors or len(bag.dags) != 1)
"""


def measure_parsing(folder: Path, sizes: Sizes) -> list[Figure]:
    """Parse the DAG file in each Airflow whose environment has been set up."""
    pythons = [ROOT / f".venv{name}" / "bin" / "python" for name in sizes.airflows]
    baselines = {"an empty DAG file": EMPTY, "three tasks of plain Airflow": PLAIN}
    return [
        _compare_parsing(folder / f"{number} {what}", python, what, text, sizes.parses)
        for number, python in enumerate(pythons)
        for what, text in baselines.items()
        if python.exists()
    ]


def _compare_parsing(folder: Path, python: Path, what: str, text: str, repetitions: int) -> Figure:
    """Parse the DAG file and another one, each with the import of Airflow.

    That import is the same for both and fifty times as long as what differs: each time counts
    with the median of all imports, lest the machine's moods hide the difference.
    """
    env = clean_environment(AIRFLOW_HOME=str(folder / "home"), AIRFLOW__CORE__LOAD_EXAMPLES="False")
    imports: list[float] = []
    version = ""

    def parse(dags: Path) -> float:
        nonlocal version
        output = _run([str(python), "-c", PARSE, str(dags)], env)
        version, imported, parsed = output.splitlines()[-1].split()
        imports.append(float(imported))
        return float(parsed)

    other, ours = folder / "other", folder / "ours"
    for dags in (other, ours):
        dags.mkdir(parents=True)
    (other / "other.py").write_text(text)
    shutil.copy(ROOT / "dags" / f"{DAG}.py", ours)
    parse(ours)  # warms the disk cache
    parsed = alternate(lambda: parse(other), lambda: parse(ours), repetitions)
    airflow = statistics.median(imports)
    pairs = Pairs(*([airflow + one for one in some] for some in (parsed.baseline, parsed.ours)))
    return Figure(1, f"parse our DAG file in Airflow {version}", what, pairs, 1.05)


def measure_starts(sizes: Sizes) -> list[Figure]:
    """Start the package and its command, and a bare interpreter."""
    env = clean_environment()
    bare = timed(lambda: _run([sys.executable, "-c", "pass"], env))
    figures = []
    for what, command, target in (
        ("import flowauth_rotator", [sys.executable, "-c", "import flowauth_rotator"], 30),
        ("flowauth-rotator --help", [str(BIN / "flowauth-rotator"), "--help"], 150),
    ):
        ours = timed(partial(_run, command, env))
        alternate(bare, ours, 1)  # warms the disk cache
        pairs = alternate(bare, ours, sizes.starts)
        figures.append(Figure(2, what, "a bare interpreter", pairs, target, "ms"))
    return figures


def _run(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a command to its end, in a process of its own, for its output."""
    done = subprocess.run(  # noqa: S603 - our own command
        command, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PartFailed(f"{command} failed: {done.stderr}")
    return done.stdout
