"""The metrics of the server: counters of its requests, and gauges from the token history.

Import this only where requests are handled: prometheus-client decides on import whether the
workers share their counters (see `Settings.metrics_dir`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from flowauth_rotator.server.errors import SetupError
from flowauth_rotator.server.services import Services
from flowauth_rotator.server.settings import METRICS_DIR_VARIABLE

CONTENT_TYPE = CONTENT_TYPE_LATEST
RENEWAL_RESULTS = ("renewed", "replayed", "refused", "failed")


class Metrics:
    """Counts responses, and renders all metrics.

    Args:
        services: The services of the server.
    """

    def __init__(self, services: Services) -> None:
        registry = CollectorRegistry()
        self._services = services
        self._counters = registry
        if services.settings.metrics_dir is not None:
            _verify_metrics_dir(services.settings.metrics_dir)
            self._counters = CollectorRegistry()
            self._counters.register(_WorkerMetrics(services.settings.metrics_dir))
        self._requests = Histogram(
            "flowauth_renewal_server_request_duration_seconds",
            "Time to answer a request.",
            ["view", "code"],
            registry=registry,
        )
        self._renewals = Counter(
            "flowauth_renewal_server_renewals",
            "Requests to renew a token, by result.",
            ["result"],
            registry=registry,
        )
        for result in RENEWAL_RESULTS:  # `increase` does not see a counter that starts at 1
            self._renewals.labels(result)

    def count_response(self, view: str, code: int, event: str, seconds: float) -> None:
        """Count one response.

        Args:
            view: The name of the view.
            code: The status.
            event: The event in the log.
            seconds: The duration.
        """
        self._requests.labels(view, code).observe(seconds)
        if view in ("renew", "renew_presented"):
            self._renewals.labels(event if event in RENEWAL_RESULTS else "failed").inc()

    def render(self, now: int) -> bytes:
        """Render all metrics in the text format of Prometheus.

        Args:
            now: Seconds since the epoch.
        """
        tokens = CollectorRegistry()
        tokens.register(_TokenMetrics(self._services, now))
        return generate_latest(self._counters) + generate_latest(tokens)


def _verify_metrics_dir(folder: Path) -> None:
    if not folder.is_dir():
        raise SetupError(
            f"{METRICS_DIR_VARIABLE}={folder} is not a directory: create it, empty, before each "
            "start, or unset the variable to count in each worker alone."
        )


class _WorkerMetrics(Collector):
    """The sums over all workers, including those that have ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, summed over the workers."""
        # A file is empty while a worker creates it, and stays so if the worker dies then.
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        families: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return families

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the files."""
        return []


class _TokenMetrics(Collector):
    """The newest token of each owner, server and name, read from the history at each scrape."""

    def __init__(self, services: Services, now: int) -> None:
        self._services = services
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """Yield both metrics; the expiry also of names that are abandoned."""
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
                expiry.add_metric(values, newest.expires_at)
                if newest.is_renewable and not newest.is_abandoned(self._now):
                    without_successor.add_metric(values, newest.lacks_successor(self._now))
        yield from (expiry, without_successor)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not query the database."""
        return []
