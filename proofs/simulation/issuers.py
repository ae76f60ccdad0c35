"""The two issuers of a simulated world: FlowAuth's model, and the bundled server's real rules."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from argon2 import PasswordHasher
from sqlalchemy import text

from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.accounts import Limit, Role
from flowauth_rotator.server.errors import Refused
from flowauth_rotator.server.history import History
from flowauth_rotator.server.schema import rate_counters, tokens
from proofs.flowauth import FlowAuth, Response, document, refusal
from proofs.simulation.keys import signer
from proofs.simulation.network import Exchange

AUDIENCE, USERNAME, PASSWORD, NAME = "TEST_SERVER", "flowbot", "a-long-password", "AIRFLOW"
ROLES = {"runner": ["run"], "viewer": ["get_results"]}
WEEK = 7 * 24 * 60
Minted = Callable[[int, str, int, Exchange], None]


class Issuer(Protocol):
    """An issuer as its administrators and the laws of the simulation see it.

    Attributes:
        honours_keys: whether a renewal is answered once for each `Idempotency-Key`.
    """

    honours_keys: bool

    def mint(self, minutes: int, issued_at: float) -> tuple[int, str]:
        """A token that its owner made by hand, and its row's id."""

    def deliver(self, exchange: Exchange) -> Response:
        """Answer a request."""

    def cap(self, minutes: float) -> None:
        """Let new tokens live for so long at most."""

    def hold(self, role: str, *, held: bool) -> None:
        """Grant a role, or revoke it."""

    def texts(self) -> Iterator[tuple[int, int | None, str]]:
        """Each row's id, its parent's where that is known, and its token while that is kept."""

    def restore(self) -> None:
        """Undo what administrators did, for the next schedule."""


class SimulatedFlowAuth:
    """FlowAuth's model; `minted` hears of each token that is made on request."""

    honours_keys = False

    def __init__(self, clock: Callable[[], float], minted: Minted) -> None:
        self._model = FlowAuth(
            clock, signer().sign, audience=AUDIENCE, username=USERNAME, password=PASSWORD,
            roles=ROLES,
        )  # fmt: skip
        self._minted = minted

    def mint(self, minutes: int, issued_at: float) -> tuple[int, str]:
        """A token that its owner made by hand, and its row's id."""
        text = self._model.mint(NAME, list(ROLES), minutes, issued_at=issued_at)
        return self._model.rows[-1].id, text

    def deliver(self, exchange: Exchange) -> Response:
        """Answer a request."""
        if "X-Dies" in exchange.headers:
            return Response(500, {}, b"")
        before = len(self._model.rows)
        body = b"" if exchange.body is None else json.dumps(exchange.body).encode()
        answer = self._model.answer(exchange.method, exchange.path, exchange.headers, body)
        for row in self._model.rows[before:]:
            self._minted(row.id, row.token, int(exchange.path.split("/")[-2]), exchange)
        return answer

    def cap(self, minutes: float) -> None:
        """Let new tokens live for so long at most."""
        self._model.longest_minutes = minutes

    def hold(self, role: str, *, held: bool) -> None:
        """Grant a role, or revoke it."""
        (self._model.held.add if held else self._model.held.discard)(role)

    def texts(self) -> Iterator[tuple[int, int | None, str]]:
        """Each row's id and token; FlowAuth knows no parents."""
        return ((row.id, None, row.token) for row in self._model.rows)

    def restore(self) -> None:
        """Nothing outlives a model."""


class DyingHistory(History):
    """A history whose process may die between the insertion and the commit."""

    dies = False

    def add_row(self, *args: Any, **options: Any) -> int:  # noqa: ANN401 - as they come
        """Write one row."""
        row_id = super().add_row(*args, **options)
        if self.dies:
            raise ConnectionAbortedError
        return row_id


