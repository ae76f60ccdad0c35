"""Atomic replacement of files."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

STALE_AFTER = 3600.0  # seconds; no run takes so long to write a file


def replace_file(path: Path, content: bytes, mode: int, *, apply_umask: bool = False) -> None:
    """Replace a file as a whole: at any moment, readers see the old content or the new.

    The content is written to a new file with a random name, a draft, which then takes the place of
    the path. What stands there is never opened: a link or a named pipe is replaced, and what a link
    points to stays as it is.

    Args:
        path: the file, which need not exist.
        content: its new content.
        mode: its permission bits.
        apply_umask: whether the umask of the process clears some of these bits.

    Raises:
        OSError: the file was not replaced.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if not apply_umask:
                os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def remove_stale_drafts(path: Path) -> None:
    """Remove drafts that a killed process left more than an hour before the file was replaced.

    Only regular files of this user are removed. Both times are of the file system. Errors are
    ignored.
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}")
    with suppress(OSError):
        latest = path.lstat().st_mtime - STALE_AFTER
        for entry in path.parent.iterdir():
            if name.fullmatch(entry.name):
                _remove_if_stale(entry, latest)


def _remove_if_stale(draft: Path, latest: float) -> None:
    with suppress(OSError):
        status = draft.lstat()
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and status.st_mtime < latest:
            draft.unlink()
