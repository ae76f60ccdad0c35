"""Some thousand of the schedules that `make simulate` looks at a hundred thousand of."""

import pytest

from flowauth_rotator.agent import rotation
from proofs.simulation.__main__ import told, violated

SCHEDULES = 2_000


@pytest.fixture(scope="module")
def ends():
    """How each schedule ended, and what happened in it."""
    return {seed: violated(seed) for seed in range(SCHEDULES)}


def test_no_invariant_is_violated(ends):
    """Whatever is lost, late, forged or killed, for whoever meddles: I1 to I15 hold."""
    assert {seed: violation for seed, (violation, _) in ends.items() if violation} == {}


def test_every_point_and_fault_is_met(ends):
    """Each point at which something may die is met, and every kind of end."""
    seen = {kind for _, kinds in ends.values() for kind in kinds}
    assert {f"killed at P{point}" for point in range(14)} <= seen
    outcomes = ("rotated", "adopted", "superseded", "capped", "refused", "rejected", "expired")
    assert {f"outcome: {outcome}" for outcome in outcomes} <= seen


@pytest.mark.parametrize("seed", [3, 17, 41])
def test_a_seed_replays(seed):
    """The same seed is the same story, line by line."""
    assert told(seed) == told(seed)
    assert told(seed).endswith(f"Seed {seed}: all invariants hold.")


def test_a_violation_is_told_as_a_story(monkeypatch):
    """A rotation that does not look before it writes: what happened, and which invariant fell."""
    monkeypatch.setattr(rotation, "_current", lambda _store: None)
    monkeypatch.setattr(rotation, "_overtaken", lambda store, found, current, clocks: found.report)
    seed = next(seed for seed in range(SCHEDULES) if violated(seed)[0])
    lines = told(seed).splitlines()
    assert lines[-1].startswith(f"Seed {seed} violates I")
    assert any("begins with T0" in line for line in lines)
