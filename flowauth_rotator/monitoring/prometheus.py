"""The output for Prometheus and for the textfile collector of node_exporter.

All metrics have their help texts here: if two textfiles differ in the help text of a metric, the
collector drops one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowauth_rotator import __version__
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.assessment import Assessment
from flowauth_rotator.monitoring.dag_assessment import AssessedDag, Condition
from flowauth_rotator.monitoring.plugin_codes import PLUGIN_CODES
from flowauth_rotator.monitoring.status import DEFAULT_GRACE_PERIOD, SWAP_OUTCOMES, Signature
from flowauth_rotator.monitoring.token_assessment import AssessedToken

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render(assessment: Assessment, *, build_info: bool = True) -> bytes:
    """Render an assessment in the text format of Prometheus; an unknown value has no series.

    Args:
        assessment: the facts and verdicts.
        build_info: whether to include the version. Only one of several files that are read
            together may include it, since a series must not occur twice.
    """
    registry = CollectorRegistry()
    registry.register(_AssessmentCollector(assessment, build_info=build_info))
    return generate_latest(registry)


class _AssessmentCollector(Collector):
    def __init__(self, assessment: Assessment, *, build_info: bool) -> None:
        self._assessment, self._build_info = assessment, build_info

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; if tokens share a name, its series are of the most severe."""
        tokens, dags = self._assessment.by_name, self._assessment.dags
        yield from _severity_metrics(tokens)
        yield from _token_metrics({} if dags is None else tokens)
        yield from _rehearsal_metrics({} if dags is None else tokens)
        yield _info_metric([] if dags is None else self._assessment.tokens)
        yield from _unused_metrics({} if dags is None else tokens, dags or ())
        yield _issued_metric(tokens, is_list=dags is None)
        yield from _dag_metrics(dags or ())
        if self._build_info:
            yield _gauge("build_info", "Version of flowauth-rotator.", "version", {__version__: 1})


def _severity_metrics(tokens: Mapping[str, AssessedToken]) -> Iterable[Metric]:
    yield _gauge(
        "token_severity",
        "Severity of the token: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "name",
        {name: PLUGIN_CODES[token.severity] for name, token in tokens.items()},
    )
    yield _gauge(
        "token_name_known",
        "1 if the name is the issuer's, 0 if the key of the Variable is used.",
        "name",
        {name: token.token.name_is_known for name, token in tokens.items()},
    )


def _token_metrics(tokens: Mapping[str, AssessedToken]) -> Iterable[Metric]:
    """Yield the metrics of managed tokens."""
    facts = {name: token.token for name, token in tokens.items()}
    readable = {name: facts[name] for name in tokens if tokens[name].remaining is not None}
    yield _gauge("token_expected", "1 for each managed token.", "name", dict.fromkeys(facts, 1))
    yield _timestamps(
        "token_expiration",
        "Expiry of the token in use.",
        "name",
        {name: token.expires_at for name, token in readable.items()},
    )
    yield _timestamps(
        "token_issued",
        "When the token in use was issued.",
        "name",
        {name: token.issued_at for name, token in readable.items()},
    )
    yield _timestamps(
        "token_renewal",
        "When the renewal of the token in use is due.",
        "name",
        {name: token.renew_at for name, token in readable.items()},
    )
    yield _gauge(
        "token_readable",
        "1 if the Variable has a token that can be read, else 0.",
        "name",
        {name: name in readable for name in tokens if tokens[name].state != "unknown"},
    )
    yield _gauge(
        "token_signature_valid",
        "1 if the public key of its connection verifies the token in use, 0 if it does not.",
        "name",
        {
            name: token.signature is Signature.VALID
            for name, token in readable.items()
            if token.signature in (Signature.VALID, Signature.INVALID)
        },
    )
    yield _rotations({name: token.rotation_counts for name, token in facts.items()})
    yield _timestamps(
        "last_success",
        "When the token was last swapped.",
        "name",
        {name: token.last_success_at for name, token in facts.items()},
    )


def _rehearsal_metrics(tokens: Mapping[str, AssessedToken]) -> Iterable[Metric]:
    """Yield the results of rehearsals, also of those before the token in use was issued."""
    events = {name: token.token.last_rehearsal for name, token in tokens.items()}
    known = {name: event for name, event in events.items() if event}
    yield _gauge(
        "rehearsal_success",
        "1 if the last rehearsal found that the next renewal will work, else 0.",
        "name",
        {name: not event.has_failed for name, event in known.items()},
    )
    yield _timestamps(
        "rehearsal",
        "When the renewal of the token was last rehearsed.",
        "name",
        {name: event.at for name, event in known.items()},
    )


