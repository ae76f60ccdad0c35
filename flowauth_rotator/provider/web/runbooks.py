"""The bundled runbooks as HTML pages."""

from __future__ import annotations

from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from flowauth_rotator.monitoring.runbooks import list_runbooks, read_runbook

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="../static/icon.svg">
<link rel="stylesheet" href="../static/runbook.css">
</head>
<body>
<nav><a href="../">FlowAPI tokens</a> <a href="README">All runbooks</a></nav>
<main>
{body}</main>
</body>
</html>
"""


@cache
def render_runbook(name: str) -> str | None:
    """Return the page of a runbook; None if there is none of this name.

    Links to other runbooks lead to their pages.
    """
    text = read_runbook(name)
    if text is None:
        return None
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    names = set(list_runbooks())
    for token in tokens:
        for child in token.children or ():
            _correct_link(child, names)
    body = str(parser.renderer.render(tokens, parser.options, {}))
    return PAGE.format(title=escape("Runbooks" if name == "README" else name), body=body)


def _correct_link(token: Token, names: set[str]) -> None:
    """Have a link to the file of a runbook lead to its page."""
    name = str(token.attrs.get("href", "")).removesuffix(".md")
    if name in names:
        token.attrs["href"] = name
