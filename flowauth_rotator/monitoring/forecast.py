"""What the next check of a rotation DAG will do with a token, as far as its schedule is known."""

from __future__ import annotations

from datetime import datetime

from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.formatting import format_minute
from flowauth_rotator.monitoring.status import RotationDagStatus, TokenStatus, Validity


def forecast_renewal(
    token: TokenStatus, validity: Validity | None, dag: RotationDagStatus | None, now: datetime
) -> str:
    """Return one sentence on the next check and the renewal of a token, or an empty text.

    Args:
        token: the token.
        validity: of the token in use, or of the newest token if only the issuer is known.
        dag: the rotation DAG that manages it; None if it is unknown.
        now: an aware time.
    """
    renew_at = validity.renew_at if validity else None
    if dag is None:
        return _describe_due(renew_at, now) if renew_at else ""
    if dag.condition not in ("ok", "new", "misconfigured"):
        return f"The token is not being renewed. {dag.dag_id}: {dag.hint}"
    last_check = token.last_check
    has_failed = last_check is not None and last_check.severity is not Severity.OK
    if last_check and has_failed and last_check.outcome == Outcome.EXPIRED:
        return "The issuer no longer renews this token."
    next_check_at, renewal_check_at = dag.next_check_at, token.renewal_check_at
    check = (
        f"The next check, at {format_minute(next_check_at)}," if next_check_at else "The next check"
    )
    if renew_at is None:
        return f"{check} reads the token again."
    if now >= renew_at or (renewal_check_at is not None and renewal_check_at == next_check_at):
        return f"{check} {'tries to renew' if has_failed else 'renews'} the token."
    if renewal_check_at is None:
        return _describe_due(renew_at, now)
    return (
        f"{check} leaves the token unchanged; the check at {format_minute(renewal_check_at)} "
        "renews it."
    )


def _describe_due(renew_at: datetime, now: datetime) -> str:
    verb = "has been due since" if now >= renew_at else "is due at"
    return f"Renewal {verb} {format_minute(renew_at)}."
