"""Agents: each is a process of its own that rotates one token once, and may die while it does.

Started as `python -m proofs.processes.agents`, this one imports everything once and forks an agent
for each errand, a JSON object on a line of its standard input. It says the process id of each, and
what has become of it. No secret is in an argument, a file or the environment.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import IO

import jwt  # noqa: F401 - the package imports it when a token is read: here once for all agents

from demo.parts import ROOT
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.core.errors import AmbiguousResponse, RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.succession import History, RenewalResponse, Row
from flowauth_rotator.core.tokens import Claims, PublicKey, Token
from proofs.processes.points import KILLED
from proofs.processes.store import KeptStore
from proofs.timer import InstantTimer

POLICY = RotationPolicy()
TIMEOUT = 20  # seconds for an answer of the issuer; a killed one ends the connection at once
READS = {1: ("P0", ""), 2: ("P9", "P10"), 3: ("P12", "P13")}  # before and after each


@dataclass(frozen=True)
class Errand:
    """What one agent is to do.

    Attributes:
        url: of the issuer.
        keeper: the socket of the process that keeps the token.
        name: of the token.
        public_key: of the issuer.
        username: of the token's owner.
        password: theirs; empty for a bearer.
        dies_at: the point at which it kills itself, if any.
    """

    url: str
    keeper: str
    name: str
    public_key: str
    username: str
    password: str = field(repr=False)
    dies_at: str | None = None


@dataclass(frozen=True)
class End:
    """What became of an agent: whether `kill -9` ended it, or else the outcome it reported."""

    killed: bool
    said: str

    @property
    def word(self) -> str:
        """The word for it."""
        return KILLED if self.killed else self.said


class MortalStore(KeptStore):
    """The store of an agent that may die before or after each of its effects."""

    def __init__(self, path: Path, name: str, reach: Callable[[str], None]) -> None:
        super().__init__(path, name)
        self._reach, self._reads = reach, 0

    def read(self) -> Token:
        """The token: what is in use, then whether it still is, then whether it was written."""
        self._reads += 1
        before, after = READS.get(self._reads, ("", ""))
        self._reach(before)
        token = super().read()
        self._reach(after)
        return token

    def preflight(self) -> None:
        """See that a write would do."""
        super().preflight()
        self._reach("P2")

    def sent(self, what: str) -> None:
        """The keeper has been asked, and has not been heard."""
        if what == "write":
            self._reach("P11")


class Mortal:
    """What makes an issuer's agent die before or after each of its effects."""

    reach: Callable[[str], None]

    def rows(self, claims: Claims) -> History:
        """The history."""
        rows: History = super().rows(claims)  # type: ignore[misc]  # of an issuer
        self.reach("P3")
        return rows

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> RenewalResponse:
        """Ask for a successor."""
        self.reach("P4")
        try:
            renewal: RenewalResponse = super().renew(  # type: ignore[misc]  # of an issuer
                token, row, key=key, lifetime_minutes=lifetime_minutes
            )
        except AmbiguousResponse:
            self.reach("P7")
            raise
        self.reach("P8")
        return renewal


class MortalSession(Mortal, SessionIssuer):
    """A sign-in."""


class MortalBearer(Mortal, BearerIssuer):
    """The token itself."""


def _run(errand: Errand) -> str:
    """Rotate once; the word for how it ended."""

    def reach(point: str) -> None:
        if point == errand.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    issuer: MortalSession | MortalBearer
    if errand.password:
        issuer = MortalSession(errand.url, errand.username, errand.password, timeout=TIMEOUT)
    else:
        issuer = MortalBearer(errand.url, timeout=TIMEOUT)
    issuer.reach = reach
    store = MortalStore(Path(errand.keeper), errand.name, reach)
    with closing(issuer):
        try:
            report = rotate(
                store,
                issuer,
                POLICY,
                now=datetime.now(timezone.utc),
                public_key=partial(PublicKey, errand.public_key),
                on_token=lambda _: reach("P1"),
                timer=InstantTimer(),
            )
            return str(report.outcome)
        except RotatorError as error:
            return str(error.outcome)
        except Exception as error:  # noqa: BLE001 - its text may contain a secret
            return f"broken by {type(error).__name__}"


def _forked(errand: Errand, tell: Callable[[Mapping[str, object]], None]) -> None:
    """Fork one agent, and report its end."""
    if threading.active_count() > 1:
        raise RuntimeError("A process that forks must have one thread.")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, _run(errand).encode())
        finally:
            os._exit(0)
    os.close(writing)
    tell({"pid": pid})
    with os.fdopen(reading) as stream:
        said = stream.read()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    tell(asdict(End(killed, said)))


def main() -> None:
    """Fork an agent for each line of standard input."""

    def tell(message: Mapping[str, object]) -> None:
        print(json.dumps(message), flush=True)

    logging.basicConfig()  # to standard error, a file that is looked through for secrets
    for line in sys.stdin:
        _forked(Errand(**json.loads(line)), tell)


class Agents:
    """The process that forks agents, with its log in a file."""

    def __init__(self, log: IO[str]) -> None:
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proofs.processes.agents"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self._pid: int | None = None
        self._born = threading.Event()

    def run(self, errand: Errand) -> End:
        """Fork one agent, and report its end."""
        self._born.clear()
        self._send(json.dumps(asdict(errand)))
        self._pid = json.loads(self._line())["pid"]
        self._born.set()
        return End(**json.loads(self._line()))

    def kill(self) -> None:
        """End the agent that is running as `kill -9` does; for another thread than `run`."""
        self._born.wait()
        assert self._pid is not None  # noqa: S101 - it is born
        os.kill(self._pid, signal.SIGKILL)

    def stop(self) -> None:
        """Let there be no more agents."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        print(line, file=self._process.stdin, flush=True)

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        return self._process.stdout.readline()


if __name__ == "__main__":
    main()
