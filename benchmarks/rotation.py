"""Figure 4: one rotation against the same calls made with bare requests, on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

from benchmarks.measure import Figure, alternate, timed
from benchmarks.sizes import Sizes
from demo.parts import AUDIENCE, ROLES, USER, PartFailed, RenewalServer
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import Services, Settings

LIFETIME = 60  # minutes, of a predecessor; a successor gets a day
AGE = 45  # minutes, of a predecessor: it is due from 40 on


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


def measure_rotation(folder: Path, sizes: Sizes) -> list[Figure]:
    """Rotate with both credentials: the owner's sign-in, and the token itself."""
    server = RenewalServer(folder)
    server.set_up()
    settings = Settings.load(folder / "server")
    bare = BareClient(server.url, server.password)
    with server.running():
        return [
            _compare_rotation(
                "rotate one token, signing in",
                bare.by_session,
                lambda: SessionIssuer(server.url, USER, server.password),
                _mint_pairs(settings, "SESSION", sizes.session_rotations),
            ),
            _compare_rotation(
                "rotate one token, as bearer",
                bare.by_bearer,
                lambda: BearerIssuer(server.url),
                _mint_pairs(settings, "BEARER", sizes.bearer_rotations),
            ),
        ]


def mint_due_tokens(settings: Settings, names: Iterable[str], roles: Iterable[str]) -> list[str]:
    """Mint first tokens of the user, issued so long ago that they are due now.

    No server issues a token in the past on request: these are written into its database beside it.

    Args:
        settings: The server's.
        names: A name for each token: renewals of one name are limited.
        roles: The names of the roles of each token.
    """
    services = Services.open(settings)
    with closing(services.database):
        owner = services.accounts.get_user(USER)
        audience_id = services.accounts.get_audience(AUDIENCE).id
        issued_at = int(time.time()) - AGE * 60
        mint = partial(services.issuer.mint, owner, audience_id)
        return [mint(name, list(roles), LIFETIME, now=issued_at).token for name in names]


def rotate_due_token(token: str, issuer: SessionIssuer | BearerIssuer) -> None:
    """Rotate a token once, and close the issuer.

    Raises:
        PartFailed: The rotation did not swap in a new successor.
        RotatorError: The rotation failed.
    """
    with closing(issuer):
        now = datetime.now(timezone.utc)
        report = rotate(MemoryStore(Token(token)), issuer, RotationPolicy(), now=now)
    if report.outcome is not Outcome.ROTATED:
        raise PartFailed(f"A due token was not rotated. {report}")


def _mint_pairs(settings: Settings, prefix: str, pairs: int) -> list[str]:
    """Mint a token for each side of each pair."""
    return mint_due_tokens(settings, [f"{prefix}_{number}" for number in range(2 * pairs)], ROLES)


def _compare_rotation(
    what: str,
    baseline: Callable[[str], object],
    issuer: Callable[[], SessionIssuer | BearerIssuer],
    tokens: Sequence[str],
) -> Figure:
    """Rotate, and make the same calls with bare requests, each with a token of its own."""
    waiting = iter(tokens)
    pairs = alternate(
        timed(lambda: baseline(next(waiting))),
        timed(lambda: rotate_due_token(next(waiting), issuer())),
        len(tokens) // 2,
    )
    return Figure(4, what, "bare requests", pairs, 1.3)
