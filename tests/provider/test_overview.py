"""The page's data about a token and its rotation DAG."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.agent.rotation import Inspection
from flowauth_rotator.core.errors import MalformedToken, MissingToken
from flowauth_rotator.core.policy import RotationPolicy, decide
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Claims, Token
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.web.managed import (
    Attempt,
    InspectedToken,
    RotationDag,
    Run,
    drop_replaced_dags,
)
from flowauth_rotator.provider.web.overview import Overview
from flowauth_rotator.provider.web.status import build_dag_status, build_token_status

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
PLACE = "Variable FLOWAPI_TOKEN"
DAG = "flowauth_token_rotation"


class Pages:
    """URLs that name their target."""

    def dag(self, dag_id):
        return f"dag {dag_id}"

    def run(self, dag_id, run_id):
        return f"run {run_id}"

    def task(self, dag_id, run_id, task_id, map_index):
        return f"task {task_id} {map_index} of {run_id}"

    def variable(self, key):
        return f"variable {key}"

    def import_errors(self):
        return "import errors"


def in_use(left, lifetime=24 * HOUR, roles=("viewer",)):
    """The inspection of a token with this remaining lifetime."""
    expires_at = NOON + left
    claims = Claims(
        digest="0" * 64,
        algorithm="RS256",
        issued_at=expires_at - lifetime,
        not_before=expires_at - lifetime,
        expires_at=expires_at,
        subject="flowbot",
        audience="TEST_SERVER",
        roles=frozenset(roles),
        scopes=dict.fromkeys(roles, ("run", "get_results")),
    )
    decision = decide(claims, RotationPolicy(), NOON)
    report = Report("AIRFLOW", PLACE, Outcome.HEALTHY, decision.message, NOON)
    return Inspection(Token("x"), claims, decision, report)


def build_report(inspection, outcome, message="A message.", severity=Severity.WARNING, **others):
    """A report about the token in use, a minute ago."""
    return Report(
        "AIRFLOW",
        PLACE,
        outcome,
        message,
        NOON - timedelta(minutes=1),
        severity=severity,
        predecessor_expires_at=inspection.claims.expires_at,
        **others,
    )


def build_dag(**others):
    """A DAG that has just checked its token."""
    settings = {
        "schedule": "*/5 * * * *",
        "checked_at": NOON - timedelta(minutes=1),
        "next_run_at": NOON + timedelta(minutes=4),
        "deadline_at": NOON + timedelta(minutes=11),
        "tokens": [ManagedToken()],
    }
    return RotationDag(DAG, **{**settings, **others})


def build_row(inspection, dag=None, renewable_dags=(DAG,)):
    """The page's row of a single token."""
    dag = dag or build_dag()
    tokens = [InspectedToken(dag, ManagedToken(), inspection)]
    [row] = Overview([dag], tokens, set(renewable_dags), Pages(), NOON).to_json()["tokens"]
    return row


def build_attempts(*reports, run_id="scheduled"):
    return {"FLOWAPI_TOKEN": [Attempt(run_id, 3, report) for report in reports]}


@pytest.mark.parametrize(
    ("left", "state", "severity", "group"),
    [
        (20 * HOUR, "healthy", "ok", "active"),
        (7 * HOUR, "due", "ok", "active"),
        (2 * HOUR, "critical", "critical", "attention"),
        (-HOUR, "expired", "critical", "expired"),
    ],
)
def test_a_token_stands_where_its_policy_puts_it(left, state, severity, group):
    """In one of three groups, with the times between which it moves."""
    row = build_row(in_use(left))
    assert (row["state"], row["severity"], row["group"]) == (state, severity, group)
    ends = round((NOON + left).timestamp())
    assert row["expires_at"] == ends
    assert row["renew_at"] == ends - 8 * 3600
    assert row["critical_at"] == ends - 8640
    assert row["roles"] == [{"name": "viewer", "scopes": ["get_results", "run"]}]


def test_what_is_due_is_renewed_by_the_next_check_unless_none_comes():
    """A person need not look at the one, but at the other."""
    assert build_row(in_use(7 * HOUR))["hint"] == "The next check renews the token."
    row = build_row(in_use(7 * HOUR), build_dag(is_paused=True))
    assert (row["group"], row["next_check_at"]) == ("attention", None)
    assert row["hint"].startswith("The token is not being renewed. The DAG is paused")


