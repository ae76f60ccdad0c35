"""The state of each token and of the agent: one rule, whatever monitoring system asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum

from flowauth_rotator.core.clock import to_utc
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.formatting import moment, span
from flowauth_rotator.monitoring.snapshot import (
    PATIENCE,
    Heartbeat,
    Life,
    Snapshot,
    Watched,
    soonest_first,
)


class State(IntEnum):
    """The four states of the plugins of Nagios, by their exit codes."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def loudness(self) -> int:
        """Which of several counts: what is known to be bad before what is not known."""
        return (State.OK, State.UNKNOWN, State.WARNING, State.CRITICAL).index(self)


def loudest(*states: State) -> State:
    """Which of several states counts."""
    return max(states, key=lambda state: state.loudness, default=State.OK)


OF_SEVERITY = {
    Severity.OK: State.OK,
    Severity.WARNING: State.WARNING,
    Severity.CRITICAL: State.CRITICAL,
}


@dataclass(frozen=True)
class Thresholds:
    """The remaining lifetime under which a token is a warning, or critical.

    Each is a fraction of the renewal window, from due to expiry, or a duration.

    Raises:
        Misconfigured: a fraction is not above 0 and up to 1, a duration not positive, or the
            warning comes after the critical state.
    """

    warning: float | timedelta = 0.6
    critical: float | timedelta = 0.3

    def __post_init__(self) -> None:
        for word in ("warning", "critical"):
            value = getattr(self, word)
            if isinstance(value, timedelta):
                if value <= timedelta(0):
                    raise Misconfigured(
                        f"`{word}` is not positive.", advice="Use a longer duration."
                    )
            elif not 0 < value <= 1:
                raise Misconfigured(
                    f"`{word}` is {value!r} of the renewal window.",
                    advice="Use a fraction above 0 and up to 1, or a duration like 2d.",
                )
        if type(self.warning) is type(self.critical) and self.warning < self.critical:  # type: ignore[operator]
            raise Misconfigured(
                "`warning` comes after `critical`.", advice="Use a larger `warning`."
            )

    def of(self, life: Life) -> tuple[timedelta, timedelta]:
        """Both as durations for a token of this life.

        One that is never due in time has no renewal window: its whole lifetime counts.
        """
        due = life.renew_at
        begin = due if due and due < life.expires_at else life.issued_at
        window = max(life.expires_at - begin, timedelta(0))
        warning, critical = (
            value if isinstance(value, timedelta) else window * value
            for value in (self.warning, self.critical)
        )
        return warning, min(warning, critical)

    def __str__(self) -> str:
        return f"warning below {_shown(self.warning)}, critical below {_shown(self.critical)}"


@dataclass(frozen=True)
class Verdict:
    """The state of one thing that is watched, and why.

    Attributes:
        state: the state.
        sentence: why, as what follows a name: "expires in 3 d 4 h (2026-11-24 13:00 UTC)".
        advice: what a person can do; empty when there is nothing to do.
    """

    state: State
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Judged:
    """A token and its state.

    Attributes:
        token: what was found of it.
        verdict: its state.
        life: of the token that the state is about; None if nobody can read it.
        remaining: time left until it expires; negative once it has.
        used: how much of its lifetime has passed, from 0 to 1.
        warning: the remaining lifetime under which it is a warning.
        critical: the same for critical.
        outlook: what will happen at the next check, in a sentence.
    """

    token: Watched
    verdict: Verdict
    life: Life | None = None
    remaining: timedelta = timedelta(0)
    used: float = 1.0
    warning: timedelta = timedelta(0)
    critical: timedelta = timedelta(0)
    outlook: str = ""

    @property
    def used_levels(self) -> tuple[float, float]:
        """How much of the lifetime has passed when it becomes a warning, and critical."""
        if self.life is None or self.life.expires_at <= self.life.issued_at:
            return 0.0, 0.0
        lifetime = self.life.expires_at - self.life.issued_at
        warning, critical = (1 - left / lifetime for left in (self.warning, self.critical))
        return min(max(warning, 0.0), 1.0), min(max(critical, 0.0), 1.0)

    @property
    def details(self) -> list[str]:
        """What else is worth saying, a sentence each."""
        kept = f"Kept in {self.token.place}." if self.token.place else ""
        known = [self.verdict.advice, self.outlook, kept]
        return [sentence for sentence in known if sentence]


@dataclass(frozen=True)
class Assessment:
    """The states of all that is watched.

    Attributes:
        snapshot: what was found.
        thresholds: by what it was judged.
        tokens: each name, in order; of tokens that share one the loudest.
        agent: the DAGs together; None if only the issuer was asked.
    """

    snapshot: Snapshot
    thresholds: Thresholds
    tokens: Sequence[Judged]
    agent: Verdict | None

    @property
    def state(self) -> State:
        """The loudest of all."""
        states = [one.verdict.state for one in self.tokens]
        if self.agent:
            states.append(self.agent.state)
        if self.issuer_clause:
            states.append(State.UNKNOWN)
        if not states:  # an issuer without any token: whoever set this up expected some
            states.append(State.WARNING)
        return loudest(*states)

    @property
    def issuer_clause(self) -> str:
        """Why nobody knows whether there are newer tokens, where the issuer was asked in vain."""
        trouble = self.snapshot.issuer_trouble
        return f"the newest tokens at the issuer are not known: {trouble}" if trouble else ""

    @property
    def loudest_first(self) -> list[Judged]:
        """The tokens, those at the head that a person should look at."""
        return sorted(self.tokens, key=lambda one: -one.verdict.state.loudness)


