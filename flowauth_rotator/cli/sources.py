"""Read the status of the tokens in Airflow, local or remote, or at an issuer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flowauth_rotator.agent.flowauth import LARGEST_LIST, SessionIssuer
from flowauth_rotator.agent.http import HttpClient
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import (
    IssuerError,
    IssuerUnavailable,
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.policy import ABANDONED, Decision, RotationPolicy, decide
from flowauth_rotator.core.tokens import Claims, Token, read_unverified
from flowauth_rotator.monitoring.status import (
    InvalidStatus,
    StatusDocument,
    TokenStatus,
    sort_by_expiry,
)

CHECK_PATH = "/flowauth-rotator/api/check"


def read_local_airflow(now: datetime) -> StatusDocument:
    """Read the status document from the database of the Airflow in this environment.

    The standard output of Airflow is redirected to standard error.

    Raises:
        Misconfigured: Airflow is not installed in this environment, or has no settings.
        StoreUnavailable: its database cannot be read.
    """
    _check_airflow_settings()
    with _redirect_stdout():
        try:
            from flowauth_rotator.provider.web import api
        except ModuleNotFoundError as error:
            raise Misconfigured(
                f"Airflow cannot be imported in this environment: {error.name} is not installed.",
                hint="Run the command with Airflow's Python, or set --airflow to Airflow's URL.",
            ) from None
        except Exception as error:  # noqa: BLE001 - as of a command that a setting of Airflow runs
            kind = type(error).__name__
            raise Misconfigured(
                f"Airflow cannot be imported in this environment ({kind}).",
                hint="Run `airflow info` in it: Airflow shows which of its settings is at fault.",
            ) from None
        try:
            return api.read_document(None, now)
        except RotatorError:
            raise
        except Exception as error:  # noqa: BLE001 - its text may hold the database's password
            kind = type(error).__name__
    raise StoreUnavailable(
        f"Airflow's database cannot be read ({kind}).",
        hint="Run the command as Airflow's user, with Airflow's environment variables.",
    )


def _check_airflow_settings() -> None:
    """Check that Airflow has settings here: without, its import writes some, and a database.

    Raises:
        Misconfigured: it has none.
    """
    if find_spec("airflow") is None:
        return
    variable = os.environ.get("AIRFLOW_HOME")
    home = Path(os.path.expandvars(variable or "~/airflow")).expanduser()
    config = Path(os.environ.get("AIRFLOW_CONFIG") or home / "airflow.cfg").expanduser()
    is_in_environment = variable and any(
        name.startswith("AIRFLOW__") and "__SQL_ALCHEMY_CONN" in name for name in os.environ
    )
    if is_in_environment or config.exists() or (home / "airflow.db").exists():
        return
    place = f"AIRFLOW_HOME is {variable}" if variable else "AIRFLOW_HOME is not set"
    raise Misconfigured(
        f"This environment has no settings of Airflow: {place}, and there is no {config}.",
        hint="Run the command as Airflow's user with the AIRFLOW_HOME of its services, or set "
        "--airflow to Airflow's URL.",
    )


def fetch_remote_airflow(
    url: str,
    scrape_token: str,
    **options: Any,  # noqa: ANN401 - of `HttpClient`
) -> StatusDocument:
    """Fetch the status document from the plugin of a remote Airflow.

    Args:
        url: the address of Airflow.
        scrape_token: its scrape token.
        options: those of `HttpClient`.

    Raises:
        RotatorError: Airflow did not respond, or not with a status of this version.
    """
    client = HttpClient(Address.parse(url, "--airflow"), **options)
    client.secrets = (scrape_token,)
    hint = (
        "Check that this Airflow has the same version of flowauth-rotator, and that "
        "--scrape-token-file contains the scrape token of its configuration."
    )
    headers = {"Authorization": f"Bearer {scrape_token}"}
    with closing(client):
        try:
            response = client.send("GET", CHECK_PATH, headers=headers, max_bytes=LARGEST_LIST)
            document = response.document
            if isinstance(document, dict):
                document = {**document, "taken_at": document.get("now")}
            return StatusDocument.from_json(document)
        except IssuerError as error:
            message = error.message
            if error.hint != type(error).hint:  # the error knows better, as of a proxy
                hint = error.hint.replace("the issuer", "Airflow")
            elif isinstance(error, IssuerUnavailable) and error.is_late:
                hint = "Check that Airflow runs and is not overloaded."
        except InvalidStatus as error:
            message = f"{client.url} did not return the expected JSON. {error}"
    raise StoreUnavailable(message, hint=hint)


def list_issued_tokens(
    url: str,
    username: str,
    password: str,
    policy: RotationPolicy,
    now: datetime,
    **options: Any,  # noqa: ANN401 - of an issuer
) -> StatusDocument:
    """List the newest token of each audience and name that an issuer has minted for a user.

    Tokens that expired more than 30 days ago are left out. An issuer does not list the tokens of
    an audience where the user has no role.

    Args:
        url: the address of the issuer.
        username: the owner of the tokens.
        password: the owner's password.
        policy: when a token is due.
        now: an aware time.
        options: those of `SessionIssuer`.

    Raises:
        RotatorError: the issuer did not respond, or refused the request.
    """
    address = Address.parse(url, "--issuer")
    with closing(SessionIssuer(address, username, password, **options)) as issuer:
        rows = issuer.issued()
    tokens = [_build_row_status(*row, policy, now) for row in rows]
    newest = {(token.audience, token.name): token for token in sort_by_expiry(filter(None, tokens))}
    current = [
        token
        for token in newest.values()
        if token.expires_at and token.expires_at > now - ABANDONED
    ]
    return StatusDocument(dags=None, tokens=current, issuer=issuer.url)


def _build_row_status(
    audience: str, name: str, token: Token | datetime, policy: RotationPolicy, now: datetime
) -> TokenStatus | None:
    """Return the status of a row of the issuer; None if its token cannot be read."""
    if isinstance(token, datetime):  # the issuer has deleted the text of the token
        expires_at = token.astimezone(timezone.utc)
        return TokenStatus(name, audience=audience, issued_at=expires_at, expires_at=expires_at)
    try:
        claims = read_unverified(token)
    except MalformedToken:
        return None
    status = build_token_status(name, token, claims, decide(claims, policy, now))
    return replace(status, audience=audience)


def build_token_status(name: str, token: Token, claims: Claims, decision: Decision) -> TokenStatus:
    """Build the status of a token that no rotation DAG manages."""
    return TokenStatus(
        name,
        fingerprint=token.fingerprint,
        owner=claims.subject,
        audience=claims.audience,
        roles=sorted(claims.roles),
        issued_at=claims.issued_at,
        renew_at=decision.renew_at,
        critical_at=decision.critical_at,
        expires_at=claims.expires_at,
    )


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
