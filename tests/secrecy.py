"""Listens through all tests, and searches at their end what they left behind for secrets."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack, suppress
from functools import wraps
from pathlib import Path
from unittest.mock import patch

import pytest

from proofs.secrecy import Artefacts, recording

SHOWN = 50  # findings, at most
OWN_TABLES = 16384  # and upwards: FirstNormalObjectId


class Secrecy:
    """A plugin: no output of a test and no file it leaves has a part of a token or a password.

    Output that quotes the tests' own lines is searched for tokens alone. `holds_secrets` marks
    tests that put secrets into files on purpose, and names these.
    """

    def __init__(self) -> None:
        self._quoting, self._written = Artefacts(), Artefacts()
        self._folder: Path | None = None
        self._patterns: list[str] = []
        self._on_purpose: set[Path] = set()
        self._said: list[str] = []
        self._until_the_end = ExitStack()
        self._recorded = self._until_the_end.enter_context(recording())
        self._read_what_is_removed()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        made = yield
        if fixturedef.argname == "tmp_path_factory":
            self._folder = made.getbasetemp()
        return made

    def pytest_runtest_setup(self, item):
        marks = item.iter_markers("holds_secrets")
        self._patterns = [pattern for mark in marks for pattern in mark.args]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item):
        if self._patterns and "tmp_path" in item.funcargs:
            files = files_under(item.funcargs["tmp_path"])
            self._on_purpose.update(filter(self._holds_secrets, files))

    def pytest_runtest_logreport(self, report):
        self._quoting.add(report.nodeid, as_bytes(f"{report.nodeid}\n{report.longreprtext}"))
        for title, text in report.sections:
            self._written.add(f"{report.nodeid}, {title}", as_bytes(text))

    pytest_collectreport = pytest_runtest_logreport

    def pytest_warning_recorded(self, warning_message, nodeid):
        self._quoting.add(f"{nodeid}, a warning", as_bytes(f"{warning_message}"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session):
        self._until_the_end.close()
        self._patterns.clear()
        if self._folder:
            self._read(self._folder)
        tokens, passwords = self._recorded.tokens, self._recorded.passwords
        found = self._quoting.find(tokens) + self._written.find(tokens | passwords)
        artefacts = len(self._quoting.names | self._written.names)
        secrets, windows = len(tokens) + len(passwords), sum(finding.windows for finding in found)
        counted = f"{artefacts:,} artefacts, {secrets:,} secrets, {windows:,} windows found"
        self._said = [f"secrecy: {counted}", *map(str, found[:SHOWN])]
        if found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for line in self._said:
            terminalreporter.write_line(line)

    def _read_what_is_removed(self):
        cleanup = tempfile.TemporaryDirectory.cleanup

        @wraps(cleanup)
        def read_first(folder):
            self._read(Path(folder.name))
            cleanup(folder)

        patched = patch.object(tempfile.TemporaryDirectory, "cleanup", read_first)
        self._until_the_end.enter_context(patched)

    def _read(self, folder: Path) -> None:
        for path in files_under(folder):
            if path not in self._on_purpose and not self._holds_secrets(path):
                with suppress(FileNotFoundError):
                    self._written.add(str(path.relative_to(folder)), path.read_bytes())

    def _holds_secrets(self, path: Path) -> bool:
        return any(path.match(pattern) for pattern in self._patterns)


def files_under(folder: Path):
    """Regular files; of a PostgreSQL's no catalogs, and not its log of all that is in its tables.

    Both are far larger than all the rest.
    """
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "pg_wal"]
        for path in (Path(parent, name) for name in names):
            if path.is_file() and not path.is_symlink() and not is_catalog(path):
                yield path


def is_catalog(path: Path) -> bool:
    """Whether it is a PostgreSQL's `base/1/1259`: its own tables have the smaller numbers."""
    number = re.match(r"\d+", path.name)
    return path.parent.parent.name == "base" and (not number or int(number[0]) < OWN_TABLES)


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
