"""What a survey finds of each token, and what there is to say of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from flowauth_rotator.core.errors import (
    MalformedToken,
    Misconfigured,
    RotatorError,
    StoreUnavailable,
)
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.provider.compat import (
    is_hidden,
    read_connection,
    read_variable,
)
from flowauth_rotator.provider.managed_tokens import (
    LIST_VARIABLE,
    ManagedToken,
    WrongEntry,
    may_be_a_token,
    read_tokens,
)
from flowauth_rotator.provider.schedule import Schedule, checks_between

logger = logging.getLogger(__name__)

CHECKS_WANTED = 8  # between due and expiry, so that an outage of a few checks is survived
FOLLOWS = "It follows at the next check."  # what is due, beyond what fits into a run


@dataclass(frozen=True)
class Found:
    """What the survey found of one token.

    Attributes:
        token: the token.
        report: what there is to say if it is not handed on.
        due: whether its own task is to look at it.
        forced: whether somebody asked for it.
        remaining: time left until it expires; None if nobody can read it.
    """

    token: ManagedToken
    report: Report
    due: bool = True
    forced: bool = False
    remaining: timedelta | None = None

    @property
    def names(self) -> set[str]:
        """What one may call it."""
        return {self.report.name, self.token.variable}

    @property
    def urgency(self) -> tuple[bool, timedelta]:
        """The living first, the shortest-lived of them at the head: the others lose nothing."""
        left = self.remaining or timedelta(0)
        return left <= timedelta(0), left

    @property
    def arguments(self) -> dict[str, Any]:
        """What the operator is to be called with."""
        name = self.token.name if self.remaining is None else self.report.name
        return asdict(self.token) | {"name": name, "force": self.forced}


def listed(
    tokens: Sequence[ManagedToken] | None,
) -> tuple[Sequence[ManagedToken], list[WrongEntry]]:
    """The managed tokens: those of the DAG file, of the Variable, or the one by default."""
    if tokens is not None:
        return tokens, []
    try:
        text = read_variable(LIST_VARIABLE)
    except MalformedToken as error:
        advice = "If the Fernet key was changed, store the list again."
        return [], [WrongEntry(LIST_VARIABLE, Misconfigured(error.reason, advice=advice))]
    return ([ManagedToken()], []) if text is None else read_tokens(text)


def look(
    token: ManagedToken,
    schedule: Schedule,
    now: datetime,
    force: datetime | None,
    *,
    scheduled: bool = False,
) -> Found:
    """Read one token and decide.

    A schedule that is too slow for it is a warning; in a run of that schedule, to have no check
    between due and expiry is an error.
    """
    from flowauth_rotator.agent.rotation import check
    from flowauth_rotator.provider.variable_store import VariableStore

    store = VariableStore(token.variable)
    try:
        found = check(store, token.policy, now=now, name=token.name, force=force)
    except StoreUnavailable:
        raise
    except RotatorError as error:
        name = token.name or token.variable
        return Found(token, error.report(name=name, place=store.place, checked_at=now))
    told, decision = found.report, found.decision
    window = found.claims.expires_at - decision.renew_at
    checks = checks_between(schedule, decision.renew_at, found.claims.expires_at, CHECKS_WANTED)
    if checks is not None and checks < CHECKS_WANTED:
        every = timedelta(seconds=max(1, window // timedelta(seconds=CHECKS_WANTED)))
        warning = (
            f"The schedule has {checks} of {CHECKS_WANTED} wanted checks between due and expiry: "
            f"check every {every}, renew earlier, or have it live longer."
        )
        told = _warned(told, warning, due=found.due)
        if scheduled and not checks:
            told = replace(told, outcome=Outcome.MISCONFIGURED, severity=Severity.CRITICAL)
    if not is_hidden(token.variable):
        warning = (
            f"Airflow shows the value of {store.place} to all who may see Variables: "
            "choose a key with `token` in it."
        )
        told = _warned(told, warning, due=found.due)
    return Found(token, told, found.due, found.forced is not None, decision.remaining)


def _warned(report: Report, warning: str, *, due: bool) -> Report:
    """The report with a warning, logged if it is the token's own task that will report."""
    if due:
        logger.warning("%s: %s", report.name, warning)
    return replace(report, advice=f"{report.advice} {warning}".strip())


def named_apart(found: list[Found]) -> list[Found]:
    """The same, with a warning for those whose tokens say that they have one name."""
    names = Counter(one.report.name for one in found)
    warning = "Another token has this name too: give each its own at the issuer."
    return [
        replace(one, report=_warned(one.report, warning, due=one.due))
        if names[one.report.name] > 1
        else one
        for one in found
    ]


def chosen(found: list[Found], wrong: list[WrongEntry], names: Sequence[str] | None) -> list[Found]:
    """Those that a run was started for: all, or those of these names or Variables.

    Raises:
        Misconfigured: there is none of one of these.
    """
    wanted = {name.strip() for name in names or ()} - {""}
    if not wanted:
        return found
    known = {called for one in found for called in one.names}
    if unknown := sorted(wanted - known):
        sentence = (
            f"No token is called {' or '.join(map(_shown, unknown))}; "
            f"there are {', '.join(sorted(known)) or 'none'}."
        )
        raise Misconfigured("\n".join([sentence, *(str(one.error) for one in wrong)]))
    keys = {one.token.variable for one in found} & wanted
    return [one for one in found if one.token.variable in keys or one.report.name in wanted - keys]


def told(found: Iterable[Found], now: datetime) -> list[Report]:
    """The reports of tokens that no task of their own looks at, whose connection may be missing."""
    trouble = cache(_trouble)
    reports = []
    for one in found:
        report = one.report
        error = trouble(one.token.flowauth_conn_id)
        if error and not report.failed:
            error.about = report
            report = error.report(name=report.name, place=report.place, checked_at=now)
        if one.due and not report.failed:
            report = replace(report, advice=f"{report.advice} {FOLLOWS}".strip())
        reports.append(report)
    return reports


def _trouble(conn_id: str) -> Misconfigured | None:
    """What is wrong with a connection: it is not there."""
    try:
        read_connection(conn_id)
    except Misconfigured as error:
        return error
    return None


def _shown(name: str) -> str:
    return "what looks like a token" if may_be_a_token(name) else repr(name)
