"""The bugs that `make mutants` puts in still have a place to be put."""

from proofs.mutants import MUTANTS, ROOT


def test_each_bug_has_its_place():
    """Once in its file, so that the next reader is told when the code has moved on."""
    lost = [one.name for one in MUTANTS if (ROOT / one.file).read_text().count(one.old) != 1]
    assert lost == []


def test_there_are_enough_and_none_twice():
    """At least twenty, each under a name of its own."""
    assert len({one.name for one in MUTANTS}) == len(MUTANTS) >= 20
