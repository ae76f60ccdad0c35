"""The table writer of the command line."""

from flowauth_rotator.tables import format_table


def test_columns_are_aligned_and_lines_have_no_trailing_spaces():
    """The titles count for the widths like every other cell."""
    table = format_table([["a", "long cell", "x"], ["longer", "b", ""]], ["ID", "NAME", "STATE"])
    assert list(table) == [
        "ID      NAME       STATE",
        "a       long cell  x",
        "longer  b",
    ]


def test_titles_are_optional_and_no_rows_are_no_lines():
    """A table without rows is its titles alone."""
    assert list(format_table([["a", "b"]])) == ["a  b"]
    assert list(format_table([])) == []
    assert list(format_table([], ["ID", "NAME"])) == ["ID  NAME"]


def test_no_cell_is_wrapped_or_truncated():
    """Whatever the width of the terminal, a script reads the whole cell."""
    assert list(format_table([["x" * 10_000, "y"]])) == ["x" * 10_000 + "  y"]


def test_a_long_table_is_written_before_it_is_read_to_its_end():
    """Columns of a later batch are at least as wide as those before."""
    taken = []

    def rows():
        for number in range(1200):
            taken.append(number)
            yield ["wide cell" if number == 10 else str(number), "end"]

    table = format_table(rows())
    first = next(table)
    assert len(taken) == 500
    assert {line.index("end") for line in [first, *table]} == {11}


def test_wide_characters_take_two_columns():
    assert list(format_table([["東京", "a"], ["long", "b"], ["x", "c"]])) == [
        *("東京  a", "long  b", "x     c"),
    ]
