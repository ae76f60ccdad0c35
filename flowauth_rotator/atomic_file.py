"""Atomic replacement of files."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int, *, apply_umask: bool = False) -> None:
    """Replace a file as a whole: at any moment, readers see the old content or the new.

    Args:
        path: the file, which need not exist.
        content: its new content.
        mode: its permission bits.
        apply_umask: whether the umask of the process clears some of these bits.

    Raises:
        OSError: the file was not replaced.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            if not apply_umask:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
