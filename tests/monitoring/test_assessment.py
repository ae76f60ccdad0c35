"""The severity rule for tokens and rotation DAGs, and the forecast."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Outcome, Severity, most_severe
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.dag_assessment import Condition
from flowauth_rotator.monitoring.status import (
    DEFAULT_GRACE_PERIOD,
    Event,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
)
from flowauth_rotator.monitoring.thresholds import Thresholds
from tests.monitoring import hostile

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECOND = timedelta(seconds=1)
CHECK = timedelta(minutes=5)
DAG = "flowauth_token_rotation"
FINGERPRINT = "0123abcd"
OK, WARNING, CRITICAL, UNKNOWN = Severity


def token(left=20 * DAY, lifetime=30 * DAY, window=10 * DAY, **facts):
    """A token with so much left at noon, whose renewal is due `window` before its expiry."""
    expires_at = NOON + left
    times = {
        "issued_at": expires_at - lifetime,
        "renew_at": expires_at - window,
        "critical_at": expires_at - window / 4,
        "expires_at": expires_at,
        "fingerprint": FINGERPRINT,
    }
    return TokenStatus(**{"name": "etl", "variable": "ETL", "dag_id": DAG, **times, **facts})


def event(outcome="refused", severity=CRITICAL, message="It said so.", hint="", **facts):
    return Event(NOON, outcome, severity, message, hint, **{"fingerprint": FINGERPRINT, **facts})


def dag(**facts):
    times = {
        "checked_at": NOON - CHECK / 2,
        "deadline_at": NOON + 2 * CHECK,
        "next_check_at": NOON + CHECK,
        "interval": CHECK,
        "grace_period": 2.5 * CHECK,
    }
    return RotationDagStatus(**{"dag_id": DAG, **times, **facts})


def assess_all(*tokens, dags=None, thresholds=None, now=NOON, **facts):
    dags = [dag()] if dags is None else dags
    return assess(StatusDocument(dags, tokens, **facts), now, thresholds)


def assess_one(one, **facts):
    [assessed] = assess_all(one, **facts).tokens
    return assessed


def issued(*tokens, **facts):
    """The assessment of an issuer's list."""
    tokens = [replace(each, variable=None, dag_id=None) for each in tokens]
    return assess(StatusDocument(None, tokens, issuer="https://x.example.org", **facts), NOON)


@given(hostile.documents, hostile.times, hostile.thresholds)
def test_any_document_can_be_assessed(document, now, thresholds):
    """Every token and DAG has a verdict, and the whole is as severe as the most severe of them."""
    assessment = assess(document, now, thresholds)
    assert len(assessment.tokens) == len(document.tokens)
    assert len(assessment.dags or ()) == len(document.dags or ())
    for each in assessment.tokens:
        assert 0 <= each.used <= 1
        assert assessment.severity.rank >= each.severity.rank
        assert assessment.by_name[each.token.name].severity.rank >= each.severity.rank


