import os
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import RotationPolicy, TokenState, decide
from flowauth_rotator.core.tokens import Claims

EARLIEST = datetime(1971, 1, 1)  # noqa: DTZ001 - hypothesis adds the zone
LATEST = datetime(2500, 1, 1)  # noqa: DTZ001
moments = st.datetimes(EARLIEST, LATEST, timezones=st.just(timezone.utc))
shares = st.one_of(
    st.floats(0, 0.5, exclude_min=True),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=40_000)),
)
policies = st.builds(RotationPolicy, renew_before=shares, critical_before=shares)
lifetimes = st.timedeltas(timedelta(seconds=1), timedelta(days=4000))
zones = st.sampled_from(sorted(available_timezones()))
ORDER = list(TokenState)


def claims_of(issued_at: datetime, lifetime: timedelta) -> Claims:
    return Claims("0" * 64, "RS256", issued_at, issued_at, issued_at + lifetime)


@pytest.fixture
def local_zone(monkeypatch):
    """Set the zone of this process."""

    def choose(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


@given(moments, lifetimes, policies, moments, moments)
def test_decide_is_total_and_monotone_in_now(issued_at, lifetime, policy, one, other):
    """Any token has a state at any time, and time only ever brings it closer to its end."""
    claims = claims_of(issued_at, lifetime)
    earlier, later = sorted([one, other])
    states = [decide(claims, policy, now).state for now in (earlier, later)]
    assert ORDER.index(states[0]) <= ORDER.index(states[1])


@given(moments, lifetimes, policies)
def test_a_fresh_token_is_never_due(issued_at, lifetime, policy):
    """No policy renews a token at its birth, so that no issuer can make it a loop."""
    claims = claims_of(issued_at, lifetime)
    assert decide(claims, policy, issued_at).state is TokenState.HEALTHY


@given(moments, lifetimes, policies)
def test_due_comes_before_critical_before_expiry(issued_at, lifetime, policy):
    """There is always a time to renew before a failure is critical, or at the latest then."""
    decision = decide(claims_of(issued_at, lifetime), policy, issued_at)
    assert decision.renew_at <= decision.critical_at <= issued_at + lifetime


@given(moments, lifetimes, policies, moments, zones)
def test_the_zone_of_now_does_not_matter(issued_at, lifetime, policy, now, zone):
    """A moment is the same moment on every clock of the world."""
    claims = claims_of(issued_at, lifetime)
    assert decide(claims, policy, now.astimezone(ZoneInfo(zone))) == decide(claims, policy, now)


@pytest.mark.parametrize(
    "zone", ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
)
def test_the_zone_of_the_machine_does_not_matter(zone, local_zone):
    """The same token is due at the same moment under every TZ."""
    local_zone(zone)
    issued_at = datetime(2026, 11, 1, tzinfo=timezone.utc)
    decision = decide(claims_of(issued_at, timedelta(days=3)), RotationPolicy(), issued_at)
    assert decision.renew_at == datetime(2026, 11, 3, tzinfo=timezone.utc)
    assert decision.message == "Renewal is due at 2026-11-03 00:00:00 UTC."
    assert os.environ["TZ"] == zone


@pytest.mark.parametrize(
    ("zone", "edge"),
    [
        ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=timezone.utc)),
        ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=timezone.utc)),
        ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=timezone.utc)),
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=timezone.utc)),
    ],
)
def test_a_clock_change_moves_no_threshold(zone, edge):
    """Around the hour that is skipped or repeated, every minute is decided as in UTC."""
    claims = claims_of(edge - timedelta(hours=2), timedelta(hours=3))
    policy = RotationPolicy()
    for minutes in range(-120, 121):
        now = edge + timedelta(minutes=minutes)
        local = now.astimezone(ZoneInfo(zone))
        assert decide(claims, policy, local) == decide(claims, policy, now)


def test_states_change_exactly_at_their_thresholds(make_claims, noon):
    """A third before its expiry a token is due, a tenth before critical, at `exp` expired."""
    claims = make_claims(lifetime=timedelta(hours=30))
    for hours, before, at in (
        (20, TokenState.HEALTHY, TokenState.DUE),
        (27, TokenState.DUE, TokenState.CRITICAL),
        (30, TokenState.CRITICAL, TokenState.EXPIRED),
    ):
        edge = noon + timedelta(hours=hours)
        just_before = decide(claims, RotationPolicy(), edge - timedelta(seconds=1))
        assert (just_before.state, just_before.due) == (before, before is not TokenState.HEALTHY)
        assert decide(claims, RotationPolicy(), edge).state is at


def test_a_duration_longer_than_half_the_lifetime_counts_as_half(make_claims, noon):
    """`renew_before` of a day does not make a two-hour token due at birth."""
    policy = RotationPolicy(renew_before=timedelta(days=1))
    decision = decide(make_claims(lifetime=timedelta(hours=2)), policy, noon)
    assert decision.renew_at == noon + timedelta(hours=1)


def test_a_naive_time_is_refused(make_claims):
    """A time that means another moment on each machine decides nothing."""
    with pytest.raises(ValueError, match="aware"):
        decide(make_claims(), RotationPolicy(), datetime(2026, 11, 23))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("renew_before", 0),
        ("renew_before", 0.51),
        ("renew_before", float("nan")),
        ("renew_before", True),
        ("renew_before", timedelta(0)),
        ("critical_before", -0.1),
        ("critical_before", timedelta(seconds=-1)),
        ("minimum_gain", 1),
        ("leeway", timedelta(seconds=-1)),
        ("lifetime_minutes", 0),
        ("lifetime_minutes", True),
    ],
)
def test_a_setting_out_of_range_is_named(setting, value):
    """A wrong setting is refused where it is made, by its name."""
    with pytest.raises(Misconfigured, match=f"`{setting}`") as refusal:
        RotationPolicy(**{setting: value})
    assert refusal.value.hint
