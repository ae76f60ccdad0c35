"""Some hundred of the schedules that `make simulate` looks at a hundred thousand of."""

import pytest

from flowauth_rotator.agent import rotation
from proofs.simulation.__main__ import ENOUGH, KINDS, find_unmet, render_trace, violated

pytestmark = pytest.mark.slow

SCHEDULES = 500


def test_no_invariant_is_violated():
    """Whatever is lost, late, forged or killed, for whoever meddles: I1 to I15 hold."""
    violations = {seed: violated(seed)[0] for seed in range(SCHEDULES)}
    assert {seed: violation for seed, violation in violations.items() if violation} == {}


def test_a_kind_of_event_that_is_never_met_is_noticed():
    """Each point at which something may die is met, and every kind of end; in a few, it may not."""
    assert find_unmet(KINDS, ENOUGH) == []
    assert find_unmet(KINDS - {"killed at P6"}, ENOUGH) == ["killed at P6"]
    assert find_unmet(KINDS - {"killed at P6"}, ENOUGH - 1) == []


@pytest.mark.parametrize("seed", [3, 17, 41])
def test_a_seed_replays(seed):
    """The same seed is the same story, line by line."""
    assert render_trace(seed) == render_trace(seed)
    assert render_trace(seed).endswith(f"Seed {seed}: all invariants hold.")


def test_a_violation_is_told_as_a_story(monkeypatch):
    """A rotation that does not look before it writes: what happened, and which invariant fell."""
    monkeypatch.setattr(rotation, "read_current", lambda _store: None)
    monkeypatch.setattr(
        rotation._Rotation,
        "_report_other_writer",
        lambda this, _current: this._inspection.report,
    )
    seed = next(seed for seed in range(SCHEDULES) if violated(seed)[0])
    lines = render_trace(seed).splitlines()
    assert lines[-1].startswith(f"Seed {seed} violates I")
    assert any("begins with T0" in line for line in lines)