class TestRemainingLifetime:
    """The renewal window is the time from due to expiry; thresholds are fractions of it."""

    @pytest.mark.parametrize(
        ("left", "severity"),
        [
            (30 * DAY, OK),
            (10 * DAY, OK),  # due
            (6 * DAY, OK),
            (6 * DAY - SECOND, WARNING),
            (3 * DAY, WARNING),
            (3 * DAY - SECOND, CRITICAL),
            (timedelta(0), CRITICAL),
            (-SECOND, CRITICAL),
            (-365 * DAY, CRITICAL),  # it does not resolve at the expiry, nor later
        ],
    )
    def test_it_decides(self, left, severity):
        """Of a window of ten days: a warning below six, critical below three."""
        assert assess_one(token(left)).severity is severity

    @pytest.mark.parametrize(
        ("left", "severity"), [(20 * DAY, OK), (17 * DAY, WARNING), (8 * DAY, CRITICAL)]
    )
    def test_without_a_renewal_before_the_expiry_the_whole_lifetime_counts(self, left, severity):
        """Of 30 days a warning below 18, critical below 9."""
        assert assess_one(token(left, window=-DAY)).severity is severity
        assert assess_one(token(left, renew_at=None)).severity is severity

    @given(
        lifetime=st.timedeltas(timedelta(minutes=1), 3650 * DAY),
        due=st.floats(0.001, 0.5),
        warning=st.floats(0.001, 1),
        passed=st.floats(0, 1),
    )
    def test_no_fraction_warns_before_the_renewal_is_due(self, lifetime, due, warning, passed):
        """Otherwise every token would be a warning once in its life."""
        window = lifetime * due
        one = token(window + (lifetime - window) * passed, lifetime, window)
        assert assess_one(one, thresholds=Thresholds(warning, warning / 2)).severity is OK

    @given(
        sooner=st.timedeltas(-5 * DAY, 40 * DAY),
        later=st.timedeltas(-5 * DAY, 40 * DAY),
        severity=st.sampled_from(Severity),
    )
    def test_a_token_only_gets_worse_as_time_passes(self, sooner, later, severity):
        """Until it is replaced."""
        one = token(10 * DAY, last_check=event(severity=severity))
        better, worse = (
            assess_one(one, now=NOON + passed).severity for passed in sorted((sooner, later))
        )
        assert worse.rank >= better.rank

    def test_a_duration_replaces_a_fraction(self):
        """The critical threshold is never above the warning."""
        fixed = Thresholds(2 * DAY, DAY)
        for left, severity in (
            (2 * DAY, OK),
            (2 * DAY - SECOND, WARNING),
            (DAY - SECOND, CRITICAL),
        ):
            assert assess_one(token(left), thresholds=fixed).severity is severity
        assert Thresholds(DAY, 0.5).resolve(token(DAY)) == (DAY, DAY)
        assert str(Thresholds(2 * DAY, 0.25)) == (
            "warning below 2 d, critical below 0.25 of the renewal window"
        )

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
    def test_an_invalid_threshold_is_rejected(self, warning, critical):
        with pytest.raises(Misconfigured, match=r"`(warning|critical)`"):
            Thresholds(warning, critical)

    def test_the_message_says_when(self):
        assert assess_one(token(3 * DAY + 4 * HOUR)).verdict.message == (
            "Expires in 3 d 4 h (2026-11-28 16:00 UTC)"
        )
        assert assess_one(token(-HOUR)).verdict.message == "Expired 1 h ago (2026-11-25 11:00 UTC)"

    def test_the_used_lifetime_has_the_same_levels(self):
        """A system with upper levels alone changes the severity at the same moment."""
        assessed = assess_one(token(15 * DAY))
        assert assessed.used == pytest.approx(0.5)
        assert assessed.used_levels == pytest.approx((0.8, 0.9))
        assert assess_one(TokenStatus("etl")).used_levels == (0.0, 0.0)

    @pytest.mark.parametrize(
        ("left", "state"),
        [(20 * DAY, "healthy"), (10 * DAY, "due"), (2 * DAY, "critical"), (-DAY, "expired")],
    )
    def test_the_state_is_that_of_the_policy(self, left, state):
        assert assess_one(token(left)).state == state


class TestLastResult:
    """A failed check or rotation of the token in use."""

    @pytest.mark.parametrize("severity", list(Severity))
    @pytest.mark.parametrize("left", [30 * DAY, 5 * DAY, DAY])
    def test_the_more_severe_of_lifetime_and_failure_counts(self, severity, left):
        """A failure keeps its severity, and hides no expiry."""
        alone = assess_one(token(left)).severity
        both = assess_one(token(left, last_check=event(severity=severity))).severity
        assert both is most_severe(alone, severity)

    def test_the_message_and_the_hint_are_those_of_the_failure(self):
        failure = event(message="No role.", hint="Grant it one.")
        assessed = assess_one(token(DAY, last_check=failure))
        assert assessed.verdict.message == (
            "Expires in 1 d (2026-11-26 12:00 UTC); refused: No role"
        )
        assert assessed.verdict.hint == "Grant it one."
        assert assessed.state == "refused"

    def test_a_failure_with_an_earlier_token_does_not_count(self):
        """The operator has stored another one since."""
        assessed = assess_one(token(last_check=event(fingerprint="fedcba98")))
        assert (assessed.severity, assessed.state) == (OK, "healthy")

    def test_a_healthy_token_whose_clock_is_wrong_is_a_warning(self):
        result = event("healthy", WARNING, "It is due.", "Correct the clock.")
        assessed = assess_one(token(last_check=result))
        assert assessed.severity is WARNING
        assert assessed.verdict.message.endswith("; the clocks here and at the issuer differ")
        assert (assessed.verdict.hint, assessed.state) == ("Correct the clock.", "healthy")


