"""Figure 4: one rotation against the same calls made with bare requests, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from benchmarks.measure import Figure, alternate, timed
from demo.parts import AUDIENCE, ROLES, USER, PartFailed, RenewalServer
from flowauth_rotator.agent.issuer import BearerIssuer, SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.core.tokens import Token

SIGNED_IN, BEARING = 25, 100  # repetitions
LIFETIME = timedelta(hours=1)  # of a predecessor; a successor gets a day
WHEN_DUE = LIFETIME * 0.8  # after its issue


class BareClient:
    """The calls that a rotation makes, and nothing of what it checks."""

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self.password = password

    def by_session(self, token: str) -> str:
        """Sign in, look for the token's row, renew it, sign out."""
        with requests.Session() as http:
            server_id = self.sign_in(http)
            rows = self._json(http.get(f"{self.url}/tokens/tokens/{server_id}", timeout=30))
            row_id = next(row["id"] for row in rows if row["token"] == token)
            successor = self.post(http, f"/tokens/tokens/{row_id}/renew", {})["token"]
            self._json(http.get(f"{self.url}/signout", timeout=30))
        return str(successor)

    def by_bearer(self, token: str) -> str:
        """Present the token."""
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid4().hex}
        answer = requests.post(f"{self.url}/tokens/renew", json={}, headers=headers, timeout=30)
        return str(self._json(answer)["token"])

    def sign_in(self, http: requests.Session) -> int:
        """Sign in, and return the server's id of the audience."""
        self.post(http, "/signin", {"username": USER, "password": self.password})
        servers = self._json(http.get(f"{self.url}/tokens/servers", timeout=30))
        return int(next(row["id"] for row in servers if row["server_name"] == AUDIENCE))

    def post(self, http: requests.Session, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """Send what changes something, with the session's CSRF token."""
        headers = {
            "X-CSRF-Token": http.cookies.get("X-CSRF", ""),
            "Idempotency-Key": uuid4().hex,  # heeded where something is renewed
        }
        return self._json(http.post(self.url + path, json=body, headers=headers, timeout=30))

    @staticmethod
    def _json(answer: requests.Response) -> Any:  # noqa: ANN401 - JSON
        answer.raise_for_status()
        return answer.json()


def rotating(folder: Path) -> list[Figure]:
    """Both credentials: the owner's sign-in, and the token itself."""
    server = RenewalServer(folder)
    server.set_up()
    bare = BareClient(server.url, server.password)
    with server.running():
        return [
            _figure(
                "rotate one token, signing in",
                bare.by_session,
                lambda: SessionIssuer(server.url, USER, server.password),
                SIGNED_IN,
                _minted(bare, "SESSION", 2 * SIGNED_IN),
            ),
            _figure(
                "rotate one token, as bearer",
                bare.by_bearer,
                lambda: BearerIssuer(server.url),
                BEARING,
                _minted(bare, "BEARER", 2 * BEARING),
            ),
        ]


def _figure(
    what: str,
    baseline: Callable[[str], object],
    issuer: Callable[[], SessionIssuer | BearerIssuer],
    repetitions: int,
    tokens: Iterator[str],
) -> Figure:
    """Each rotation, and each bare imitation of one, with a token of its own."""

    def ours(token: str) -> None:
        now = datetime.now(timezone.utc) + WHEN_DUE
        with closing(issuer()) as opened:
            report = rotate(MemoryStore(Token(token)), opened, RotationPolicy(), now=now)
        if report.outcome is not Outcome.ROTATED:
            raise PartFailed(f"A rotation ended otherwise: {report}")

    pairs = alternate(
        timed(lambda: baseline(next(tokens))), timed(lambda: ours(next(tokens))), repetitions
    )
    return Figure(4, what, "bare requests", pairs, 1.3)


def _minted(bare: BareClient, prefix: str, count: int) -> Iterator[str]:
    """First tokens, each of its own name: a name may be renewed 6 times an hour."""
    minutes = LIFETIME // timedelta(minutes=1)
    wanted = {"roles": [{"name": role} for role in ROLES], "lifetime_minutes": minutes}
    with requests.Session() as http:
        path = f"/tokens/tokens/{bare.sign_in(http)}"
        names = [f"{prefix}_{number}" for number in range(count)]
        return iter([bare.post(http, path, {**wanted, "name": name})["token"] for name in names])
