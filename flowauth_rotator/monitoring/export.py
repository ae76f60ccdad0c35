"""Write out what is shipped for monitoring systems: rules, checks, a dashboard, runbooks."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILES = Path(__file__).parent / "files"
USES = {  # of each file and folder at the top, in the order in which they are told
    "README.md": "what each folder is for",
    "prometheus": "alerts: list the *.rules.yml in rule_files of prometheus.yml",
    "alertmanager": "an example: copy its inhibit_rules into your configuration",
    "grafana": "a dashboard: import it under Dashboards, New, Import",
    "checkmk": "a local check: copy it into the agent's folder for local checks",
    "nagios": "commands and services: name them by cfg_file in nagios.cfg",
    "icinga2": "a CheckCommand and services: copy them into conf.d",
    "runbooks": "what to do at each alert: put them where those on call find them",
}
ADDRESS = re.compile(r"https?://[^\s\"'`<>{}|\\^]+")
RUNBOOK = re.compile(rb"(?<![\w./-])(?=runbooks/\w+\.md)")


class NotWritten(Exception):
    """Nothing was written; the message says why, and what to do."""


def shipped() -> dict[str, bytes]:
    """The content of all files, by their paths, as they are in the package."""
    return dict(sorted(_below(FILES)))


def export(folder: Path, *, runbook_url: str = "", force: bool = False) -> dict[str, int]:
    """Write all files into a folder, each whole or not at all.

    Args:
        folder: where to; it is made if it is not there.
        runbook_url: the address that is put before `runbooks/` in links of alerts.
        force: whether to overwrite files that are different.

    Returns:
        How many files there are, by their top folder.

    Raises:
        NotWritten: a file there is different, or the address is none.
        OSError: as far as it came, the files are whole.
    """
    if runbook_url and not ADDRESS.fullmatch(runbook_url):
        raise NotWritten(
            f"{runbook_url!r} is no address that can stand in the files: "
            "it begins with https:// or http://, and has no blanks, quotes or braces."
        )
    wanted = {
        folder / path: _linked(path, content, runbook_url) for path, content in shipped().items()
    }
    there = {path: path.read_bytes() for path in wanted if path.exists()}
    different = [path for path, content in there.items() if content != wanted[path]]
    if different and not force:
        listed = ", ".join(str(path.relative_to(folder)) for path in different)
        raise NotWritten(
            f"In {folder} these differ from what would be written: {listed}. Somebody changed "
            "them, or another version or --runbook-url is in them. Nothing was written; "
            "--force overwrites them."
        )
    for path, content in wanted.items():
        if there.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    tops = [path.relative_to(folder).parts[0] for path in wanted]
    return {top: tops.count(top) for top in sorted(set(tops), key=list(USES).index)}


def _below(folder: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.is_file():
            yield prefix + one.name, one.read_bytes()
        elif one.name != "__pycache__":  # of a script, where an installer has compiled it
            yield from _below(one, f"{prefix}{one.name}/")


def _linked(path: str, content: bytes, runbook_url: str) -> bytes:
    """With the address before each link to a runbook, but for pages, which go with the runbooks."""
    if not runbook_url or path.endswith(".md"):
        return content
    return RUNBOOK.sub(f"{runbook_url.rstrip('/')}/".encode(), content)


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place, whole; a script may be run."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    mode = 0o777 if content.startswith(b"#!") else 0o666
    try:
        with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()
