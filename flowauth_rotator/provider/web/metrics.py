"""The same state as Prometheus reads it, computed at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowauth_rotator import __version__
from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.provider.compat import cron_after
from flowauth_rotator.provider.web.overview import Agent, Managed

CONTENT_TYPE = CONTENT_TYPE_LATEST
SWAPPED = (Outcome.ROTATED, Outcome.ADOPTED)
A_SECOND = timedelta(seconds=1)


def exposition(agents: Sequence[Agent], tokens: Sequence[Managed], now: datetime) -> bytes:
    """All of it in the text format of Prometheus; what is unknown has no series."""
    registry = CollectorRegistry()
    registry.register(_State(agents, tokens, now))
    return generate_latest(registry)


class _State(Collector):
    def __init__(self, agents: Sequence[Agent], tokens: Sequence[Managed], now: datetime) -> None:
        self._agents, self._tokens, self._now = agents, tokens, now

    def collect(self) -> Iterable[Metric]:
        """One series a name: of two tokens that have one, the one that expires first."""
        by_name: dict[str, Managed] = {}
        for one in sorted(self._tokens, key=_expiry, reverse=True):
            by_name[one.name] = one
        found = {name: it.found for name, it in by_name.items() if isinstance(it.found, Check)}
        yield _gauge(
            "token_expected", "1 for each managed token.", dict.fromkeys(by_name, 1.0), ["name"]
        )
        yield _gauge(
            "token_expiration_timestamp_seconds",
            "Expiry of the token in use.",
            {name: it.claims.expires_at.timestamp() for name, it in found.items()},
            ["name"],
        )
        yield _gauge(
            "token_issued_timestamp_seconds",
            "When the token in use was issued.",
            {name: it.claims.issued_at.timestamp() for name, it in found.items()},
            ["name"],
        )
        yield _gauge(
            "token_renewal_timestamp_seconds",
            "When the token in use is due.",
            {name: it.decision.renew_at.timestamp() for name, it in found.items()},
            ["name"],
        )
        yield _gauge(
            "last_success_timestamp_seconds",
            "When the token was last swapped.",
            {name: at for name, it in by_name.items() if (at := _last_swap(it)) is not None},
            ["name"],
        )
        yield _gauge(
            "last_check_timestamp_seconds",
            "End of the last check of all tokens.",
            {it.dag_id: it.checked_at.timestamp() for it in self._agents if it.checked_at},
            ["dag_id"],
        )
        yield _gauge(
            "check_interval_seconds",
            "Time from one check to the next, by the schedule.",
            {
                it.dag_id: every
                for it in self._agents
                if (every := _interval(it, self._now)) is not None
            },
            ["dag_id"],
        )
        yield _gauge("build_info", "The version that answers.", {__version__: 1.0}, ["version"])


def _gauge(name: str, text: str, values: dict[str, float], labels: list[str]) -> Metric:
    family = GaugeMetricFamily(f"flowauth_rotator_{name}", text, labels=labels)
    for label, value in values.items():
        family.add_metric([label], value)
    return family


def _expiry(one: Managed) -> float:
    """What nobody can read counts as expired."""
    return one.expires_at.timestamp() if one.expires_at else 0.0


def _last_swap(one: Managed) -> float | None:
    attempts = one.agent.attempts.get(one.variable, ())
    swaps = [it.report.checked_at for it in attempts if it.report.outcome in SWAPPED]
    return max(swaps).timestamp() if swaps else None


def _interval(agent: Agent, now: datetime) -> float | None:
    if isinstance(agent.schedule, timedelta):
        return agent.schedule.total_seconds()
    with suppress(ValueError, TypeError):
        following = cron_after(str(agent.schedule), now)
        return (cron_after(str(agent.schedule), following + A_SECOND) - following).total_seconds()
    return None
