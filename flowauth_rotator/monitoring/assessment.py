"""Assess a status document: the verdicts on all its tokens and rotation DAGs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from flowauth_rotator.core.clock import MAX_CLOCK_SKEW, to_utc
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.report import Severity, most_severe
from flowauth_rotator.monitoring.dag_assessment import AssessedDag, assess_dag
from flowauth_rotator.monitoring.formatting import format_minute
from flowauth_rotator.monitoring.status import StatusDocument, TokenStatus, sort_by_expiry
from flowauth_rotator.monitoring.thresholds import Thresholds
from flowauth_rotator.monitoring.token_assessment import AssessedToken, assess_token, rank_token
from flowauth_rotator.monitoring.verdict import Verdict

STALE_HINT = "Look for a cache between here and Airflow, and compare the clocks of both."


@dataclass(frozen=True)
class Assessment:
    """The verdicts on all tokens and rotation DAGs of a document at one moment.

    Attributes:
        document: the facts.
        now: the moment, in aware UTC.
        thresholds: the thresholds that were applied.
        tokens: each token, in the order of names.
        dags: each rotation DAG; None in an issuer's list.
    """

    document: StatusDocument
    now: datetime
    thresholds: Thresholds
    tokens: Sequence[AssessedToken]
    dags: Sequence[AssessedDag] | None

    @property
    def severity(self) -> Severity:
        """The most severe of all."""
        severities = [token.severity for token in self.tokens]
        if self.dags_verdict:
            severities.append(self.dags_verdict.severity)
        if self.issuer_failure:
            severities.append(Severity.UNKNOWN)
        if not severities:  # an issuer is monitored because it should have tokens
            severities.append(Severity.WARNING)
        return most_severe(*severities)

    @property
    def issuer_failure(self) -> str:
        """A clause if the tokens of the issuer could not be listed, or an empty text."""
        reason = self.document.issuer_failure
        if not reason:
            return ""
        return f"the tokens at the issuer could not be listed: {reason.rstrip('.')}"

    @property
    def by_name(self) -> dict[str, AssessedToken]:
        """The tokens by name; the most severe, or first to expire, of those that share it."""
        tokens: dict[str, AssessedToken] = {}
        for token in sorted(self.tokens, key=lambda each: each.token.name):
            rival = tokens.get(token.token.name, token)
            tokens[token.token.name] = min(rival, token, key=rank_token)
        return tokens

    @property
    def by_severity(self) -> list[AssessedToken]:
        """The tokens of different names, in the order of `rank_token`."""
        return sorted(self.by_name.values(), key=rank_token)

    @property
    def dags_verdict(self) -> Verdict | None:
        """The verdict on all rotation DAGs together; None in an issuer's list."""
        if self.dags is None:
            return None
        if not self.dags:
            return Verdict(
                Severity.CRITICAL,
                "There is no rotation DAG",
                "Put the DAG file into the dags folder, and check that Airflow imports it without "
                "errors.",
            )
        dags = sorted(self.dags, key=lambda each: -each.verdict.severity.rank)
        return Verdict(
            dags[0].verdict.severity,
            "; ".join(f"{each.dag.dag_id}: {each.verdict.message}" for each in dags),
            " ".join(
                f"{each.dag.dag_id}: {each.verdict.hint}" for each in dags if each.verdict.hint
            ),
        )


def assess(
    document: StatusDocument, now: datetime, thresholds: Thresholds | None = None
) -> Assessment:
    """Assess a document: facts that a DAG has written, and live facts of its reader.

    Args:
        document: the facts.
        now: an aware time.
        thresholds: the remaining lifetimes that are a warning, or critical.
    """
    thresholds, now = thresholds or Thresholds(), to_utc(now)
    dags = [assess_dag(dag, now) for dag in document.dags or ()]
    by_id = {each.dag.dag_id: each for each in dags}
    doubt = _describe_age(document.taken_at, now)
    dag_ids = _collect_dag_ids(document.tokens)
    tokens = [
        assess_token(
            token,
            by_id.get(token.dag_id or ""),
            now,
            thresholds,
            dag_ids=dag_ids.get(token.variable or "", ()),
        )
        for token in sort_by_expiry(document.tokens)
    ]
    if doubt:
        tokens = [replace(each, verdict=_add_doubt(each.verdict, doubt)) for each in tokens]
        dags = [replace(each, verdict=_add_doubt(each.verdict, doubt)) for each in dags]
    return Assessment(
        document,
        now,
        thresholds,
        tokens=sorted(tokens, key=lambda each: each.token.name),
        dags=None if document.dags is None else dags,
    )


def _collect_dag_ids(tokens: Iterable[TokenStatus]) -> dict[str, list[str]]:
    """Return the ids of the DAGs that manage each Variable."""
    dag_ids: dict[str, set[str]] = {}
    for token in tokens:
        if token.variable and token.dag_id:
            dag_ids.setdefault(token.variable, set()).add(token.dag_id)
    return {variable: sorted(ids) for variable, ids in dag_ids.items()}


def _describe_age(taken_at: datetime | None, now: datetime) -> str:
    """Return a clause if the response of a remote Airflow is not of this time, or an empty text."""
    age = timedelta(0) if taken_at is None else now - taken_at
    if taken_at is None or abs(age) <= MAX_CLOCK_SKEW:
        return ""
    direction = "ago" if age > timedelta(0) else "from now"
    time = format_minute(taken_at)
    return f"Airflow's response was made {format_duration(abs(age))} {direction} ({time})"


def _add_doubt(verdict: Verdict, doubt: str) -> Verdict:
    """Return the verdict on facts that may not hold any more: at least UNKNOWN."""
    severity = most_severe(verdict.severity, Severity.UNKNOWN)
    clauses = (verdict.message, doubt) if verdict.severity is severity else (doubt, verdict.message)
    return Verdict(severity, "; ".join(clauses), f"{STALE_HINT} {verdict.hint}".rstrip())
