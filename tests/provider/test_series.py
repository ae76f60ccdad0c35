"""A hundred rotations: what is told of a token changes its values, and nothing else."""

from datetime import datetime, timedelta, timezone

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.policy import RotationPolicy, decide
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Claims, Token
from flowauth_rotator.monitoring import checkmk, prometheus
from flowauth_rotator.monitoring.snapshot import Snapshot
from flowauth_rotator.monitoring.state import State, assess
from flowauth_rotator.provider.tokens import ManagedToken
from flowauth_rotator.provider.web.managed import Agent, Attempt, Managed
from flowauth_rotator.provider.web.records import ATTEMPTS_READ
from flowauth_rotator.provider.web.snapshot import snapshot
from tests.monitoring import grammar

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
LIFETIME = 24 * HOUR
ROTATIONS = 100
DAG = "flowauth_token_rotation"
TOKENS = [
    ManagedToken(variable="QUIET_TOKEN"),
    *(ManagedToken(variable=key) for key in ("ETL_TOKEN", "OTHER_TOKEN")),
]
NAMES = {"QUIET_TOKEN": "quiet", "ETL_TOKEN": 'etl "main"', "OTHER_TOKEN": "Düngemittel 東京"}


class World:
    """An Airflow with three tokens, one of which outlives all that happens to the others."""

    def __init__(self):
        self.now = NOON
        self.born = dict.fromkeys(NAMES, NOON)
        self.attempts = {key: [] for key in NAMES}
        self.counts = {name: {} for name in NAMES.values()}

    def advance(self, span):
        self.now += span

    def lifetime(self, key):
        return 10_000 * LIFETIME if key == "QUIET_TOKEN" else LIFETIME

    def rotate(self, key, outcome, number):
        """Let a rotation of a token end, and with it a run of the DAG."""
        swapped = outcome in (Outcome.ROTATED, Outcome.ADOPTED)
        before = self.born[key] + self.lifetime(key)
        if swapped:
            self.born[key] = self.now
        after = self.born[key] + self.lifetime(key)
        report = Report(
            *(NAMES[key], f"Variable {key}", outcome, "So it ended.", self.now),
            severity=Severity.OK if swapped else Severity.WARNING,
            predecessor_expires_at=before,
            successor_expires_at=after if swapped else None,
            newest_issued_expires_at=after if swapped else None,
            renewal_requests=1,
            clock_skew=number % 3 - 1,
        )
        attempt = Attempt(f"scheduled__{number}", number % 2, report)
        self.attempts[key].insert(0, attempt)
        counts = self.counts[NAMES[key]]
        counts[outcome] = counts.get(outcome, 0) + 1

    def snapshot(self):
        """What those who watch are told now, as it travels."""
        agent = Agent(
            DAG,
            schedule="*/5 * * * *",
            checked_at=self.now,
            next_check_at=self.now + HOUR / 12,
            late_at=self.now + HOUR / 5,
            tokens=TOKENS,
            attempts={key: self._read(some) for key, some in self.attempts.items()},
        )
        tokens = [Managed(agent, token, self._check(token.variable)) for token in TOKENS]
        found = snapshot([agent], tokens, self.now, {DAG: self.counts})
        return Snapshot.from_json(found.to_json())

    def _read(self, attempts):
        """Those that are read from the database: the last that ended well, and that did not."""
        good = [it for it in attempts if not it.report.failed][:ATTEMPTS_READ]
        bad = [it for it in attempts if it.report.failed][:ATTEMPTS_READ]
        return sorted(good + bad, key=lambda it: it.report.checked_at, reverse=True)

    def _check(self, key):
        born = self.born[key]
        claims = Claims(
            digest=f"{born.timestamp():064.0f}",
            algorithm="RS256",
            issued_at=born,
            not_before=born,
            expires_at=born + self.lifetime(key),
            subject="flowbot",
            audience="TEST_SERVER",
            roles=frozenset({"viewer"}),
            scopes={"viewer": ("run",)},
        )
        decision = decide(claims, RotationPolicy(), self.now)
        report = Report(NAMES[key], f"Variable {key}", Outcome.HEALTHY, decision.reason, self.now)
        return Check(Token("x"), claims, decision, report)


@pytest.fixture
def world():
    """An Airflow in which each token has been rotated once."""
    world = World()
    for key in NAMES:
        world.rotate(key, Outcome.ROTATED, 0)
    return world


def values(found):
    """The value of each series, by name and labels; each is there once."""
    text = prometheus.exposition(found).decode()
    samples = [
        ((sample.name, *sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def services(found):
    """The state of each service, by name."""
    lines = grammar.checkmk(checkmk.reading(assess(found)))
    return {service: line.state for service, line in lines.items()}


def moments(world):
    """The world through a hundred rotations: before each, after one that failed, and after it."""
    for number in range(1, ROTATIONS + 1):
        world.advance(17 * HOUR)
        yield world.snapshot()
        if number % 3 == 0:
            world.rotate("ETL_TOKEN", Outcome.UNAVAILABLE, number)
            world.advance(HOUR / 12)
            yield world.snapshot()
        outcome = Outcome.ADOPTED if number % 5 == 0 else Outcome.ROTATED
        for key in ("ETL_TOKEN", "OTHER_TOKEN"):
            world.rotate(key, outcome, number)
        yield world.snapshot()


def test_the_series_are_the_same_before_and_after_each_of_a_hundred_rotations(world):
    """No series comes, none goes; counters never fall, and the newest expiry is told at once."""
    last = values(world.snapshot())
    expiry = ("flowauth_rotator_token_expiration_timestamp_seconds", ("name", "Düngemittel 東京"))
    expiries = {last[expiry]}
    for found in moments(world):
        now = values(found)
        assert set(now) == set(last)
        assert all(now[key] >= last[key] for key in now if key[0].endswith("_total"))
        expiries.add(now[expiry])
        last = now
    assert len(expiries) == 1 + ROTATIONS
    ended = sum(value for key, value in last.items() if key[0].endswith("_rotations_total"))
    assert ended == 3 + 2 * ROTATIONS + ROTATIONS // 3


def test_the_services_are_the_same_before_and_after_each_of_a_hundred_rotations(world):
    """Nobody has to discover them anew; a rotation that goes well is never an alarm."""
    first = services(world.snapshot())
    assert set(first) == {
        "FlowAuth_Token_quiet",
        *(service for service in first if service.startswith("FlowAuth_Token_etl _main_")),
        "FlowAuth_Token_Düngemittel 東京",
        "FlowAuth_Rotation_Agent",
    }
    assert len(first) == 4
    for found in moments(world):
        now = services(found)
        assert set(now) == set(first)
        assert now["FlowAuth_Token_Düngemittel 東京"] == State.OK
