"""Which tests run, in which order, beside which others, and in which folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from benchmarks.speed import signatures_per_second
from tests import external

HERE = Path(__file__).parent
# Files that share what takes long to start run one after the other in one process.
SHARED = {HERE / "page": "page", HERE / "provider": "provider"}
APART = {
    HERE / "page" / "test_access.py",  # half of its room
    HERE / "page" / "test_alerts.py",  # it stops the processes of its Airflow
    HERE / "provider" / "test_dag.py",  # half of its room; an Airflow of its own starts in seconds
}
SESSION = pytest.StashKey[pytest.Session]()
LONGEST_FIRST = ("page", "e2e", "provider", "monitoring", "proofs", "server")


def pytest_addoption(parser):
    parser.addoption(
        "--fast", action="store_true", help="only tests that are quick and start no other program"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Give each run a folder of its own: pytest's default removes those of other runs."""
    config.addinivalue_line("markers", "slow: takes seconds; `--fast` leaves it out")
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="flowauth-rotator-")
        config.add_cleanup(lambda: remove_unless_failed(config))


def remove_unless_failed(config):
    """Keep the folder of a run that failed, for whoever looks into it."""
    session = config.stash.get(SESSION, None)
    if session is None or session.exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(config.option.basetemp, ignore_errors=True)


def pytest_report_header(config):
    """Print how fast this machine is, beside which the duration of a whole run means something."""
    if getattr(config.option, "numprocesses", None):
        return f"one process: {signatures_per_second(4096):.0f} RSA-4096 signatures a second"
    return []


def pytest_sessionstart(session):
    session.config.stash[SESSION] = session


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Begin with the groups that take longest, and keep together what shares a fixture."""
    if config.getoption("--fast"):
        select(config, items, is_fast)
    if config.getoption("--airflow"):
        select(config, items, starts_airflow)
    items.sort(key=lambda item: (rank(item.path), item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run a group of files in one process, since they share what takes long to start."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(config.rootpath / nodeid.partition("::")[0])

    return GroupScheduling(config, log)


def select(config, items, is_chosen) -> None:
    """Leave out the other tests."""
    config.hook.pytest_deselected(items=[item for item in items if not is_chosen(item)])
    items[:] = [item for item in items if is_chosen(item)]


def starts_airflow(item) -> bool:
    """Whether a test depends on `--airflow`; any other has the same result with each Airflow."""
    return "airflow_binaries" in item.fixturenames


def is_fast(item) -> bool:
    """Whether a test starts no other program and is not marked as slow."""
    starts = external.FIXTURES.intersection(item.fixturenames)
    return not starts and item.get_closest_marker("slow") is None


def group_of(path: Path) -> str:
    if path in APART:
        return str(path)
    return SHARED.get(path.parent, str(path))


def rank(path: Path) -> int:
    room = path.relative_to(HERE).parts[0]
    return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)