def assess(snapshot: Snapshot, thresholds: Thresholds | None = None) -> Assessment:
    """Judge all that was found, at the moment when it was.

    Of the token in use, if Airflow was asked; else of the newest one that the issuer holds.
    """
    thresholds = thresholds or Thresholds()
    agents = {agent.dag_id: agent for agent in snapshot.agents or ()}
    by_name: dict[str, Judged] = {}
    for one in soonest_first(snapshot.tokens):
        life = one.issued if snapshot.agents is None else one.in_use
        agent = agents.get(one.dag_id or "")
        judged = judge(
            one, life, thresholds, snapshot.taken_at, agent.patience if agent else PATIENCE
        )
        judged = replace(judged, outlook=_outlook(judged, agent, snapshot.taken_at))
        louder = by_name.get(one.name, judged)
        by_name[one.name] = max(louder, judged, key=lambda each: each.verdict.state.loudness)
    tokens = [by_name[name] for name in sorted(by_name)]
    agent_verdict = None
    if snapshot.agents is not None:
        agent_verdict = _of_agents(snapshot.agents, snapshot.taken_at)
    return Assessment(snapshot, thresholds, tokens, agent_verdict)


def judge(
    token: Watched,
    life: Life | None,
    thresholds: Thresholds,
    now: datetime,
    patience: timedelta = PATIENCE,
) -> Judged:
    """Judge a token: the loudest of the time that it has left and of what else is known.

    Args:
        token: what was found of it.
        life: of which token, the one in use or the newest issued.
        thresholds: by what.
        now: an aware time.
        patience: how long a token that was issued may wait to be put to use.
    """
    now = to_utc(now)
    told = token.told
    if life is None:
        reason = told.reason if told else "Nothing is known of it."
        state = OF_SEVERITY[told.severity] if told else State.UNKNOWN
        return Judged(token, Verdict(state, reason, told.advice if told else ""))
    remaining = life.expires_at - now
    warning, critical = thresholds.of(life)
    state, sentence, advice = State.OK, _expiry(life, now), ""
    if remaining < warning:
        state = State.CRITICAL if remaining < critical else State.WARNING
    if remaining <= timedelta(0):
        state = State.CRITICAL
    if told and told.severity is not Severity.OK:
        state = loudest(state, OF_SEVERITY[told.severity])
        sentence = f"{sentence}; {told.word}: {told.reason}"
    if told:
        advice = told.advice
    newer = token.issued
    if newer and newer.expires_at > life.expires_at and now - newer.issued_at > patience:
        state = loudest(state, State.WARNING)
        sentence = f"{sentence}; a newer one, issued {moment(newer.issued_at)}, is not in use"
        advice = advice or "See why the agent does not take it: its DAG's last runs say."
    lifetime = life.expires_at - life.issued_at
    used = (now - life.issued_at) / lifetime if lifetime > timedelta(0) else 1.0
    return Judged(
        token,
        Verdict(state, sentence, advice),
        life,
        remaining,
        min(max(used, 0.0), 1.0),
        warning,
        critical,
    )


def of_heartbeat(agent: Heartbeat, now: datetime) -> Verdict:
    """The state of one DAG."""
    last = f"last check {moment(agent.checked_at)}" if agent.checked_at else "no check yet"
    if agent.condition == "ok":
        following = agent.next_check_at
        return Verdict(State.OK, f"{last}, next {moment(following)}" if following else last)
    late = agent.deadline_at is not None and to_utc(now) > agent.deadline_at
    mild = agent.condition in ("new", "failed") and not late
    state = State.WARNING if mild else State.CRITICAL
    return Verdict(state, f"{agent.condition}, {last}", agent.sentence)


def _outlook(one: Judged, agent: Heartbeat | None, now: datetime) -> str:
    """What will happen at the next check, as far as anybody can tell."""
    due = one.life.renew_at if one.life else None
    if agent is None:
        return f"Renewal is due from {moment(due)} on." if due else ""
    if agent.condition not in ("ok", "new", "misconfigured"):
        return f"Nothing renews it. {agent.dag_id}: {agent.sentence}"
    told = one.token.told
    if told and told.word == Outcome.EXPIRED and told.severity is not Severity.OK:
        return "The issuer renews it no more."
    following = agent.next_check_at
    check = f"The next check, at {moment(following)}," if following else "The next check"
    if due is None:
        return f"{check} looks again."
    renewing = one.token.renewal_check_at
    if now >= due or (renewing is not None and renewing == following):
        well = told is None or told.severity is Severity.OK
        return f"{check} {'renews' if well else 'tries to renew'} it."
    if renewing is None:
        return f"Renewal is due from {moment(due)} on."
    return f"{check} leaves it as it is; the one at {moment(renewing)} renews it."


def _of_agents(agents: Sequence[Heartbeat], now: datetime) -> Verdict:
    """All DAGs together: the loudest counts, and each has its clause."""
    if not agents:
        return Verdict(
            State.CRITICAL,
            "no DAG keeps tokens alive",
            "Put the DAG's file into the dags folder, and see that it has no import error.",
        )
    each = [(agent, of_heartbeat(agent, now)) for agent in agents]
    loudest_first = sorted(each, key=lambda pair: -pair[1].state.loudness)
    return Verdict(
        loudest_first[0][1].state,
        "; ".join(f"{agent.dag_id}: {verdict.sentence}" for agent, verdict in loudest_first),
        " ".join(f"{agent.dag_id}: {it.advice}" for agent, it in loudest_first if it.advice),
    )


def _expiry(life: Life, now: datetime) -> str:
    remaining = life.expires_at - now
    if remaining <= timedelta(0):
        return f"expired {span(remaining)} ago ({moment(life.expires_at)})"
    return f"expires in {span(remaining)} ({moment(life.expires_at)})"


def _shown(value: float | timedelta) -> str:
    if isinstance(value, timedelta):
        return span(value)
    return f"{value:.4g} of the renewal window"
