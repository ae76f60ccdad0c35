"""`make mutants`: bugs that somebody once shipped, put into the protocol one by one, to be caught.

Each is a change of one place of a copy of the package. The simulation and the tests of the rooms
look at the copy; whatever none of them notices is a hole in the proof.
"""

# ruff: noqa: E501 - the places stand as they do in the code
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
COPIED = ("flowauth_rotator", "proofs", "tests", "demo", "dags", "plugins", "pyproject.toml")
SCHEDULES = 3_000
AGENT = ("tests/core", "tests/agent", "tests/contract/test_rotation.py")
SERVER = tuple(
    f"tests/server/test_{name}.py"
    for name in ("bearer_renewal", "renewal", "tokens", "two_servers")
)
rotation, issuer, wire, stores, succession, policy, report, tokens, issuing = (
    f"flowauth_rotator/{path}.py"
    for path in (
        *("agent/rotation", "agent/issuer", "agent/wire", "agent/stores"),
        *("core/succession", "core/policy", "core/report", "core/tokens", "server/issuing"),
    )
)


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        name: what is wrong.
        seen_in: who shipped it, as far as it is known.
        file: where.
        old: the text that is replaced; it stands there once.
        new: what replaces it.
        tests: what looks at it, beside the simulation.
    """

    name: str
    seen_in: str
    file: str
    old: str
    new: str
    tests: Sequence[str] = AGENT


MUTANTS = [
    Mutant(
        "swapped before it is verified",
        "certbot",
        rotation,
        "    if claims is None or faults:\n",
        "    if claims is None:\n",
    ),
    Mutant(
        "a key drawn anew for each request",
        "FlowAuth, generators",
        succession,
        '{predecessor.digest}"\n    return',
        "{__import__('os').urandom(8)!r}\"\n    return",
    ),
    Mutant(
        "a key without epoch: a useless answer is repeated for ever",
        "certmagic#361",
        succession,
        "renewal {number} {lifetime_minutes}",
        "renewal {lifetime_minutes}",
    ),
    Mutant(
        "a key without the lifetime that is asked for",
        "practice",
        succession,
        "renewal {number} {lifetime_minutes}",
        "renewal {number}",
    ),
    Mutant(
        "asked again blindly after a lost answer",
        "spire#1033",
        issuer,
        "        return self._signed(lambda: self._renewal(path, key, lifetime_minutes, self._csrf()))",
        "        return self.retry(\n            lambda: self._signed(lambda: self._renewal(path, key, lifetime_minutes, self._csrf()))\n        )",
    ),
    Mutant(
        "no look for a successor before asking",
        "certmagic#361",
        rotation,
        "        for row in successors(claims, rows):\n",
        "        for row in successors(claims, ()):\n",
    ),
    Mutant(
        "no pause between attempts",
        "vault#26382",
        issuer,
        '    return max(backoff(state), getattr(error, "retry_after", 0.0))',
        "    return 0.0",
    ),
    Mutant(
        "attempts without end",
        "vault#26382",
        issuer,
        "ATTEMPTS = 3",
        "ATTEMPTS = 1000",
    ),
    Mutant(
        "the threshold not clamped: due at birth",
        "cert-manager#4423",
        policy,
        "    return min(duration, lifetime * LARGEST_FRACTION)",
        "    return duration",
    ),
    Mutant(
        "no check that a successor is worth having",
        "smallstep/cli#523",
        succession,
        "    if decide(successor, policy, now).due:\n",
        "    if False:\n",
    ),
    Mutant(
        "swapped for one that expires earlier",
        "cert-manager#8610",
        rotation,
        "    if claims.expires_at <= max(predecessor.expires_at, clocks.earliest):",
        "    if False:",
    ),
    Mutant(
        "capped, and asked for a new one at each check",
        "FlowKit#7274",
        rotation,
        "        again = may_ask(claims, candidates, policy, clocks.earliest)",
        "        again = True",
    ),
    Mutant(
        "no budget",
        "certmate#391",
        succession,
        "        if recent >= most:",
        "        if False:",
    ),
    Mutant(
        "adopted and swapped without a look at the roles",
        "FlowAuth deletes roles",
        succession,
        '        ("set of roles", predecessor.roles, successor.roles),\n',
        "",
    ),
    Mutant(
        "another user's token accepted",
        "FlowAuth tests",
        succession,
        '        ("user (`sub`)", predecessor.subject, successor.subject),\n',
        "",
    ),
    Mutant(
        "another audience's token accepted",
        "FlowAuth tests",
        succession,
        '        ("audience (`aud`)", predecessor.audience, successor.audience),\n',
        "",
    ),
    Mutant(
        "a token of the future accepted",
        "kubernetes#124022",
        succession,
        "    if max(successor.issued_at, successor.not_before) > (latest or now) + policy.leeway:",
        "    if False:",
    ),
    Mutant(
        "the signature not verified",
        "JWT practice",
        succession,
        "    if key and not key.verifies(token):",
        "    if False:",
    ),
    Mutant(
        "`alg: none` accepted",
        "JWT practice",
        tokens,
        '    if not isinstance(algorithm, str) or algorithm.lower() == "none":',
        "    if not isinstance(algorithm, str):",
    ),
    Mutant(
        "minted before the store is known to take it",
        "certbot#3553",
        rotation,
        "        store.preflight()\n",
        "",
    ),
    Mutant(
        "an operator's paste overwritten",
        "last-write-wins stores",
        rotation,
        "    if (current := _current(store)) != found.token:\n        return _overtaken(store, found, current, clocks)\n",
        "    _current(store)\n",
    ),
    Mutant(
        "the description wiped by the write",
        "airflow#17889",
        rotation,
        "        store.write(successor, description)",
        '        store.write(successor, "")',
    ),
    Mutant(
        "not read back: a shadowed write is taken for a swap",
        "airflow#64060",
        rotation,
        "    current = _current(store)\n    if current == successor:\n        return found.report\n    if failure:",
        "    current = _current(store)\n    if not failure:\n        return found.report\n    if failure:",
    ),
    Mutant(
        "a write that raised taken for one that failed",
        "practice",
        rotation,
        "        failure = error  # it may have been written all the same",
        "        raise error from None",
    ),
    Mutant(
        "a failure that ends as success",
        "vault#28611",
        rotation,
        "        error.severity = _severity(found, clocks, policy)\n        raise\n",
        "        return found.report\n",
    ),
    Mutant(
        "judged by the local clock alone",
        "google-auth#158",
        rotation,
        "            return self.ours\n        return answered_at\n",
        "            return self.ours\n        return self.ours\n",
    ),
    Mutant(
        "a naive time taken for UTC",
        "FlowKit#3089",
        report,
        "    return now.astimezone(timezone.utc)",
        "    return now.replace(tzinfo=timezone.utc)",
    ),
    Mutant(
        "Retry-After without bounds",
        "calico#7694",
        wire,
        "    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else 0.0",
        "    return seconds",
    ),
    Mutant(
        "any 401 taken for a lost session",
        "FlowAuth",
        wire,
        "        if status == 401 and (words == CSRF_ERROR or answer.document is None):",
        "        if status == 401:",
    ),
    Mutant(
        "redirects followed",
        "practice",
        wire,
        "        if _is_redirect(status):",
        "        if False:",
    ),
    Mutant(
        "a body without end read to its end",
        "practice",
        wire,
        "                if len(content) > largest:",
        "                if False:",
        ("tests/agent", "tests/contract/test_misbehaving_issuer.py"),
    ),
    Mutant(
        "the token in an exception",
        "airflow#48536",
        tokens,
        '        raise MalformedToken(f"The text has {filled} of the 3 segments of a signed JWT.")',
        '        raise MalformedToken(f"The text {text[-60:]} has {filled} segments.")',
    ),
    Mutant(
        "written before the host has masked it",
        "Airflow",
        rotation,
        "    def consider(token: Token, *, adopted: bool = False) -> Candidate:\n        on_token(token)\n",
        "    def consider(token: Token, *, adopted: bool = False) -> Candidate:\n",
    ),
    Mutant(
        "a file written in place",
        "practice",
        stores,
        "                        draft.replace(target)",
        "                        target.write_text(text)",
    ),
    Mutant(
        "the server does not keep the key",
        "generators",
        issuing,
        "            idempotency_key=descent.idempotency_key if descent else None,",
        "            idempotency_key=None,",
        SERVER,
    ),
    Mutant(
        "the server commits what was true before it had the right to write",
        "practice",
        issuing,
        "                confirmed = plan(connection)\n",
        "                confirmed = planned\n",
        SERVER,
    ),
    Mutant(
        "the server renews for whoever asks",
        "FlowAuth tests",
        issuing,
        "            if parent.owner_id != caller.id:",
        "            if False:",
        SERVER,
    ),
    Mutant(
        "the server renews roles that are held no more",
        "practice",
        issuing,
        "    missing = sorted(role.name for role in parent.roles if role.id not in by_id)",
        "    missing: list[str] = []\n    parent = __import__('dataclasses').replace(\n        parent, roles=tuple(role for role in parent.roles if role.id in by_id)\n    )",
        SERVER,
    ),
    Mutant(
        "the server repeats an answer to another question",
        "practice",
        issuing,
        "        if earlier.requested_minutes != minutes:",
        "        if False:",
        SERVER,
    ),
]


UNCHANGED = Mutant(
    "nothing", "", rotation, "def rotate(", "def rotate(", (*AGENT, *SERVER)
)  # what catches this catches anything


@dataclass(frozen=True)
class Catch:
    """By what a mutant was caught; empty where nothing was noticed."""

    simulation: str
    tests: str


def caught(mutant: Mutant, folder: Path) -> Catch:
    """Put the bug into a copy and let the simulation and the tests look at it."""
    copy = folder / re.sub(r"\W+", "-", mutant.name)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    file = copy / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise click.ClickException(
            f"{mutant.name!r}: its place in {mutant.file} is not there, or not once."
        )
    file.write_text(text.replace(mutant.old, mutant.new))
    simulated = _run(copy, "-m", "proofs.simulation", "--schedules", str(SCHEDULES), "--stop")
    tested = _run(copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests)
    violation = re.search(r"^  (.*): python -m .* (\d+)$", simulated, re.MULTILINE)
    failure = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py)(?:::(\S+))?", tested, re.MULTILINE)
    shutil.rmtree(copy)
    click.echo(f"{mutant.name}: {bool(violation)}, {bool(failure)}", err=True)
    return Catch(
        f"{violation[1]} (seed {violation[2]})" if violation else "",
        " ".join(filter(None, failure.groups())) if failure else "",
    )


def _run(folder: Path, *arguments: str) -> str:
    """What a command has printed; one that does not end has failed."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    except subprocess.TimeoutExpired:
        return "  never ends: python -m 0\nFAILED never_ends.py"
    return done.stdout + done.stderr


@click.command()
@click.option("--only", default="", help="Those with this in their name.")
def main(*, only: str) -> None:
    """Put known bugs into the protocol, one by one, and tell by what each is caught."""
    began = time.perf_counter()
    chosen = [UNCHANGED, *(mutant for mutant in MUTANTS if only in mutant.name)]
    table = Table("bug", "seen in", "caught by the simulation", "caught by the tests")
    missed = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        for mutant, catch in zip(
            chosen, pool.map(lambda one: caught(one, Path(folder)), chosen), strict=True
        ):
            if mutant is UNCHANGED:
                if catch.simulation or catch.tests:
                    raise click.ClickException(f"The unchanged package is caught, by {catch}.")
                continue
            missed += not (catch.simulation or catch.tests)
            table.add_row(mutant.name, mutant.seen_in, catch.simulation or "-", catch.tests or "-")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    seconds = time.perf_counter() - began
    click.echo(f"{len(chosen) - 1} mutants in {seconds:.0f} s, {missed} not caught")
    raise SystemExit(bool(missed))


if __name__ == "__main__":
    main()
