"""When a check rehearses a renewal, as a function of what it found and of what is known."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import jwt
import pytest

from flowauth_rotator.agent.rotation import inspect_token
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring.status import Event, StatusDocument
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.rehearsals import MOST_REHEARSALS, plan_rehearsals
from flowauth_rotator.provider.status_updates import (
    Run,
    index_tokens,
    record_rehearsals,
    record_rotations,
    record_survey,
)
from flowauth_rotator.provider.survey import Survey, SurveyedToken

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Connection:
    """A connection with a password."""

    def __init__(self, password="one", *, needs_codes=False):
        self._password = password
        self.needs_codes = needs_codes

    def fingerprint(self, token, settings):
        return f"{hash((token.reveal(), str(settings), self._password)):x}"


class Checks:
    """The checks of tokens by a DAG, one after the other.

    Attributes:
        document: the status after the last check.
    """

    def __init__(self):
        self.document = StatusDocument()
        self._number = 0

    def check(self, *tokens, now=NOON, due=(), outcome=Outcome.HEALTHY, **options):
        """Check tokens, and return the Variables of those that were rehearsed."""
        self._number += 1
        run = Run("dag", f"run {self._number}", 5 * MINUTE, now)
        connection = Connection(
            options.pop("password", "one"), needs_codes=options.pop("needs_codes", False)
        )
        planned = plan_rehearsals(
            Survey(due, [], tokens, []),
            index_tokens(self.document),
            {"flowauth_default": connection},
            now,
            **{"is_dry_run": False, "max_tasks": 1024, **options},
        )
        severity = Severity.OK if outcome is Outcome.HEALTHY else Severity.WARNING
        reports = {
            token.token.variable: (
                0,
                replace(token.report, outcome=outcome, severity=severity, checked_at=now),
            )
            for token in planned.rehearsals
        }
        self.document = record_survey(self.document, planned, run)
        self.document = record_rehearsals(self.document, reports, run)
        return list(reports)

    def rotate(self, token, now=NOON):
        """Record the rotation of a token, whose successor is this one."""
        report = replace(token.report, outcome=Outcome.ROTATED, checked_at=now)
        run = Run("dag", "rotation", 5 * MINUTE, now)
        self.document = record_rotations(self.document, {token.token.variable: (0, report)}, run)


@pytest.fixture
def survey(signing_key):
    """Survey a token that was issued a minute ago."""

    def survey(variable="KEY", *, now=NOON, lifetime=7 * DAY, jti=0, **settings):
        managed = ManagedToken(variable, **settings)
        issued_at = int((now - MINUTE).timestamp())
        claims = {"iat": issued_at, "exp": issued_at + int(lifetime.total_seconds()), "jti": jti}
        token = Token(jwt.encode({**claims, "sub": "flowbot", "aud": "S"}, signing_key, "RS256"))
        inspection = inspect_token(MemoryStore(token), managed.policy, now=now)
        return SurveyedToken(managed, inspection.report, inspection)

    return survey


def count_rehearsals(checks, token, *, days, start=NOON, **options):
    """Count the rehearsals in checks every five minutes."""
    times = [start + number * 5 * MINUTE for number in range(days * 24 * 12)]
    return sum(bool(checks.check(token, now=now, **options)) for now in times)


def test_each_new_setup_is_rehearsed_and_then_none_until_the_next_day(survey):
    """Another token, setting or connection is a new setup; a description is not."""
    checks, token = Checks(), survey()
    assert checks.check(token) == ["KEY"]
    assert checks.check(token) == []
    assert checks.check(replace(token, token=ManagedToken("KEY", description="x"))) == []
    assert checks.check(token, password="two") == ["KEY"]
    changed = replace(token, token=ManagedToken("KEY", lifetime_minutes=60))
    assert checks.check(changed, password="two") == ["KEY"]
    assert checks.check(survey(jti=1), password="two") == ["KEY"]


def test_a_healthy_token_is_rehearsed_once_a_day(survey):
    checks = Checks()
    assert count_rehearsals(checks, survey(lifetime=10 * DAY), days=10) in (10, 11)


def test_a_failed_rehearsal_is_repeated_eight_times_a_day(survey):
    """So that a correction is seen soon."""
    checks, token = Checks(), survey(lifetime=10 * DAY)
    assert count_rehearsals(checks, token, days=2, outcome=Outcome.REFUSED) in (16, 17)


def test_a_short_lifetime_has_ten_rehearsals_at_most(survey):
    """However often a setting asks for it."""
    checks, token = Checks(), survey(lifetime=DAY, rehearse_every=MINUTE)
    assert count_rehearsals(checks, token, days=1) in (10, 11)


def test_a_token_that_is_never_to_be_rehearsed_is_not(survey):
    """Except by hand."""
    checks, token = Checks(), survey(rehearse_every=None)
    assert checks.check(token) == []
    assert checks.check(token, is_dry_run=True) == ["KEY"]


def test_a_thousand_tokens_are_spread_over_the_day(survey):
    """By the hash of the Variable: no hour has many more than a 24th of them."""
    token = survey(lifetime=10 * DAY)
    tokens = [
        replace(token, token=ManagedToken(f"KEY_{number}"), setup="1") for number in range(1000)
    ]
    checks = Checks()
    for _ in range(1000 // MOST_REHEARSALS + 1):
        assert len(checks.check(*tokens)) <= MOST_REHEARSALS
    assert checks.check(*tokens) == []
    hours = [len(checks.check(*tokens, now=NOON + HOUR * 24 * part / 96)) for part in range(1, 97)]
    by_hour = [sum(hours[start : start + 4]) for start in range(0, 96, 4)]
    assert sum(by_hour) == 1000
    assert max(by_hour) < 70


def test_an_account_with_two_factor_codes_has_few_rehearsals_in_a_check(survey):
    """They share one code in 30 s: of many, some would find ten codes used, and fail."""
    tokens = [survey(f"KEY_{number}") for number in range(10)]
    checks = Checks()
    counts = [len(checks.check(*tokens, needs_codes=True)) for _ in range(4)]
    assert counts == [4, 4, 2, 0]


def test_rehearsals_that_fail_keep_none_from_its_turn(survey):
    """However soon they are due again: that of another token comes first."""
    tokens = [survey(f"KEY_{number}", rehearse_every=MINUTE) for number in range(50)]
    checks, seen = Checks(), set()
    for number in range(2):
        now = NOON + number * DAY
        seen |= set(checks.check(*tokens, now=now, outcome=Outcome.REFUSED))
    assert seen == {token.token.variable for token in tokens}


def test_a_rotation_counts_as_a_rehearsal(survey):
    """Its successor is not rehearsed at once; a token that somebody pastes in its place is."""
    checks, successor = Checks(), survey(jti=1)
    checks.check(survey())
    checks.rotate(successor, now=NOON + MINUTE)
    assert checks.check(successor, now=NOON + 5 * MINUTE) == []
    assert checks.check(successor, now=NOON + 10 * MINUTE, password="two") == ["KEY"]
    checks.rotate(survey(jti=2), now=NOON + 11 * MINUTE)
    assert checks.check(survey(jti=3), now=NOON + 15 * MINUTE, password="two") == ["KEY"]


def test_a_failed_rehearsal_before_a_rotation_is_forgotten(survey):
    """The renewal has worked all the same."""
    checks, token = Checks(), survey()
    checks.check(token, outcome=Outcome.REFUSED)
    assert isinstance(checks.document.tokens[0].failed_rehearsal, Event)
    checks.rotate(survey(jti=1))
    assert checks.document.tokens[0].failed_rehearsal is None


def test_rotations_come_first(survey):
    """A run has a limit of tasks, which rehearsals do not exceed."""
    checks = Checks()
    due = [survey(f"DUE_{number}") for number in range(3)]
    healthy = [survey(f"KEY_{number}") for number in range(3)]
    assert checks.check(*healthy, due=due, max_tasks=5) == ["KEY_0", "KEY_1"]
    assert checks.check(*healthy, due=due, max_tasks=3) == []
    assert checks.check(*healthy) == ["KEY_2"]