def _info_metric(tokens: Iterable[AssessedToken]) -> Metric:
    """Return the Variable of each name: it stays the same if the name of its token changes."""
    return _labelled_gauge(
        "token_info",
        "The Variable of each managed token.",
        ("name", "variable"),
        {(each.token.name, each.token.variable or ""): 1 for each in tokens},
    )


def _unused_metrics(
    tokens: Mapping[str, AssessedToken], dags: Sequence[AssessedDag]
) -> Iterable[Metric]:
    """Yield what a rotation has left behind: its failure, or a token that should be in use."""
    facts = {name: token.token for name, token in tokens.items()}
    failures = {name: token.failed_rotation for name, token in facts.items()}
    yield _labelled_gauge(
        "last_failure_timestamp_seconds",
        "When the last rotation ended, if it failed and its token is still in use.",
        ("name", "outcome"),
        {
            (name, event.outcome): event.at.timestamp()
            for name, event in failures.items()
            if event and event.outcome not in SWAP_OUTCOMES
        },
    )
    grace_periods = {each.dag.dag_id: each.dag.grace_period for each in dags}
    yield _gauge(
        "issued_deadline_timestamp_seconds",
        "When the token with the latest expiry at the issuer should be in use.",
        "name",
        {
            name: token.newest_issued_at.timestamp()
            + grace_periods.get(token.dag_id or "", DEFAULT_GRACE_PERIOD).total_seconds()
            for name, token in facts.items()
            if token.newest_issued_at and token.newest_issued_expires_at
        },
    )


def _issued_metric(tokens: Mapping[str, AssessedToken], *, is_list: bool) -> Metric:
    """Return the newest expiry at the issuer: of its list, or as rotations have seen it."""
    times = {
        name: token.token.expires_at if is_list else token.token.newest_issued_expires_at
        for name, token in tokens.items()
    }
    return _timestamps(
        "issued_expiration",
        "Latest expiry of the tokens of the name that were seen at the issuer.",
        "name",
        times,
    )


def _dag_metrics(dags: Sequence[AssessedDag]) -> Iterable[Metric]:
    """Yield the metrics with the label `dag_id`, and the clocks."""
    facts = {each.dag.dag_id: each.dag for each in dags}
    yield _gauge("agent_expected", "1 for each rotation DAG.", "dag_id", dict.fromkeys(facts, 1))
    yield _gauge(
        "dag_severity",
        "Severity of the rotation DAG: 0 ok, 1 warning, 2 critical, 3 unknown.",
        "dag_id",
        {each.dag.dag_id: PLUGIN_CODES[each.verdict.severity] for each in dags},
    )
    yield _gauge(
        "agent_misconfigured",
        "1 if the DAG's list of managed tokens is invalid, else 0.",
        "dag_id",
        {each.dag.dag_id: each.condition is Condition.MISCONFIGURED for each in dags},
    )
    yield _timestamps(
        "last_check",
        "End of the last check of all tokens.",
        "dag_id",
        {dag_id: dag.checked_at for dag_id, dag in facts.items()},
    )
    yield _gauge(
        "check_interval_seconds",
        "Time from one check to the next, by the schedule.",
        "dag_id",
        {dag_id: dag.interval.total_seconds() for dag_id, dag in facts.items() if dag.interval},
    )
    yield _timestamps(
        "check_deadline",
        "When two checks will have been missed, by the schedule.",
        "dag_id",
        {dag_id: dag.deadline_at for dag_id, dag in facts.items()},
    )
    yield _gauge(
        "issuer_clock_skew_seconds",
        "Seconds by which the clock of the issuer was ahead at its last response.",
        "connection",
        {key: skew for dag in facts.values() for key, skew in dag.clock_skews.items()},
    )


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled_gauge(name, text, (label,), {(key,): value for key, value in values.items()})


def _labelled_gauge(
    name: str, text: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = GaugeMetricFamily(f"flowauth_rotator_{name}", text, labels=labels)
    encodable = {tuple(map(_encodable, key)): value for key, value in values.items()}
    for key, value in encodable.items():
        family.add_metric(key, value)
    return family


def _timestamps(name: str, text: str, label: str, times: Mapping[str, datetime | None]) -> Metric:
    values = {key: time.timestamp() for key, time in times.items() if time is not None}
    return _gauge(f"{name}_timestamp_seconds", text, label, values)


def _rotations(counts: Mapping[str, Mapping[str, int]]) -> Metric:
    """Count every outcome from 0: `increase` does not see a counter that begins at 5."""
    family = CounterMetricFamily(
        "flowauth_rotator_rotations",
        "Completed rotations by outcome.",
        labels=["name", "outcome"],
    )
    for name, by_outcome in {_encodable(name): each for name, each in counts.items()}.items():
        for outcome in Outcome:
            family.add_metric([name, outcome], by_outcome.get(outcome, 0))
    return family


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON permits and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode()