def test_a_failure_of_the_token_in_use_is_its_state():
    """With the message and the hint of the report, until another token is in use."""
    inspection = in_use(7 * HOUR)
    refused = build_report(
        inspection, Outcome.REFUSED, "The issuer refused.", hint="Mint a new token."
    )
    dag = build_dag(attempts=build_attempts(refused))
    row = build_row(inspection, dag)
    assert (row["state"], row["group"]) == ("refused", "attention")
    assert (row["message"], row["hint"]) == ("The issuer refused.", "Mint a new token.")
    assert row["error"]["url"] == "task rotate 3 of scheduled"
    another = build_row(in_use(20 * HOUR), dag)
    assert (another["state"], another["error"]) == ("healthy", None)


def test_a_failed_renewal_of_a_healthy_token_stays_beneath_it():
    """The next check finds it healthy again; the error of the attempt stays until the next."""
    inspection = in_use(20 * HOUR)
    failed = build_report(inspection, Outcome.UNAVAILABLE, "No answer.")
    healthy = replace(
        build_report(inspection, Outcome.HEALTHY, severity=Severity.OK), checked_at=NOON
    )
    dag = build_dag(attempts=build_attempts(failed), reports={"FLOWAPI_TOKEN": healthy})
    row = build_row(inspection, dag)
    assert (row["state"], row["group"]) == ("healthy", "active")
    assert row["error"]["message"] == "No answer."


def test_a_swap_is_the_last_rotation_and_no_error():
    """With what the issuer granted at most, and the newest that was seen there."""
    inspection = in_use(23 * HOUR)
    later = inspection.claims.expires_at + HOUR
    swapped = Report(
        "AIRFLOW",
        PLACE,
        Outcome.ROTATED,
        "The successor expires later.",
        NOON - HOUR,
        predecessor_expires_at=NOON,
        successor_expires_at=inspection.claims.expires_at,
        newest_issued_expires_at=later,
        longest_minutes=1440,
    )
    row = build_row(inspection, build_dag(attempts=build_attempts(swapped)))
    assert row["last_rotation"]["outcome"] == "rotated"
    assert row["newest_issued_at_issuer"] == round(later.timestamp())
    assert row["renewal"]["longest_minutes"] == 1440
    assert (row["error"], row["state"]) == (None, "healthy")


@pytest.mark.parametrize(
    ("inspection", "dag", "why_not", "leads_to"),
    [
        (in_use(HOUR), build_dag(exists=False), "The DAG does not exist", None),
        (
            in_use(HOUR),
            build_dag(has_import_error=True),
            "The DAG file has an import error",
            "import errors",
        ),
        (in_use(HOUR), build_dag(is_paused=True), "The DAG is paused.", f"dag {DAG}"),
        (
            MissingToken("No."),
            build_dag(),
            "The Variable does not contain a token to renew.",
            "variable FLOWAPI_TOKEN",
        ),
        (
            MalformedToken("No."),
            build_dag(),
            "The Variable does not contain a token to renew.",
            "variable FLOWAPI_TOKEN",
        ),
        (in_use(HOUR, roles=()), build_dag(), "no roles recorded", "variable FLOWAPI_TOKEN"),
    ],
    ids=["missing", "broken", "paused", "no token", "malformed", "no roles"],
)
def test_a_renewal_that_cannot_work_is_not_offered(inspection, dag, why_not, leads_to):
    """But the message, and the way out where there is one."""
    renewal = build_row(inspection, dag)["renewal"]
    assert not renewal["possible"]
    assert why_not in renewal["why_not"]
    assert (renewal["way_out"] or {}).get("url") == leads_to


@pytest.mark.parametrize(
    ("outcome", "message", "why_not"),
    [
        (Outcome.EXPIRED, "It expired.", "the issuer no longer renews it"),
        (
            Outcome.REFUSED,
            "The issuer refused: This token has no roles recorded against it.",
            "The issuer has no roles recorded for this token.",
        ),
    ],
)
def test_what_the_issuer_has_refused_for_good_is_not_offered_again(outcome, message, why_not):
    """Only another token helps."""
    inspection = in_use(-HOUR)
    dag = build_dag(attempts=build_attempts(build_report(inspection, outcome, message)))
    renewal = build_row(inspection, dag)["renewal"]
    assert why_not in renewal["why_not"]
    assert renewal["way_out"]["url"] == "variable FLOWAPI_TOKEN"
    assert build_row(in_use(20 * HOUR), dag)["renewal"]["possible"]


