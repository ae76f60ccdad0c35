"""Many agents for one token: all have decided to renew it before the first of them asks.

`python -m proofs.rivals` lets 50 of them loose on a real server, for a thousand tokens.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.parts import (
    BIN,
    clean_environment,
    free_port,
    prepare_process,
    running,
    wait_until_healthy,
)
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.issuer import Issuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore, TokenStore
from flowauth_rotator.core.errors import RotatorError
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Report
from flowauth_rotator.core.succession import History, RenewalResponse, Row
from flowauth_rotator.core.tokens import Claims, PublicKey, Token
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.history import HistoryRow
from proofs.processes.serving import AUDIENCE, ROLES, USERNAME, prepare

AGENTS, EVENTS = 50, 1000
LIFETIME, AGE = 600, 450  # minutes, of a token that is due
WAIT_LIMIT = 120  # seconds for the slowest of the rivals
POLICY = RotationPolicy()
WELL = {"rotated", "adopted", "superseded", "healthy"}


class Start:
    """Where rivals wait for one another, once for each event."""

    def __init__(self, rivals: int) -> None:
        self._barrier = threading.Barrier(rivals, timeout=WAIT_LIMIT)
        self._passed = threading.local()

    def next_event(self) -> None:
        """This rival will wait again."""
        self._passed.yes = False

    def wait(self) -> None:
        """Wait for all others; not again when it asks once more after a lost answer."""
        if not self._passed.yes:
            self._passed.yes = True
            self._barrier.wait()


class DecidedBearer(BearerIssuer):
    """Asks once all rivals have decided to ask."""

    start: Start

    def rows(self, claims: Claims) -> History:
        """No rows."""
        self.start.wait()
        return super().rows(claims)


class DecidedSession(SessionIssuer):
    """Asks once all rivals have looked for a successor, and found none."""

    start: Start

    def renew(
        self, token: Token, row: Row | None, *, key: str, lifetime_minutes: int | None
    ) -> RenewalResponse:
        """Renew."""
        self.start.wait()
        return super().renew(token, row, key=key, lifetime_minutes=lifetime_minutes)


def contend(
    issuers: Sequence[DecidedBearer | DecidedSession],
    stores: Sequence[TokenStore],
    public_key: PublicKey,
) -> list[Report]:
    """One thread for each issuer rotates in each store, all at once; how each run ended."""
    start = Start(len(issuers))

    def rival(issuer: DecidedBearer | DecidedSession) -> list[Report]:
        issuer.start = start
        return [_rotated(store, issuer, public_key, start) for store in stores]

    with ThreadPoolExecutor(len(issuers)) as pool:
        return [report for reports in pool.map(rival, issuers) for report in reports]


def outcomes_of(reports: Sequence[Report]) -> Counter[str]:
    """How often a run ended how."""
    return Counter(str(report.outcome) for report in reports)


def _rotated(store: TokenStore, issuer: Issuer, public_key: PublicKey, start: Start) -> Report:
    start.next_event()
    now = datetime.now(timezone.utc)
    try:
        return rotate(store, issuer, POLICY, now=now, public_key=lambda: public_key)
    except RotatorError as error:
        return error.report(name=store.name, place=store.place, checked_at=now)


@dataclass(frozen=True)
class Contest:
    """What came of it.

    Attributes:
        agents: how many there were for each event.
        events: how many tokens fell due.
        requests: how often the server was asked for a renewal.
        rows: how many rows the history has more than before.
        seconds: from the first decision to the last report.
        outcomes: how often a run ended how.
        violations: what should not have been, a sentence each.
    """

    agents: int
    events: int
    requests: int
    rows: int
    seconds: float
    outcomes: Counter[str]
    violations: tuple[str, ...]

    def __str__(self) -> str:
        said = ", ".join(f"{count} {word}" for word, count in self.outcomes.most_common())
        counted = f"{self.requests} requests, {self.rows} new rows, in {self.seconds:.0f} s"
        lines = [
            f"{self.agents} agents, {self.events} events: {counted}",
            f"runs ended {said}",
            *self.violations,
            f"{len(self.violations)} violations",
        ]
        return "\n".join(lines)


def contest(services: Services, url: str, agents: int, events: int) -> Contest:
    """Mint tokens that are due, and let this many agents, each by the token itself, have them."""
    rows = _minted(services, events)
    stores = [MemoryStore(Token(services.history.reveal(row))) for row in rows]
    with ExitStack() as stack:
        issuers = [stack.enter_context(closing(DecidedBearer(url))) for _ in range(agents)]
        began = time.monotonic()
        reports = contend(issuers, stores, PublicKey(services.keyring.current_signer().public_pem))
        seconds = time.monotonic() - began
    outcomes = outcomes_of(reports)
    later = [row for row in services.listing.iterate_rows() if row.id > rows[-1].id]
    return Contest(
        agents=agents,
        events=events,
        requests=sum(report.renewal_requests for report in reports),
        rows=len(later),
        seconds=seconds,
        outcomes=outcomes,
        violations=tuple(_violations(services, rows, later, stores, outcomes)),
    )


def _minted(services: Services, events: int) -> list[HistoryRow]:
    """The rows of tokens that are due, each of a name of its own."""
    owner = services.accounts.get_user(USERNAME)
    audience = services.accounts.get_audience(AUDIENCE)
    issued_at = int(time.time()) - AGE * 60
    before = max((row.id for row in services.listing.iterate_rows()), default=0)
    for number in range(events):
        name = f"event-{before}-{number}"
        services.issuer.mint(owner, audience.id, name, tuple(ROLES), LIFETIME, now=issued_at)
    return [row for row in services.listing.iterate_rows() if row.id > before]


def _violations(
    services: Services,
    predecessors: Sequence[HistoryRow],
    successors: Sequence[HistoryRow],
    stores: Sequence[MemoryStore],
    outcomes: Counter[str],
) -> Iterator[str]:
    """One successor for each predecessor, in its store, and everybody content."""
    for row, store in zip(predecessors, stores, strict=True):
        own = [later for later in successors if later.parent_id == row.id]
        if len(own) != 1:
            yield f"{row.name} has {len(own)} successors."
        elif store.read() != Token(services.history.reveal(own[0])):
            yield f"The token in use of {row.name} is not its successor's."
    for word in outcomes.keys() - WELL:
        yield f"{outcomes[word]} runs ended {word}."


@contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[str]:
    """The bundled server as it is deployed, with two workers and these settings; its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(BIN / "flowauth-rotator"), "serve", "--bind", f"127.0.0.1:{port}"]
    env = clean_environment(FLOWAUTH_ROTATOR_DATA_DIR=str(data_dir), **settings)
    log = data_dir.parent / "server.log"
    with running([*command, "--workers", "2"], env=env, log=log) as process:
        wait_until_healthy(f"{url}/version", process, "The renewal server", log)
        yield url


def main() -> int:
    """The contest at full length; 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m proofs.rivals", description=__doc__)
    parser.add_argument("--agents", type=int, default=AGENTS, help="(%(default)s)")
    parser.add_argument("--events", type=int, default=EVENTS, help="(%(default)s)")
    given = parser.parse_args()
    prepare_process()
    with TemporaryDirectory(prefix="proofs-") as folder:
        settings = Settings.load(Path(folder) / "server", {})
        prepare(settings, secrets.token_urlsafe(18))
        services = Services.open(settings)
        with closing(services.database), serving(settings.data_dir) as url:
            result = contest(services, url, given.agents, given.events)
    print(result)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
