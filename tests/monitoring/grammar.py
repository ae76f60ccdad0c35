"""The grammars of a local check of Checkmk and of a plugin of Nagios."""

import re
from dataclasses import dataclass

NUMBER = r"-?\d+(?:\.\d+)?"
METRIC = rf"[a-z_]+={NUMBER}(?:;(?:{NUMBER})?){{0,4}}"
CHECKMK = re.compile(
    r'(?P<state>[0123P]) "(?P<service>[^"]+)" '
    rf"(?P<metrics>-|{METRIC}(?:\|{METRIC})*) (?P<text>\S.*)"
)
RANGE = rf"(?:{NUMBER}:?)?"
VALUE = rf"[a-z_]+={NUMBER}[s%]?(?:;{RANGE}(?:;{RANGE}(?:;(?:{NUMBER})?){{0,2}})?)?"
PLUGIN = re.compile(
    rf"(?P<subject>TOKENS?|AGENT) (?P<state>OK|WARNING|CRITICAL|UNKNOWN) - (?P<text>[^|]*[^| ])"
    rf"(?: \| (?P<performance>{VALUE}(?: {VALUE})*))?"
)


@dataclass(frozen=True)
class Line:
    """One line of a local check.

    Attributes:
        state: 0 to 3; for `P` what Checkmk computes from the levels.
        is_computed: whether it is `P`.
        service: its name.
        metrics: value and levels as they are written, by name.
        text: the text beside the state.
        details: the lines of its details.
    """

    state: int
    is_computed: bool
    service: str
    metrics: dict[str, list[str]]
    text: str
    details: list[str]


def checkmk(printed: str) -> dict[str, Line]:
    """Parse the output of a local check, by service."""
    _whole_lines(printed)
    lines = {}
    for line in printed[:-1].split("\n"):
        match = CHECKMK.fullmatch(line)
        assert match, f"no line of a local check: {line!r}"
        assert "|" not in match["text"]
        text, *details = match["text"].split("\\n")
        assert text, f"no text: {line!r}"
        assert not any("\\" in part for part in (text, *details))
        assert match["service"] not in lines, f"twice: {match['service']!r}"
        metrics = {} if match["metrics"] == "-" else _numbers(match["metrics"].split("|"))
        is_computed = match["state"] == "P"
        state = _compute_state(metrics) if is_computed else int(match["state"])
        lines[match["service"]] = Line(state, is_computed, match["service"], metrics, text, details)
    return lines


def _compute_state(metrics: dict[str, list[str]]) -> int:
    """Compute the state like Checkmk, from upper levels."""
    with_levels = [map(float, values[:3]) for values in metrics.values() if len(values) > 2]
    assert with_levels, "computed of no levels"
    return max(
        2 if value >= critical else int(value >= warning)
        for value, warning, critical in with_levels
    )


@dataclass(frozen=True)
class Output:
    """The output of a plugin of Nagios.

    Attributes:
        state: by its word.
        text: the status line.
        performance: value and levels as they are written, by name.
        long: the lines that follow.
    """

    state: str
    text: str
    performance: dict[str, list[str]]
    long: list[str]


def plugin(printed: str) -> Output:
    """Parse the output of a plugin."""
    _whole_lines(printed)
    head, *long = printed[:-1].split("\n")
    match = PLUGIN.fullmatch(head)
    assert match, f"no status line: {head!r}"
    assert not any("|" in line for line in long), "a bar begins performance data there, too"
    assert all(line.strip() for line in long)
    performance = _numbers(match["performance"].split(" ")) if match["performance"] else {}
    return Output(match["state"], match["text"], performance, long)


def _whole_lines(printed: str) -> None:
    """UTF-8 without signs that break lines, here or in a terminal, and with an end."""
    printed.encode()
    assert printed.endswith("\n")
    strange = {sign for sign in printed if sign != "\n" and not sign.isprintable()}
    assert not strange, f"not printable: {strange}"


def _numbers(written: list[str]) -> dict[str, list[str]]:
    pairs = [item.split("=") for item in written]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value.split(";") for name, value in pairs}
