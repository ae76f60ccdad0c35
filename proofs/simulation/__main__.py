"""`make simulate`: many schedules, each from its seed, with all invariants looked at throughout."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from os import cpu_count

import click

from proofs.simulation.laws import BrokenLaw
from proofs.simulation.schedule import Schedule

BATCH = 250  # schedules at a time
ENOUGH = 10_000  # schedules, in which each of these kinds of events is to be met
KINDS = (
    {f"killed at P{point}" for point in range(14)}
    | {
        f"outcome: {outcome}"
        for outcome in (
            "rotated",
            "adopted",
            "superseded",
            "capped",
            "refused",
            "rejected",
            "expired",
        )
    }
    | {
        *("rehearsal: succeeded", "rehearsal: failed"),
        *("FlowAPI: accepted", "FlowAPI: refused", "FlowAPI: no answer"),
        "FlowAPI: held back a successor",
    }
)


def violated(seed: int) -> tuple[str | None, list[str]]:
    """The invariant that does not hold in a schedule, if any, and what happened in it, by kind."""
    schedule = Schedule(seed)
    try:
        schedule.run()
    except BrokenLaw as violation:
        return str(violation), schedule.world.seen
    except Exception as error:  # noqa: BLE001 - reported with its seed
        return f"{type(error).__name__} in the simulation itself", schedule.world.seen
    return None, schedule.world.seen


def render_trace(seed: int) -> str:
    """Return what happened in a schedule: a line for each event, with its time and actor."""
    schedule = Schedule(seed, is_traced=True)
    try:
        schedule.run()
    except BrokenLaw as violation:
        return "\n".join([*schedule.world.trace, f"Seed {seed} violates {violation}."])
    return "\n".join([*schedule.world.trace, f"Seed {seed}: all invariants hold."])


def find_unmet(seen: Collection[str], schedules: int) -> list[str]:
    """Return the kinds of events that so many schedules should have met, and did not."""
    return sorted(KINDS - set(seen)) if schedules >= ENOUGH else []


def _batch(first: int, number: int, *, stop: bool) -> tuple[dict[int, str], Counter[str]]:
    found: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for seed in range(first, first + number):
        violation, kinds = violated(seed)
        seen.update(kinds)
        if violation:
            found[seed] = violation
            if stop:
                break
    return found, seen


def _spare_the_collector() -> None:
    """What is imported stays; a tenth of the time went into looking for garbage among it."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _by_number(item: tuple[str, int]) -> tuple[str, int]:
    """Sorts P2 before P10."""
    name = item[0].rstrip("0123456789")
    return name, int(item[0][len(name) :] or 0)


@click.command()
@click.option("--schedules", default=100_000, show_default=True, help="How many.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--seed", type=int, help="Replay one schedule, line by line.")
@click.option("--stop", is_flag=True, help="Stop at the first violation.")
def main(*, schedules: int, first: int, seed: int | None, stop: bool) -> None:
    """Simulate schedules and look for one in which an invariant does not hold."""
    if seed is not None:
        click.echo(render_trace(seed))
        return
    began = time.perf_counter()
    found: dict[int, str] = {}
    seen: Counter[str] = Counter()
    done = 0
    with ProcessPoolExecutor(cpu_count(), initializer=_spare_the_collector) as pool:
        starts = range(first, first + schedules, BATCH)
        sizes = [min(BATCH, first + schedules - start) for start in starts]
        batches = pool.map(partial(_batch, stop=stop), starts, sizes)
        for size, (violations, kinds) in zip(sizes, batches, strict=True):
            found |= violations
            seen += kinds
            done += size
            if stop and found:
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.perf_counter() - began
    for kind, number in sorted(seen.items(), key=_by_number):
        click.echo(f"{kind:<40}  {number:>9,}")
    click.echo(f"{done:,} schedules in {seconds:.0f} s, {len(found)} violations")
    for number, violation in sorted(found.items())[:10]:
        click.echo(f"  {violation}: python -m proofs.simulation --seed {number}")
    unmet = find_unmet(seen, done)
    for kind in unmet:
        click.echo(f"  never met: {kind}")
    raise SystemExit(bool(found or unmet))


if __name__ == "__main__":
    main()