class TestSignature:
    """What the public key of the connection says about the token in use."""

    @pytest.mark.parametrize(
        ("signature", "severity", "clause"),
        [
            (None, OK, ")"),
            (Signature.VALID, OK, ")"),
            (Signature.INVALID, CRITICAL, "; its signature is not valid"),
            (Signature.UNVERIFIED, UNKNOWN, "; its signature is not verified"),
        ],
    )
    def test_an_altered_token_is_not_ok(self, signature, severity, clause):
        """FlowAPI rejects it, however long it would last."""
        assessed = assess_one(token(signature=signature))
        assert assessed.severity is severity
        is_invalid = signature is Signature.INVALID
        assert assessed.state == ("invalid_signature" if is_invalid else "healthy")
        assert assessed.verdict.message.endswith(clause)
        assert bool(assessed.verdict.hint) == (severity is not OK)


class TestUnreadable:
    """A token without dates."""

    @pytest.mark.parametrize(
        "facts",
        [
            {"last_check": event("missing", CRITICAL, "There is none.", "Store one.")},
            {"read_error": event("missing", CRITICAL, "There is none.", "Store one.")},
            {
                "last_check": event("malformed", CRITICAL, "Not a JWT."),
                "read_error": event("missing", CRITICAL, "There is none.", "Store one."),
            },
        ],
    )
    def test_it_has_the_verdict_of_the_error(self, facts):
        """The reader knows more than the last check."""
        assessed = assess_one(TokenStatus("etl", dag_id=DAG, **facts))
        assert (assessed.severity, assessed.state) == (CRITICAL, "missing")
        assert assessed.verdict.message == "There is none"
        assert assessed.verdict.hint == "Store one."
        assert assessed.remaining is None

    def test_the_dates_of_the_last_check_do_not_hide_that_the_token_is_gone(self):
        gone = token(read_error=event("missing", CRITICAL, "Variable ETL does not exist."))
        assert assess_one(gone).severity is CRITICAL

    def test_a_shadowed_variable_stays_shadowed(self):
        """Whatever is in it."""
        shadowed = event("shadowed", CRITICAL, "Variable ETL is set in the environment.")
        missing = event("missing", CRITICAL, "Variable ETL does not exist.")
        one = TokenStatus("etl", last_check=shadowed, read_error=missing)
        assert assess_one(one).state == "shadowed"

    @pytest.mark.parametrize("facts", [{}, {"last_check": event("rotated", OK)}])
    def test_a_token_of_which_nothing_is_known_is_unknown(self, facts):
        """It is not OK."""
        assessed = assess_one(TokenStatus("etl", **facts))
        assert (assessed.severity, assessed.state) == (UNKNOWN, "unknown")

    def test_a_token_that_no_check_has_read_yet_says_so(self):
        assessed = assess_one(TokenStatus("etl", variable="ETL_TOKEN"))
        assert assessed.verdict.message == "Not checked yet"
        assert "one of the next checks reads this one" in assessed.verdict.hint
        assert assess_one(token(), now=NOON).severity is OK, "a reader has read it"


