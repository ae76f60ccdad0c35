"""The documents tell the truth: each command, outcome and setting stands in them, and no other."""

import ast
import dataclasses
import importlib.util
import json
import re
import textwrap
from pathlib import Path

import click
import pytest

from flowauth_rotator.cli.main import main
from flowauth_rotator.core.report import Outcome

ROOT = Path(__file__).parent.parent
SPECIFICATION = importlib.util.spec_from_file_location("reference", ROOT / ".ci" / "reference.py")
reference = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(reference)

README = (ROOT / "README.md").read_text()
SERVER = (ROOT / "docs" / "server.md").read_text()
PAGE = (ROOT / "docs" / "page.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
OUTCOMES = (ROOT / "docs" / "outcomes.md").read_text()
COMMANDS = (ROOT / "docs" / "command-line.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
START_PAGE = (ROOT / "flowauth_rotator/provider/web/static/index.html").read_text()
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = (*sorted(ROOT.glob("*.md")), *DOCS, ROOT / "deploy" / "README.md")


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
    listed = set(row.findall(COMMANDS) + row.findall(SERVER))
    assert listed == {words for words, _ in commands()}


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_each_command_has_an_example_in_its_help(words, command):
    """Help without an example is half a help."""
    text = command.get_help(click.Context(command, info_name=words))
    assert f"\n    {words}" in text


def test_every_outcome_is_explained():
    """The person on call finds the word of the report."""
    for outcome in Outcome:
        assert f"`{outcome}`" in OUTCOMES


def test_every_setting_is_listed():
    """Of the managed token, of the DAG and of the connection."""
    from flowauth_rotator.provider import ManagedToken
    from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS

    for name in [field.name for field in dataclasses.fields(ManagedToken)] + list(
        CONNECTION_FIELDS
    ):
        assert f"| `{name}` |" in SETTINGS


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
    for path in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text()):
            name, _, heading = target.partition("#")
            there = path.parent / name if name else path
            assert there.exists(), f"{path.name} links to {target}"
            if heading:
                titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^a-z0-9 -]", "", t.lower()).replace(" ", "-") for t in titles}
                assert heading in slugs, f"{path.name} links to {target}"


def test_each_step_of_the_protocol_is_drawn():
    """As a picture: for a diagram in text, the site would load a script from a stranger."""
    drawing = (ROOT / "docs" / "images" / "rotation.svg").read_text()
    assert re.findall(r">(P\d+)<", drawing) == [f"P{number}" for number in range(14)]
    assert not any("```mermaid" in page.read_text() for page in PAGES)


