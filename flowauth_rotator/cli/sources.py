"""Take a snapshot of the tokens in Airflow, local or remote, or at an issuer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone

from flowauth_rotator.agent.flowauth import LARGEST_LIST, SessionIssuer
from flowauth_rotator.agent.http import HttpClient
from flowauth_rotator.core.errors import (
    IssuerError,
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.policy import ABANDONED, RotationPolicy, decide
from flowauth_rotator.core.tokens import Token, read_unverified
from flowauth_rotator.monitoring.status import InvalidSnapshot, Snapshot, TokenStatus, Validity

CHECK_PATH = "/flowauth-rotator/api/check"
TIMEOUT = 20  # seconds for one request; Nagios allows a check 60


def read_local_airflow(now: datetime) -> Snapshot:
    """Take a snapshot from the database of the Airflow in this environment.

    The standard output of Airflow is redirected to standard error.

    Raises:
        Misconfigured: Airflow is not installed in this environment.
        StoreUnavailable: its database cannot be read.
    """
    with _redirect_stdout():
        try:
            from flowauth_rotator.provider.web import api
        except ModuleNotFoundError as error:
            raise Misconfigured(
                f"Airflow cannot be imported in this environment: {error.name} is not installed.",
                hint="Run the command with Airflow's Python, or set --airflow to Airflow's URL.",
            ) from None
        try:
            return api.read_snapshot(None, now)
        except RotatorError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may hold the database's password
            kind = type(error).__name__
    raise StoreUnavailable(
        f"Airflow's database cannot be read ({kind}).",
        hint="Run the command as Airflow's user, with Airflow's environment variables.",
    )


def fetch_remote_airflow(url: str, scrape_token: str) -> Snapshot:
    """Fetch a snapshot from the plugin of a remote Airflow.

    Raises:
        RotatorError: Airflow did not respond, or not with a snapshot.
    """
    client = HttpClient(url, timeout=TIMEOUT)
    client.secrets = (scrape_token,)
    headers = {"Authorization": f"Bearer {scrape_token}"}
    with closing(client):
        try:
            response = client.send("GET", CHECK_PATH, headers=headers, max_bytes=LARGEST_LIST)
            return Snapshot.from_json(response.document)
        except IssuerError as error:
            message = error.message
        except InvalidSnapshot as error:
            message = f"{client.url} did not return the expected JSON. {error}"
    raise StoreUnavailable(
        message,
        hint="Check that this Airflow has the same version of flowauth-rotator, and that "
        "--scrape-token-file contains the scrape token of its configuration.",
    )


def list_issued_tokens(
    url: str, username: str, password: str, policy: RotationPolicy, now: datetime
) -> Snapshot:
    """List the newest token of each audience and name that an issuer has minted for a user.

    Tokens that expired more than 30 days ago are left out. An issuer does not list the tokens of
    an audience where the user has no role.

    Args:
        url: the address of the issuer.
        username: the owner of the tokens.
        password: the owner's password.
        policy: when a token is due.
        now: an aware time.

    Raises:
        RotatorError: the issuer did not respond, or refused the request.
    """
    with closing(SessionIssuer(url, username, password, timeout=TIMEOUT)) as issuer:
        rows = issuer.issued()
    newest: dict[tuple[str, str], Validity] = {}
    for audience, name, token in rows:
        validity = _read_validity(token, policy, now)
        if validity and validity.expires_at > now - ABANDONED:
            known = newest.get((audience, name), validity)
            newest[audience, name] = max(known, validity, key=lambda each: each.expires_at)
    tokens = [TokenStatus(name, issued=validity) for (_, name), validity in newest.items()]
    return Snapshot(now, tokens, issuer=issuer.url)


def _read_validity(
    token: Token | datetime, policy: RotationPolicy, now: datetime
) -> Validity | None:
    if isinstance(token, datetime):  # the issuer has deleted the token itself
        expires_at = token.astimezone(timezone.utc)
        return Validity(expires_at, expires_at)
    try:
        claims = read_unverified(token)
    except MalformedToken:
        return None
    return Validity(claims.issued_at, claims.expires_at, decide(claims, policy, now).renew_at)


@contextmanager
def _redirect_stdout() -> Iterator[None]:
    """Redirect file descriptor 1 to standard error, for libraries that print."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
