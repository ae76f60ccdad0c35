"""The reading of Nagios and Icinga: a status line with performance data, then the long output."""

from __future__ import annotations

from collections import Counter

from flowauth_rotator.monitoring.state import Assessment, Judged, State, Verdict
from flowauth_rotator.monitoring.words import one_line


def of_one(one: Judged) -> tuple[State, str]:
    """The reading of one token alone."""
    head = f"TOKEN {_state_of(one)}{_performance(one)}"
    return one.verdict.state, _text(head, one.details)


def of_agent(assessment: Assessment) -> tuple[State, str]:
    """The reading of the DAGs alone."""
    verdict = assessment.agent or Verdict(State.UNKNOWN, "no Airflow was asked")
    head = f"AGENT {verdict.state.name} - {one_line(verdict.sentence)}"
    return verdict.state, _text(head, [verdict.advice])


def reading(assessment: Assessment) -> tuple[State, str]:
    """The reading of all that is watched: the loudest counts, and each has its line."""
    judged, worst = assessment.loudest_first, assessment.state
    counts = Counter(one.verdict.state for one in judged)
    words = [f"{counts[state]} {state.name.lower()}" for state in State if counts[state]]
    said = f"{len(judged)} tokens: {', '.join(words)}" if judged else "no tokens"
    if assessment.agent:
        said += f"; agent {assessment.agent.state.name.lower()}"
    if judged and judged[0].verdict.state is not State.OK:
        loudest = judged[0]
        said += f"; {loudest.token.name!r} {loudest.verdict.sentence}"
    numbers = [f"{state.name.lower()}={counts[state]}" for state in State]
    if left := [one.remaining for one in judged if one.life]:
        numbers.append(f"remaining={int(min(left).total_seconds())}s")
    lines = [_state_of(one) for one in judged]
    if assessment.agent:
        lines.append(
            f"{assessment.agent.state.name} - agent: {assessment.agent.sentence} "
            f"{assessment.agent.advice}"
        )
    lines.append(f"Thresholds: {assessment.thresholds}.")
    return worst, _text(f"TOKENS {worst.name} - {one_line(said)} | {' '.join(numbers)}", lines)


def failure(sentence: str) -> str:
    """What is printed if nothing could be found out."""
    return f"TOKENS {State.UNKNOWN.name} - {one_line(sentence)}\n"


def _state_of(one: Judged) -> str:
    return one_line(f"{one.verdict.state.name} - {one.token.name!r} {one.verdict.sentence}")


def _performance(one: Judged) -> str:
    """Time left with the levels below which it alarms, and use with those above which it does."""
    if one.life is None:
        return ""
    left, warning, critical = (
        int(each.total_seconds()) for each in (one.remaining, one.warning, one.critical)
    )
    levels = ";".join(f"{100 * level:.4g}" for level in one.used_levels)
    return f" | remaining={left}s;{warning}:;{critical}: used={100 * one.used:.4g}%;{levels};0;100"


def _text(head: str, lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in [head, *filter(None, map(one_line, lines))])
