"""Agents: each a real rotation on simulated parts, again and again, until something kills it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.probe import Probe
from flowauth_rotator.agent.rehearsal import rehearse
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.core.tokens import PublicKey, Token
from proofs.flowauth import Response
from proofs.simulation.issuers import NAME, PASSWORD, USERNAME
from proofs.simulation.keys import signer
from proofs.simulation.laws import BrokenLaw, Laws
from proofs.simulation.network import Exchange, ProbeWire, SimulatedWire
from proofs.simulation.store import Place, SimulatedStore
from proofs.simulation.world import Process, World

ZONES = (timedelta(0), timedelta(hours=-5), timedelta(hours=5, minutes=45))


@cache
def _prototype(*, has_sign_in: bool) -> SessionIssuer | BearerIssuer:
    """An issuer that is not yet wired to a world."""
    url = "https://issuer.example"
    return SessionIssuer(url, USERNAME, PASSWORD) if has_sign_in else BearerIssuer(url)


@cache
def _probe_prototype() -> Probe:
    """A probe that is not yet wired to a world."""
    return Probe(ProbeWire.where)


@dataclass(eq=False)
class Run:
    """One run of the rotation, as the laws look at it.

    Attributes:
        agent: whose.
        process: where it runs.
        began: when, in true time.
        skew: by how much the agent's clock was ahead of the true time when it began.
        found: the value that it read first.
        read: the value that it read last.
        faults: what went wrong, with the network, the store or anything around it.
        offered: tokens that were considered, in the order.
        has_asked: whether anything was sent to the issuer.
        has_passed_preflight: whether the store was found to take a write.
        has_swapped: whether its write took place.
        has_looked: whether it has tried to read since it has sent its write.
        refusals: how often the issuer said no to a renewal, for good.
        pauses: seconds between attempts.
        is_rehearsal: whether it only rehearses the renewal.
        trials: how many requests it sent to FlowAPI.
        verdicts: whether FlowAPI accepted each token when last tried; None without an answer.
    """

    agent: Agent
    process: Process
    began: float
    skew: timedelta
    found: str | None = None
    read: str | None = None
    faults: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)
    has_passed_preflight: bool = False
    has_asked: bool = False
    has_swapped: bool = False
    has_looked: bool = True
    refusals: int = 0
    pauses: list[float] = field(default_factory=list)
    is_rehearsal: bool = False
    trials: int = 0
    verdicts: dict[str, bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RunTimer:
    """The simulated time of a run."""

    run: Run

    def monotonic(self) -> float:
        """Return the true time."""
        return self.run.process.world.now

    def sleep(self, seconds: float) -> None:
        """Note a pause, and let others act for so long."""
        self.run.pauses.append(seconds)
        self.run.process.sleep(max(seconds, 0.0))


@dataclass
class Setting:
    """What all agents of a schedule have in common.

    Attributes:
        has_sign_in: whether they sign in; otherwise a token is its own credential.
        policy: when a token is due.
        network_faults, store_faults, crashes: how likely each is, at each occasion.
        has_gap: whether others may act between the last read and a write.
        has_probe: whether they try tokens at FlowAPI.
    """

    has_sign_in: bool
    policy: RotationPolicy
    network_faults: float
    store_faults: float
    crashes: float
    has_gap: bool
    has_probe: bool


class Agent:
    """One agent with a clock of its own, and one run at a time.

    Attributes:
        clock_offset: seconds by which its clock is ahead of the true time.
        crash_at: the point at which its next run dies.
        run: the run that is under way.
    """

    def __init__(
        self,
        number: int,
        world: World,
        setting: Setting,
        place: Place,
        laws: Laws,
        deliver: Callable[[Exchange], Response | None],
        deliver_to_flowapi: Callable[[Exchange], Response | None],
    ) -> None:
        self.name = f"agent {number}"
        self.clock_offset = 0.0
        self.crash_at: str | None = None
        self.run: Run | None = None
        self._zone = timezone(world.random.choice(ZONES))
        self._world, self._setting = world, setting
        self._place, self._laws, self._deliver = place, laws, deliver
        self._deliver_to_flowapi = deliver_to_flowapi

    def check(self) -> None:
        """Start a run, unless one is under way."""
        self._start(is_rehearsal=False)

    def rehearse(self) -> None:
        """Start a rehearsal, unless a run is under way."""
        self._start(is_rehearsal=True)

    def _start(self, *, is_rehearsal: bool) -> None:
        if self.run is None:
            process = Process(self._world, self.name, self._rotate)
            process.crash_at, process.crash_rate = self.crash_at, self._setting.crashes
            self.crash_at = None
            skew = timedelta(seconds=self.clock_offset)
            self.run = Run(self, process, self._world.now, skew, is_rehearsal=is_rehearsal)
            self._laws.begin(self.run)
            process.start()

    def _rotate(self, process: Process) -> None:
        run = self.run
        assert run is not None  # noqa: S101 - `check` has set it
        store = SimulatedStore(
            self._place,
            run,
            self._laws,
            fault_rate=self._setting.store_faults,
            has_gap=self._setting.has_gap,
        )
        ended: Report | RotatorError | None = None
        problem: Exception | None = None
        try:
            with closing(self._issuer(run)) as issuer:
                ended = (rehearse if run.is_rehearsal else rotate)(
                    store,
                    issuer,
                    self._setting.policy,
                    now=datetime.fromtimestamp(self._world.now + self.clock_offset, self._zone),
                    name=NAME,
                    public_key=lambda: PublicKey(signer().public_pem),
                    probe=self._probe(run) if self._setting.has_probe else None,
                    on_token=lambda token: self._consider(run, token),
                    timer=RunTimer(run),
                )
        except RotatorError as error:
            ended = error
        except BrokenLaw:
            raise
        except Exception as error:  # noqa: BLE001 - which is what the laws forbid
            problem = error
        finally:
            self.run = None
            if process.is_dead:
                self._laws.died(run)
        self._laws.end(run, ended, problem)

    def _issuer(self, run: Run) -> SessionIssuer | BearerIssuer:
        issuer = copy(_prototype(has_sign_in=self._setting.has_sign_in))
        rate = self._setting.network_faults
        issuer._http = SimulatedWire(run.process, run, self._deliver, rate)
        return issuer

    def _probe(self, run: Run) -> Probe:
        probe = copy(_probe_prototype())
        rate = self._setting.network_faults
        probe._http = ProbeWire(run.process, run, self._deliver_to_flowapi, rate)
        return probe

    def _consider(self, run: Run, token: Token) -> None:
        run.offered.append(token.reveal())
        self._world.say(self.name, f"considers {self._laws.label(token.reveal())}")
        if len(run.offered) > 1:  # the first is the one in use
            run.process.point("P8")
