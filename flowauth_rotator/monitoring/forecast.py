"""What the next check of a rotation DAG will do with a token, as far as its schedule is known."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flowauth_rotator.monitoring.formatting import format_minute

if TYPE_CHECKING:
    from flowauth_rotator.monitoring.dag_assessment import AssessedDag
    from flowauth_rotator.monitoring.status import TokenStatus


def find_renewing_check(token: TokenStatus, now: datetime) -> datetime | None:
    """Return the time of the check that will renew a token; None if it is unknown."""
    is_due = token.renew_at is not None and now >= token.renew_at
    return token.next_check_at if is_due else token.renewal_check_at


def expires_before_renewal(token: TokenStatus, dag: AssessedDag | None, now: datetime) -> bool:
    """Whether a valid token will have expired when the next check can renew it."""
    check = find_renewing_check(token, now)
    if dag is None or not dag.condition.is_renewing or check is None or token.expires_at is None:
        return False
    return now < token.expires_at <= check


def forecast_renewal(token: TokenStatus, dag: AssessedDag | None, now: datetime) -> str:
    """Return one sentence on the next check and the renewal of a token, or an empty text.

    Args:
        token: the token.
        dag: the rotation DAG that manages it; None if there is none.
        now: a time in UTC.
    """
    renew_at, next_check_at = token.renew_at, token.next_check_at
    if dag is None:
        return _describe_due(renew_at, now) if renew_at else ""
    if not dag.condition.is_renewing:
        return f"The token is not being renewed. {dag.dag.dag_id}: {dag.verdict.hint}"
    result = token.current_result
    if result and result.needs_new_token:
        return "The issuer no longer renews this token."
    check = (
        f"The next check, at {format_minute(next_check_at)}," if next_check_at else "The next check"
    )
    if renew_at is None:
        return f"{check} reads the token again."
    renewing_check = find_renewing_check(token, now)
    if renewing_check and expires_before_renewal(token, dag, now):
        return (
            f"The token expires before the check at {format_minute(renewing_check)} can renew it."
        )
    will_fail = token.failed_rehearsal or (result and result.has_failed)
    verb = "tries to renew" if will_fail else "renews"
    if now >= renew_at or (renewing_check is not None and renewing_check == next_check_at):
        return f"{check} {verb} the token."
    if renewing_check is None:
        return _describe_due(renew_at, now)
    return (
        f"{check} leaves the token unchanged; the check at {format_minute(renewing_check)} "
        f"{verb} it."
    )


def _describe_due(renew_at: datetime, now: datetime) -> str:
    verb = "has been due since" if now >= renew_at else "is due at"
    return f"Renewal {verb} {format_minute(renew_at)}."
