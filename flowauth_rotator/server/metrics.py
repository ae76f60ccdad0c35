"""What /metrics tells: what this server did, and what the history says at the time of asking.

Import it only where requests are answered: it is the import that decides whether the workers
count together (see `Settings.metrics_dir`).
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

from flowauth_rotator.server.services import Services

CONTENT_TYPE = CONTENT_TYPE_LATEST
RENEWAL_RESULTS = ("renewed", "replayed", "refused", "failed")


class Metrics:
    """Counts what is answered, and shows it together with the newest tokens.

    Args:
        services: The opened server.
    """

    def __init__(self, services: Services) -> None:
        own = CollectorRegistry()
        self._services = services
        self._counted = own
        if services.settings.metrics_dir is not None:
            self._counted = CollectorRegistry()
            self._counted.register(_Together(services.settings.metrics_dir))
        self._requests = Histogram(
            "flowauth_renewal_server_request_duration_seconds",
            "Time to answer a request.",
            ["view", "code"],
            registry=own,
        )
        self._renewals = Counter(
            "flowauth_renewal_server_renewals",
            "Requests to renew a token, by result.",
            ["result"],
            registry=own,
        )
        for result in RENEWAL_RESULTS:  # a counter that is born at 1 is invisible to `increase`
            self._renewals.labels(result)

    def count(self, view: str, code: int, event: str, seconds: float) -> None:
        """Count one answer.

        Args:
            view: What was asked for.
            code: The status of the answer.
            event: What happened, as the log calls it.
            seconds: How long it took.
        """
        self._requests.labels(view, code).observe(seconds)
        if view in ("renew", "renew_presented"):
            self._renewals.labels(event if event in RENEWAL_RESULTS else "failed").inc()

    def exposition(self, now: int) -> bytes:
        """All of it in the text format of Prometheus.

        Args:
            now: Seconds since the epoch.
        """
        names = CollectorRegistry()
        names.register(_Names(self._services, now))
        return generate_latest(self._counted) + generate_latest(names)


class _Together(Collector):
    """What all workers have counted, also those that are gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """One series for all workers each."""
        # A file is empty while a worker makes it, or for good if that was its last act.
        files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
        families: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return families

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the files."""
        return []


class _Names(Collector):
    """The newest token of each owner, server and name, read from the history at each scrape."""

    def __init__(self, services: Services, now: int) -> None:
        self._services = services
        self._now = now

    def collect(self) -> Iterable[Metric]:
        """One series a name of each metric, of the first one long after its last token, too."""
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
            for newest in self._services.history.newest(connection):
                name = [newest.owner, newest.audience, newest.name]
                expiry.add_metric(name, newest.expires_at)
                if newest.is_renewable and not newest.is_abandoned(self._now):
                    without_successor.add_metric(name, newest.lacks_successor(self._now))
        yield from (expiry, without_successor)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return []
