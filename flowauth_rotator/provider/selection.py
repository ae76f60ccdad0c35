"""Which tokens a run reads.

Airflow masks each Variable that a task reads, at a cost that grows with the square of their number.
So a scheduled check of many tokens reads those that need it, and of the others some in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone

from flowauth_rotator.monitoring.status import TokenStatus
from flowauth_rotator.provider.managed_tokens import ManagedToken

MOST_READ = 100  # Variables in a scheduled check, with copies; those that are due may be more
MOST_DUE = 300  # of these: 1,000 would take longer than the task may, in each check again
NEVER = datetime.min.replace(tzinfo=timezone.utc)

KnownTokens = Mapping[str, TokenStatus]  # after the last check, by Variable


def select_named(
    tokens: Sequence[ManagedToken], known: KnownTokens, names: Collection[str]
) -> list[ManagedToken]:
    """Return the tokens with these names or Variables; all tokens if one name is unknown."""
    selected = {token: set(names) & {token.variable, get_name(token, known)} for token in tokens}
    if set(names) - set().union(*selected.values()):
        return list(tokens)
    return [token for token in tokens if selected[token]]


def select_for_check(
    tokens: Sequence[ManagedToken], known: KnownTokens, now: datetime, next_check_at: datetime
) -> list[ManagedToken]:
    """Return the tokens that a scheduled check reads: `MOST_READ`, or more if more are due.

    First those that are due before the next check, so that none is renewed late: `MOST_DUE`, those
    that expire first, and those whose renewal has failed after the others. Then those that
    were never read with their settings, those that failed, and the others, the longest unread
    first. Some places are kept from the due and from the failed tokens: however many there are, a
    new token is read, and each other one has its turn.

    Args:
        tokens: all managed tokens.
        known: their status after the last check.
        now: an aware time.
        next_check_at: the time of the next check.
    """
    if _count_keys(tokens) <= MOST_READ:
        return list(tokens)
    statuses = {token: known.get(token.variable) for token in tokens}
    is_due = {token: _is_due(status, now, next_check_at) for token, status in statuses.items()}
    due = sorted(filter(is_due.get, tokens), key=lambda token: _rank_due(statuses[token], now))
    due = _take(due, MOST_DUE)
    others = [token for token in tokens if not is_due[token]]
    others.sort(key=lambda token: _find_last_read(statuses[token]))
    new = [token for token in others if _is_new(token, statuses[token])]
    failed = [token for token in others if _has_failed(statuses[token])]
    well = [token for token in others if not _has_failed(statuses[token])]
    places = max(MOST_READ - _count_keys(due), MOST_READ // 2)
    turns = dict.fromkeys([*new, *_take(failed, places // 2), *well, *failed])
    return [*due, *_take(turns, places)]


def get_entry(token: ManagedToken) -> dict[str, object]:
    """Return the settings of a token as its status has them."""
    return {key: value for key, value in token.to_json().items() if key != "description"}


def get_name(token: ManagedToken, known: KnownTokens) -> str:
    """Return the name of a token, as far as it is known without reading it."""
    status = known.get(token.variable)
    return token.name or (status.name if status else token.variable)


def _take(tokens: Iterable[ManagedToken], places: int) -> list[ManagedToken]:
    """Return the first tokens that fill the places, one for each Variable."""
    taken = []
    for token in tokens:
        if places <= 0:
            break
        taken.append(token)
        places -= len(token.keys)
    return taken


def _count_keys(tokens: Iterable[ManagedToken]) -> int:
    return sum(len(token.keys) for token in tokens)


def _is_due(status: TokenStatus | None, now: datetime, next_check_at: datetime) -> bool:
    """Whether a token is due, and had not expired when it was last read.

    One that has expired since then, as while the DAG was paused, can often still be renewed.
    """
    if status is None or status.renew_at is None or status.expires_at is None:
        return False
    has_expired = status.expires_at <= min(now, _find_last_read(status))
    return status.renew_at <= next_check_at and not has_expired


def _rank_due(status: TokenStatus | None, now: datetime) -> tuple[bool, bool, datetime]:
    """Return the sort key of a token that is due; in the order of their reading if they fail."""
    expires_at = (status and status.expires_at) or NEVER
    has_failed = _has_failed(status)
    return has_failed, expires_at <= now, _find_last_read(status) if has_failed else expires_at


def _is_new(token: ManagedToken, status: TokenStatus | None) -> bool:
    """Whether a token was never read with its settings, which a status too large does not have."""
    if status is None or status.last_check is None:
        return True
    return status.settings not in ({}, get_entry(token))


def _has_failed(status: TokenStatus | None) -> bool:
    return bool(status and status.last_check and status.last_check.has_failed)


def _find_last_read(status: TokenStatus | None) -> datetime:
    return status.last_check.at if status and status.last_check else NEVER
