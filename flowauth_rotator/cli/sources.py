"""Where those who watch learn of tokens: an Airflow, here or elsewhere, and an issuer's list."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone

from flowauth_rotator.agent.flowauth import LARGEST_LIST, SessionIssuer
from flowauth_rotator.agent.http import Wire
from flowauth_rotator.core.errors import (
    IssuerError,
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.policy import ABANDONED, RotationPolicy, decide
from flowauth_rotator.core.tokens import Token, read_unverified
from flowauth_rotator.monitoring.snapshot import Life, Snapshot, Unreadable, Watched

PATH = "/flowauth-rotator/api/check"
TIMEOUT = 20  # seconds for one request: Nagios gives a check 60


def airflow_here(now: datetime) -> Snapshot:
    """What the Airflow says of whose environment this is.

    What Airflow prints goes to standard error.

    Raises:
        Misconfigured: there is no Airflow.
        StoreUnavailable: its database cannot be read.
    """
    with _silent_output():
        try:
            from flowauth_rotator.provider.web import api
        except ModuleNotFoundError as error:
            raise Misconfigured(
                f"Airflow cannot be loaded here: {error.name} is not installed.",
                advice="Run it with the Python of Airflow, or give Airflow's address.",
            ) from None
        try:
            return api.watched(None, now)
        except RotatorError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may hold the database's password
            word = type(error).__name__
    raise StoreUnavailable(
        f"Airflow's database cannot be read ({word}).",
        advice="Run it with the settings of Airflow, as its user.",
    )


def airflow_at(url: str, scrape_token: str) -> Snapshot:
    """What the page of an Airflow elsewhere says.

    Raises:
        RotatorError: it did not answer, or not with that.
    """
    wire = Wire(url, timeout=TIMEOUT)
    wire.secrets = (scrape_token,)
    headers = {"Authorization": f"Bearer {scrape_token}"}
    with closing(wire):
        try:
            answer = wire.send("GET", PATH, headers=headers, largest=LARGEST_LIST)
            return Snapshot.from_json(answer.document)
        except IssuerError as error:
            reason = error.reason
        except Unreadable as error:
            reason = f"{wire.url} answered something else. {error}"
    raise StoreUnavailable(
        reason,
        advice="See that Airflow runs with this version of flowauth-rotator, and that the scrape "
        "token is that of its configuration.",
    )


def issuer_list(
    url: str, username: str, password: str, policy: RotationPolicy, now: datetime
) -> Snapshot:
    """The newest token of each audience and name that an issuer has issued to a user.

    A name without a token for 30 days counts as abandoned. An issuer shows nothing of an audience
    where the user holds no role.

    Args:
        url: where the issuer answers.
        username: the owner of the tokens.
        password: their password.
        policy: when a token is due.
        now: an aware time.

    Raises:
        RotatorError: it did not answer, or refused.
    """
    with closing(SessionIssuer(url, username, password, timeout=TIMEOUT)) as issuer:
        rows = issuer.issued()
    newest: dict[tuple[str, str], Life] = {}
    for audience, name, token in rows:
        life = _life(token, policy, now)
        if life and life.expires_at > now - ABANDONED:
            known = newest.get((audience, name), life)
            newest[audience, name] = max(known, life, key=lambda each: each.expires_at)
    tokens = [Watched(name, issued=life) for (_, name), life in newest.items()]
    return Snapshot(now, tokens, issuer=issuer.url)


def _life(token: Token | datetime, policy: RotationPolicy, now: datetime) -> Life | None:
    if isinstance(token, datetime):
        expires_at = token.astimezone(timezone.utc)
        return Life(expires_at, expires_at)
    try:
        claims = read_unverified(token)
    except MalformedToken:
        return None
    return Life(claims.issued_at, claims.expires_at, decide(claims, policy, now).renew_at)


@contextmanager
def _silent_output() -> Iterator[None]:
    """Send to standard error what any library prints, also from below Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
