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
from flowauth_rotator.monitoring.status import (
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
    sort_by_expiry,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render(snapshot: Snapshot, *, build_info: bool = True) -> bytes:
    """Render a snapshot in the text format of Prometheus; an unknown value has no series.

    Args:
        snapshot: the facts.
        build_info: whether to include the version. Only one of several files that are read
            together may include it, since a series must not occur twice.
    """
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot, build_info=build_info))
    return generate_latest(registry)


class _SnapshotCollector(Collector):
    def __init__(self, snapshot: Snapshot, *, build_info: bool) -> None:
        self._snapshot, self._build_info = snapshot, build_info

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics; if tokens share a name, its series are of the first to expire."""
        snapshot = self._snapshot
        tokens: dict[str, TokenStatus] = {}
        for token in sort_by_expiry(snapshot.tokens):
            tokens.setdefault(token.name, token)
        yield from _token_metrics(tokens, managed=snapshot.rotation_dags is not None)
        yield from _dag_metrics(snapshot.rotation_dags or ())
        yield _gauge(
            "issuer_clock_skew_seconds",
            "Seconds by which the clock of the issuer was ahead at its last response.",
            "connection",
            snapshot.clock_skews,
        )
        if self._build_info:
            yield _gauge("build_info", "Version of flowauth-rotator.", "version", {__version__: 1})


def _token_metrics(tokens: Mapping[str, TokenStatus], *, managed: bool) -> Iterable[Metric]:
    """Yield the metrics with the label `name`; `managed` is whether Airflow manages the tokens."""
    in_use: dict[str, Validity] = {
        name: token.in_use for name, token in tokens.items() if token.in_use is not None
    }
    expected = dict.fromkeys(tokens if managed else (), 1)
    yield _gauge("token_expected", "1 for each managed token.", "name", expected)
    yield _timestamps(
        "token_expiration",
        "Expiry of the token in use.",
        "name",
        {name: validity.expires_at for name, validity in in_use.items()},
    )
    yield _timestamps(
        "token_issued",
        "When the token in use was issued.",
        "name",
        {name: validity.issued_at for name, validity in in_use.items()},
    )
    yield _timestamps(
        "token_renewal",
        "When the renewal of the token in use is due.",
        "name",
        {name: validity.renew_at for name, validity in in_use.items()},
    )
    yield _timestamps(
        "issued_expiration",
        "Latest expiry of the tokens of the name that were seen at the issuer.",
        "name",
        {name: token.issued.expires_at for name, token in tokens.items() if token.issued},
    )
    yield _rotations(
        {name: token.rotations for name, token in tokens.items() if token.rotations is not None}
    )
    yield _timestamps(
        "last_success",
        "When the token was last swapped.",
        "name",
        {name: token.last_success_at for name, token in tokens.items()},
    )


def _dag_metrics(dags: Sequence[RotationDagStatus]) -> Iterable[Metric]:
    """Yield the metrics with the label `dag_id`."""
    yield _gauge(
        "agent_expected",
        "1 for each rotation DAG.",
        "dag_id",
        dict.fromkeys((dag.dag_id for dag in dags), 1),
    )
    yield _gauge(
        "agent_misconfigured",
        "1 if the DAG's list of managed tokens is invalid, else 0.",
        "dag_id",
        {dag.dag_id: dag.condition == "misconfigured" for dag in dags},
    )
    yield _timestamps(
        "last_check",
        "End of the last check of all tokens.",
        "dag_id",
        {dag.dag_id: dag.checked_at for dag in dags},
    )
    yield _gauge(
        "check_interval_seconds",
        "Time from one check to the next, by the schedule.",
        "dag_id",
        {dag.dag_id: dag.interval.total_seconds() for dag in dags if dag.interval},
    )
    yield _timestamps(
        "check_deadline",
        "When two checks will have been missed, by the schedule.",
        "dag_id",
        {dag.dag_id: dag.deadline_at for dag in dags},
    )


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"flowauth_rotator_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([_encodable(key)], value)
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
    for name, by_outcome in counts.items():
        for outcome in Outcome:
            family.add_metric([_encodable(name), outcome], by_outcome.get(outcome, 0))
    return family


def _encodable(text: str) -> str:
    """Replace lone surrogates, which JSON permits and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode()