class TestUnusedSuccessor:
    """Two facts: the token in use, and the newest that the issuer has."""

    @pytest.mark.parametrize(
        ("age", "severity"),
        [(timedelta(0), OK), (2.5 * CHECK, OK), (2.5 * CHECK + SECOND, WARNING)],
    )
    def test_a_newer_token_may_remain_unused_for_two_checks(self, age, severity):
        """During a rotation there are two; the next check adopts the newer one."""
        one = token(newest_issued_at=NOON - age, newest_issued_expires_at=NOON + 40 * DAY)
        assessed = assess_one(one)
        assert assessed.severity is severity
        assert ("is not in use" in assessed.verdict.message) == (severity is WARNING)

    def test_without_a_dag_the_default_grace_period_counts(self):
        one = token(dag_id=None, newest_issued_expires_at=NOON + 40 * DAY)
        seen = replace(one, newest_issued_at=NOON - DEFAULT_GRACE_PERIOD)
        assert assess_one(seen).severity is OK
        assert assess_one(one).severity is WARNING  # it is not known since when

    def test_the_token_in_use_is_not_newer_than_itself(self):
        one = token()
        same = replace(one, newest_issued_at=NOON - DAY, newest_issued_expires_at=one.expires_at)
        assert assess_one(same).severity is OK

    def test_a_newer_token_does_not_hide_that_the_one_in_use_expires(self):
        one = token(DAY, newest_issued_at=NOON, newest_issued_expires_at=NOON + 40 * DAY)
        assert assess_one(one).severity is CRITICAL


class TestIssuer:
    """An issuer's list has no DAGs and no token in use."""

    def test_its_tokens_are_assessed_by_their_own_dates(self):
        [assessed] = issued(token(5 * DAY)).tokens
        assert assessed.severity is WARNING

    def test_it_has_no_verdict_on_dags(self):
        assert issued(token()).dags_verdict is None
        assert issued(token()).severity is OK

    def test_an_issuer_without_tokens_is_a_warning(self):
        """It is monitored because it should have some."""
        assert issued().severity is WARNING

    def test_an_issuer_that_does_not_respond_is_unknown_but_hides_nothing(self):
        well, bad = token(name="well"), token(DAY, name="bad")
        failed = {"issuer_failure": "No response."}
        assert assess_all(well, **failed).severity is UNKNOWN
        assert assess_all(well, bad, **failed).severity is CRITICAL
        assert assess_all(well, **failed).issuer_failure.endswith(
            "could not be listed: No response"
        )
        assert assess_all(well).issuer_failure == ""


CONDITIONS = {
    Condition.OK: ({}, OK),
    Condition.EMPTY: ({"token_count": 0}, WARNING),
    Condition.NEW: ({"checked_at": None, "deadline_at": None}, WARNING),
    Condition.FAILED: (
        {"failure": event("unavailable", WARNING, "No response.", "Wait.")},
        WARNING,
    ),
    Condition.MISCONFIGURED: ({"configuration_errors": ["Entry 2 is invalid."]}, CRITICAL),
    Condition.LATE: ({"deadline_at": NOON - SECOND}, CRITICAL),
    Condition.PAUSED: ({"is_paused": True}, CRITICAL),
    Condition.MISSING: ({"exists": False}, CRITICAL),
    Condition.BROKEN: ({"has_import_error": True}, CRITICAL),
}


