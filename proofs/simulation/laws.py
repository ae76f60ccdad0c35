"""What must never happen (I1 to I15 of docs/protocol.md), looked at after every step."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from flowauth_rotator.core.errors import BudgetExhausted, RotatorError, UnexpectedError
from flowauth_rotator.core.policy import RotationPolicy, decide
from flowauth_rotator.core.report import Outcome, Report
from flowauth_rotator.core.succession import (
    LAST_RETRY_GENERATION,
    MINTS_A_DAY,
    MINTS_AN_HOUR,
    Violation,
    find_violations,
    retry_generation,
)
from flowauth_rotator.core.tokens import Claims, PublicKey, Token, read_unverified
from proofs.simulation.issuers import AUDIENCE, PASSWORD, ROLES, USERNAME
from proofs.simulation.keys import signer
from proofs.simulation.network import Exchange
from proofs.simulation.store import Place
from proofs.simulation.world import World

if TYPE_CHECKING:
    from proofs.simulation.agents import Run

WINDOW = 12
SECONDS = 2.0  # to which two clocks that tell whole seconds are compared
MOST_SECONDS = 15 * 60  # of a run: Airflow's task ends then
HELD_BACK = "The issuer's token was not stored: FlowAPI refuses it"
MOST_TRIALS = 6  # pauses between requests to FlowAPI: of three tokens, three times each
MOST_REQUESTS = 3 * (LAST_RETRY_GENERATION + 1)  # of a run: each attempt may ask with each key
_RUNS_OF_TEXT = re.compile(r"[\w+/=-]{12,}")


OURS = (USERNAME, AUDIENCE, frozenset(ROLES))


def identity(claims: Claims) -> tuple[str | None, str | None, frozenset[str]]:
    """What a token has in common with its predecessor."""
    return claims.subject, claims.audience, claims.roles


class BrokenLaw(BaseException):
    """An invariant did not hold; not an `Exception`, which the agent would make an error of."""


@dataclass
class Known:
    """A token that the issuer really made.

    Attributes:
        label: what the trace calls it.
        claims: what it says.
        parent: the text of its predecessor, if an agent asked for it.
        made_at: when, in true time.
        is_late: whether the client had given up before.
    """

    label: str
    claims: Claims
    parent: str | None
    made_at: float
    is_late: bool


class Laws:
    """All that is known of the world, and what must be true of it.

    Args:
        world: the world.
        place: the place of the token in use.
        policy: by which agents judge.
        agents: how many there are.
        honours_keys: whether the issuer answers a key once.
        has_gap: whether the store has one between the last read and the write.
        has_probe: whether agents try tokens at FlowAPI.
        is_troubled: whether a renewal would not be granted now, through no fault of the agents.

    Attributes:
        tokens: what the issuer has made, by text.
        running: the runs that are under way.
        texts: what was written beside the tokens.
        last_end: how the last run ended.
        date_offset: seconds by which the `Date` of the issuer's answers is ahead of the true time.
    """

    def __init__(
        self,
        world: World,
        place: Place,
        policy: RotationPolicy,
        *,
        agents: int,
        honours_keys: bool,
        has_sign_in: bool,
        has_gap: bool,
        has_probe: bool,
        is_troubled: Callable[[], bool],
    ) -> None:
        self._world, self._place, self._policy = world, place, policy
        self._agents, self._honours_keys = agents, honours_keys
        self._has_sign_in, self._has_gap, self._has_probe = has_sign_in, has_gap, has_probe
        self._is_troubled = is_troubled
        self._key = PublicKey(signer().public_pem)
        self.tokens: dict[str, Known] = {}
        self._ids: dict[int, str] = {}
        self.running: list[Run] = []
        self.texts: list[str] = []
        self.last_end: Report | RotatorError | None = None
        self.date_offset = 0.0

    def label(self, text: str | None) -> str:
        """What the trace calls a value."""
        if text is None:
            return "nothing"
        return self.tokens[text].label if text in self.tokens else "something foreign"

    def moment(self) -> datetime:
        """The true time."""
        return datetime.fromtimestamp(self._world.now, timezone.utc)

    # What happens at the issuer.

    def by_hand(self, row_id: int, text: str) -> str:
        """The owner had a token minted, which is given back."""
        self._know(row_id, text, None, is_late=False)
        return text

    def minted(self, row_id: int, text: str, parent_id: int, exchange: Exchange) -> None:
        """The issuer made a token that an agent asked for: I2, I5, I6, I10."""
        run: Run = exchange.run
        parent = self._ids[parent_id]
        known = self._know(row_id, text, parent, is_late=exchange.is_late)
        self._world.say("issuer", f"mints {known.label} in place of {self.label(parent)}")
        self._world.count("issuer: minted")
        self._law(not run.is_rehearsal, "I5: a rehearsal minted a token")
        self._law(run.has_passed_preflight, "I5: minted before the preflight of the store")
        self._law(
            identity(known.claims) == identity(self.tokens[parent].claims) == OURS,
            "I10: minted for another user, audience or role set",
        )
        self._check_numbers(parent, known)

    def _check_numbers(self, parent: str, newest: Known) -> None:
        """How many there may be, of one predecessor and within a time."""
        before = self.tokens[parent].claims
        made = [one for one in self.tokens.values() if one.parent == parent]
        useful = [one for one in made if not self._violations_of(before, one)]
        rivals = 0 if self._honours_keys else self._agents - 1
        late = 0 if self._honours_keys else sum(one.is_late for one in made)
        if newest in useful:
            most = 1 + rivals + late
            self._law(len(useful) <= most, f"I2: {len(useful)} useful successors of one token")
        if newest.made_at < before.expires_at.timestamp():
            generations = 1 + retry_generation(before, self._policy, self.moment())
            most = generations * (1 + rivals) + late  # agents may race in each generation
            self._law(len(made) <= most, f"I6: {len(made)} successors of one token")
        for seconds, most in ((3600, MINTS_AN_HOUR), (86400, MINTS_A_DAY)):
            recent = [
                one
                for one in self.tokens.values()
                if one.parent and one.made_at > newest.made_at - seconds
            ]
            is_within = len(recent) <= most + rivals + sum(one.is_late for one in recent)
            self._law(is_within, f"I6: {len(recent)} mints within {seconds} s")

    def _violations_of(self, before: Claims, successor: Known) -> tuple[Violation, ...]:
        return find_violations(before, successor.claims, self._policy, self.moment())

    def _know(self, row_id: int, text: str, parent: str | None, *, is_late: bool) -> Known:
        claims = read_unverified(Token(text))
        known = Known(f"T{len(self.tokens)}", claims, parent, self._world.now, is_late)
        self._law(text not in self.tokens, "the issuer made the same token twice")
        self.tokens[text] = known
        self._ids[row_id] = text
        return known

    # What happens at the store.

    def check_write(self, run: Run, text: str, description: str) -> None:
        """An agent writes: I3, I4, and the description."""
        before = self._place.text
        self._world.count("store: written")
        if before != run.read or before != run.found:
            if not self._has_gap:
                raise self._violation("I4: overwrote a value that it had not read")
            self._world.count("store: overwritten in its gap")
        known, read = self.tokens.get(text), self.tokens.get(run.found or "")
        if known is None:
            raise self._violation("I3: wrote a token that the issuer had not minted")
        self._law(text in run.offered, "I9: wrote a token before it was masked")
        self._law(self._key.verifies(Token(text)), "I3: wrote a token whose signature is not valid")
        self._law(description != "", "wrote a token without a description")
        self._law(not run.is_rehearsal, "I4: a rehearsal wrote to the store")
        if self._has_probe:
            self._law(text in run.verdicts, "I3: wrote a token without a probe at FlowAPI")
            self._law(
                run.verdicts[text] is not False or self._has_nothing_to_lose(run),
                "I1: swapped for a token that FlowAPI refuses",
            )
        self.texts.append(description)
        if read:
            same = identity(read.claims) == identity(known.claims)
            self._law(same, "I3: wrote a token of another user, audience or role set")
            later = known.claims.expires_at > read.claims.expires_at
            self._law(later, "I1: swapped for a token that does not expire later")
        lives = known.claims.expires_at > self.moment()
        self._law(lives or bool(self.date_offset), "I1: wrote an expired token")

    def _has_nothing_to_lose(self, run: Run) -> bool:
        """Whether the token in use has expired, or FlowAPI has refused it in this run."""
        found = self.tokens.get(run.found or "")
        ahead = max(timedelta(0), run.skew, timedelta(seconds=self.date_offset))
        has_expired = found is None or found.claims.expires_at <= self.moment() + ahead
        return has_expired or run.verdicts.get(run.found or "") is False

    # What happens to a run.

    def begin(self, run: Run) -> None:
        """A run begins."""
        self.running.append(run)
        if self._is_troubled():
            run.faults.append("trouble")
        self._world.say(run.agent.name, f"begins with {self.label(self._place.text)}")

    def died(self, run: Run) -> None:
        """A run was killed."""
        self.running.remove(run)

    def meddled(self) -> None:
        """Record a change from outside: active runs cannot be blamed for their end."""
        for run in self.running:
            run.faults.append("meddled with")

    def end(self, run: Run, ended: Report | RotatorError | None, problem: Exception | None) -> None:
        """A run came to its end: I1, I7, I8, I9, and its bounds."""
        self.running.remove(run)
        self.last_end = ended
        if problem is not None:
            raise self._violation(f"I8: ended in {type(problem).__name__}: {problem}") from problem
        self._law(not isinstance(ended, UnexpectedError), f"I8: ended in {ended}")
        report = self._get_report(ended)
        self._world.count(f"outcome: {report.outcome}")
        if run.is_rehearsal:
            self._world.count(f"rehearsal: {'failed' if report.failed else 'succeeded'}")
        elif report.message.startswith(HELD_BACK):
            self._world.count("FlowAPI: held back a successor")
        self._world.say(run.agent.name, f"ends: {report}")
        self._check_outcome(run, report)
        self.check_secrecy(str(report), *map(str, vars(report).values()))
        self._law(
            all(0 < pause <= 33 for pause in run.pauses),
            "I6: no pause between requests, or a pause over the limit",
        )
        most = 2 + MOST_TRIALS * self._has_probe
        self._law(len(run.pauses) <= most, "I6: more than three attempts in a run")
        self._law(run.trials <= 3 * MOST_TRIALS, "I6: too many requests to FlowAPI in a run")
        self._law(report.renewal_requests <= MOST_REQUESTS, "I6: too many requests in a run")
        self._law(run.refusals <= 1, "I6: repeated a request after a refusal")
        self._law(run.has_looked, "I8: ended without reading back what was written")
        if run.has_asked and report.clock_skew is not None and not self.date_offset:
            exact = abs(report.clock_skew + run.skew.total_seconds()) <= SECONDS
            self._law(exact, f"I8: {report.clock_skew} s is not the difference of the clocks")
        if not run.faults and not self._is_troubled() and abs(self.date_offset) < MOST_SECONDS:
            (self._check_rehearsal if run.is_rehearsal else self._check_progress)(run, ended)

    def _get_report(self, ended: Report | RotatorError | None) -> Report:
        if isinstance(ended, RotatorError):
            return ended.report(name="AIRFLOW", place="", checked_at=self.moment())
        if ended is None:
            raise self._violation("I8: ended without a report")
        return ended

    def _check_outcome(self, run: Run, report: Report) -> None:
        """I8: a run that leaves a token due is not a success; one that reports a swap did it."""
        quiet = (Outcome.HEALTHY, Outcome.ROTATED, Outcome.ADOPTED, Outcome.SUPERSEDED)
        self._law(
            report.failed or report.outcome in quiet,
            f"I8: {report.outcome} reported without a failure",
        )
        if report.outcome in (Outcome.ROTATED, Outcome.ADOPTED):
            seen = run.has_swapped or run.read != run.found
            self._law(seen, f"I8: {report.outcome} reported, and the old token is in use")
            known = self.tokens.get(run.read or "")
            begun = datetime.fromtimestamp(run.began, timezone.utc)
            due = known is not None and decide(known.claims, self._policy, begun).due
            self._law(not due, "I8: reported success for a token that is due at once")
        is_healthy = report.outcome is Outcome.HEALTHY and not report.failed
        if is_healthy and not run.is_rehearsal and run.read in self.tokens:
            local = self.moment() + run.skew
            decision = decide(self.tokens[run.read].claims, self._policy, local)
            recently = decision.renew_at > local - timedelta(seconds=MOST_SECONDS)
            self._law(recently, "I8: reported a due token as healthy")

    def _check_rehearsal(self, run: Run, ended: Report | RotatorError | None) -> None:
        """I7: nothing stands in the way of the renewal, so its rehearsal succeeds."""
        found = self.tokens.get(run.found or "")
        is_alive = found is not None and found.claims.expires_at > self.moment()
        if is_alive and not isinstance(ended, Report):
            raise self._violation(f"I7: the rehearsal failed without a fault: {ended}")

    def _check_progress(self, run: Run, ended: Report | RotatorError | None) -> None:
        """I7: nothing stood in the way, so the token in use is not due any more."""
        found, now = self.tokens.get(run.found or ""), self._place.text
        if found is None or isinstance(ended, BudgetExhausted) or self.asked_in_vain(run.found):
            return
        begun = datetime.fromtimestamp(run.began, timezone.utc)
        expired = found.claims.expires_at <= begun + timedelta(seconds=MOST_SECONDS)
        if expired and (self._honours_keys or not self._has_sign_in):
            return  # the credential is gone, or the row cannot be renewed
        if decide(found.claims, self._policy, begun + run.skew).due:
            known = self.tokens.get(now or "")
            well = known and not decide(known.claims, self._policy, self.moment()).due
            self._law(bool(well), f"I7: there was no fault, and {self.label(now)} is in use")

    def asked_in_vain(self, text: str | None) -> bool:
        """Whether agents had tokens made that are of no use in the place of this one.

        Then a later request is right, and one at once is not.
        """
        found = self.tokens.get(text or "")
        return found is not None and any(
            one.parent == text or (one.parent is not None and self._has_sign_in)
            for one in self.tokens.values()
            if one is not found and one.claims.issued_at >= found.claims.issued_at
            if self._violations_of(found.claims, one)
        )

    def check_secrecy(self, *texts: str) -> None:
        """I9: no twelve characters of a payload, a signature or the password."""
        secrets = "\n".join([PASSWORD, *(one.partition(".")[2] for one in self.tokens)])
        for text in texts:
            for found in _RUNS_OF_TEXT.findall(text):
                if found.replace("_", "").islower() and found.replace("_", "").isalpha():
                    continue  # a word
                for start in range(len(found) - WINDOW + 1):
                    piece = found[start : start + WINDOW]
                    self._law(piece not in secrets, "I9: a secret left the agent")

    # In the end.

    def check_history(self, rows: list[tuple[int, int | None, str]]) -> None:
        """I11, I15: every token is there, as it was made; each parent is older than its child."""
        for row_id, parent_id, text in rows:
            known = self.tokens.get(text)
            if text:
                self._law(known is not None, "I11: a row has another token than was minted")
            if parent_id is not None:
                self._law(parent_id < row_id, "I15: a parent is newer than its child")
                parent = self._ids.get(parent_id)
                is_right = known is None or known.parent == parent
                self._law(is_right, "I15: a row names another parent")
        self._law(len(rows) == len(self.tokens), "I15: the history has lost or gained a row")

    def _law(self, holds: bool, sentence: str) -> None:
        if not holds:
            raise self._violation(sentence)

    def _violation(self, sentence: str) -> BrokenLaw:
        self._world.say("law", f"VIOLATED {sentence}")
        return BrokenLaw(sentence)


class Listener(logging.Handler):
    """Keeps what the agents log, to be looked through."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())
