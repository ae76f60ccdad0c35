"""The reading of Nagios and Icinga: a status line with performance data, then the long output."""

from __future__ import annotations

from collections import Counter

from flowauth_rotator.monitoring.assessment import Assessment, Judged, State, Verdict
from flowauth_rotator.monitoring.formatting import one_line, percent


def reading(assessment: Assessment) -> str:
    """What a plugin prints; its exit code is the assessment's state.

    Of one token or of the agent alone, or of all: then the loudest counts, and each has its line.
    """
    tokens, agent = assessment.loudest_first, assessment.agent
    lines = [f"{assessment.issuer_clause}."] if assessment.issuer_clause else []
    if agent is None and len(tokens) == 1:
        [one] = tokens
        head = f"TOKEN {_named(one, assessment.state)}"
        numbers, lines = _numbers_of_one(one), one.details + lines
    elif agent and not tokens:
        head, numbers = f"AGENT {_of_agent(agent, assessment.state)}", ""
        lines = [agent.advice, *lines]
    else:
        head, numbers = _summary(assessment), _numbers(assessment)
        lines += [_named(one, one.verdict.state) for one in tokens]
        if agent:
            lines.append(f"agent {_of_agent(agent, agent.state)} {agent.advice}")
    lines.append(f"Thresholds: {assessment.thresholds}.")
    head = one_line(head)
    return "".join(
        f"{line}\n"
        for line in [
            f"{head} | {numbers}" if numbers else head,
            *filter(None, map(one_line, lines)),
        ]
    )


def failure(sentence: str) -> str:
    """What is printed if nothing could be found out."""
    return f"TOKENS {State.UNKNOWN.name} - {one_line(sentence)}\n"


def _summary(assessment: Assessment) -> str:
    tokens, agent = assessment.loudest_first, assessment.agent
    counts = Counter(one.verdict.state for one in tokens)
    said = [f"{counts[state]} {state.name.lower()}" for state in State if counts[state]]
    clauses = [f"{len(tokens)} tokens: {', '.join(said)}" if tokens else "no tokens"]
    if agent:
        clauses.append(f"agent {agent.state.name.lower()}")
    if tokens and tokens[0].verdict.state is not State.OK:
        clauses.append(_sentence(tokens[0]))
    elif agent and agent.state is not State.OK:
        clauses.append(agent.sentence)
    return f"TOKENS {assessment.state.name} - {'; '.join(clauses)}"


def _named(one: Judged, state: State) -> str:
    return f"{state.name} - {_sentence(one)}"


def _sentence(one: Judged) -> str:
    """What goes on in a sentence after the name, or a sentence of its own."""
    return f"{one.token.name!r}{'' if one.life else ':'} {one.verdict.sentence}"


def _of_agent(agent: Verdict, state: State) -> str:
    return f"{state.name} - {agent.sentence}"


def _numbers(assessment: Assessment) -> str:
    """How many tokens are in each state, and how long the one lives that expires first."""
    counts = Counter(one.verdict.state for one in assessment.tokens)
    numbers = [f"{state.name.lower()}={counts[state]}" for state in State]
    if left := [one.remaining for one in assessment.tokens if one.life]:
        numbers.append(f"remaining={int(min(left).total_seconds())}s")
    return " ".join(numbers)


def _numbers_of_one(one: Judged) -> str:
    """Time left with the levels below which it alarms, and use with those above which it does."""
    if one.life is None:
        return ""
    left, warning, critical = (
        int(each.total_seconds()) for each in (one.remaining, one.warning, one.critical)
    )
    levels = ";".join(map(percent, one.used_levels))
    return f"remaining={left}s;{warning}:;{critical}: used={percent(one.used)}%;{levels};0;100"
