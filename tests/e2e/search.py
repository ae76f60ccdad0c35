"""The search for what may have let slip a part of a secret."""

import re
from pathlib import Path

WINDOW = 12
# Tasks and people prove themselves to Airflow 3 by a JWT with the header {"alg":"HS512", ...}: its
# times read like those of the tokens that are rotated, whose header says RS256.
OWN_TOKEN = r"eyJhbGciOiJIUzUxMi[\w.-]*"


def windows(secret: str) -> set[str]:
    return {secret[start : start + WINDOW] for start in range(len(secret) - WINDOW + 1)}


def leaks(folder: Path, *secrets: str) -> set[str]:
    """The files under `folder` in which 12 characters in a row of a secret stand."""
    wanted = set().union(*map(windows, secrets))
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for run in re.findall(r"[\w+/=.-]{12,}", path.read_bytes().decode("latin-1")):
                if not wanted.isdisjoint(windows(run)):
                    found.add(path.name)
    return found


def parts_of(*tokens: str) -> list[str]:
    """Payloads and signatures; a header says nothing that is secret."""
    return [segment for token in tokens for segment in token.split(".")[1:]]
