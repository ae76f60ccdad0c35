"""What a run changes in the status document, as a function of what it found."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import jwt
import pytest

from flowauth_rotator.agent.rotation import inspect_token
from flowauth_rotator.core.errors import MalformedToken, Misconfigured, StoreUnavailable
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring.status import StatusDocument
from flowauth_rotator.provider.managed_tokens import InvalidEntry, ManagedToken, resolve_name
from flowauth_rotator.provider.status_updates import (
    Run,
    describe_renamings,
    describe_survey_failures,
    is_complete_check,
    record_failure,
    record_rehearsals,
    record_rotations,
    record_survey,
)
from flowauth_rotator.provider.survey import Survey, SurveyedToken

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
INVALID = InvalidEntry("X", Misconfigured("Entry 2 is invalid.", hint="Correct it."))
HEALTHY, DUE = 50 * MINUTE, 10 * MINUTE  # time left of an hour


class Stored:
    """A store of one token, as `inspect_token` reads it."""

    name, place = "KEY", "Variable KEY"

    def __init__(self, token):
        self.token = token

    def read(self):
        return self.token


@pytest.fixture
def survey_of(signing_key):
    """Survey a token with so much time left, or one that cannot be read."""

    def survey(left=HEALTHY, *, variable="KEY", now=NOON, known=None, **settings):
        managed = ManagedToken(variable, **settings)
        if left is None:
            error = MalformedToken("It is not a JWT.")
            name = managed.name or variable
            report = error.report(name=name, place=f"Variable {variable}", checked_at=now)
            return SurveyedToken(managed, report)
        expires_at = int((now + left).timestamp())
        claims = {"iat": expires_at - 3600, "exp": expires_at, "sub": "flowbot", "aud": "S"}
        store = Stored(Token(jwt.encode(claims, signing_key, algorithm="RS256")))
        inspection = inspect_token(store, managed.policy, now=now, name=managed.name)
        report = inspection.report
        name, is_known = resolve_name(managed, None, report.fingerprint, known)
        named = Report(**{**vars(report), "name": name, "name_is_known": is_known})
        return SurveyedToken(managed, named, inspection)

    return survey


def run(number=1):
    return Run("dag", f"run {number}", 5 * MINUTE, NOON + number * MINUTE)


def plan(*tokens, **options):
    due = [token for token in tokens if token.is_due]
    healthy = [token for token in tokens if not token.is_due]
    return Survey(due, [], healthy, options.pop("invalid", []), **options)


def rotated(surveyed, run, outcome=Outcome.ROTATED, name="AIRFLOW", **changes):
    """The report of a rotation that ended with this outcome."""
    values = vars(surveyed.report) | {
        "name": name,
        "name_is_known": True,
        "outcome": outcome,
        "checked_at": run.now,
        "fingerprint": "0badc0de",
        "expires_at": run.now + 60 * MINUTE,
    }
    return Report(**values | changes)


def test_a_check_records_every_token(survey_of):
    """What it read and decided, from which run, and until when the next check is to come."""
    document = record_survey(None, plan(survey_of(name="AIRFLOW")), run())
    [dag], [token] = document.dags, document.tokens
    assert (dag.dag_id, dag.checked_at, dag.checked_by) == ("dag", run().now, "run 1")
    assert dag.deadline_at == run().now + 12 * MINUTE
    assert (token.name, token.variable, token.owner, token.audience) == (
        *("AIRFLOW", "KEY"),
        *("flowbot", "S"),
    )
    assert token.expires_at == NOON + HEALTHY
    assert (token.last_check.outcome, token.last_check.run_id) == ("healthy", "run 1")
    assert token.last_check.task_id == "survey"
    assert token.settings == {"variable": "KEY", "name": "AIRFLOW"}


def test_a_complete_check_counts_the_managed_tokens(survey_of):
    """A list that was emptied is 0; a run for some tokens changes nothing."""
    document = record_survey(None, plan(survey_of()), run(1))
    assert document.dags[0].token_count == 1
    document = record_survey(document, plan(is_complete=False), run(2))
    assert document.dags[0].token_count == 1
    assert record_survey(document, plan(), run(3)).dags[0].token_count == 0


def test_a_rotation_is_recorded_with_its_task(survey_of):
    """History, counters, the last success and the newest token at the issuer."""
    due = survey_of(DUE)
    document = record_survey(None, plan(due), run())
    assert document.tokens[0].last_check is None
    newest = NOON + 90 * MINUTE
    report = rotated(due, run(), newest_issued_expires_at=newest, clock_skew=7)
    [token] = (document := record_rotations(document, {"KEY": (3, report)}, run())).tokens
    assert token.rotations == (token.last_check,)
    assert (token.last_check.task_id, token.last_check.map_index) == ("rotate", 3)
    assert token.rotation_counts == {"rotated": 1}
    assert token.last_success_at == run().now
    assert (token.newest_issued_expires_at, token.newest_issued_at) == (newest, run().now)
    assert (token.fingerprint, token.expires_at) == ("0badc0de", run().now + 60 * MINUTE)
    assert document.dags[0].clock_skews == {"flowauth_default": 7}


def test_history_is_bounded_and_counters_are_not(survey_of):
    """The last 20 rotations, the newest first; each of 30 is counted."""
    due, document = survey_of(DUE), None
    for number in range(30):
        document = record_survey(document, plan(due), run(number))
        outcome = Outcome.REFUSED if number % 3 else Outcome.ROTATED
        report = rotated(due, run(number), outcome)
        document = record_rotations(document, {"KEY": (0, report)}, run(number))
        document = StatusDocument.load(document.dump())
    [token] = document.tokens
    assert [event.run_id for event in token.rotations] == [f"run {n}" for n in range(29, 9, -1)]
    assert token.rotation_counts == {"rotated": 10, "refused": 20}
    assert token.last_success_at == run(27).now


def test_a_failure_stays_until_the_next_rotation_has_a_result(survey_of):
    """A survey that hands the token on to a rotation does not hide it."""
    due = survey_of(DUE)
    document = record_survey(None, plan(due), run(1))
    report = rotated(due, run(1), Outcome.REFUSED, severity=Severity.WARNING, message="No.")
    document = record_rotations(document, {"KEY": (0, report)}, run(1))
    [token] = record_survey(document, plan(due), run(2)).tokens
    assert (token.last_check.outcome, token.last_check.run_id) == ("refused", "run 1")
    [token] = record_survey(document, plan(survey_of(HEALTHY)), run(2)).tokens
    assert (token.last_check.outcome, token.last_check.run_id) == ("healthy", "run 2")
    assert token.rotations[0].outcome == "refused"


def test_a_failed_request_for_a_token_that_is_not_due_is_not_its_state(survey_of):
    """It is in the history and the counters; the result of the last check stays."""
    healthy = survey_of(HEALTHY)
    document = record_survey(None, plan(healthy), run(1))
    forced = Survey([healthy], [], [], [])
    document = record_survey(document, forced, run(2))
    unchanged = vars(healthy.report) | {"severity": Severity.WARNING, "checked_at": run(2).now}
    report = Report(**unchanged | {"outcome": Outcome.REFUSED, "message": "No."})
    [token] = record_rotations(document, {"KEY": (0, report)}, run(2), forced={"KEY"}).tokens
    assert (token.last_check.outcome, token.last_check.run_id) == ("healthy", "run 1")
    assert (token.rotations[0].outcome, token.rotations[0].message) == ("refused", "No.")
    assert token.rotation_counts == {"refused": 1}
    assert token.failed_rotation == token.rotations[0]
    swap = rotated(healthy, run(2))
    [token] = record_rotations(document, {"KEY": (0, swap)}, run(2)).tokens
    assert token.last_check.outcome == "rotated"


@pytest.mark.parametrize("outcome", [Outcome.CONFLICT, Outcome.UNAVAILABLE], ids=str)
def test_a_copy_that_is_not_updated_is_the_state_of_its_token(survey_of, outcome):
    """Also of one that is not due: its check has a result, which is a warning."""
    token = replace(survey_of(HEALTHY), lacks_copies=True)
    document = record_survey(None, plan(token), run(1))
    report = replace(token.report, outcome=outcome, severity=Severity.WARNING, hint="Remove it.")
    [token] = record_rotations(document, {"KEY": (0, report)}, run(1)).tokens
    assert (token.last_check.run_id, token.last_check.severity) == ("run 1", Severity.WARNING)
    assert token.current_result.hint == "Remove it."


def test_events_have_the_user_who_started_the_run(survey_of):
    """Those of a scheduled run have none."""
    started = replace(run(1), requested_by="alice")
    document = record_survey(None, plan(survey_of()), started)
    assert document.tokens[0].last_check.requested_by == "alice"
    due = survey_of(DUE)
    document = record_rotations(document, {"KEY": (0, rotated(due, started))}, started)
    assert document.tokens[0].rotations[0].requested_by == "alice"
    failed = record_failure(document, StoreUnavailable("No response."), started)
    assert failed.dags[0].failure.requested_by == "alice"
    [stored] = StatusDocument.load(document.dump()).tokens
    assert stored.last_check.requested_by == stored.rotations[0].requested_by == "alice"
    [token] = record_survey(document, plan(survey_of()), run(2)).tokens
    assert token.last_check.requested_by is None


def test_a_token_that_cannot_be_read_is_recorded_at_once(survey_of):
    """With the error, without dates, and with what was known of it before."""
    document = record_survey(None, plan(survey_of(name="AIRFLOW")), run(1))
    [token] = record_survey(document, plan(survey_of(None)), run(2)).tokens
    assert (token.last_check.outcome, token.expires_at) == ("malformed", None)
    assert (token.name, token.owner) == ("AIRFLOW", "flowbot")
    [token] = record_survey(document, plan(survey_of(name="AIRFLOW")), run(3)).tokens
    assert token.former_name is None


@pytest.mark.parametrize(
    ("later", "severity"), [(MINUTE, Severity.WARNING), (45 * MINUTE, Severity.CRITICAL)], ids=str
)
def test_a_store_that_does_not_respond_is_critical_when_the_token_is(survey_of, later, severity):
    """In the survey, its rotation and a rehearsal: until then the known dates say there is time."""
    known = record_survey(None, plan(survey_of()), run(0))
    [before] = known.tokens
    error = StoreUnavailable("Vault did not respond.")
    report = error.report(name="KEY", place="Vault secret KEY", checked_at=NOON + later)
    check = replace(run(1), now=NOON + later)
    document = record_survey(known, plan(SurveyedToken(ManagedToken("KEY"), report)), check)
    for done in (
        document,
        record_rotations(known, {"KEY": (0, report)}, check),
        record_rotations(document, {"KEY": (0, report)}, check),
    ):
        [token] = done.tokens
        assert (token.expires_at, token.renew_at) == (before.expires_at, before.renew_at)
        events = [token.last_check, *token.rotations]
        assert {event.severity for event in events if event.has_failed} == {severity}
    [token] = record_rehearsals(known, {"KEY": (0, report)}, check).tokens
    assert token.last_rehearsal.severity is severity
    [token] = record_survey(None, plan(SurveyedToken(ManagedToken("KEY"), report)), check).tokens
    assert token.last_check.severity is Severity.CRITICAL


def test_a_run_for_some_tokens_keeps_the_entries_of_the_others(survey_of):
    """And it is not a check of all tokens."""
    both = plan(survey_of(), survey_of(variable="OTHER"))
    before = record_survey(None, both, run(1))
    some = plan(survey_of(variable="OTHER", now=NOON + MINUTE), is_complete=False)
    after = record_survey(before, some, run(2))
    assert [token.last_check.run_id for token in after.tokens] == ["run 1", "run 2"]
    assert after.dags[0].checked_at == run(1).now
    assert not is_complete_check(after, run(2))


def test_a_token_that_is_no_longer_managed_is_dropped(survey_of):
    """A list that cannot be read as a whole drops none."""
    both = plan(survey_of(), survey_of(variable="OTHER"))
    document = record_survey(None, both, run(1))
    after = record_survey(document, plan(survey_of()), run(2))
    assert [token.variable for token in after.tokens] == ["KEY"]
    after = record_survey(document, plan(invalid=[INVALID]), run(2))
    assert [token.variable for token in after.tokens] == ["KEY", "OTHER"]
    assert after.dags[0].configuration_errors == (str(INVALID.error),)


def test_a_token_that_a_check_did_not_read_keeps_its_entry(survey_of):
    """The check counts as one of all tokens; a token that is no longer managed is dropped."""
    both = plan(survey_of(), survey_of(variable="OTHER"), survey_of(variable="GONE"))
    before = record_survey(None, both, run(1))
    changed = ManagedToken("OTHER", lifetime_minutes=60)
    after = record_survey(before, plan(survey_of(), unread=[changed]), run(2))
    assert [token.variable for token in after.tokens] == ["KEY", "OTHER"]
    assert after.tokens[1] == before.tokens[1]
    [dag] = after.dags
    assert (dag.checked_at, dag.token_count) == (run(2).now, 2)
    assert dag.deadline_at == run(2).now + 12 * MINUTE
    assert is_complete_check(after, run(2))


def test_the_public_keys_of_unread_tokens_are_kept(survey_of):
    """The page verifies their tokens with these; a connection of no token is forgotten."""
    keys = {"flowauth_default": "a", "other": "b", "gone": "c"}
    before = record_survey(None, plan(survey_of(), public_keys=keys), run(1))
    unread = [ManagedToken("OTHER", flowauth_conn_id="other")]
    survey = plan(survey_of(), unread=unread, public_keys={"flowauth_default": "d"})
    after = record_survey(before, survey, run(2))
    assert after.dags[0].public_keys == {"flowauth_default": "d", "other": "b"}


def test_a_token_that_was_never_read_has_an_entry_without_facts(survey_of):
    """It is counted, and its first check renames nothing."""
    unread = [ManagedToken("OTHER"), ManagedToken("THIRD", name="ETL", description="x")]
    document = record_survey(None, plan(survey_of(), unread=unread), run(1))
    document = StatusDocument.load(document.dump())
    _, other, third = document.tokens
    assert (other.name, other.name_is_known, other.dag_id) == ("OTHER", False, "dag")
    assert (third.name, third.name_is_known) == ("ETL", True)
    assert third.settings == {"variable": "THIRD", "name": "ETL"}
    assert other.is_unread
    assert third.is_unread
    assert document.dags[0].token_count == 3
    read = survey_of(variable="OTHER")
    read = replace(read, report=replace(read.report, name="NIGHTLY", name_is_known=True))
    after = record_survey(document, plan(read, unread=[ManagedToken(), unread[1]]), run(2))
    [token] = [token for token in after.tokens if token.variable == "OTHER"]
    assert (token.name, token.former_name, token.is_unread) == ("NIGHTLY", None, False)
    assert describe_renamings(document, after) == []


def test_a_failed_survey_is_recorded_until_one_succeeds(survey_of):
    """The tokens stay as they were."""
    document = record_survey(None, plan(survey_of()), run(1))
    failed = record_failure(document, StoreUnavailable("Airflow did not respond."), run(2))
    [dag] = failed.dags
    assert (dag.failure.run_id, dag.failure.message) == ("run 2", "Airflow did not respond.")
    assert dag.checked_at == run(1).now
    assert failed.tokens == document.tokens
    assert record_survey(failed, plan(survey_of()), run(3)).dags[0].failure is None


def test_the_issuers_name_replaces_the_key_once(survey_of):
    """One sentence says so; the name stays with that token, and with no other."""
    due = survey_of(DUE)
    document = record_survey(None, plan(due), run(1))
    assert (document.tokens[0].name, document.tokens[0].name_is_known) == ("KEY", False)
    report = rotated(due, run(1), fingerprint=due.report.fingerprint)
    renamed = record_rotations(document, {"KEY": (0, report)}, run(1))
    [token] = renamed.tokens
    assert (token.name, token.name_is_known) == ("AIRFLOW", True)
    assert (token.former_name, token.renamed_at) == ("KEY", run(1).now)
    [sentence] = describe_renamings(document, renamed)
    assert "is reported as 'AIRFLOW', and no longer as 'KEY'" in sentence
    same = record_survey(renamed, plan(survey_of(DUE, known=token)), run(2))
    assert describe_renamings(renamed, same) == []
    another = record_survey(renamed, plan(survey_of(HEALTHY, known=token)), run(3))
    assert (another.tokens[0].name, another.tokens[0].name_is_known) == ("KEY", False)


def test_the_report_of_a_run_names_what_its_survey_found(survey_of):
    """Failed tokens of this run, and invalid entries; nothing of an earlier run."""
    broken = survey_of(None, variable="BROKEN")
    survey = Survey([], [broken], [survey_of()], [INVALID])
    document = record_survey(None, survey, run(1))
    assert describe_survey_failures(document, run(1)) == [
        f"BROKEN: malformed. It is not a JWT. {MalformedToken.hint}",
        "Entry 2 is invalid. Correct it.",
    ]
    assert describe_survey_failures(document, run(2)) == []


def test_a_name_cannot_add_a_line_to_the_failure_of_a_run(survey_of):
    """The report task raises these sentences, and a mail may quote them."""
    broken = survey_of(None, variable="BROKEN", name="etl\nfake: rotated\u202e")
    document = record_survey(None, Survey([], [broken], [], []), run())
    [sentence] = describe_survey_failures(document, run())
    assert sentence.isprintable()
