"""The reading of Checkmk: one line a service, as its agent's local checks print them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from flowauth_rotator.monitoring.assessment import Assessment, Judged, State, Verdict, loudest
from flowauth_rotator.monitoring.formatting import one_line, percent
from flowauth_rotator.monitoring.service_names import PREFIX, service_name

AGENT = "FlowAuth_Rotation_Agent"
ISSUER = "FlowAuth_Issuer"  # in place of the agent where only the issuer was asked
LINE_BREAK = "\\n"  # the two characters; what follows the first is shown in the details


def reading(assessment: Assessment, *, agent_service: str = AGENT) -> str:
    """A line for each name, and one for the agent or the issuer.

    `STATE "SERVICE" METRICS TEXT`, by Checkmk's documentation of local checks; of names that
    share a service the loudest counts, and the agent's line says so.

    Args:
        assessment: the states.
        agent_service: what to call the agent's service.
    """
    by_service: dict[str, list[Judged]] = defaultdict(list)
    for one in assessment.tokens:
        by_service[service_name(one.token.name)].append(one)
    lines = [_line_of_one(service, some) for service, some in sorted(by_service.items())]
    shared = {service: some for service, some in by_service.items() if len(some) > 1}
    return "".join(f"{line}\n" for line in [*lines, _last_line(assessment, shared, agent_service)])


def failure(sentence: str, names: Iterable[str] = (), *, service: str = AGENT) -> str:
    """What is printed if nothing could be found out: CRITICAL, and UNKNOWN for each name.

    Args:
        sentence: why.
        names: those that were asked for.
        service: the one that is critical, the agent's or the issuer's.
    """
    lines = [_line(State.UNKNOWN, service_name(name), "-", sentence) for name in names]
    lines.append(_line(State.CRITICAL, service, "-", sentence))
    return "".join(f"{line}\n" for line in lines)


def _line_of_one(service: str, some: list[Judged]) -> str:
    one = max(some, key=lambda each: each.verdict.state.loudness)
    metrics = "-"
    if one.life:
        levels = ";".join(map(percent, one.used_levels))
        remaining = int(one.remaining.total_seconds())
        metrics = f"used={percent(one.used)};{levels};0;100|remaining={remaining}"
    return _line(one.verdict.state, service, metrics, _capital(one.verdict.sentence), *one.details)


def _last_line(assessment: Assessment, shared: dict[str, list[Judged]], agent_service: str) -> str:
    count = len(assessment.tokens)
    verdict = assessment.agent or Verdict(
        State.OK if count else State.WARNING,
        f"{assessment.snapshot.issuer} answered; names: {count or 'none'}",
    )
    state, sentence = verdict.state, verdict.sentence
    if assessment.issuer_clause:
        state = loudest(state, State.UNKNOWN)
        sentence = f"{sentence}; {assessment.issuer_clause}"
    if shared:
        state = loudest(state, State.WARNING)
        sentence = f"{sentence}; {len(shared)} services stand for several names each"
    details = [verdict.advice, f"Thresholds: {assessment.thresholds}."]
    details += [
        f"{service.removeprefix(PREFIX)} is {' and '.join(repr(it.token.name) for it in some)}."
        for service, some in sorted(shared.items())
    ]
    service = ISSUER if assessment.agent is None else agent_service
    return _line(state, service, "-", sentence, *details)


def _line(state: State, service: str, metrics: str, sentence: str, *details: str) -> str:
    text = one_line(sentence) or state.name
    told = [line for line in map(one_line, details) if line]
    return f'{state.value} "{service}" {metrics} {LINE_BREAK.join([text, *told])}'


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
