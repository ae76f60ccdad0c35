"""Export the bundled files for monitoring systems: rules, checks, a dashboard, runbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flowauth_rotator.atomic_file import replace_file

FILES = Path(__file__).parent / "files"
PURPOSES = {  # of each top-level file and folder, in the order in which they are listed
    "README.md": "overview of the folders",
    "prometheus": "alert rules: list the *.rules.yml in rule_files of prometheus.yml",
    "alertmanager": "example: copy its inhibit_rules into your configuration",
    "grafana": "dashboard: import it under Dashboards, New, Import",
    "checkmk": "local check: copy it into the agent's folder for local checks",
    "nagios": "commands and services: list the file as cfg_file in nagios.cfg",
    "icinga2": "CheckCommand and services: copy them into conf.d",
    "runbooks": "a page for each alert: publish them where operators on call find them",
}
URL = re.compile(r"https?://[^\s\"'`<>{}|\\^]+")
RUNBOOK = re.compile(rb"(?<![\w./-])(?=runbooks/\w+\.md)")


class ExportError(Exception):
    """Nothing was written; the message says why, and what to do."""


def read_files() -> dict[str, bytes]:
    """Return the contents of all bundled files, by path."""
    return dict(sorted(_walk_files(FILES)))


def export_files(folder: Path, *, runbook_url: str = "", force: bool = False) -> dict[str, int]:
    """Write all bundled files into a folder, each atomically.

    Args:
        folder: the target; it is created if it does not exist.
        runbook_url: the address to put before `runbooks/` in the links of alerts.
        force: whether to overwrite files that differ.

    Returns:
        The number of files by top-level file or folder.

    Raises:
        ExportError: an existing file differs, or the address is invalid.
        OSError: a file could not be written; those written before it are complete.
    """
    if runbook_url and not URL.fullmatch(runbook_url):
        raise ExportError(
            f"--runbook-url {runbook_url!r} is not a valid address: use one that begins with "
            "https:// or http:// and contains no blanks, quotes or braces."
        )
    contents = {
        folder / path: _add_runbook_url(path, content, runbook_url)
        for path, content in read_files().items()
    }
    existing = {path: path.read_bytes() for path in contents if path.exists()}
    different = [path for path, content in existing.items() if content != contents[path]]
    if different and not force:
        paths = ", ".join(str(path.relative_to(folder)) for path in different)
        raise ExportError(
            f"Files in {folder} differ from the files to be written: {paths}. They were edited, or "
            "were exported by another version or with another --runbook-url. Nothing was written; "
            "use --force to overwrite them."
        )
    for path, content in contents.items():
        if existing.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    tops = [path.relative_to(folder).parts[0] for path in contents]
    return {top: tops.count(top) for top in sorted(set(tops), key=list(PURPOSES).index)}


def _walk_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for path in folder.iterdir():
        if path.is_file():
            yield prefix + path.name, path.read_bytes()
        elif path.name != "__pycache__":  # installers may compile a script
            yield from _walk_files(path, f"{prefix}{path.name}/")


def _add_runbook_url(path: str, content: bytes, runbook_url: str) -> bytes:
    """Put the address before each link to a runbook, except in pages beside the runbooks."""
    if not runbook_url or path.endswith(".md"):
        return content
    return RUNBOOK.sub(f"{runbook_url.rstrip('/')}/".encode(), content)


def _replace(path: Path, content: bytes) -> None:
    """Replace a file; a script is executable."""
    mode = 0o777 if content.startswith(b"#!") else 0o666
    replace_file(path, content, mode, apply_umask=True)
