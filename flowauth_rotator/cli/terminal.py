"""What only a person at a terminal sees."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext


def is_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def show_status(text: str) -> AbstractContextManager[object]:
    """Show a text until the block ends, if standard error is a terminal."""
    if not is_terminal():
        return nullcontext()
    from rich.console import Console
    from rich.markup import escape

    return Console(stderr=True, highlight=False).status(escape(text))