class TestRotationDags:
    """One verdict on all DAGs, also without any token."""

    @pytest.mark.parametrize("condition", list(Condition))
    def test_each_condition_has_its_severity(self, condition):
        """Whatever keeps tokens from being renewed is critical, with a hint."""
        facts, severity = CONDITIONS[condition]
        [assessed] = assess_all(dags=[dag(**facts)]).dags
        assert (assessed.condition, assessed.verdict.severity) == (condition, severity)
        assert bool(assessed.verdict.hint) == (condition is not Condition.OK)
        message = assessed.verdict.message
        if condition in (Condition.OK, Condition.NEW):
            assert message.startswith(("Last check 2026", "First check pending"))
        elif condition is Condition.EMPTY:
            assert message == "No tokens are managed, last check 2026-11-25 11:57 UTC"
        elif condition.has_stopped:
            assert message == f"{condition.capitalize()}: tokens are not being renewed"
        else:
            assert message == f"{condition.capitalize()}, last check 2026-11-25 11:57 UTC"

    @pytest.mark.parametrize("condition", list(Condition)[1:])
    def test_a_more_basic_condition_counts(self, condition):
        """A DAG with all faults up to this one in the list."""
        order = (
            *(Condition.EMPTY, Condition.MISCONFIGURED, Condition.LATE, Condition.NEW),
            Condition.FAILED,
            *(Condition.PAUSED, Condition.MISSING, Condition.BROKEN),
        )
        facts = {}
        for each in order[: order.index(condition) + 1]:
            facts |= CONDITIONS[each][0]
        [assessed] = assess_all(dags=[dag(**facts)]).dags
        assert assessed.condition is condition

    def test_the_hint_of_a_failure_is_its_own(self):
        [assessed] = assess_all(dags=[dag(**CONDITIONS[Condition.FAILED][0])]).dags
        assert assessed.verdict.hint == "No response. Wait."

    def test_checks_that_fail_until_two_are_missed_are_critical(self):
        failing = dag(**CONDITIONS[Condition.FAILED][0], deadline_at=NOON - SECOND)
        assert assess_all(dags=[failing]).severity is CRITICAL

    def test_an_airflow_without_a_dag_is_critical(self):
        """Otherwise deleting the DAG would resolve its alerts."""
        assert assess_all(dags=[]).dags_verdict.severity is CRITICAL

    def test_the_most_severe_of_several_counts_and_is_named_first(self):
        verdict = assess_all(dags=[dag(), dag(dag_id="second", is_paused=True)]).dags_verdict
        assert verdict.severity is CRITICAL
        assert verdict.message.startswith("second: Paused")
        assert f"{DAG}: Last check" in verdict.message
        assert verdict.hint == "second: Unpause to resume."

    @pytest.mark.parametrize("condition", list(Condition))
    @pytest.mark.parametrize(("left", "is_due"), [(20 * DAY, False), (9 * DAY, True)])
    def test_a_token_of_a_dag_that_does_not_renew_is_a_warning(self, condition, left, is_due):
        """If the DAG is paused, missing or broken, also while the token is healthy."""
        facts, _ = CONDITIONS[condition]
        assessed = assess_one(token(left), dags=[dag(**facts)])
        is_waiting = condition.has_stopped or (is_due and not condition.is_renewing)
        assert assessed.severity is (WARNING if is_waiting else OK)
        assert (f"{DAG} is {condition}" in assessed.verdict.message) == is_waiting


class TestScheduleThatIsTooSlow:
    """A token that expires before the next check can renew it is critical."""

    @pytest.mark.parametrize(
        ("left", "facts", "severity"),
        [
            (20 * DAY, {"renewal_check_at": NOON + 20 * DAY}, CRITICAL),
            (20 * DAY, {"renewal_check_at": NOON + 20 * DAY - SECOND}, OK),
            (20 * DAY, {"next_check_at": NOON + 30 * DAY}, OK),  # when it will be due is unknown
            (9 * DAY, {"next_check_at": NOON + 9 * DAY}, CRITICAL),
            (9 * DAY, {"next_check_at": NOON + 8 * DAY}, OK),
        ],
    )
    def test_it_is_critical_as_soon_as_it_is_known(self, left, facts, severity):
        assessed = assess_one(token(left, **facts))
        assert assessed.severity is severity
        if severity is CRITICAL:
            assert assessed.verdict.message.endswith("; no check can renew it before that")
            assert f"Start a run of {DAG}" in assessed.verdict.hint
            assert "expires before the check at" in assessed.forecast

    @pytest.mark.parametrize("facts", [{"is_paused": True}, {"has_import_error": True}])
    def test_a_dag_that_does_not_renew_has_no_next_check(self, facts):
        one = token(renewal_check_at=NOON + 20 * DAY)
        assessed = assess_one(one, dags=[dag(**facts)])
        assert assessed.severity is WARNING
        assert "no check can renew it" not in assessed.verdict.message


class TestSeveralDags:
    """A Variable that several DAGs manage."""

    @pytest.mark.parametrize(
        ("facts", "severity"),
        [({}, WARNING), ({"read_error": event("missing", CRITICAL, "There is none.")}, CRITICAL)],
    )
    def test_each_of_its_tokens_names_all_of_them(self, facts, severity):
        tokens = token(dag_id="second", **facts), token(dag_id="first", **facts)
        dags = [dag(dag_id="first"), dag(dag_id="second")]
        for assessed in assess_all(*tokens, dags=dags).tokens:
            assert assessed.severity is severity
            assert assessed.verdict.message.endswith("; 2 DAGs manage Variable ETL: first, second")
            assert assessed.verdict.hint == "Remove the Variable from all DAGs but one."
            assert assessed.dag_ids == ["first", "second"]

    def test_tokens_of_different_variables_may_have_different_dags(self):
        tokens = token(dag_id="first"), token(dag_id="second", variable="OTHER")
        dags = [dag(dag_id="first"), dag(dag_id="second")]
        assert assess_all(*tokens, dags=dags).severity is OK


