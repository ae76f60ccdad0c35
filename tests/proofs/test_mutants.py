"""The bugs of `make mutants` fit the present code, and a pattern finds what it describes."""

import ast
from dataclasses import replace

import pytest

from proofs.mutants import MUTANTS, mutate
from proofs.mutants.table import ROOT
from proofs.mutants.trees import PlaceMissing, replace_node


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_changes_the_present_code(mutant):
    """The bug has a place, and the module with the bug is another program that compiles."""
    source = mutate(mutant)
    compile(source, mutant.file, "exec")
    assert source != ast.unparse(ast.parse((ROOT / mutant.file).read_text()))


JAM = """try:
            self.lock.turn(key)
        except Jam as error:
            failure = error"""
SOURCE = f"""
class Door:
    def open(self, key, *, now):
        if key is None or key.expires_at <= now:
            raise Closed("The key expired.")
        {JAM}
        return key.id if key else None
"""


@pytest.mark.parametrize(
    ("pattern", "replacement", "before", "after"),
    [
        ("A is None or _", "A is None", " or key.expires_at <= now", ""),
        ("_ <= now", "False", "key.expires_at <= now", "False"),
        ("raise Closed(...)", "pass", "raise Closed('The key expired.')", "pass"),
        ("A.turn(B)", "A.push(B, now)", "turn(key)", "push(key, now)"),
        ("return _", "return 0", "return key.id if key else None", "return 0"),
        ("A.id if A else None", "A", "key.id if key else None", "key"),
        ("failure = E", "raise E", "failure = error", "raise error"),
        (
            "try: A\nexcept Jam as E: ...",
            "A",
            JAM,
            "self.lock.turn(key)",
        ),
    ],
)
def test_a_pattern_finds_one_node(pattern, replacement, before, after):
    """Whatever the local variables are called, and however the lines are broken."""
    expected = ast.unparse(ast.parse(SOURCE)).replace(before, after)
    assert replace_node(SOURCE, "Door.open", pattern, replacement) == expected


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"place": "flowauth_rotator.core.nowhere:resolve_duration"}, "there is no such module"),
        ({"place": "flowauth_rotator.core.policy:lose"}, "there is no function lose"),
        ({"pattern": "max(A, B)"}, r"`max\(A, B\)` is 0 times in resolve_duration, not once"),
        ({"pattern": "lifetime"}, "`lifetime` is 2 times in resolve_duration, not once"),
        ({"replacement": "smallest"}, "the module does not define smallest"),
    ],
)
def test_a_mutant_without_a_place_says_what_is_missing(changes, problem):
    """In one sentence, which names the mutant and where to correct it."""
    [mutant] = [one for one in MUTANTS if one.place.endswith(":resolve_duration")]
    with pytest.raises(PlaceMissing, match=rf"^The mutant '.*' does not fit .*: {problem}\. \w+"):
        mutate(replace(mutant, **changes))
