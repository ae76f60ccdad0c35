"""Tokens and status documents for the tests of the page, at noon."""

from datetime import datetime, timedelta, timezone

import jwt

from flowauth_rotator.core.report import Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
)

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAG = "flowauth_token_rotation"
KEY = "FLOWAPI_TOKEN"


def encode_token(left=20 * HOUR, lifetime=24 * HOUR, roles=("viewer",), **claims):
    """Return a token with this remaining lifetime, which carries no name, as FlowAuth's."""
    expires_at = round((NOON + left).timestamp())
    issued_at = expires_at - round(lifetime.total_seconds())
    user_claims = {role: ["run", "get_results"] for role in roles}
    claims = {"iat": issued_at, "nbf": issued_at, "exp": expires_at, "user_claims": user_claims} | {
        "sub": "flowbot",
        "aud": "TEST_SERVER",
        **claims,
    }
    return jwt.encode(claims, "a secret of at least thirty-two bytes", "HS256")


def describe_token(token, variable=KEY, dag_id=DAG, name="AIRFLOW", **others):
    """Return the status that a check of the token a minute ago has recorded."""
    payload = jwt.decode(token, options={"verify_signature": False})
    recorded = {
        "settings": {"variable": variable},
        "fingerprint": Token(token).fingerprint,
        "owner": payload["sub"],
        "audience": payload["aud"],
        "roles": tuple(sorted(payload["user_claims"])),
        "issued_at": datetime.fromtimestamp(payload["iat"], timezone.utc),
        "expires_at": datetime.fromtimestamp(payload["exp"], timezone.utc),
        "last_check": Event(NOON - MINUTE, "healthy", message="It is fine."),
    }
    return TokenStatus(name, variable, dag_id, **{**recorded, **others})


def describe_dag(dag_id=DAG, **others):
    """Return the status of a DAG that has just checked its tokens."""
    checked = {
        "schedule": "*/5 * * * *",
        "checked_at": NOON - MINUTE,
        "deadline_at": NOON + 11 * MINUTE,
        "next_check_at": NOON + 4 * MINUTE,
    }
    return RotationDagStatus(dag_id, **{**checked, **others})


def describe_rotation(token, outcome="refused", severity=Severity.WARNING, **others):
    """Return the event of a rotation a minute ago, after which the token was in use."""
    event = {"message": "A message.", "run_id": "scheduled", "task_id": "rotate", "map_index": 3}
    fingerprint = Token(token).fingerprint if token else None
    settings = {"fingerprint": fingerprint, **event, **others}
    return Event(settings.pop("at", NOON - MINUTE), outcome, severity, **settings)


def build_document(*tokens, dags=None):
    """Return the status document of some tokens and their DAGs."""
    return StatusDocument([describe_dag()] if dags is None else dags, tokens)
