"""The place of the token in use, shared by all agents and by an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowauth_rotator.core.errors import MissingToken, ShadowedStore, StoreUnavailable
from flowauth_rotator.core.tokens import Token

if TYPE_CHECKING:
    from proofs.simulation.agents import Run
    from proofs.simulation.laws import Laws


class Place:
    """What all see: one value and its description; and what is wrong with it at the moment."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.description = ""
        self.is_shadowed = False
        self.is_down = False


class SimulatedStore:
    """An agent's way to the place, for one run.

    Args:
        place: what all see.
        run: whose way it is.
        laws: who must know of each write.
        fault_rate: how likely each call fails.
        has_gap: whether others may act between the last read and the write, as with a Variable of
            Airflow, which knows no conditional write.
    """

    name, place = "FLOWAPI_TOKEN", "Variable FLOWAPI_TOKEN"

    def __init__(
        self, place: Place, run: Run, laws: Laws, *, fault_rate: float, has_gap: bool
    ) -> None:
        self._place, self._run, self._laws = place, run, laws
        self._process, self._world = run.process, run.process.world
        self._fault_rate, self._has_gap = fault_rate, has_gap
        self._reads = 0

    def read(self) -> Token:
        """The token."""
        self._process.point(("P0", "P9", "P12")[min(self._reads, 2)])
        self._process.breathe()
        self._run.has_looked = True
        self._fail("reading")
        text = self._place.text
        self._run.read = text
        if self._reads == 0:
            self._run.found = text
        self._world.say(self._process.name, f"reads {self._laws.label(text)}")
        self._reads += 1
        self._process.point(("P1", "P10", "P13")[min(self._reads - 1, 2)])
        if text is None:
            raise MissingToken("There is none.")
        return Token(text)

    def preflight(self) -> None:
        """See whether a write would be seen."""
        self._process.breathe()
        self._fail("preflight")
        if self._place.is_shadowed:
            self._run.faults.append("shadowed")
            raise ShadowedStore("It is set elsewhere.")
        self._run.has_passed_preflight = True
        self._world.say(self._process.name, "preflight passed")
        self._process.point("P2")

    def write(self, token: Token, description: str) -> None:
        """Put it there."""
        self._run.has_looked = False
        if self._has_gap:
            self._process.breathe()
        self._fail("writing")
        if not (self._place.is_shadowed and self._world.chance(0.5)):
            self._laws.check_write(self._run, token.reveal(), description)
            self._place.text, self._place.description = token.reveal(), description
            self._run.has_swapped = True
        self._world.say(self._process.name, f"writes {self._laws.label(token.reveal())}")
        self._process.point("P11")
        self._process.breathe()
        self._fail("answer to the write")

    def _fail(self, what: str) -> None:
        if self._place.is_down or self._world.chance(self._fault_rate):
            self._run.faults.append(f"store: {what}")
            self._world.count(f"store: {what} failed")
            self._world.say(self._process.name, f"the store fails: {what}")
            raise StoreUnavailable(f"The store failed: {what}.")
