"""A hundred rotations of a token leave its series and services unchanged."""

from contextlib import closing
from datetime import datetime, timezone

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring import checkmk, nagios, prometheus
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import (
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
    build_event,
)
from tests.monitoring import grammar
from tests.server.scraping import scraped, series

pytestmark = pytest.mark.slow

ROTATIONS = 100
NAME = "etl main"
DAG = "flowauth_token_rotation"
POLICY = RotationPolicy(lifetime_minutes=60)


@pytest.fixture
def rotations(renewal_server):
    """Rotate a token a hundred times, 45 minutes apart; gives the assessment after each."""

    def rotate_on():
        store = MemoryStore(Token(renewal_server.mint(NAME)))
        events = []
        with closing(BearerIssuer(renewal_server.url)) as issuer:
            for number in range(1, ROTATIONS + 1):
                renewal_server.clock_offset += 45 * 60
                now = datetime.fromtimestamp(renewal_server.now(), timezone.utc)
                report = rotate(store, issuer, POLICY, now=now, name=NAME)
                assert report.outcome is Outcome.ROTATED
                events = [build_event(report, run_id=f"scheduled__{number}"), *events]
                token = TokenStatus(
                    NAME,
                    variable="ETL",
                    dag_id=DAG,
                    fingerprint=store.token.fingerprint,
                    issued_at=report.issued_at,
                    renew_at=report.renew_at,
                    expires_at=report.expires_at,
                    last_check=events[0],
                    rotations=events,
                    rotation_counts={"rotated": number},
                    last_success_at=now,
                    newest_issued_at=now,
                    newest_issued_expires_at=report.newest_issued_expires_at,
                )
                document = StatusDocument([RotationDagStatus(DAG, checked_at=now)], [token])
                yield assess(StatusDocument.load(document.dump()), now)

    return rotate_on()


def test_series_and_services_stay_the_same(rotations, renewal_server, data_dir):
    """One a name, whatever the ids of its tokens are: those of Airflow and of the server."""
    seen, server_series, counted = set(), [], []
    for assessment in rotations:
        shown = values(prometheus.render(assessment).decode())
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
