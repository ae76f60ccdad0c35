"""Build the site's pages from the code and from files outside of docs/; a hook of MkDocs.

The functions that build a page need no MkDocs, so that the tests can call them.
"""

from __future__ import annotations

import ast
import importlib
import io
import json
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flowauth_rotator"
PAGES = {  # of the repository's files outside of docs/, by their path on the site
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security-policy.md": "SECURITY.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
    "deployment.md": "deploy/README.md",
}
LINK = re.compile(r"(!?\[[^\]]*\]\()(?!https?:|mailto:|#)([^)#\s]+)((?:#[^)\s]*)?\))")
CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def relocate_links(text: str, source: str, page: str) -> tuple[str, set[str]]:
    """Rewrite the relative links of a file of the repository for its place on the site.

    Args:
        text: Markdown.
        source: The path of the file in the repository.
        page: The path of its page, below docs/.

    Returns:
        The text, and the paths of files that the site must have a copy of.
    """
    copies: set[str] = set()
    places = {path: place for place, path in PAGES.items()}

    def relocate(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        if path.startswith("docs/"):
            place = path.removeprefix("docs/")
        elif path in places:
            place = places[path]
        else:
            place = f"files/{path}"
            copies.add(path)
        return match[1] + posixpath.relpath(place, posixpath.dirname(page) or ".") + match[3]

    parts = CODE.split(text)  # every second part is a block of code
    parts[::2] = [LINK.sub(relocate, part) for part in parts[::2]]
    return "".join(parts), copies


def list_commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that runs something, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from list_commands(command, f"{prefix} {name}")
        elif command is not None:
            yield f"{prefix} {name}", command


def build_cli() -> str:
    """Build the reference of the command line: the help of each command."""
    from flowauth_rotator.cli.main import main

    lines = [
        "# Command line",
        "",
        "The help of each command. Exit code 0 is success, 1 a failure with a message on standard",
        "error, 2 a wrong call. `check` has the exit codes of monitoring plugins.",
    ]
    for words, command in list_commands(main, "flowauth-rotator"):
        names = ["-h", "--help"]  # as `main` has them
        context = click.Context(
            command, info_name=words, max_content_width=100, help_option_names=names
        )
        lines += ["", f"## {words}", "", "```text", command.get_help(context), "```"]
    return "\n".join(lines) + "\n"


def build_http_api() -> str:
    """Build the reference of the renewal server's HTTP API from its OpenAPI document."""
    api = json.loads((PACKAGE / "server" / "openapi.json").read_text(encoding="utf-8"))
    lines = [
        "# HTTP API of the renewal server",
        "",
        "A running server has this description as OpenAPI 3.1 at `/openapi.json`. The page in",
        "Airflow has [an API of its own](../page.md#the-api).",
        "",
        api["info"]["description"],
    ]
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            if method not in ("get", "post"):
                continue
            lines += ["", f"## {method.upper()} {path}", "", operation["summary"]]
            if "description" in operation:
                lines += ["", operation["description"]]
            shared = operations.get("parameters", []) + operation.get("parameters", [])
            parameters = [_resolve(api, parameter) for parameter in shared]
            if parameters:
                rows = [(f"`{p['name']}`", p["in"], p.get("description", "")) for p in parameters]
                lines += ["", *_table(("parameter", "in", "meaning"), rows)]
            for fields in _list_body_fields(api, operation):
                lines += ["", *fields]
            responses = operation["responses"].items()
            rows = [(code, _resolve(api, response)["description"]) for code, response in responses]
            lines += ["", *_table(("status", "meaning"), rows)]
    return "\n".join(lines) + "\n"


def _list_body_fields(api: dict[str, Any], operation: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a table of the fields of the request, if it has a body."""
    body = _resolve(api, operation.get("requestBody", {}))
    for content in body.get("content", {}).values():
        schema = _resolve(api, content["schema"])
        rows = [
            (f"`{name}`", _type(api, entry), _resolve(api, entry).get("description", ""))
            for name, entry in schema.get("properties", {}).items()
        ]
        yield _table(("field of the body", "type", "meaning"), rows)


def build_status_document() -> str:
    """Build the reference of the status document from its JSON schema."""
    schema = json.loads((PACKAGE / "monitoring" / "status.schema.json").read_text(encoding="utf-8"))
    definitions = schema["$defs"]
    lines = [
        "# Status document",
        "",
        schema["description"],
        "",
        "The [JSON schema](status.schema.json) is the exact description;",
        "[Monitoring](../monitoring.md#json) says where the document comes from.",
    ]
    parts = {"document": schema, **{name: definitions[name] for name in ("dag", "token", "event")}}
    for name, part in parts.items():
        rows = [
            (f"`{key}`", _type(schema, entry), entry.get("description", ""))
            for key, entry in part["properties"].items()
        ]
        lines += ["", f"## {name}", "", part["description"]]
        lines += ["", *_table(("field", "type", "meaning"), rows)]
    lines += ["", "## Values of outcome", ""]
    lines += [f"- `{value}`" for value in definitions["outcome"]["enum"]]
    return "\n".join(lines) + "\n"


def build_metrics() -> str:
    """Build the list of all metrics, with the help texts that a scraper sees."""
    agent = _table(("metric", "type", "help"), list_agent_metrics())
    server = _table(("metric", "type", "help"), list_server_metrics())
    return "\n".join(
        [
            "# Metrics",
            "",
            "## Airflow",
            "",
            "Served at `/flowauth-rotator/metrics`; [Monitoring](../monitoring.md#metrics) has the",
            "labels, and says when a series is absent.",
            "",
            *agent,
            "",
            "## Renewal server",
            "",
            "Served at `/metrics`; [The renewal server](../server.md#health-metrics-logs) says who",
            "may read them.",
            "",
            *server,
            "",
        ]
    )


def list_agent_metrics() -> list[tuple[str, str, str]]:
    """Return name, type and help of each metric of an Airflow."""
    from flowauth_rotator.monitoring.assessment import assess
    from flowauth_rotator.monitoring.prometheus import render
    from flowauth_rotator.monitoring.status import StatusDocument

    nothing = assess(StatusDocument(), datetime.now(timezone.utc))
    return _read_metrics(render(nothing).decode())


def list_server_metrics() -> list[tuple[str, str, str]]:
    """Return name, type and help of each metric of a renewal server, from a real one."""
    from flowauth_rotator.server import create_app
    from flowauth_rotator.server.commands import server

    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        data_dir = Path(folder) / "data"
        server.main(["init", "--data-dir", str(data_dir)], standalone_mode=False)
        token = (data_dir / "metrics.token").read_text().strip()
        client = create_app(data_dir).test_client()
        response = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        return _read_metrics(response.get_data(as_text=True))


def _read_metrics(text: str) -> list[tuple[str, str, str]]:
    """Return name, type and help of each metric in Prometheus' text format."""
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (\S+) (.*)$", text, re.MULTILINE))
    names = (name for name in helps if not name.endswith("_created"))
    return [(f"`{name}`", types[name], helps[name]) for name in names]


def build_python_api() -> str:
    """Build the reference of the public names from the source: no Airflow is needed."""
    lines = ["# Python API", "", "What is not on this page may change in any version."]
    for package in ("flowauth_rotator.provider", "flowauth_rotator"):
        lines += ["", f"## {package}"]
        modules = importlib.import_module(package)._MODULES
        for name, module in sorted(modules.items()):
            path = ROOT / Path(*package.split("."), *module.split("."))
            tree = ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
                    lines += ["", f"### {name}", "", "```python", *_describe(node), "```"]
                    lines += ["", "```text", ast.get_docstring(node) or "", "```"]
    return "\n".join(lines) + "\n"


def _describe(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """Return the signature of a function, or a class with its public fields and methods."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        arguments = ast.unparse(node.args)
        separator = ",\n    " if len(arguments) > 70 else ", "
        brackets = ("(\n    ", ",\n)") if len(arguments) > 70 else ("(", ")")
        parts = separator.join(re.split(r", (?![^\[\(]*[\]\)])", arguments))
        return f"def {node.name}{brackets[0]}{parts}{brackets[1]}{returns}".splitlines()
    members: list[str] = []
    for each in node.body:
        if isinstance(each, ast.AnnAssign) or (
            isinstance(each, ast.FunctionDef)
            and (each.name == "__init__" or not each.name.startswith("_"))
        ):
            text = _describe(each) if isinstance(each, ast.FunctionDef) else [ast.unparse(each)]
            members += [f"    {line}" for line in text]
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    return [f"class {node.name}({bases}):" if bases else f"class {node.name}:", *members]


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a table in Markdown."""
    cells = [heads, ("---",) * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def _resolve(document: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference within a document refers to."""
    while "$ref" in entry:
        found: Any = document
        for key in entry["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        entry = {**found, **{key: value for key, value in entry.items() if key != "$ref"}}
    return entry


def _type(document: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return the type of a schema's entry, in words."""
    if "anyOf" in entry:
        return " or ".join(_type(document, each) for each in entry["anyOf"])
    if "$ref" in entry and entry["$ref"].startswith("#/$defs/"):
        return f"{entry['$ref'].rpartition('/')[2]}"
    entry = _resolve(document, entry)
    if "const" in entry:
        return f"`{json.dumps(entry['const'])}`"
    types = entry.get("type", "string")
    text = " or ".join(types) if isinstance(types, list) else str(types)
    items = entry.get("items")
    return f"{text} of {_type(document, items)}" if items else text


GENERATED: dict[str, Callable[[], str]] = {
    "reference/cli.md": build_cli,
    "reference/http-api.md": build_http_api,
    "reference/metrics.md": build_metrics,
    "reference/python-api.md": build_python_api,
    "reference/status-document.md": build_status_document,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the pages from outside of docs/, and what they link to."""
    from mkdocs.structure.files import File

    copies: set[str] = set()
    for page, build in GENERATED.items():
        files.append(File.generated(config, page, content=build()))
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text, found = relocate_links(text, source, page)
        copies |= found
        files.append(File.generated(config, page, content=text))
    for file in files.documentation_pages():
        if file.src_uri not in PAGES and file.src_uri not in GENERATED:
            copies |= relocate_links(file.content_string, f"docs/{file.src_uri}", file.src_uri)[1]
    for path in sorted(copies):
        for each in [ROOT / path] if (ROOT / path).is_file() else ():
            files.append(File.generated(config, f"files/{path}", abs_src_path=str(each)))
    schema = str(PACKAGE / "monitoring" / "status.schema.json")
    files.append(File.generated(config, "reference/status.schema.json", abs_src_path=schema))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of the pages in docs/ that lead out of it."""
    uri = page.file.src_uri
    if uri in PAGES or uri in GENERATED:
        return markdown
    return relocate_links(markdown, f"docs/{uri}", uri)[0]
