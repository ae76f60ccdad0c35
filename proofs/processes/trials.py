"""One death after the other, and what the runs after it find."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt
from sqlalchemy import select

from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.history import HistoryRow
from flowauth_rotator.server.schema import tokens
from proofs.processes.agents import Agents, End, Errand
from proofs.processes.points import (
    AFTER,
    BEFORE,
    HEALTHY,
    SERVER,
    TOLD,
    WAITING,
    WIRE,
    WORKER,
    Death,
    Point,
)
from proofs.processes.serve import CHEAP
from proofs.processes.serving import AUDIENCE, ROLES, USERNAME, Serving
from proofs.processes.store import KeeperProcess, KeptStore
from proofs.proxy import Proxy, proxy_to

LIFETIME, AGE = 60, 45  # minutes, of a token that is due
WINDOW = 12  # characters of a secret that no log may show
GOLDEN = 0.618034  # its multiples, less their whole parts, are spread evenly


@dataclass(frozen=True)
class Trial:
    """What came of one death.

    Attributes:
        death: of what, and where.
        first: how the run that it struck ended.
        next: how the next run ended.
        violations: what should not have been, a clause each.
    """

    death: Death
    first: str
    next: str
    violations: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What there is of one name.

    Attributes:
        rows: of the history, oldest first.
        tokens: those of the rows.
        stored: the token in use.
        about: what stands beside it.
    """

    rows: tuple[HistoryRow, ...]
    tokens: tuple[Token, ...] = field(repr=False)
    stored: Token
    about: str

    @property
    def is_swapped(self) -> bool:
        """Whether another token than the first is in use."""
        return self.stored != self.tokens[0]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A server, a store and agents to kill.

    Attributes:
        services: the server's, as its operator at the shell has them.
        serving: the server.
        keeper: the store.
        agents: what forks agents.
        proxy: what stands before the server when an answer is to be cut.
        logs: what these processes have written.
        password: of the tokens' owner.
        shift: 0 or 1: which kind of agent comes first.
        secrets: the password, and payloads and signatures of all tokens.
    """

    services: Services
    serving: Serving
    keeper: KeeperProcess
    agents: Agents
    proxy: Proxy
    logs: tuple[Path, ...]
    password: str = field(repr=False)
    shift: int = 0
    secrets: set[str] = field(default_factory=set, repr=False)

    def trial(self, point: Point, number: int) -> Trial:
        """Let something die, run the agent twice more, and look at all that is there."""
        death = Death.of(point, number, self.shift)
        store, errand = self._due(f"{point.name}-{number}", bearer=death.bearer)
        before = self._found(store)
        first, struck = self._strike(death, errand)
        after = self._found(store)
        following, third = self.agents.run(errand), self.agents.run(errand)
        found = self._found(store)
        self.secrets.update(*(token.reveal().split(".")[1:] for token in found.tokens))
        claims = (
            (struck, "nothing died"),
            (first.word == death.first_word, f"that run ended {first.word}"),
            (len(after.rows) == 1 + death.minted, f"it left {len(after.rows)} rows"),
            (death.stored in (None, after.is_swapped), "it left another token in use"),
            (
                following.word == death.next_word(stored=after.is_swapped),
                f"the next run ended {following.word}",
            ),
            (third.word == HEALTHY, f"the run after the next ended {third.word}"),
            *self._required(before, after, found, store.name),
        )
        violations = tuple(clause for holds, clause in claims if not holds)
        return Trial(death, first.word, following.word, violations)

    def leaks(self) -> list[str]:
        """The logs that show twelve characters of a secret; call it when all is done."""
        secrets = self.secrets | {self.password}
        windows = {
            secret[i : i + WINDOW] for secret in secrets for i in range(len(secret) - WINDOW + 1)
        }
        texts = ((log.name, log.read_text()) for log in self.logs)
        return [
            name
            for name, text in texts
            if any(text[i : i + WINDOW] in windows for i in range(len(text) - WINDOW + 1))
        ]

    def _required(
        self, before: Found, after: Found, found: Found, name: str
    ) -> Iterable[tuple[bool, str]]:
        """What holds in the end, wherever something died."""
        yield len(found.rows) == 2, f"there are {len(found.rows)} rows in the end"
        yield found.rows[:1] == before.rows, "the predecessor's row was changed"
        yield found.tokens[: len(after.tokens)] == after.tokens, "another successor took its place"
        successor = found.rows[-1]
        yield successor.parent_id == before.rows[0].id, "it descends from another row"
        yield (successor.name, successor.roles) == (name, before.rows[0].roles), "it is another's"
        yield found.stored == found.tokens[-1], "what is in use is not the row's token"
        yield name in found.about, "what is in use is not described"
        for which, token in zip(("predecessor", "successor"), found.tokens, strict=False):
            yield self._verifies(token), f"the {which} does not verify"

    def _strike(self, death: Death, errand: Errand) -> tuple[End, bool]:
        """Run an agent that meets a death; how it ended, and whether something died."""
        point = death.point.name
        if death.dies in (WORKER, SERVER):
            self.serving.die_at(point, whole=death.dies == SERVER)
            end = self.agents.run(errand)
            struck = self.serving.has_struck(point)
            return end, struck and (death.dies == WORKER or self.serving.revive())
        if death.dies in (BEFORE, AFTER):
            self.keeper.die_at_next_write(
                errand.name, "before" if death.dies == BEFORE else "after"
            )
            return self.agents.run(errand), self.keeper.revive()
        if death.dies in (WIRE, WAITING, TOLD):
            return self._cut(death, errand)
        end = self.agents.run(replace(errand, dies_at=point))
        return end, end.killed

    def _cut(self, death: Death, errand: Errand) -> tuple[End, bool]:
        """Run an agent whose answer is cut somewhere, from before its first byte to its last."""
        cuts = self.proxy.cuts
        after = int(self._shortest[death.bearer] * (death.number * GOLDEN % 1))
        self.proxy.arm(after, self.agents.kill if death.dies == WAITING else None)
        dies_at = death.point.name if death.dies == TOLD else None
        end = self.agents.run(replace(errand, url=self.proxy.url, dies_at=dies_at))
        return end, self.proxy.cuts == cuts + 1

    @cached_property
    def _public_key(self) -> str:
        return self.services.keyring.current_signer().public_pem

    @cached_property
    def _shortest(self) -> dict[bool, int]:
        """The bytes of an answer with a short name: to a bearer, and to a session."""
        lengths = {}
        for bearer in (True, False):
            _, errand = self._due(f"{bearer:d}", bearer=bearer)
            self.agents.run(replace(errand, url=self.proxy.url))
            lengths[bearer] = len(self.proxy.answer)
        return lengths

    def _due(self, name: str, *, bearer: bool) -> tuple[KeptStore, Errand]:
        """A token of its own that is due, in the store, and what its agent has to do."""
        owner = self.services.accounts.get_user(USERNAME)
        audience = self.services.accounts.get_audience(AUDIENCE)
        issued_at = int(time.time()) - AGE * 60
        issued = self.services.issuer.mint(
            owner, audience.id, name, tuple(ROLES), LIFETIME, now=issued_at
        )
        store = KeptStore(self.keeper.socket, name)
        store.write(Token(issued.token), "as the owner left it")
        errand = Errand(
            url=self.serving.url,
            keeper=str(self.keeper.socket),
            name=name,
            public_key=self._public_key,
            username=USERNAME,
            password="" if bearer else self.password,
        )
        return store, errand

    def _found(self, store: KeptStore) -> Found:
        ids = select(tokens.c.id).where(tokens.c.name == store.name).order_by(tokens.c.id)
        with self.services.database.reading() as connection:
            found = [
                self.services.history.find_row(connection, row_id)
                for row_id in connection.execute(ids).scalars().all()
            ]
        rows = tuple(row for row in found if row is not None)
        texts = (Token(self.services.history.reveal(row)) for row in rows)
        return Found(rows, tuple(texts), store.read(), store.description())

    def _verifies(self, token: Token) -> bool:
        """As FlowAPI does it: by the public key, the audience and the times."""
        try:
            jwt.decode(token.reveal(), self._public_key, algorithms=["RS256"], audience=AUDIENCE)
        except jwt.PyJWTError:
            return False
        return True


@contextmanager
def campaign(
    data_dir: Path, settings: Mapping[str, str], password: str, *, shift: int = 0
) -> Iterator[Campaign]:
    """Everything there is to kill, on a prepared server, until the block ends."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="proofs-")))
        services = Services.open(Settings.load(data_dir, settings), hasher=CHEAP)
        stack.callback(services.database.close)
        log = stack.enter_context((folder / "agents.log").open("w"))
        agents = Agents(log)
        stack.callback(agents.stop)
        keeper = KeeperProcess(folder)
        stack.callback(keeper.stop)
        serving = Serving(data_dir, folder, settings)
        stack.callback(serving.stop)
        yield Campaign(
            services=services,
            serving=serving,
            keeper=keeper,
            agents=agents,
            proxy=stack.enter_context(proxy_to(serving.port)),
            logs=(folder / "agents.log", serving.log),
            password=password,
            shift=shift,
        )
