"""A hundred rotations of a token leave its series and services unchanged."""

from collections import Counter
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.rotation import inspect_token, rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring import checkmk, nagios, prometheus
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.web.managed import Attempt, InspectedToken, RotationDag
from flowauth_rotator.provider.web.status import build_snapshot
from tests.monitoring import grammar
from tests.server.scraping import scraped, series

pytestmark = pytest.mark.slow

ROTATIONS = 100
ATTEMPTS_READ = 2  # by the page
NAME = "etl main"
DAG = "flowauth_token_rotation"
POLICY = RotationPolicy(lifetime_minutes=60)
FIVE_MINUTES = timedelta(minutes=5)


@pytest.fixture
def rotations(renewal_server):
    """Rotate a token a hundred times, 45 minutes apart; gives the page's view after each."""

    def rotate_on():
        store = MemoryStore(Token(renewal_server.mint(NAME)))
        token = ManagedToken(name=NAME, lifetime_minutes=60)
        attempts, outcomes = [], Counter()
        with closing(BearerIssuer(renewal_server.url)) as issuer:
            for number in range(ROTATIONS):
                renewal_server.clock_offset += 45 * 60
                now = datetime.fromtimestamp(renewal_server.now(), timezone.utc)
                report = rotate(store, issuer, POLICY, now=now, name=NAME)
                assert report.outcome is Outcome.ROTATED
                attempts = [Attempt(f"scheduled__{number}", 0, report), *attempts][:ATTEMPTS_READ]
                outcomes[str(report.outcome)] += 1
                dag = RotationDag(
                    DAG,
                    schedule="*/5 * * * *",
                    checked_at=now,
                    next_run_at=now + FIVE_MINUTES,
                    deadline_at=now + 3 * FIVE_MINUTES,
                    tokens=[token],
                    attempts={token.variable: attempts},
                )
                inspection = inspect_token(store, POLICY, now=now, name=NAME)
                inspected = InspectedToken(dag, token, inspection)
                yield build_snapshot([dag], [inspected], now, {DAG: {NAME: dict(outcomes)}})

    return rotate_on()


def test_series_and_services_stay_the_same(rotations, renewal_server, data_dir):
    """One a name, whatever the tokens of it are called inside: the plugin's and the server's."""
    seen, server_series, counted = set(), [], []
    for current in rotations:
        shown = values(prometheus.render(current).decode())
        assessment = assess(current)
        lines = grammar.checkmk(checkmk.render(assessment))
        numbers = grammar.plugin(nagios.render(assessment)).performance
        seen.add((frozenset(shown), frozenset(lines), frozenset(numbers)))
        labels = frozenset({("name", NAME), ("outcome", "rotated")})
        counted.append(shown["flowauth_rotator_rotations_total", labels])
        server_series.append(frozenset(series(scraped(renewal_server.url, data_dir))))
    [(_, services, _)] = seen
    assert services == {f"FlowAuth_Token_{NAME}", "FlowAuth_Rotation_Agent"}
    assert counted == list(range(1, ROTATIONS + 1))
    assert len(set(server_series[1:])) == 1  # the first scrape is itself a series from then on
    assert len(renewal_server.rows(NAME)) == ROTATIONS + 1


def values(text):
    """Each series with its value."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
