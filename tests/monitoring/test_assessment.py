"""The one rule by which every monitoring system learns how a token and the agent are."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring.assessment import State, Thresholds, assess, judge, loudest
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Told, Watched

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
CHECK = timedelta(minutes=5)
DAG = "flowauth_token_rotation"
GONE = Told("expired", Severity.CRITICAL, "It was not renewed in time.")
NEXT = "The next check, at 2026-11-25 12:05 UTC"


def life(left, lifetime=30 * DAY, window=10 * DAY):
    """A token with so much left at noon."""
    expires_at = NOON + left
    return Life(expires_at - lifetime, expires_at, expires_at - window)


def told(severity, reason="It said so.", advice=""):
    return Told("refused", severity, reason, advice)


def agent(condition="ok", **others):
    times = {
        "checked_at": NOON - CHECK / 2,
        "deadline_at": NOON + 2 * CHECK,
        "next_check_at": NOON + CHECK / 2,
        "interval": CHECK,
        "patience": 2.5 * CHECK,
    }
    return Heartbeat(DAG, condition, **{**times, **others})


def found(*tokens, agents=None, **others):
    return Snapshot(NOON, tokens, agents=[agent()] if agents is None else agents, **others)


def state_of(token, thresholds=None):
    [judged] = assess(found(token), thresholds).tokens
    return judged.verdict.state


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
    assert state_of(Watched("etl", in_use=life(left))) is state


@pytest.mark.parametrize(
    ("left", "state"), [(20 * DAY, State.OK), (17 * DAY, State.WARNING), (8 * DAY, State.CRITICAL)]
)
def test_a_renewal_that_would_come_too_late_is_none(left, state):
    """No policy says so, but an Airflow elsewhere may: of 30 days a warning below 18, then 9."""
    assert state_of(Watched("etl", in_use=life(left, window=-DAY))) is state


@given(
    lifetime=st.timedeltas(timedelta(minutes=1), 3650 * DAY),
    due=st.floats(0.001, 0.5),
    warning=st.floats(0.001, 1),
    passed=st.floats(0, 1),
)
def test_no_fraction_warns_before_the_renewal_is_due(lifetime, due, warning, passed):
    """Or every token would be a warning once in its life."""
    window = lifetime * due
    token = Watched("etl", in_use=life(window + (lifetime - window) * passed, lifetime, window))
    assert state_of(token, Thresholds(warning, warning / 2)) is State.OK


times_left = st.timedeltas(-5 * DAY, 40 * DAY)


@given(sooner=times_left, later=times_left, severity=st.sampled_from(Severity))
def test_a_token_only_gets_worse_as_time_passes(sooner, later, severity):
    """Until there is another one."""
    sooner, later = sorted((sooner, later))
    worse, better = (
        state_of(Watched("etl", in_use=life(left), told=told(severity))) for left in (sooner, later)
    )
    assert worse.loudness >= better.loudness


def test_a_duration_takes_the_place_of_a_fraction():
    """For those who have a rule of their own; a critical one is never before the warning."""
    fixed = Thresholds(2 * DAY, DAY)
    assert state_of(Watched("etl", in_use=life(2 * DAY)), fixed) is State.OK
    assert state_of(Watched("etl", in_use=life(2 * DAY - SECOND)), fixed) is State.WARNING
    assert state_of(Watched("etl", in_use=life(DAY - SECOND)), fixed) is State.CRITICAL
    mixed = Thresholds(DAY, 0.5)
    assert mixed.of(life(DAY)) == (DAY, DAY)


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
def test_the_louder_of_time_and_failure_counts(severity, left):
    """A failed rotation is told as loud as it is, and hides no expiry."""
    alone = state_of(Watched("etl", in_use=life(left)))
    both = state_of(Watched("etl", in_use=life(left), told=told(severity)))
    assert both is loudest(alone, State[severity.name])


def test_why_a_rotation_failed_is_in_the_sentence():
    """And what to do about it in the advice."""
    token = Watched(
        "etl", in_use=life(DAY), told=told(Severity.CRITICAL, "No role.", "Grant it one.")
    )
    [judged] = assess(found(token)).tokens
    assert judged.verdict.sentence == "expires in 1 d (2026-11-26 12:00 UTC); refused: No role."
    assert judged.verdict.advice == "Grant it one."


def test_a_token_that_nobody_can_read_is_as_bad_as_its_report_says():
    """Missing and malformed ones are critical; the check knows it."""
    token = Watched("etl", told=Told("missing", Severity.CRITICAL, "There is none.", "Store one."))
    [judged] = assess(found(token)).tokens
    assert judged.verdict.state is State.CRITICAL
    assert judged.verdict.sentence == "There is none."


def test_a_token_of_which_nothing_is_known_is_unknown():
    """It is not OK."""
    assert state_of(Watched("etl")) is State.UNKNOWN


class TestNotInUse:
    """Two facts, never mixed: the token in use, and the newest that the issuer holds."""

    @pytest.mark.parametrize(
        ("age", "state"),
        [(timedelta(0), State.OK), (2.5 * CHECK, State.OK), (2.5 * CHECK + SECOND, State.WARNING)],
    )
    def test_a_newer_token_may_wait_for_two_checks(self, age, state):
        """During a rotation there are two; the agent takes the newer one at the next check."""
        newer = Life(NOON - age, NOON + 40 * DAY)
        assert state_of(Watched("etl", in_use=life(20 * DAY), issued=newer, dag_id=DAG)) is state

    def test_the_one_in_use_is_not_newer_than_itself(self):
        """However long ago it was issued."""
        same = life(20 * DAY)
        assert (
            state_of(Watched("etl", in_use=same, issued=replace(same, renew_at=None))) is State.OK
        )

    def test_a_newer_one_saves_no_token_that_is_about_to_expire(self):
        """Airflow uses the old one."""
        newer = Life(NOON, NOON + 40 * DAY)
        assert state_of(Watched("etl", in_use=life(DAY), issued=newer)) is State.CRITICAL

    def test_an_issuer_that_is_asked_alone_is_judged_by_its_newest(self):
        """Nobody knows which token is in use."""
        [judged] = assess(Snapshot(NOON, [Watched("etl", issued=life(5 * DAY))])).tokens
        assert judged.verdict.state is State.WARNING

    def test_an_issuer_that_does_not_answer_makes_it_unknown_but_hides_nothing(self):
        """What is in use is known all the same."""
        well, bad = Watched("well", in_use=life(20 * DAY)), Watched("bad", in_use=life(DAY))
        assert assess(found(well, issuer_trouble="No answer.")).state is State.UNKNOWN
        assert assess(found(well, bad, issuer_trouble="No answer.")).state is State.CRITICAL


class TestAgent:
    """The heartbeat: one state for all DAGs, also without any token."""

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
        assert assess(found(agents=[agent(condition)])).agent.state is state

    def test_checks_that_fail_until_two_are_missed_are_critical(self):
        """One failure may pass."""
        failing = agent("failed", deadline_at=NOON - SECOND)
        assert assess(found(agents=[failing])).agent.state is State.CRITICAL

    def test_an_airflow_without_a_dag_is_critical(self):
        """Else deleting it would be the way to be green."""
        assert assess(found(agents=[])).agent.state is State.CRITICAL

    def test_the_loudest_of_several_counts_and_is_named_first(self):
        """Each has its clause."""
        ailing = replace(agent("paused", sentence="Unpause it."), dag_id="second")
        verdict = assess(found(agents=[agent(), ailing])).agent
        assert verdict.state is State.CRITICAL
        assert verdict.sentence.startswith("second: paused")
        assert f"{DAG}: last check" in verdict.sentence

    def test_an_agent_that_nobody_asked_for_is_not_judged(self):
        """An issuer knows of none."""
        assert assess(Snapshot(NOON, [])).agent is None


class TestNames:
    """What is asked for by name is always answered."""

    def test_a_name_that_is_gone_is_critical(self):
        """Or its service would vanish, and nobody would be called."""
        asked = found(Watched("etl", in_use=life(20 * DAY))).named(["gone", "etl"])
        states = {it.token.name: it.verdict.state for it in assess(asked).tokens}
        assert states == {"gone": State.CRITICAL, "etl": State.OK}

    @pytest.mark.parametrize("asked", [False, True], ids=["all", "by name"])
    @pytest.mark.parametrize(
        "worse",
        [
            Watched("etl", in_use=life(DAY)),
            Watched("etl", told=told(Severity.CRITICAL)),
            Watched("etl", in_use=life(25 * DAY), told=told(Severity.WARNING)),
        ],
        ids=["expires", "unreadable", "failed"],
    )
    def test_of_two_tokens_of_one_name_the_louder_counts(self, worse, asked):
        """There is one service a name; also where the other one expires first and is well."""
        better = Watched("etl", in_use=life(20 * DAY))
        for tokens in ((better, worse), (worse, better)):
            both = found(*tokens)
            [judged] = assess(both.named(["etl"]) if asked else both).tokens
            assert judged.token is worse


class TestOutlook:
    """When exactly will it renew? One sentence."""

    @pytest.mark.parametrize(
        ("token", "beat", "sentence"),
        [
            (
                Watched("etl", in_use=life(20 * DAY), renewal_check_at=NOON + 10 * DAY),
                agent(next_check_at=NOON + CHECK),
                f"{NEXT}, leaves it as it is; the one at 2026-12-05 12:00 UTC renews it.",
            ),
            (
                Watched("etl", in_use=life(10 * DAY + SECOND), renewal_check_at=NOON + CHECK),
                agent(next_check_at=NOON + CHECK),
                f"{NEXT}, renews it.",
            ),
            (
                Watched("etl", in_use=life(9 * DAY)),
                agent(next_check_at=NOON + CHECK),
                f"{NEXT}, renews it.",
            ),
            (
                Watched("etl", in_use=life(20 * DAY)),
                agent(next_check_at=None),
                "Renewal is due from 2026-12-05 12:00 UTC on.",
            ),
            (
                Watched("etl", in_use=life(9 * DAY)),
                agent("paused", sentence="Unpause it."),
                f"Nothing renews it. {DAG}: Unpause it.",
            ),
            (
                Watched("etl", in_use=life(9 * DAY), told=told(Severity.WARNING)),
                agent(next_check_at=NOON + CHECK),
                f"{NEXT}, tries to renew it.",
            ),
            (
                Watched("etl", in_use=life(-DAY), told=GONE),
                agent(next_check_at=NOON + CHECK),
                "The issuer renews it no more.",
            ),
            (
                Watched("etl", told=told(Severity.CRITICAL)),
                agent(next_check_at=NOON + CHECK),
                f"{NEXT}, looks again.",
            ),
        ],
    )
    def test_it_is_said_what_the_next_check_does(self, token, beat, sentence):
        """By Airflow's own clock of runs."""
        [judged] = assess(found(replace(token, dag_id=DAG), agents=[beat])).tokens
        assert judged.outlook == sentence


def test_a_naive_time_is_refused():
    """It would be another moment in every zone."""
    with pytest.raises(ValueError, match="naive"):
        judge(Watched("etl"), life(DAY), Thresholds(), NOON.replace(tzinfo=None))
