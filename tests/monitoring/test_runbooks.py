"""The runbooks: whoever is woken finds one, and commands in it that exist."""

import re
import shlex

import click
import pytest

from demo.parts import ROOT
from flowauth_rotator.cli.main import main
from flowauth_rotator.provider.web.runbooks import render_runbook
from tests.monitoring.test_prometheus_files import NAMES

RUNBOOKS = ROOT / "docs" / "runbooks"
PAGES = {path.stem: path.read_text() for path in sorted(RUNBOOKS.glob("*.md"))}


def lines(program):
    """The words after the name of a program, wherever it is called."""
    code = "\n".join(
        part
        for page in PAGES.values()
        for pair in re.findall(
            r"^ *```\w*\n(.*?)^ *```|`([^`\n]+)`", page, re.MULTILINE | re.DOTALL
        )
        for part in pair
    )
    return [
        shlex.split(line.removeprefix(program), comments=True)
        for line in (each.strip().removeprefix("$ ") for each in code.splitlines())
        if line.startswith(f"{program} ") and "# Airflow 2" not in line
    ]


def test_every_alert_has_a_runbook_and_every_runbook_its_alert():
    """By name; the index and the page about monitoring have them all."""
    assert set(PAGES) == {*NAMES, "README"}
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for name in NAMES:
        assert f"({name}.md)" in PAGES["README"]
        assert f"(runbooks/{name}.md)" in page
        assert PAGES[name].startswith(f"# {name}\n")


@pytest.mark.parametrize("name", list(PAGES))
def test_the_links_of_a_runbook_lead_to_runbooks(name):
    """They are read outside the repository."""
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        assert target.removesuffix(".md") in PAGES


@pytest.mark.parametrize("name", list(PAGES))
def test_a_runbook_is_a_page_without_scripts(name):
    """With links to the pages of the others, and tables."""
    page = render_runbook(name)
    assert f"<h1>{'Runbooks' if name == 'README' else name}</h1>" in page
    assert not re.search(r"<script|<style|style=|\.md", page)
    targets = set(re.findall(r'href="(?!\.\./)([^"]+)"', page))
    assert targets <= set(PAGES)
    if name == "README":
        assert targets == set(PAGES)
        assert "<td>" in page


@pytest.mark.parametrize("name", ["", "Unknown", "../README", "README.md", "README/"])
def test_other_names_are_not_runbooks(name):
    assert render_runbook(name) is None


@pytest.mark.parametrize("words", lines("flowauth-rotator"), ids=" ".join)
def test_our_commands_in_them_can_be_called(words):
    """With these options."""
    command = main
    while isinstance(command, click.Group):
        context = click.Context(command)
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, name
    command.make_parser(click.Context(command)).parse_args(words)
