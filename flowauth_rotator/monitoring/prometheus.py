"""The reading of Prometheus, and of node_exporter's textfile collector.

One place for all metrics and their help texts: of two files that explain a metric differently the
textfile collector drops one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowauth_rotator import __version__
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Watched, soonest_first

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposition(snapshot: Snapshot, *, build_info: bool = True) -> bytes:
    """All of it in the text format of Prometheus; what is unknown has no series.

    Args:
        snapshot: what was found.
        build_info: whether to name the version; not where several of these are read as one, since
            a series may be there only once.
    """
    registry = CollectorRegistry()
    registry.register(_Found(snapshot, build_info=build_info))
    return generate_latest(registry)


class _Found(Collector):
    def __init__(self, snapshot: Snapshot, *, build_info: bool) -> None:
        self._snapshot, self._build_info = snapshot, build_info

    def collect(self) -> Iterable[Metric]:
        """One series a name: of tokens that share it, the one that expires first."""
        snapshot = self._snapshot
        tokens: dict[str, Watched] = {}
        for one in soonest_first(snapshot.tokens):
            tokens.setdefault(one.name, one)
        yield from _of_tokens(tokens, managed=snapshot.agents is not None)
        yield from _of_agents(snapshot.agents or ())
        yield _gauge(
            "issuer_clock_skew_seconds",
            "By how much the clock of the issuer was ahead, when last asked.",
            "connection",
            snapshot.clock_skews,
        )
        if self._build_info:
            yield _gauge("build_info", "The version that answers.", "version", {__version__: 1})


def _of_tokens(tokens: Mapping[str, Watched], *, managed: bool) -> Iterable[Metric]:
    """Those with a `name`; an issuer manages none of them."""
    in_use: dict[str, Life] = {
        name: it.in_use for name, it in tokens.items() if it.in_use is not None
    }
    expected = dict.fromkeys(tokens if managed else (), 1)
    yield _gauge("token_expected", "1 for each managed token.", "name", expected)
    yield _times(
        "token_expiration",
        "Expiry of the token in use.",
        "name",
        {name: life.expires_at for name, life in in_use.items()},
    )
    yield _times(
        "token_issued",
        "When the token in use was issued.",
        "name",
        {name: life.issued_at for name, life in in_use.items()},
    )
    yield _times(
        "token_renewal",
        "When the token in use is due.",
        "name",
        {name: life.renew_at for name, life in in_use.items()},
    )
    yield _times(
        "issued_expiration",
        "Latest expiry of the tokens of the name that were seen at the issuer.",
        "name",
        {name: it.issued.expires_at for name, it in tokens.items() if it.issued},
    )
    yield _rotations(
        {name: it.rotations for name, it in tokens.items() if it.rotations is not None}
    )
    yield _times(
        "last_success",
        "When the token was last swapped.",
        "name",
        {name: it.last_success_at for name, it in tokens.items()},
    )


def _of_agents(agents: Sequence[Heartbeat]) -> Iterable[Metric]:
    """Those with a `dag_id`."""
    yield _gauge(
        "agent_expected",
        "1 for each DAG that is to check.",
        "dag_id",
        dict.fromkeys((it.dag_id for it in agents), 1),
    )
    yield _gauge(
        "agent_misconfigured",
        "1 if its list of tokens is wrong, else 0.",
        "dag_id",
        {it.dag_id: it.condition == "misconfigured" for it in agents},
    )
    yield _times(
        "last_check",
        "End of the last check of all tokens.",
        "dag_id",
        {it.dag_id: it.checked_at for it in agents},
    )
    yield _gauge(
        "check_interval_seconds",
        "Time from one check to the next, by the schedule.",
        "dag_id",
        {it.dag_id: it.interval.total_seconds() for it in agents if it.interval},
    )
    yield _times(
        "check_deadline",
        "When two checks have been missed, by the schedule.",
        "dag_id",
        {it.dag_id: it.deadline_at for it in agents},
    )


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"flowauth_rotator_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([_label(key)], value)
    return family


def _times(name: str, text: str, label: str, times: Mapping[str, datetime | None]) -> Metric:
    values = {key: time.timestamp() for key, time in times.items() if time is not None}
    return _gauge(f"{name}_timestamp_seconds", text, label, values)


def _rotations(counts: Mapping[str, Mapping[str, int]]) -> Metric:
    """Each outcome from 0 on: a counter that is born at 5 is invisible to `increase`."""
    family = CounterMetricFamily(
        "flowauth_rotator_rotations",
        "Rotations that ended, by outcome.",
        labels=["name", "outcome"],
    )
    for name, by_outcome in counts.items():
        for outcome in Outcome:
            family.add_metric([_label(name), outcome], by_outcome.get(outcome, 0))
    return family


def _label(text: str) -> str:
    """The text as UTF-8 can hold it: JSON permits halves of characters."""
    return text.encode("utf-8", "replace").decode()