def test_a_user_who_may_not_start_runs_sees_the_missing_permission():
    """The permission is named."""
    renewal = build_row(in_use(HOUR), renewable_dags=())["renewal"]
    assert not renewal["possible"]
    assert f"You do not have the permission to create DAG runs of {DAG}." in renewal["why_not"]


def test_a_variable_of_two_dags_cannot_be_renewed():
    """Each of them is named."""
    dags = [build_dag(), replace(build_dag(), dag_id="another")]
    managed = [InspectedToken(dag, ManagedToken(), in_use(HOUR)) for dag in dags]
    both = Overview(dags, managed, {DAG, "another"}, Pages(), NOON).to_json()["tokens"]
    assert [row["renewal"]["possible"] for row in both] == [False, False]
    assert "another and flowauth_token_rotation" in both[0]["renewal"]["why_not"]


@pytest.mark.parametrize(
    ("state", "attempts", "survey", "sentence"),
    [
        ("queued", {}, "", "Waiting for the scheduler."),
        ("running", {}, "", "Renewing."),
        ("failed", {}, "The connection is missing.", "The connection is missing."),
        ("failed", {}, "", "The run ended without a report; see its log."),
        ("success", {}, "It was made since.", "It was made since."),
    ],
)
def test_a_renewal_is_followed_to_its_end(state, attempts, survey, sentence):
    """Also one that left no report."""
    run = Run("renew-1", state, NOON - timedelta(seconds=5), "admin", survey)
    row = build_row(in_use(20 * HOUR), build_dag(runs={"FLOWAPI_TOKEN": run}, attempts=attempts))
    assert row["run"]["sentence"] == sentence
    assert row["run"]["active"] == (state in ("queued", "running"))
    assert (row["error"] is not None) == (state == "failed")


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (Outcome.UNAVAILABLE, "The attempt failed; Airflow retries it."),
        (Outcome.REFUSED, "The run is ending."),
    ],
)
def test_only_a_failure_that_may_pass_is_tried_again(outcome, sentence):
    """While Airflow waits for the next try of the task, or for the run to end."""
    inspection = in_use(20 * HOUR)
    failed = build_attempts(build_report(inspection, outcome), run_id="renew-1")
    run = Run("renew-1", "running", NOON - HOUR)
    row = build_row(inspection, build_dag(runs={"FLOWAPI_TOKEN": run}, attempts=failed))
    assert row["run"]["sentence"] == sentence


@pytest.mark.parametrize(
    ("settings", "state", "words"),
    [
        ({}, "ok", ""),
        ({"checked_at": None}, "new", "has not checked its tokens yet"),
        ({"is_paused": True}, "paused", "unpause it"),
        ({"has_import_error": True, "exists": False}, "broken", "import error"),
        ({"exists": False}, "missing", "put its file back"),
        ({"deadline_at": NOON - HOUR}, "late", "see whether the scheduler"),
        ({"failed_at": NOON, "failure": "No list."}, "failed", "12:00:00 UTC failed. No list."),
    ],
)
def test_the_condition_of_a_dag_comes_with_a_hint(settings, state, words):
    """And what to do about it."""
    [row] = Overview([build_dag(**settings)], [], set(), Pages(), NOON).to_json()["agents"]
    assert row["state"] == state
    assert words in row["sentence"]


def test_what_needs_care_comes_after_what_is_active_and_before_what_has_expired():
    """Within a group by name."""
    lives = {"C": 20 * HOUR, "A": 20 * HOUR, "B": -HOUR, "D": 2 * HOUR}
    dag = build_dag()
    managed = []
    for name, left in lives.items():
        inspection = in_use(left)
        inspection = replace(inspection, report=replace(inspection.report, name=name))
        managed.append(InspectedToken(dag, ManagedToken(f"TOKEN_{name}"), inspection))
    rows = Overview([dag], managed, {DAG}, Pages(), NOON).to_json()["tokens"]
    assert [row["name"] for row in rows] == ["A", "C", "D", "B"]


def test_a_failure_before_the_token_was_read_is_about_the_one_of_its_time():
    """As of a connection that is not there: its report knows no expiry."""
    inspection = in_use(7 * HOUR)
    unread = replace(
        build_report(inspection, Outcome.MISCONFIGURED, "No."), predecessor_expires_at=None
    )
    dag = build_dag(attempts=build_attempts(unread))
    row = build_row(inspection, dag)
    assert (row["state"], row["group"]) == ("misconfigured", "attention")
    assert row["error"]["message"] == "No."
    assert build_row(in_use(24 * HOUR), dag)["error"] is None


