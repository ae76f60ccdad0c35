"""The metrics of the server: counters of its requests, and gauges from the token history."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from flowauth_rotator.server.counters import BOUNDS, RENEWAL_RESULTS, Counters
from flowauth_rotator.server.services import Services

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BOUNDS = [*map(floatToGoString, BOUNDS), "+Inf"]


class Metrics:
    """Counts responses, and renders all metrics.

    Args:
        services: The services of the server.
        counters: What the workers of the server count in.
    """

    def __init__(self, services: Services, counters: Counters) -> None:
        self._services = services
        self._counters = counters

    def count_response(self, view: str, code: int, event: str, seconds: float) -> None:
        """Count one response.

        Args:
            view: The name of the view.
            code: The status.
            event: The event in the log.
            seconds: The duration.
        """
        self._counters.count_request(view, code, seconds)
        if view in ("renew", "renew_presented"):
            self._counters.count_event(event if event in RENEWAL_RESULTS else "failed")

    def count_fork(self) -> None:
        """Count one renewal of a token that already had a successor."""
        self._counters.count_event("forked")

    def render(self, now: int) -> bytes:
        """Render all metrics in the text format of Prometheus.

        Args:
            now: Seconds since the epoch.
        """
        registry = CollectorRegistry()
        registry.register(_RequestMetrics(self._counters))
        registry.register(_TokenMetrics(self._services, now))
        return generate_latest(registry)


class _RequestMetrics(Collector):
    """The sums over all workers, including those that have ended."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        requests = HistogramMetricFamily(
            "flowauth_renewal_server_request_duration_seconds",
            "Time to answer a request.",
            labels=["view", "code"],
        )
        for (view, code), histogram in self._counters.sum_requests().items():
            buckets = list(zip(_BOUNDS, accumulate(histogram.buckets), strict=True))
            requests.add_metric([view, str(code)], buckets, histogram.sum)
        renewals = CounterMetricFamily(
            "flowauth_renewal_server_renewals",
            "Requests to renew a token, by result.",
            labels=["result"],
        )
        for result in RENEWAL_RESULTS:
            renewals.add_metric([result], self._counters.sum_event(result))
        forks = CounterMetricFamily(
            "flowauth_renewal_server_forks",
            "Renewals of a token that already had a successor.",
            value=self._counters.sum_event("forked"),
        )
        yield from (requests, renewals, forks)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the counters."""
        return []


class _TokenMetrics(Collector):
    """The newest token of each owner, server and name, read from the history at each scrape."""

    def __init__(self, services: Services, now: int) -> None:
        self._services = services
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Yield both metrics, of all names that are not abandoned."""
        labels = ["owner", "server", "name"]
        expiry = GaugeMetricFamily(
            "flowauth_renewal_server_token_expiration_timestamp_seconds",
            "Latest expiry of the tokens issued under a name.",
            labels=labels,
        )
        without_successor = GaugeMetricFamily(
            "flowauth_renewal_server_name_without_successor",
            "Whether the newest token of a name is in the last tenth of its lifetime or expired.",
            labels=labels,
        )
        with self._services.database.reading() as connection:
            for newest in self._services.history.list_newest(connection):
                values = [newest.owner, newest.audience, newest.name]
                if newest.is_abandoned(self._now):
                    continue
                expiry.add_metric(values, newest.expires_at)
                if newest.is_renewable:
                    without_successor.add_metric(values, newest.lacks_successor(self._now))
        yield from (expiry, without_successor)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not query the database."""
        return []
