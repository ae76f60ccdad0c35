"""What a local check and a plugin of Nagios may print: grammars of the tests' own."""

import re
from dataclasses import dataclass

NUMBER = r"-?\d+(?:\.\d+)?"
METRIC = rf"[a-z_]+={NUMBER}(?:;(?:{NUMBER})?){{0,4}}"
CHECKMK = re.compile(
    rf'(?P<state>[0123]) "(?P<service>[^"]+)" (?P<metrics>-|{METRIC}(?:\|{METRIC})*) (?P<text>\S.*)'
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
        state: 0 to 3.
        service: its name.
        metrics: value and levels as they are written, by name.
        text: what is shown beside it.
        details: what is shown in its details.
    """

    state: int
    service: str
    metrics: dict[str, list[str]]
    text: str
    details: list[str]


def checkmk(printed: str) -> dict[str, Line]:
    """What a local check has printed, by service."""
    _whole_lines(printed)
    found = {}
    for line in printed[:-1].split("\n"):
        match = CHECKMK.fullmatch(line)
        assert match, f"no line of a local check: {line!r}"
        assert "|" not in match["text"]
        text, *details = match["text"].split("\\n")
        assert text, f"nothing is said: {line!r}"
        assert not any("\\" in part for part in (text, *details))
        assert match["service"] not in found, f"twice: {match['service']!r}"
        metrics = {} if match["metrics"] == "-" else _numbers(match["metrics"].split("|"))
        found[match["service"]] = Line(
            int(match["state"]), match["service"], metrics, text, details
        )
    return found


@dataclass(frozen=True)
class Output:
    """What a plugin of Nagios has printed.

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
    """What a plugin has printed."""
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
    pairs = [one.split("=") for one in written]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value.split(";") for name, value in pairs}
