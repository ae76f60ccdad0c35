"""Tables for the command line: aligned columns, never wrapped or truncated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from rich.cells import cell_len, set_cell_size

from flowauth_rotator.core.text import remove_control_characters

_BATCH = 500  # rows that are aligned together, so that a long table needs little memory


def format_table(
    rows: Iterable[Sequence[str]], headers: Sequence[str] | None = None
) -> Iterator[str]:
    """Yield the lines of a table with left-aligned columns, without line ends.

    Control characters in cells are removed. Rows are read in batches. A batch with longer cells
    widens its columns; they never narrow.

    Args:
        rows: The cells of each row; all rows have the same number.
        headers: The column titles; without rows, they are the whole table.
    """
    remaining = ([remove_control_characters(cell) for cell in row] for row in rows)
    batch = [] if headers is None else [list(headers)]
    batch.extend(islice(remaining, _BATCH))
    widths = [0] * len(batch[0]) if batch else []
    while batch:
        columns = zip(widths, zip(*batch, strict=True), strict=True)
        widths = [max(width, *map(cell_len, cells)) for width, cells in columns]
        for row in batch:
            cells = (set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
            yield "  ".join(cells).rstrip()
        batch = list(islice(remaining, _BATCH))
