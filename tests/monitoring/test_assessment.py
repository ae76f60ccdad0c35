"""The severity rule for tokens and rotation DAGs, and the forecast."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.assessment import (
    State,
    Thresholds,
    assess,
    assess_token,
    most_severe,
)
from flowauth_rotator.monitoring.status import (
    CheckResult,
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
)

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
CHECK = timedelta(minutes=5)
DAG = "flowauth_token_rotation"
GONE = CheckResult("expired", Severity.CRITICAL, "It was not renewed in time.")
NEXT = "The next check, at 2026-11-25 12:05 UTC"


def validity(left, lifetime=30 * DAY, window=10 * DAY):
    """A token with so much left at noon."""
    expires_at = NOON + left
    return Validity(expires_at - lifetime, expires_at, expires_at - window)


def checked(severity, message="It said so.", hint=""):
    return CheckResult("refused", severity, message, hint)


def dag(condition="ok", **others):
    times = {
        "checked_at": NOON - CHECK / 2,
        "deadline_at": NOON + 2 * CHECK,
        "next_check_at": NOON + CHECK / 2,
        "interval": CHECK,
        "grace_period": 2.5 * CHECK,
    }
    return RotationDagStatus(DAG, condition, **{**times, **others})


def snapshot(*tokens, rotation_dags=None, **others):
    return Snapshot(
        NOON, tokens, rotation_dags=[dag()] if rotation_dags is None else rotation_dags, **others
    )


def state_of(token, thresholds=None):
    [assessed] = assess(snapshot(token), thresholds).tokens
    return assessed.status.state


@pytest.mark.parametrize(
    ("left", "state"),
    [
        (30 * DAY, State.OK),
        (10 * DAY, State.OK),  # due
        (6 * DAY, State.OK),
        (6 * DAY - SECOND, State.WARNING),
        (3 * DAY, State.WARNING),
        (3 * DAY - SECOND, State.CRITICAL),
        (timedelta(0), State.CRITICAL),
        (-SECOND, State.CRITICAL),
        (-365 * DAY, State.CRITICAL),  # it does not go away at the expiry, nor later
    ],
)
def test_the_time_that_is_left_decides(left, state):
    """Of a window of ten days: a warning below six, critical below three."""
    assert state_of(TokenStatus("etl", in_use=validity(left))) is state


@pytest.mark.parametrize(
    ("left", "state"), [(20 * DAY, State.OK), (17 * DAY, State.WARNING), (8 * DAY, State.CRITICAL)]
)
def test_a_renewal_that_would_come_too_late_is_none(left, state):
    """No policy says so, but an Airflow elsewhere may: of 30 days a warning below 18, then 9."""
    assert state_of(TokenStatus("etl", in_use=validity(left, window=-DAY))) is state


@given(
    lifetime=st.timedeltas(timedelta(minutes=1), 3650 * DAY),
    due=st.floats(0.001, 0.5),
    warning=st.floats(0.001, 1),
    passed=st.floats(0, 1),
)
def test_no_fraction_warns_before_the_renewal_is_due(lifetime, due, warning, passed):
    """Or every token would be a warning once in its life."""
    window = lifetime * due
    token = TokenStatus(
        "etl", in_use=validity(window + (lifetime - window) * passed, lifetime, window)
    )
    assert state_of(token, Thresholds(warning, warning / 2)) is State.OK


times_left = st.timedeltas(-5 * DAY, 40 * DAY)


@given(sooner=times_left, later=times_left, severity=st.sampled_from(Severity))
def test_a_token_only_gets_worse_as_time_passes(sooner, later, severity):
    """Until there is another one."""
    sooner, later = sorted((sooner, later))
    worse, better = (
        state_of(TokenStatus("etl", in_use=validity(left), last_check=checked(severity)))
        for left in (sooner, later)
    )
    assert worse.rank >= better.rank


def test_a_duration_takes_the_place_of_a_fraction():
    """For those who have a rule of their own; a critical one is never before the warning."""
    fixed = Thresholds(2 * DAY, DAY)
    assert state_of(TokenStatus("etl", in_use=validity(2 * DAY)), fixed) is State.OK
    assert state_of(TokenStatus("etl", in_use=validity(2 * DAY - SECOND)), fixed) is State.WARNING
    assert state_of(TokenStatus("etl", in_use=validity(DAY - SECOND)), fixed) is State.CRITICAL
    mixed = Thresholds(DAY, 0.5)
    assert mixed.resolve(validity(DAY)) == (DAY, DAY)


@pytest.mark.parametrize(
    ("warning", "critical"),
    [
        (0, 0.3),
        (1.1, 0.3),
        (0.6, -1),
        (float("nan"), 0.3),
        (timedelta(0), 0.3),
        (0.3, 0.6),
        (HOUR, DAY),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(warning, critical):
    """With the one that is wrong."""
    with pytest.raises(Misconfigured, match=r"`(warning|critical)`"):
        Thresholds(warning, critical)


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("left", [30 * DAY, 5 * DAY, DAY])
def test_the_more_severe_of_time_and_failure_counts(severity, left):
    """A failed rotation keeps its severity, and hides no expiry."""
    alone = state_of(TokenStatus("etl", in_use=validity(left)))
    both = state_of(TokenStatus("etl", in_use=validity(left), last_check=checked(severity)))
    assert both is most_severe(alone, State[severity.name])


def test_why_a_rotation_failed_is_in_the_sentence():
    """And what to do about it in the hint."""
    token = TokenStatus(
        "etl",
        in_use=validity(DAY),
        last_check=checked(Severity.CRITICAL, "No role.", "Grant it one."),
    )
    [assessed] = assess(snapshot(token)).tokens
    assert assessed.status.summary == "expires in 1 d (2026-11-26 12:00 UTC); refused: No role."
    assert assessed.status.hint == "Grant it one."


def test_an_unreadable_token_has_the_severity_of_its_report():
    """Missing and malformed tokens are critical."""
    token = TokenStatus(
        "etl", last_check=CheckResult("missing", Severity.CRITICAL, "There is none.", "Store one.")
    )
    [assessed] = assess(snapshot(token)).tokens
    assert assessed.status.state is State.CRITICAL
    assert assessed.status.summary == "There is none."


def test_a_token_of_which_nothing_is_known_is_unknown():
    """It is not OK."""
    assert state_of(TokenStatus("etl")) is State.UNKNOWN


class TestNotInUse:
    """Two facts, never mixed: the token in use, and the newest that the issuer holds."""

    @pytest.mark.parametrize(
        ("age", "state"),
        [(timedelta(0), State.OK), (2.5 * CHECK, State.OK), (2.5 * CHECK + SECOND, State.WARNING)],
    )
    def test_a_newer_token_may_wait_for_two_checks(self, age, state):
        """During a rotation there are two; the next check adopts the newer one."""
        newer = Validity(NOON - age, NOON + 40 * DAY)
        assert (
            state_of(TokenStatus("etl", in_use=validity(20 * DAY), issued=newer, dag_id=DAG))
            is state
        )

    def test_the_one_in_use_is_not_newer_than_itself(self):
        """However long ago it was issued."""
        same = validity(20 * DAY)
        assert (
            state_of(TokenStatus("etl", in_use=same, issued=replace(same, renew_at=None)))
            is State.OK
        )

    def test_a_newer_one_saves_no_token_that_is_about_to_expire(self):
        """Airflow uses the old one."""
        newer = Validity(NOON, NOON + 40 * DAY)
        assert state_of(TokenStatus("etl", in_use=validity(DAY), issued=newer)) is State.CRITICAL

    def test_a_snapshot_of_an_issuer_is_assessed_by_its_newest_token(self):
        """It does not contain the token in use."""
        [assessed] = assess(Snapshot(NOON, [TokenStatus("etl", issued=validity(5 * DAY))])).tokens
        assert assessed.status.state is State.WARNING

    def test_an_issuer_that_does_not_respond_makes_it_unknown_but_hides_nothing(self):
        """What is in use is known all the same."""
        well, bad = (
            TokenStatus("well", in_use=validity(20 * DAY)),
            TokenStatus("bad", in_use=validity(DAY)),
        )
        assert assess(snapshot(well, issuer_trouble="No answer.")).state is State.UNKNOWN
        assert assess(snapshot(well, bad, issuer_trouble="No answer.")).state is State.CRITICAL


class TestRotationDags:
    """One state for all DAGs, also without any token."""

    @pytest.mark.parametrize(
        ("condition", "state"),
        [
            ("ok", State.OK),
            ("new", State.WARNING),
            ("failed", State.WARNING),
            ("late", State.CRITICAL),
            ("paused", State.CRITICAL),
            ("misconfigured", State.CRITICAL),
            ("missing", State.CRITICAL),
            ("broken", State.CRITICAL),
        ],
    )
    def test_each_condition_has_its_state(self, condition, state):
        """Whatever keeps tokens from being renewed is critical."""
        assert assess(snapshot(rotation_dags=[dag(condition)])).dags.state is state

    def test_checks_that_fail_until_two_are_missed_are_critical(self):
        """One failure may pass."""
        failing = dag("failed", deadline_at=NOON - SECOND)
        assert assess(snapshot(rotation_dags=[failing])).dags.state is State.CRITICAL

    def test_an_airflow_without_a_dag_is_critical(self):
        """Else deleting it would be the way to be green."""
        assert assess(snapshot(rotation_dags=[])).dags.state is State.CRITICAL

    def test_the_most_severe_of_several_counts_and_is_named_first(self):
        """Each has its clause."""
        ailing = replace(dag("paused", hint="Unpause it."), dag_id="second")
        status = assess(snapshot(rotation_dags=[dag(), ailing])).dags
        assert status.state is State.CRITICAL
        assert status.summary.startswith("second: paused")
        assert f"{DAG}: last check" in status.summary

    def test_a_snapshot_of_an_issuer_has_no_state_of_dags(self):
        """An issuer knows of none."""
        assert assess(Snapshot(NOON, [])).dags is None


class TestNames:
    """A requested name always has a state."""

    def test_a_name_that_is_gone_is_critical(self):
        """Otherwise its service would vanish without a notification."""
        selected = snapshot(TokenStatus("etl", in_use=validity(20 * DAY))).select(["gone", "etl"])
        states = {token.token.name: token.status.state for token in assess(selected).tokens}
        assert states == {"gone": State.CRITICAL, "etl": State.OK}

    @pytest.mark.parametrize("by_name", [False, True], ids=["all", "by name"])
    @pytest.mark.parametrize(
        "worse",
        [
            TokenStatus("etl", in_use=validity(DAY)),
            TokenStatus("etl", last_check=checked(Severity.CRITICAL)),
            TokenStatus("etl", in_use=validity(25 * DAY), last_check=checked(Severity.WARNING)),
        ],
        ids=["expires", "unreadable", "failed"],
    )
    def test_of_two_tokens_of_one_name_the_more_severe_counts(self, worse, by_name):
        """There is one service a name; also where the other one expires first and is well."""
        better = TokenStatus("etl", in_use=validity(20 * DAY))
        for tokens in ((better, worse), (worse, better)):
            both = snapshot(*tokens)
            [assessed] = assess(both.select(["etl"]) if by_name else both).tokens
            assert assessed.token is worse


class TestForecast:
    """One sentence on the next check and the renewal."""

    @pytest.mark.parametrize(
        ("token", "beat", "sentence"),
        [
            (
                TokenStatus("etl", in_use=validity(20 * DAY), renewal_check_at=NOON + 10 * DAY),
                dag(next_check_at=NOON + CHECK),
                f"{NEXT}, leaves the token unchanged; the check at 2026-12-05 12:00 UTC renews it.",
            ),
            (
                TokenStatus(
                    "etl", in_use=validity(10 * DAY + SECOND), renewal_check_at=NOON + CHECK
                ),
                dag(next_check_at=NOON + CHECK),
                f"{NEXT}, renews the token.",
            ),
            (
                TokenStatus("etl", in_use=validity(9 * DAY)),
                dag(next_check_at=NOON + CHECK),
                f"{NEXT}, renews the token.",
            ),
            (
                TokenStatus("etl", in_use=validity(20 * DAY)),
                dag(next_check_at=None),
                "Renewal is due at 2026-12-05 12:00 UTC.",
            ),
            (
                TokenStatus("etl", in_use=validity(9 * DAY)),
                dag("paused", hint="Unpause it."),
                f"The token is not being renewed. {DAG}: Unpause it.",
            ),
            (
                TokenStatus("etl", in_use=validity(9 * DAY), last_check=checked(Severity.WARNING)),
                dag(next_check_at=NOON + CHECK),
                f"{NEXT}, tries to renew the token.",
            ),
            (
                TokenStatus("etl", in_use=validity(-DAY), last_check=GONE),
                dag(next_check_at=NOON + CHECK),
                "The issuer no longer renews this token.",
            ),
            (
                TokenStatus("etl", last_check=checked(Severity.CRITICAL)),
                dag(next_check_at=NOON + CHECK),
                f"{NEXT}, reads the token again.",
            ),
        ],
    )
    def test_the_forecast_names_the_next_check(self, token, beat, sentence):
        """And the check that will renew the token."""
        [assessed] = assess(snapshot(replace(token, dag_id=DAG), rotation_dags=[beat])).tokens
        assert assessed.forecast == sentence


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        (20 * DAY, "Renewal is due at 2026-12-05 12:00 UTC."),
        (9 * DAY, "Renewal has been due since 2026-11-24 12:00 UTC."),
    ],
)
def test_the_forecast_for_an_issuer_is_the_time_of_the_renewal(left, sentence):
    """An issuer does not know the next check."""
    [assessed] = assess(Snapshot(NOON, [TokenStatus("etl", issued=validity(left))])).tokens
    assert assessed.forecast == sentence


def test_a_naive_time_is_refused():
    """It would be another moment in every zone."""
    with pytest.raises(ValueError, match="naive"):
        assess_token(TokenStatus("etl"), validity(DAY), Thresholds(), NOON.replace(tzinfo=None))
