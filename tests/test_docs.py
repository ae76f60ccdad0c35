"""The documents tell the truth: each command, outcome and setting stands in them, and no other."""

import dataclasses
import json
import re
from pathlib import Path

import click
import pytest

from flowauth_rotator.cli.main import main
from flowauth_rotator.core.report import Outcome

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SERVER = (ROOT / "docs" / "server.md").read_text()
PAGE = (ROOT / "docs" / "page.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
PAGES = (
    "README.md",
    "docs/airflow.md",
    "docs/consumers.md",
    "docs/monitoring.md",
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs/runbooks").glob("*.md"))),
    "docs/page.md",
    "docs/probe.md",
    "docs/rehearsal.md",
    "docs/server.md",
    "docs/protocol.md",
    "deploy/README.md",
)


def commands(group=main, prefix="flowauth-rotator"):
    """Every command by the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_the_table_lists_every_command_and_no_other():
    """What can be called is documented, and what is documented can be called."""
    row = re.compile(r"^\| `(flowauth-rotator [a-z -]*[a-z])", re.MULTILINE)
    listed = set(row.findall(README) + row.findall(SERVER))
    assert listed == {words for words, _ in commands()}


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_each_command_has_an_example_in_its_help(words, command):
    """Help without an example is half a help."""
    text = command.get_help(click.Context(command, info_name=words))
    assert f"\n    {words}" in text


def test_every_outcome_is_explained():
    """The person on call finds the word of the report."""
    for outcome in Outcome:
        assert f"`{outcome}`" in README


def test_every_setting_is_listed():
    """Of the managed token, of the DAG and of the connection."""
    from flowauth_rotator.provider import ManagedToken
    from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS

    for name in [field.name for field in dataclasses.fields(ManagedToken)] + list(
        CONNECTION_FIELDS
    ):
        assert f"| `{name}` |" in README


def test_every_setting_of_the_server_is_listed():
    """And none that it does not know."""
    from flowauth_rotator.server.settings import DATA_DIR_VARIABLE, VARIABLES

    [table] = re.findall(r"## Settings\n(.*?)\n## ", SERVER, re.DOTALL)
    assert set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)) == {
        DATA_DIR_VARIABLE,
        *VARIABLES,
    }


def test_every_metric_of_the_server_is_listed():
    """By the name that a scraper sees."""
    import flowauth_rotator.server.metrics as module

    source = Path(module.__file__).read_text()
    for name in re.findall(r'"(flowauth_[a-z_]+)"', source):
        assert f"`{name}" in SERVER


def test_every_field_of_the_page_is_listed():
    """By the name that a client sees; the JSON Schema lists those of the status."""
    import flowauth_rotator.monitoring as package
    from tests.provider.test_overview import build_row, build_run, encode_token

    schema = json.loads((Path(package.__file__).parent / "status.schema.json").read_text())
    row = build_row(encode_token(), run=build_run("failed"))
    names = row.keys() - schema["$defs"]["token"]["properties"].keys()
    assert names
    for name in [*names, *row["renewal"], *row["run"], *row["error"]]:
        assert f"`{name}`" in PAGE


def test_every_link_between_the_documents_leads_somewhere():
    """Files and headings."""
    for path in (ROOT / page for page in PAGES):
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text()):
            name, _, heading = target.partition("#")
            there = path.parent / name if name else path
            assert there.exists(), f"{path.name} links to {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in titles}
                assert heading in slugs, f"{path.name} links to {target}"


def test_the_python_example_is_python():
    """It can be pasted into a DAG file."""
    [example] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(example, "README.md", "exec")
    assert {"dag", "airflow"} <= set(re.findall(r"\w+", example.lower()))


def test_every_make_target_is_real():
    """Each `make x` in the README and of the proofs is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README + PROTOCOL, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_every_bug_that_is_put_in_is_listed():
    """With what caught it, and no other."""
    from proofs.mutants import MUTANTS

    [table] = re.findall(r"## Bugs that were put in\n(.*?)\n## ", PROTOCOL, re.DOTALL)
    rows = re.findall(r"^\| (.*?) \|.*\|$", table, re.MULTILINE)[1:]
    assert rows == [mutant.name for mutant in MUTANTS]


def test_every_invariant_has_its_argument_and_its_proof():
    """I1 to I15, in the table of promises and in that of proofs."""
    for number in range(1, 16):
        assert len(re.findall(rf"^\| I{number} \|", PROTOCOL, re.MULTILINE)) == 1
    [table] = re.findall(r"## How it was put to the test\n(.*?)\n## ", PROTOCOL, re.DOTALL)
    named = set(re.findall(r"I(\d+)", table))
    assert named == {str(number) for number in range(1, 16)}
