"""Find phrases that readers stumbled over, so that they do not come back."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (
    *("flowauth_rotator", "demo", "docs", "dags", "plugins"),
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"),
)
SUFFIXES = {".py", ".js", ".html", ".md", ".yml", ".yaml", ".conf", ".cfg", ".json"}
PHRASES = {  # the phrase, and what to write instead
    r"(?<!there)\s(?:is|are|was) no (?!longer\b|more\b|reason\b)\w+": "is not a ...",
    r"\basked of (?:any|no)body\b": "No network request is made.",
    r"\bleads? back to the look\b": "the agent looks for a successor before it retries",
    r"\bneeds? nobody\b": "needs no action",
    r"\bhow to take (?:them|it)\b": "how to read them",
    r"\bwhen something dies\b": "Failure modes",
    r"\bwhose reading\b": "Output format.",
    r"\bfor machines;": "Print JSON (times in epoch seconds).",
    r"\bamong the tokens of\b": "has no renewable token matching this one",
    r"\btells no \w+": "did not return a ...",
    r"\b(?:is|are|be) told (?:of|by|when|that)\b": "name who reports what",
    r"\bmend(?:s|ed|ing)?\b": "correct, repair or fix",
}


def find_phrases(path: Path) -> list[str]:
    """Return a line for each phrase in a file: `path:line: phrase: write ...`."""
    found = []
    text = path.read_text(encoding="utf-8")
    for pattern, replacement in PHRASES.items():
        for match in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            phrase = " ".join(match[0].split())
            found.append(f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {replacement!r}")
    return found


def main() -> int:
    """Print every phrase in the package, the demo and the docs; return 1 if there is one."""
    paths = [
        path
        for name in FOLDERS
        for path in sorted((ROOT / name).rglob("*") if (ROOT / name).is_dir() else [ROOT / name])
        if path.suffix in SUFFIXES and path.is_file()
    ]
    lines = [line for path in paths for line in find_phrases(path)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