class TestNames:
    """Tokens that share a name have one service."""

    @pytest.mark.parametrize("is_selected", [False, True], ids=["all", "by name"])
    @pytest.mark.parametrize(
        "worse",
        [
            token(DAY),
            token(15 * DAY),  # as severe, and it expires first
            TokenStatus("etl", last_check=event()),
            token(25 * DAY, last_check=event(severity=WARNING)),
        ],
        ids=["critical", "sooner", "unreadable", "failed"],
    )
    def test_the_more_severe_counts_or_the_first_to_expire(self, worse, is_selected):
        """Also where the other one expires first and is healthy; both are listed."""
        better = token(20 * DAY)
        for tokens in ((better, worse), (worse, better)):
            document = StatusDocument([dag()], tokens)
            assessment = assess(document.select(["etl"], NOON) if is_selected else document, NOON)
            assert len(assessment.tokens) == 2
            assert assessment.by_name["etl"].token is worse
            assert [each.token for each in assessment.by_severity] == [worse]

    def test_the_most_severe_comes_first_then_the_first_to_expire(self):
        """One that cannot be read has no expiry, and comes before those of its severity."""
        tokens = (
            token(8 * HOUR, name="a"),
            token(5 * DAY, name="b"),
            token(-33 * HOUR, name="c"),
            token(25 * DAY, name="d"),
            TokenStatus("e", last_check=event()),
            token(20 * DAY, name="f"),
        )
        assert [each.token.name for each in assess_all(*tokens).by_severity] == list("ecabfd")

    def test_the_details_say_that_the_name_is_a_substitute(self):
        details = assess_one(token(name="ETL", name_is_known=False)).details
        assert details[-1] == (
            "The issuer's name of the token is not known yet; the key of its Variable is used."
        )
        in_file = assess_one(token(variable=None, name_is_known=False)).details
        assert in_file[-1].endswith("the name of its file is used.")

    def test_the_details_give_the_former_name(self):
        details = assess_one(token(former_name="ETL", renamed_at=NOON)).details
        assert details[-1] == "Until 2026-11-25 12:00 UTC its name was 'ETL'."

    def test_the_details_have_hint_forecast_and_place_in_this_order(self):
        failed = token(9 * DAY, last_check=event(hint="Grant it."), next_check_at=NOON + CHECK)
        assert assess_one(failed).details == [
            "Grant it.",
            "The next check, at 2026-11-25 12:05 UTC, tries to renew the token.",
            "Stored in Variable ETL.",
        ]

    def test_the_details_name_the_store_of_a_token_kept_elsewhere(self):
        elsewhere = token(settings={"store": "vault://vault_default/variables"})
        place = "Stored in Variable ETL of vault://vault_default/variables."
        assert place in assess_one(elsewhere).details