def test_a_shadowed_variable_is_shown_whatever_is_stored():
    """The report has the expiry of what hides it."""
    hiding = in_use(5 * HOUR)
    dag = build_dag(
        attempts=build_attempts(build_report(hiding, Outcome.SHADOWED, "It is hidden."))
    )
    for inspection in (in_use(7 * HOUR), MissingToken("No.")):
        row = build_row(inspection, dag)
        assert (row["state"], row["message"]) == ("shadowed", "It is hidden.")


def test_a_token_stored_by_hand_ends_the_error_of_a_run():
    """What the run failed of is not about it."""
    run = Run("renew-1", "failed", NOON - HOUR, "admin", "No list.")
    dag = build_dag(runs={"FLOWAPI_TOKEN": run})
    assert build_row(in_use(20 * HOUR), dag)["error"]["message"] == "No list."
    assert build_row(in_use(24 * HOUR), dag)["error"] is None


def test_a_run_that_was_followed_by_others_says_how_it_ended():
    """Not that it left no report."""
    inspection = in_use(20 * HOUR)
    run = Run("renew-1", "success", NOON - 2 * HOUR)
    own = replace(
        build_report(inspection, Outcome.ROTATED, "It was swapped."), severity=Severity.OK
    )
    attempts = [
        Attempt("scheduled", 0, replace(own, message="Again.")),
        Attempt("renew-1", 0, own),
    ]
    dag = build_dag(runs={"FLOWAPI_TOKEN": run}, attempts={"FLOWAPI_TOKEN": attempts})
    assert build_row(inspection, dag)["run"]["sentence"] == "It was swapped."


def test_a_dag_that_is_gone_keeps_only_what_no_other_has_taken_over():
    """A token that was moved to another DAG is there once."""
    gone = replace(build_dag(exists=False), dag_id="old")
    assert drop_replaced_dags([gone, build_dag()]) == [build_dag()]
    assert drop_replaced_dags([gone]) == [gone]
    more = replace(gone, tokens=[ManagedToken(), ManagedToken("ETL_TOKEN")])
    kept, _ = drop_replaced_dags([more, build_dag()])
    assert kept.tokens == [ManagedToken("ETL_TOKEN")]
    broken = replace(gone, has_import_error=True)
    assert drop_replaced_dags([broken, build_dag()]) == [broken, build_dag()]


class TestStatus:
    """The monitoring status of the same facts."""

    def test_an_invalid_list_is_a_condition_of_the_dag(self):
        """A DAG that checks, and not all that it should."""
        status = build_dag_status(build_dag(notices=["Entry 2 has no `variable`."]), NOON)
        assert (status.condition, status.hint) == ("misconfigured", "Entry 2 has no `variable`.")
        assert build_dag_status(build_dag(), NOON).condition == "ok"

    def test_a_run_that_goes_on_changes_nothing_of_how_long_two_checks_take(self):
        """What was issued and is not in use is told all the same."""
        patient = build_dag_status(build_dag(deadline_at=NOON + 2 * HOUR), NOON).grace_period
        assert patient == build_dag_status(build_dag(), NOON).grace_period < HOUR

    def test_rotations_of_another_token_in_the_variable_are_not_its_own(self):
        """Somebody put a token of another name there."""
        inspection = in_use(10 * HOUR)
        longer = {"newest_issued_expires_at": NOON + 900 * HOUR, "successor_expires_at": NOON}
        report = build_report(inspection, Outcome.ROTATED, severity=Severity.OK, **longer)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, replace(report, name="OTHER"))]}
        other = build_token_status(
            InspectedToken(build_dag(attempts=attempts), ManagedToken(), inspection), NOON
        )
        assert (other.issued, other.last_success_at) == (None, None)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, report)]}
        own = build_token_status(
            InspectedToken(build_dag(attempts=attempts), ManagedToken(), inspection), NOON
        )
        assert own.issued.expires_at == NOON + 900 * HOUR
        assert own.last_success_at == report.checked_at

    def test_a_token_that_cannot_be_read_keeps_its_name(self):
        """The one that its last rotation knew, so that its service stays."""
        report = build_report(in_use(10 * HOUR), Outcome.ROTATED, severity=Severity.OK)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, report)]}
        gone = InspectedToken(
            build_dag(attempts=attempts), ManagedToken(), MissingToken("There is none.")
        )
        assert build_token_status(gone, NOON).name == "AIRFLOW"
