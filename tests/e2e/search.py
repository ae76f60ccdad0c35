"""The search for parts of secrets in files."""

import re
from pathlib import Path

WINDOW = 12
# Tasks and users authenticate to Airflow 3 with a JWT with the header {"alg":"HS512", ...}: its
# times read like those of the tokens that are rotated, whose header says RS256.
OWN_TOKEN = r"eyJhbGciOiJIUzUxMi[\w.-]*"


def windows(secret: str) -> set[str]:
    return {secret[start : start + WINDOW] for start in range(len(secret) - WINDOW + 1)}


def leaks(folder: Path, *secrets: str) -> set[str]:
    """Return the files under `folder` that contain 12 consecutive characters of a secret."""
    pieces = set().union(*map(windows, secrets))
    names = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for run in re.findall(r"[\w+/=.-]{12,}", path.read_bytes().decode("latin-1")):
                if not pieces.isdisjoint(windows(run)):
                    names.add(path.name)
    return names


def parts_of(*tokens: str) -> list[str]:
    """Payloads and signatures; a header says nothing that is secret."""
    return [segment for token in tokens for segment in token.split(".")[1:]]
