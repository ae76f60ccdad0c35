"""One schedule: a setting, some agents, whatever may happen to them, and then calm."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from email.utils import formatdate
from functools import partial

from flowauth_rotator.core.errors import BudgetExhausted
from flowauth_rotator.core.policy import RotationPolicy, decide
from proofs.flowapi import PATH, FlowApi
from proofs.flowauth import Response
from proofs.simulation.agents import Agent, Setting
from proofs.simulation.issuers import (
    ROLES,
    WEEK,
    Issuer,
    SimulatedFlowAuth,
    SimulatedServer,
)
from proofs.simulation.laws import BrokenLaw, Laws, Listener
from proofs.simulation.network import Exchange
from proofs.simulation.store import Place
from proofs.simulation.world import BEGINNING, World

CLOCKS = (*(0.0,) * 5, 20.0, -45.0, 150.0, -3600.0, 3600.0, 40 * 86400.0)  # seconds ahead
DATES = (*(0.0,) * 12, -90.0, 90.0, -3 * 86400.0, 10 * 86400.0)  # of the issuer, likewise
LIFETIMES = (60, 12 * 60, WEEK)  # in minutes
CHECKS = 2  # after which all must be well, once it is calm
MOST_ROUNDS = 90  # until it must be well in any case
NO_TOKEN = ("", "not a token", "a.b.c", '{"token": "%s"}', "Bearer %s", '"%s"', "%s\n", "%s.%s")
logger = logging.getLogger("flowauth_rotator")


class Schedule:
    """All that follows from one seed; `run` it once.

    Attributes:
        world: its clock, its dice and, if traced, the lines of what happened.
    """

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.world = world = World(seed, is_traced=is_traced)
        dice = world.random
        self._kind = dice.choice(("FlowAuth", "FlowAuth", "bundled", "bearer"))
        self._agents_number = dice.choice((1, 1, 1, 1, 2, 2, 3, 5))
        self._lifetime = dice.choice(LIFETIMES)
        self._setting = Setting(
            has_sign_in=self._kind != "bearer",
            policy=RotationPolicy(
                renew_before=dice.choice((1 / 3, 1 / 3, timedelta(days=4))),
                lifetime_minutes=dice.choice((None, None, self._lifetime - 1)),
            ),
            network_faults=dice.choice((0, 0.05, 0.2, 0.5)),
            store_faults=dice.choice((0, 0, 0.05, 0.2)),
            crashes=dice.choice((0, 0, 0.02, 0.1)),
            has_gap=dice.random() < 0.5,
            has_probe=dice.random() < 0.5,
        )
        self._refused_from: float | None = None
        self._flowapi = FlowApi(self._refuse, has_scope=dice.random() < 0.5)
        self._place = Place()
        self._is_down = False
        self._trouble: list[str] = []
        self._laws = Laws(
            world,
            self._place,
            self._setting.policy,
            agents=self._agents_number,
            honours_keys=self._kind != "FlowAuth",
            has_sign_in=self._setting.has_sign_in,
            has_gap=self._setting.has_gap,
            has_probe=self._setting.has_probe,
            is_troubled=lambda: bool(self._trouble),
        )
        make = SimulatedFlowAuth if self._kind == "FlowAuth" else SimulatedServer
        self._issuer: Issuer = make(lambda: world.now, self._laws.minted)
        self._agents = [
            Agent(
                *(number, world, self._setting, self._place, self._laws),
                *(self._deliver, self._deliver_to_flowapi),
            )
            for number in range(1, self._agents_number + 1)
        ]

    def run(self) -> None:
        """Let it happen.

        Raises:
            BrokenLaw: an invariant did not hold.
        """
        listener = Listener()
        logger.addHandler(listener)
        try:
            self._begin()
            self.world.run()
            self._calm()
            self._laws.check_history(list(self._issuer.texts()))
            self._laws.check_secrecy(*listener.lines, *self._laws.texts)
        finally:
            logger.removeHandler(listener)
            self._issuer.restore()

    # What happens.

    def _begin(self) -> None:
        """A token that is due soon, checks by the clock, and some events."""
        world, dice = self.world, self.world.random
        lifetime = self._lifetime * 60
        self._issuer.cap(self._lifetime)
        age = lifetime * dice.choice((0.6, 0.66, 0.7, 0.9, 0.98))
        self._place.text = self._by_hand(BEGINNING - age)
        length = (lifetime - age) * dice.choice((0.2, 0.5, 1.1))
        checks = dice.randint(1, 4)
        self._laws.date_offset = dice.choice(DATES)
        for agent in self._agents:
            begin = dice.choice((0.0, dice.random()))
            self._set_clock(agent, dice.choice(CLOCKS))
            if dice.random() < 0.3:
                agent.crash_at = f"P{dice.randint(0, 13)}"
            for number in range(checks):
                world.at(BEGINNING + (number + begin) * length / checks, agent.check)
            if dice.random() < 0.3:
                world.at(BEGINNING + dice.random() * length, agent.rehearse)
        for _ in range(dice.choice((0, 0, 1, 2, 3))):
            event = dice.choice(self._events())
            world.at(BEGINNING + dice.random() * length, partial(self._meddle, event))
            if dice.random() < 0.5:  # in the very middle of a run
                world.at(BEGINNING + dice.random() * 3, partial(self._meddle, event))

    def _by_hand(self, issued_at: float) -> str:
        minutes = self._lifetime - 1 if self._kind == "FlowAuth" else self._lifetime
        return self._laws.by_hand(*self._issuer.mint(minutes, issued_at))

    def _events(self) -> list[Callable[[], str]]:
        return [
            self._paste_fresh,
            self._paste_old,
            self._paste_nonsense,
            self._remove,
            self._revoke,
            self._cap,
            self._uncap,
            self._change_clock,
            self._go_down,
            self._lose_store,
            self._shadow,
            self._outdate_flowapi,
        ]

    def _meddle(self, event: Callable[[], str]) -> None:
        what = event()
        self.world.count(f"event: {event.__name__.removeprefix('_').replace('_', ' ')}")
        self.world.say("an operator", what)
        self._laws.meddled()

    def _paste_fresh(self) -> str:
        if {"revoked", "capped"} & set(self._trouble):
            return "would paste, and may not mint"
        self._place.text = self._by_hand(self.world.now - 1)
        self._place.description = "by hand"
        return f"pastes {self._laws.label(self._place.text)}"

    def _paste_old(self) -> str:
        self._place.text = next(iter(self._laws.tokens))
        return "pastes the first token again"

    def _paste_nonsense(self) -> str:
        text = self.world.random.choice(NO_TOKEN)
        self._place.text = text.replace("%s", next(iter(self._laws.tokens)))
        return "pastes a text that is not a token"

    def _remove(self) -> str:
        self._place.text = None
        return "removes the token"

    def _revoke(self) -> str:
        role = self.world.random.choice(list(ROLES))
        return self._troubled("revoked", lambda held: self._issuer.hold(role, held=held))

    def _cap(self) -> str:
        minutes = self.world.random.choice((1, 5, self._lifetime / 10, self._lifetime / 3))

        def cap(lifted: bool) -> None:
            self._issuer.cap(self._lifetime if lifted else minutes)

        return self._troubled("capped", cap)

    def _uncap(self) -> str:
        self._issuer.cap(self._lifetime)
        self._trouble = [what for what in self._trouble if what != "capped"]
        return "lifts the cap"

    def _change_clock(self) -> str:
        agent = self.world.random.choice(self._agents)
        self._set_clock(agent, self.world.random.choice(CLOCKS))
        return f"sets the clock of {agent.name} to {agent.clock_offset:+.0f} s"

    def _set_clock(self, agent: Agent, offset: float) -> None:
        """With two wrong clocks the time cannot be known: one of them is right."""
        agent.clock_offset = 0.0 if self._laws.date_offset else offset

    def _go_down(self) -> str:
        def go(up: bool) -> None:
            self._is_down = not up

        return self._troubled("issuer down", go)

    def _lose_store(self) -> str:
        def lose(found: bool) -> None:
            self._place.is_down = not found

        return self._troubled("store down", lose)

    def _shadow(self) -> str:
        def shadow(removed: bool) -> None:
            self._place.is_shadowed = not removed

        return self._troubled("shadowed", shadow)

    def _outdate_flowapi(self) -> str:
        """The issuer gets another key, of which FlowAPI does not know for a while."""

        def outdate(known: bool) -> None:
            self._refused_from = None if known else self.world.now

        return self._troubled("FlowAPI has an old key", outdate)

    def _refuse(self, text: str) -> int | None:
        """The status with which FlowAPI refuses a token; None if it accepts it."""
        known = self._laws.tokens.get(text)
        if known is None or (
            self._refused_from is not None and known.made_at >= self._refused_from
        ):
            return 422
        return 401 if known.claims.expires_at <= self._laws.moment() else None

    def _troubled(self, what: str, switch: Callable[[bool], None]) -> str:
        """Some trouble, which passes after a while."""

        def pass_by() -> str:
            switch(True)
            if what in self._trouble:
                self._trouble.remove(what)
            return f"no more: {what}"

        switch(False)
        self._trouble.append(what)
        after = self.world.random.choice((2.0, 60.0, 600.0, self._lifetime * 10))
        self.world.at(self.world.now + after, lambda: self._meddle(pass_by))
        return what

    def _deliver(self, exchange: Exchange) -> Response | None:
        """What the issuer answers, unless it is down; its `Date` may be a proxy's."""
        if self._is_down:
            return None
        answer = self._issuer.deliver(exchange)
        if self._laws.date_offset:
            moment = self.world.now + self._laws.date_offset
            answer.headers["Date"] = formatdate(int(moment), usegmt=True)
        return answer

    def _deliver_to_flowapi(self, exchange: Exchange) -> Response | None:
        """What FlowAPI answers."""
        return self._flowapi.answer(exchange.method, PATH, exchange.headers, b"")

    # The calm after it.

    def _calm(self) -> None:
        """I14: from wherever it was left, two checks later all is well, without a second mint."""
        self.world.is_calm = True
        self.world.say("an operator", "ends all trouble")
        self._issuer.cap(self._lifetime)
        self._laws.date_offset = 0.0
        for agent in self._agents:
            agent.clock_offset = 0.0
        if not self._can_recover():
            age = self._lifetime * 60 * 0.7
            self._place.text = self._by_hand(self.world.now - age)
            self.world.say("an operator", f"stores {self._laws.label(self._place.text)}")
        is_excused = False
        for number in range(MOST_ROUNDS):
            is_excused |= self._is_excused()
            if self._is_well():
                break
            self._require(
                number < CHECKS or is_excused, "I14: a token is not healthy after two checks"
            )
            self._check_all(self._pause(number))
            is_excused |= isinstance(self._laws.last_end, BudgetExhausted)
        self._require(self._is_well(), "I14: a token never became healthy again")
        if self._is_well(seconds=60):
            made = len(self._laws.tokens)
            self._agents[0].check()
            self.world.run()
            self._require(
                len(self._laws.tokens) == made, "I14: minted again after all tokens were healthy"
            )

    def _check_all(self, pause: float) -> None:
        """Every agent checks at about the same time."""
        for agent in self._agents:
            self.world.at(self.world.now + pause + self.world.random.random(), agent.check)
        self.world.run()

    def _pause(self, number: int) -> float:
        """Seconds until the next check: soon at first, then some way on towards the expiry."""
        known = self._laws.tokens.get(self._place.text or "")
        left = known.claims.expires_at.timestamp() - self.world.now if known else 0.0
        return 60.0 if number < CHECKS else max(left / 8, 60.0 if left > 0 else 1200.0)

    def _can_recover(self) -> bool:
        """Whether what is stored can be renewed, with some time left for it."""
        known = self._laws.tokens.get(self._place.text or "")
        if known is None:
            return False
        left = known.claims.expires_at - self._laws.moment()
        enough = max(known.claims.lifetime / 256, timedelta(seconds=300))
        return left > enough or self._kind == "FlowAuth"

    def _is_well(self, seconds: float = 0) -> bool:
        """Whether the token in use is not due, nor will be so soon."""
        known = self._laws.tokens.get(self._place.text or "")
        moment = self._laws.moment() + timedelta(seconds=seconds)
        return known is not None and not decide(known.claims, self._setting.policy, moment).due

    def _is_excused(self) -> bool:
        """Whether it is right to wait: what was made of the token before was of no use."""
        return self._laws.asked_in_vain(self._place.text)

    def _require(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.world.say("law", f"VIOLATED {sentence}")
            raise BrokenLaw(sentence)
