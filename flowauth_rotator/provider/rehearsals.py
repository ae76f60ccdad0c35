"""When a check rehearses the renewal of a token that is not due."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from flowauth_rotator.monitoring.status import Event, TokenStatus
from flowauth_rotator.provider.hook import FlowAuthHook
from flowauth_rotator.provider.survey import Survey, SurveyedToken

MOST_REHEARSALS = 32  # in a check: each signs in at an issuer
MOST_WITH_CODES = 4  # of one connection: a sign-in gives up after 10 codes that others have used
RETRIES = 8  # of a rehearsal that failed, before the next one is due
MOST_OF_LIFETIME = 10  # rehearsals in the lifetime of a token
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def plan_rehearsals(
    survey: Survey,
    known: Mapping[str, TokenStatus],
    hooks: Mapping[str, FlowAuthHook],
    now: datetime,
    *,
    is_dry_run: bool,
    max_tasks: int,
) -> Survey:
    """Return the survey with the tokens to rehearse in this run.

    Those come first that were never rehearsed, or not for the longest time: rehearsals that fail,
    which are due soon again, keep none from its turn.

    Args:
        survey: the survey.
        known: the status of each token after the last check, by Variable.
        hooks: the hooks of the connections that can be read, by connection id.
        now: an aware time.
        is_dry_run: whether an operator requested the rehearsal of all tokens of the run.
        max_tasks: the number of rotations and rehearsals to which a run is limited.
    """
    tokens = [_add_setup(token, hooks) for token in survey.healthy]
    ready = [token for token in tokens if token.setup]
    if not is_dry_run:
        statuses = {each.token.variable: known.get(each.token.variable) for each in ready}
        due = [each for each in ready if is_due(each, statuses[each.token.variable], now)]
        due.sort(key=lambda each: _find_last_time(statuses[each.token.variable]))
        ready = _limit_codes(due, hooks)[:MOST_REHEARSALS]
    room = max_tasks - len(survey.due)
    return replace(survey, healthy=tokens, rehearsals=ready[:room])


def is_due(token: SurveyedToken, known: TokenStatus | None, now: datetime) -> bool:
    """Whether a rehearsal of a token is due: with each new setup, and then at its own times.

    The hash of its Variable spreads the times of many tokens.

    Args:
        token: a token that is not due for renewal.
        known: its status after the last check.
        now: an aware time.
    """
    every = token.token.rehearse_every
    if every is None or token.inspection is None:
        return False
    last = find_last_rehearsal(token, known)
    if last is None:
        return True
    every = max(every, token.inspection.claims.lifetime / MOST_OF_LIFETIME)
    if last.has_failed:
        every /= RETRIES
    digest = hashlib.sha256(token.token.variable.encode()).digest()
    offset = every * (int.from_bytes(digest[:4], "big") / 2**32)
    return (now - EPOCH - offset) // every > (last.at - EPOCH - offset) // every


def find_last_rehearsal(token: SurveyedToken, known: TokenStatus | None) -> Event | None:
    """Return the last rehearsal of a token with its setup, or the rotation that stored it."""
    last = known.last_rehearsal if known else None
    if known is None or last is None:
        return None
    if known.setup is None:  # after a rotation
        return last if last.fingerprint == token.report.fingerprint else None
    return last if known.setup == token.setup else None


def _limit_codes(
    tokens: Sequence[SurveyedToken], hooks: Mapping[str, FlowAuthHook]
) -> list[SurveyedToken]:
    """Return the tokens without those for whose sign-ins there are not enough two-factor codes."""
    counts: Counter[str] = Counter()
    limited = []
    for token in tokens:
        conn_id = token.token.flowauth_conn_id
        counts[conn_id] += 1
        if counts[conn_id] <= MOST_WITH_CODES or not hooks[conn_id].needs_codes:
            limited.append(token)
    return limited


def _find_last_time(known: TokenStatus | None) -> datetime:
    """Return the time of the last rehearsal, whatever its setup."""
    return known.last_rehearsal.at if known and known.last_rehearsal else EPOCH


def _add_setup(token: SurveyedToken, hooks: Mapping[str, FlowAuthHook]) -> SurveyedToken:
    hook = hooks.get(token.token.flowauth_conn_id)
    if hook is None or token.inspection is None:
        return token
    ignored = ("description", "rehearse_every")
    settings = {key: each for key, each in token.token.to_json().items() if key not in ignored}
    return replace(token, setup=hook.fingerprint(token.inspection.token, settings))