def test_the_python_example_is_python():
    """It can be pasted into a DAG file; Airflow parses files that name both words."""
    for page in (README, SETTINGS, (ROOT / "docs" / "getting-started.md").read_text()):
        [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        compile(textwrap.dedent(example), "page", "exec")
        assert "dag" in example.lower()
        assert "airflow" in example.lower()


def test_the_dag_file_is_printed_as_it_is():
    """In the guides and on the page of an Airflow without tokens: nobody needs a checkout."""
    [html] = re.findall(r"<pre><code>(.*?)</code></pre>", START_PAGE, re.DOTALL)
    guides = [README, (ROOT / "docs" / "getting-started.md").read_text()]
    examples = [re.search(r"```python\n(.*?)```", guide, re.DOTALL)[1] for guide in guides]
    _, *body = ast.parse((ROOT / "dags" / "flowauth_token_rotation.py").read_text()).body
    for example in (html, *map(textwrap.dedent, examples)):
        assert ast.unparse(ast.parse(example)) == "\n".join(map(ast.unparse, body))


def test_every_make_target_is_real():
    """Each `make x` in the README and of the proofs is a target of the Makefile."""
    targets = set(
        re.findall(r"^([a-z0-9-]+)(?= |:)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    named = set(
        re.findall(r"(?:^|`)make ([a-z0-9-]+)", README + PROTOCOL + CONTRIBUTING, re.MULTILINE)
    )
    assert {"demo", "test", "docs", "test-airflow-2-10"} <= named <= targets


def test_the_readme_can_be_read_in_a_minute():
    """It says what this is and how to start; all else has a page of its own."""
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1000


def test_every_path_in_the_contributing_guide_exists():
    """It names where to add an outcome, a setting and an alert."""
    paths = re.findall(r"`((?:flowauth_rotator|tests|docs|deploy|locks)/[^`]*)`", CONTRIBUTING)
    assert len(paths) > 10
    for path in paths:
        assert any(ROOT.glob(path.rstrip("/"))), path


def test_every_page_is_in_the_navigation_of_the_site():
    """And those that the site builds; `make docs` finds entries without a page."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)
    written = {str(page.relative_to(ROOT / "docs")) for page in DOCS}
    assert sorted(listed) == sorted({*written, *reference.PAGES, *reference.GENERATED})


def test_a_link_of_the_site_leads_where_that_of_the_repository_does():
    """From a page in docs/, from one outside of it, and not in a block of code."""
    text = "[a](page.md#x) [b](../README.md) [c](../deploy/nginx.conf) [d](https://e.org)"
    moved, copies = reference.relocate_links(text, "docs/server.md", "server.md")
    assert moved == "[a](page.md#x) [b](index.md) [c](files/deploy/nginx.conf) [d](https://e.org)"
    assert copies == {"deploy/nginx.conf"}
    text = "[a](../docs/runbooks/README.md) [b](../SECURITY.md)\n```\n[c](page.md)\n```"
    moved, copies = reference.relocate_links(text, "deploy/README.md", "deployment.md")
    assert moved == "[a](runbooks/README.md) [b](security-policy.md)\n```\n[c](page.md)\n```"
    assert not copies


def test_the_reference_has_every_command_with_its_help():
    """As the terminal shows it."""
    page = reference.build_cli()
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == [words for words, _ in commands()]
    assert "--renew-before" in page


def test_the_reference_has_every_endpoint():
    """With its method, and with each status that it may answer."""
    api = json.loads((ROOT / "flowauth_rotator/server/openapi.json").read_text())
    headings = re.findall(r"^## (\w+) (/.*)$", reference.build_http_api(), re.MULTILINE)
    assert headings == [
        (method.upper(), path)
        for path, operations in api["paths"].items()
        for method in operations
        if method != "parameters"
    ]


def test_the_reference_has_every_metric_that_the_guides_explain():
    """And the guides explain every metric that a scraper gets."""
    names = [name.strip("`") for name, _, _ in reference.list_agent_metrics()]
    monitoring = (ROOT / "docs" / "monitoring.md").read_text()
    [table] = re.findall(r"### Metrics\n(.*?)\n## ", monitoring, re.DOTALL)
    explained = re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE)
    assert sorted(names) == sorted(f"flowauth_rotator_{name}" for name in explained)
    served = [name.strip("`") for name, _, _ in reference.list_server_metrics()]
    assert {"flowauth_renewal_server_renewals_total"} < set(served)
    for name in served:
        assert f"`{name}" in SERVER


def test_the_reference_has_every_field_of_the_status_document():
    """Of the document, its DAGs, tokens and events."""
    import flowauth_rotator.monitoring as package

    schema = json.loads((Path(package.__file__).parent / "status.schema.json").read_text())
    page = reference.build_status_document()
    for part in (schema, *map(schema["$defs"].get, ("dag", "token", "event"))):
        for name in part["properties"]:
            assert f"\n| `{name}` |" in page
    for outcome in Outcome:
        assert f"- `{outcome}`" in page


def test_the_reference_has_every_public_name():
    """Of both packages that others import from."""
    import flowauth_rotator
    import flowauth_rotator.provider

    page = reference.build_python_api()
    names = {*flowauth_rotator.__all__, *flowauth_rotator.provider.__all__}
    assert set(re.findall(r"^### (.*)$", page, re.MULTILINE)) == names - {"FolderPlugin"}


def test_every_injected_bug_is_listed():
    """With what caught it, and no other."""
    from proofs.mutants import MUTANTS

    [table] = re.findall(r"## Injected bugs\n(.*?)\n## ", PROTOCOL, re.DOTALL)
    rows = re.findall(r"^\| (.*?) \|.*\|$", table, re.MULTILINE)[1:]
    assert rows == [mutant.name for mutant in MUTANTS]


def test_every_invariant_has_its_argument_and_its_proof():
    """I1 to I15, in the table of promises and in that of proofs."""
    for number in range(1, 16):
        assert len(re.findall(rf"^\| I{number} \|", PROTOCOL, re.MULTILINE)) == 1
    [table] = re.findall(r"## Proofs\n(.*?)\n## ", PROTOCOL, re.DOTALL)
    named = set(re.findall(r"I(\d+)", table))
    assert named == {str(number) for number in range(1, 16)}