@cache
def services() -> Services:
    """One server for all schedules of this process, on a file that lives as long."""
    memory = Path("/dev/shm")  # noqa: S108 - made unique below
    folder = tempfile.mkdtemp(dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = Settings.load(Path(folder) / "server")
    Services.create(settings, signer().key, now=0)
    made = Services.open(settings, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    made.accounts.add_audience(AUDIENCE, Limit(WEEK))
    for role, scopes in ROLES.items():
        made.accounts.add_role(role, AUDIENCE, scopes, Limit(WEEK))
    made.accounts.add_user(USERNAME, PASSWORD)
    made.accounts.grant(USERNAME, list(ROLES))
    made.issuer._history = DyingHistory(made.directory.load_cipher)
    return made


def _limit(role: Role) -> dict[str, object]:
    """The limit of a role in FlowAuth's format; there is no latest expiry here."""
    minutes = role.limit.max_lifetime_minutes
    return {"name": role.name, "longest_token_life_minutes": minutes, "latest_token_expiry": None}


class SimulatedServer:
    """The rules of the bundled server on its real database; only its HTTP is left out."""

    honours_keys = True
    _cap = [WEEK]  # noqa: RUF012 - of the one server, for all schedules

    def __init__(self, clock: Callable[[], float], minted: Minted) -> None:
        self._clock, self._minted = clock, minted
        self._services = services()
        self._owner = self._services.accounts.get_user(USERNAME)
        with self._services.database.writing() as connection:
            connection.execute(tokens.delete())
            connection.execute(text("DELETE FROM sqlite_sequence"))  # so that a seed replays
            connection.execute(rate_counters.delete())
        self._revoked: set[str] = set()

    def restore(self) -> None:
        """Undo what administrators did, for the next schedule."""
        for role in sorted(self._revoked):
            self._services.accounts.grant(USERNAME, [role])

    def mint(self, minutes: int, issued_at: float) -> tuple[int, str]:
        """A token that its owner made by hand, and its row's id."""
        issued = self._services.issuer.mint(
            self._owner, 1, NAME, list(ROLES), minutes, now=int(issued_at)
        )
        return issued.row_id, issued.token

    def deliver(self, exchange: Exchange) -> Response:
        """Answer a request."""
        history: Any = self._services.issuer._history
        history.dies = "X-Dies" in exchange.headers
        try:
            answer = self._answer(exchange)
        except Refused as refused:
            answer = refusal(refused.code, refused.message)
            if refused.code == 410:
                answer.headers["Idempotent-Replayed"] = "true"
        except ConnectionAbortedError:
            answer = Response(500, {}, b"")
        finally:
            history.dies = False
        answer.headers["Date"] = formatdate(int(self._clock()), usegmt=True)
        return answer

    def _answer(self, exchange: Exchange) -> Response:
        now, path = int(self._clock()), exchange.path
        if path in ("/signin", "/signout"):
            return document({"logged_in": path == "/signin"})
        if path == "/tokens/servers":
            return document([{"id": 1, "server_name": AUDIENCE}])
        if exchange.method == "GET" and path.endswith("/renew"):
            return Response(405, {}, b"{}")
        if exchange.is_rehearsal:
            return self._rehearsed(exchange, now)
        if exchange.is_renewal:
            return self._renewed(exchange, now)
        if path.startswith("/user/roles/"):
            holders = self._services.accounts.list_roles_with_holders(1)
            return document([_limit(role) for role, _ in holders])
        listing = self._services.listing.list_renewable(self._owner, 1, now=now)
        return document(
            [
                {
                    "id": row.id,
                    "name": row.name,
                    "token": token,
                    "roles": [{"id": role.id, "name": role.name} for role in row.roles],
                    "server_name": row.audience,
                    "username": row.owner,
                }
                for row, token in listing
            ]
        )

    def _rehearsed(self, exchange: Exchange, now: int) -> Response:
        if exchange.path != "/tokens/renew":
            raise Refused(404, "There is no token with this id.")
        presented = exchange.headers["Authorization"].removeprefix("Bearer ")
        plan = self._services.issuer.rehearse_presented(presented, None, now=now)
        return document({"name": plan.row.name, "roles": [_limit(role) for role in plan.roles]})

    def _renewed(self, exchange: Exchange, now: int) -> Response:
        said: Mapping[str, Any] = exchange.body if isinstance(exchange.body, dict) else {}
        minutes, key = said.get("lifetime_minutes"), exchange.headers.get("Idempotency-Key")
        issuer = self._services.issuer
        if exchange.path == "/tokens/renew":
            presented = exchange.headers["Authorization"].removeprefix("Bearer ")
            issued = issuer.renew_presented(presented, minutes, idempotency_key=key, now=now)
        else:
            row_id = int(exchange.path.split("/")[-2])
            issued = issuer.renew(self._owner, row_id, minutes, idempotency_key=key, now=now)
        if not issued.replayed:
            with self._services.database.reading() as connection:
                row = self._services.history.find_row(connection, issued.row_id)
            self._minted(issued.row_id, issued.token, (row and row.parent_id) or 0, exchange)
        answer = document({"id": issued.row_id, "token": issued.token})
        if issued.replayed:
            answer.headers["Idempotent-Replayed"] = "true"
        return answer

    def cap(self, minutes: float) -> None:
        """Let new tokens live for so many whole minutes at most."""
        whole = max(1, round(minutes))
        if whole != self._cap[0]:
            self._services.accounts.set_role("runner", max_lifetime_minutes=whole)
            self._cap[0] = whole

    def hold(self, role: str, *, held: bool) -> None:
        """Grant a role, or revoke it."""
        if held and role in self._revoked:
            self._revoked.remove(role)
            self._services.accounts.grant(USERNAME, [role])
        elif not held and role not in self._revoked:
            self._revoked.add(role)
            self._services.accounts.revoke(USERNAME, [role])

    def texts(self) -> Iterator[tuple[int, int | None, str]]:
        """Each row's id, its parent's, and its token."""
        history = self._services.history
        for row in self._services.listing.iterate_rows():
            yield row.id, row.parent_id, history.reveal(row)