class TestRehearsal:
    """The last rehearsal of the next renewal."""

    @pytest.mark.parametrize(("outcome", "verb"), [("refused", "will"), ("unavailable", "may")])
    def test_one_that_failed_is_a_warning_with_the_date(self, outcome, verb):
        """From which on it is an outage."""
        failed = event(outcome, WARNING, "The password is wrong.", "Correct it.")
        assessed = assess_one(token(last_rehearsal=failed, renewal_check_at=NOON + 10 * DAY))
        assert (assessed.severity, assessed.state) == (WARNING, "healthy")
        reason = f"the renewal due on 2026-12-05 12:00 UTC {verb} fail: {outcome}: The password"
        assert f"; {reason} is wrong" in assessed.verdict.message
        assert assessed.verdict.hint == "Correct it."
        assert assessed.forecast.endswith("the check at 2026-12-05 12:00 UTC tries to renew it.")

    def test_one_that_succeeded_is_in_the_details(self):
        """With its time; the token is as healthy as before."""
        assessed = assess_one(token(last_rehearsal=event("healthy", OK, "It will work.")))
        assert assessed.severity is OK
        assert assessed.details[1:] == [
            "A rehearsal of the renewal succeeded at 2026-11-25 12:00 UTC.",
            "Stored in Variable ETL.",
        ]

    @pytest.mark.parametrize("outcome", ["refused", "healthy"])
    def test_one_of_another_token_says_nothing(self, outcome):
        severity = OK if outcome == "healthy" else WARNING
        old = event(outcome, severity, fingerprint="89abcdef")
        assessed = assess_one(token(last_rehearsal=old))
        assert assessed.severity is OK
        assert not any("rehearsal" in sentence for sentence in assessed.details)

    def test_one_before_the_renewal_is_due_is_not_the_state_afterwards(self):
        """The failure of the renewal itself is."""
        last = event(severity=WARNING, message="The password is wrong.")
        assert assess_one(token(9 * DAY, last_rehearsal=last)).severity is OK


NEXT = "The next check, at 2026-11-25 12:05 UTC"


class TestForecast:
    """One sentence on the next check and the renewal."""

    @pytest.mark.parametrize(
        ("one", "facts", "sentence"),
        [
            (
                token(renewal_check_at=NOON + 10 * DAY),
                {},
                f"{NEXT}, leaves the token unchanged; the check at 2026-12-05 12:00 UTC renews it.",
            ),
            (
                token(10 * DAY + SECOND, renewal_check_at=NOON + CHECK),
                {},
                f"{NEXT}, renews the token.",
            ),
            (token(9 * DAY), {}, f"{NEXT}, renews the token."),
            (
                token(9 * DAY, next_check_at=None),
                {},
                "The next check renews the token.",
            ),
            (token(), {}, "Renewal is due at 2026-12-05 12:00 UTC."),
            (
                token(9 * DAY),
                {"is_paused": True},
                f"The token is not being renewed. {DAG}: Unpause to resume.",
            ),
            (
                token(9 * DAY, last_check=event(severity=WARNING)),
                {},
                f"{NEXT}, tries to renew the token.",
            ),
            (
                token(-DAY, last_check=event("expired", needs_new_token=True)),
                {},
                "The issuer no longer renews this token.",
            ),
            (
                TokenStatus("etl", dag_id=DAG, last_check=event()),
                {},
                f"{NEXT}, reads the token again.",
            ),
            (
                token(renewal_check_at=NOON + 21 * DAY),
                {},
                "The token expires before the check at 2026-12-16 12:00 UTC can renew it.",
            ),
        ],
    )
    def test_it_names_the_check(self, one, facts, sentence):
        if one.next_check_at is None and sentence.startswith(NEXT):
            one = replace(one, next_check_at=NOON + CHECK)
        assert assess_one(one, dags=[dag(**facts)]).forecast == sentence

    @pytest.mark.parametrize(
        ("left", "sentence"),
        [
            (20 * DAY, "Renewal is due at 2026-12-05 12:00 UTC."),
            (9 * DAY, "Renewal has been due since 2026-11-24 12:00 UTC."),
        ],
    )
    def test_an_issuer_does_not_know_the_next_check(self, left, sentence):
        [assessed] = issued(token(left)).tokens
        assert assessed.forecast == sentence

    def test_without_dates_and_without_a_dag_it_is_empty(self):
        [assessed] = issued(TokenStatus("etl", read_error=event("missing"))).tokens
        assert assessed.forecast == ""


def test_every_outcome_is_a_state():
    """A page may have a label for each."""
    for outcome in Outcome:
        failed = token(last_check=event(outcome, WARNING))
        assert assess_one(failed).state == ("healthy" if outcome is Outcome.HEALTHY else outcome)


def test_a_naive_time_is_rejected():
    """It would be another moment in every time zone."""
    with pytest.raises(ValueError, match="naive"):
        assess(StatusDocument(), NOON.replace(tzinfo=None))
