"""What the page says of a token and of the DAG that keeps it alive."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.agent.rotation import Check
from flowauth_rotator.core.errors import MalformedToken, MissingToken
from flowauth_rotator.core.policy import RotationPolicy, decide
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Claims, Token
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.web.managed import (
    Agent,
    Attempt,
    Managed,
    Run,
    without_the_dead,
)
from flowauth_rotator.provider.web.overview import Overview
from flowauth_rotator.provider.web.snapshot import heartbeat, watched

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
PLACE = "Variable FLOWAPI_TOKEN"
DAG = "flowauth_token_rotation"


class Pages:
    """Addresses that say what they lead to."""

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
    """A token with so much left."""
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
    report = Report("AIRFLOW", PLACE, Outcome.HEALTHY, decision.reason, NOON)
    return Check(Token("x"), claims, decision, report)


def told(found, outcome, reason="It said so.", severity=Severity.WARNING, **others):
    """A report about a token in use, a minute ago."""
    return Report(
        "AIRFLOW",
        PLACE,
        outcome,
        reason,
        NOON - timedelta(minutes=1),
        severity=severity,
        predecessor_expires_at=found.claims.expires_at,
        **others,
    )


def agent(**others):
    """A DAG that has just checked."""
    known = {
        "schedule": "*/5 * * * *",
        "checked_at": NOON - timedelta(minutes=1),
        "next_check_at": NOON + timedelta(minutes=4),
        "late_at": NOON + timedelta(minutes=11),
        "tokens": [ManagedToken()],
    }
    return Agent(DAG, **{**known, **others})


def row(found, keeper=None, may_renew=(DAG,)):
    """What the page shows of the one token that there is."""
    keeper = keeper or agent()
    managed = [Managed(keeper, ManagedToken(), found)]
    [shown] = Overview([keeper], managed, set(may_renew), Pages(), NOON).document()["tokens"]
    return shown


def attempted(*reports, run_id="scheduled"):
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
    shown = row(in_use(left))
    assert (shown["state"], shown["severity"], shown["group"]) == (state, severity, group)
    ends = round((NOON + left).timestamp())
    assert shown["expires_at"] == ends
    assert shown["renew_at"] == ends - 8 * 3600
    assert shown["critical_at"] == ends - 8640
    assert shown["roles"] == [{"name": "viewer", "scopes": ["get_results", "run"]}]


def test_what_is_due_is_renewed_by_the_next_check_unless_none_comes():
    """A person need not look at the one, but at the other."""
    assert row(in_use(7 * HOUR))["advice"] == "The next check renews it."
    shown = row(in_use(7 * HOUR), agent(paused=True))
    assert (shown["group"], shown["next_check_at"]) == ("attention", None)
    assert shown["advice"].startswith("Nothing renews it. It is paused")


def test_a_failure_of_the_token_in_use_is_its_state():
    """With the reason and the advice of the report, until another token is in use."""
    found = in_use(7 * HOUR)
    refused = told(found, Outcome.REFUSED, "The issuer refused.", advice="Mint a new token.")
    keeper = agent(attempts=attempted(refused))
    shown = row(found, keeper)
    assert (shown["state"], shown["group"]) == ("refused", "attention")
    assert (shown["reason"], shown["advice"]) == ("The issuer refused.", "Mint a new token.")
    assert shown["error"]["url"] == "task rotate 3 of scheduled"
    another = row(in_use(20 * HOUR), keeper)
    assert (another["state"], another["error"]) == ("healthy", None)


def test_a_failed_renewal_of_a_healthy_token_stays_beneath_it():
    """The next check finds it healthy again; the error of the attempt stays until the next."""
    found = in_use(20 * HOUR)
    failed = told(found, Outcome.UNAVAILABLE, "No answer.")
    healthy = replace(told(found, Outcome.HEALTHY, severity=Severity.OK), checked_at=NOON)
    keeper = agent(attempts=attempted(failed), reports={"FLOWAPI_TOKEN": healthy})
    shown = row(found, keeper)
    assert (shown["state"], shown["group"]) == ("healthy", "active")
    assert shown["error"]["reason"] == "No answer."


def test_a_swap_is_the_last_rotation_and_no_error():
    """With what the issuer granted at most, and the newest that was seen there."""
    found = in_use(23 * HOUR)
    later = found.claims.expires_at + HOUR
    swapped = Report(
        "AIRFLOW",
        PLACE,
        Outcome.ROTATED,
        "The successor expires later.",
        NOON - HOUR,
        predecessor_expires_at=NOON,
        successor_expires_at=found.claims.expires_at,
        newest_issued_expires_at=later,
        longest_minutes=1440,
    )
    shown = row(found, agent(attempts=attempted(swapped)))
    assert shown["last_rotation"]["outcome"] == "rotated"
    assert shown["newest_issued_at_issuer"] == round(later.timestamp())
    assert shown["renewal"]["longest_minutes"] == 1440
    assert (shown["error"], shown["state"]) == (None, "healthy")


@pytest.mark.parametrize(
    ("found", "keeper", "why_not", "leads_to"),
    [
        (in_use(HOUR), agent(there=False), "The DAG is gone", None),
        (in_use(HOUR), agent(broken=True), "Its file has an import error", "import errors"),
        (in_use(HOUR), agent(paused=True), "The DAG is paused.", f"dag {DAG}"),
        (MissingToken("No."), agent(), "There is nothing to renew.", "variable FLOWAPI_TOKEN"),
        (MalformedToken("No."), agent(), "There is nothing to renew.", "variable FLOWAPI_TOKEN"),
        (in_use(HOUR, roles=()), agent(), "no roles recorded", "variable FLOWAPI_TOKEN"),
    ],
    ids=["missing", "broken", "paused", "no token", "malformed", "no roles"],
)
def test_a_renewal_that_cannot_work_is_not_offered(found, keeper, why_not, leads_to):
    """But the reason, and the way out where there is one."""
    renewal = row(found, keeper)["renewal"]
    assert not renewal["possible"]
    assert why_not in renewal["why_not"]
    assert (renewal["way_out"] or {}).get("url") == leads_to


@pytest.mark.parametrize(
    ("outcome", "reason", "why_not"),
    [
        (Outcome.EXPIRED, "It expired.", "the issuer renews it no more"),
        (
            Outcome.REFUSED,
            "The issuer refused: This token has no roles recorded against it.",
            "The issuer has no roles recorded for it.",
        ),
    ],
)
def test_what_the_issuer_has_refused_for_good_is_not_offered_again(outcome, reason, why_not):
    """Only another token helps."""
    found = in_use(-HOUR)
    keeper = agent(attempts=attempted(told(found, outcome, reason)))
    renewal = row(found, keeper)["renewal"]
    assert why_not in renewal["why_not"]
    assert renewal["way_out"]["url"] == "variable FLOWAPI_TOKEN"
    assert row(in_use(20 * HOUR), keeper)["renewal"]["possible"]


def test_who_may_not_start_runs_is_told_what_is_missing():
    """The permission is named."""
    renewal = row(in_use(HOUR), may_renew=())["renewal"]
    assert not renewal["possible"]
    assert "the permission to create DAG runs of it is missing" in renewal["why_not"]


def test_a_variable_of_two_dags_is_nobodys():
    """Each of them is named."""
    keepers = [agent(), replace(agent(), dag_id="another")]
    managed = [Managed(keeper, ManagedToken(), in_use(HOUR)) for keeper in keepers]
    both = Overview(keepers, managed, {DAG, "another"}, Pages(), NOON).document()["tokens"]
    assert [one["renewal"]["possible"] for one in both] == [False, False]
    assert "another and flowauth_token_rotation" in both[0]["renewal"]["why_not"]


@pytest.mark.parametrize(
    ("state", "attempts", "survey", "sentence"),
    [
        ("queued", {}, "", "Waiting for the scheduler."),
        ("running", {}, "", "Renewing."),
        ("failed", {}, "The connection is missing.", "The connection is missing."),
        ("failed", {}, "", "The run ended without a report; its log says why."),
        ("success", {}, "It was made since.", "It was made since."),
    ],
)
def test_a_renewal_is_followed_to_its_end(state, attempts, survey, sentence):
    """Also one that left no report."""
    run = Run("renew-1", state, NOON - timedelta(seconds=5), "admin", survey)
    shown = row(in_use(20 * HOUR), agent(runs={"FLOWAPI_TOKEN": run}, attempts=attempts))
    assert shown["run"]["sentence"] == sentence
    assert shown["run"]["active"] == (state in ("queued", "running"))
    assert (shown["error"] is not None) == (state == "failed")


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (Outcome.UNAVAILABLE, "A try failed; it is tried again."),
        (Outcome.REFUSED, "The run is ending."),
    ],
)
def test_only_a_failure_that_may_pass_is_tried_again(outcome, sentence):
    """While Airflow waits for the next try of the task, or for the run to end."""
    found = in_use(20 * HOUR)
    failed = attempted(told(found, outcome), run_id="renew-1")
    run = Run("renew-1", "running", NOON - HOUR)
    shown = row(found, agent(runs={"FLOWAPI_TOKEN": run}, attempts=failed))
    assert shown["run"]["sentence"] == sentence


@pytest.mark.parametrize(
    ("known", "state", "words"),
    [
        ({}, "ok", ""),
        ({"checked_at": None}, "new", "It has not checked any token yet"),
        ({"paused": True}, "paused", "unpause it"),
        ({"broken": True, "there": False}, "broken", "import error"),
        ({"there": False}, "missing", "put its file back"),
        ({"late_at": NOON - HOUR}, "late", "is the scheduler running?"),
        ({"failed_at": NOON, "failure": "No list."}, "failed", "12:00:00 UTC failed. No list."),
    ],
)
def test_the_heartbeat_says_how_the_agent_is(known, state, words):
    """And what to do about it."""
    [shown] = Overview([agent(**known)], [], set(), Pages(), NOON).document()["agents"]
    assert shown["state"] == state
    assert words in shown["sentence"]


def test_what_needs_care_comes_after_what_is_active_and_before_what_has_expired():
    """Within a group by name."""
    lives = {"C": 20 * HOUR, "A": 20 * HOUR, "B": -HOUR, "D": 2 * HOUR}
    keeper = agent()
    managed = []
    for name, left in lives.items():
        found = in_use(left)
        found = replace(found, report=replace(found.report, name=name))
        managed.append(Managed(keeper, ManagedToken(f"TOKEN_{name}"), found))
    shown = Overview([keeper], managed, {DAG}, Pages(), NOON).document()["tokens"]
    assert [one["name"] for one in shown] == ["A", "C", "D", "B"]


def test_a_failure_before_the_token_was_read_is_about_the_one_of_its_time():
    """As of a connection that is not there: its report knows no expiry."""
    found = in_use(7 * HOUR)
    unread = replace(told(found, Outcome.MISCONFIGURED, "No."), predecessor_expires_at=None)
    keeper = agent(attempts=attempted(unread))
    shown = row(found, keeper)
    assert (shown["state"], shown["group"]) == ("misconfigured", "attention")
    assert shown["error"]["reason"] == "No."
    assert row(in_use(24 * HOUR), keeper)["error"] is None


def test_a_shadowed_variable_is_told_of_whatever_is_stored():
    """The report has the expiry of what hides it."""
    hiding = in_use(5 * HOUR)
    keeper = agent(attempts=attempted(told(hiding, Outcome.SHADOWED, "It is hidden.")))
    for found in (in_use(7 * HOUR), MissingToken("No.")):
        shown = row(found, keeper)
        assert (shown["state"], shown["reason"]) == ("shadowed", "It is hidden.")


def test_a_token_stored_by_hand_ends_the_error_of_a_run():
    """What the run failed of is not about it."""
    run = Run("renew-1", "failed", NOON - HOUR, "admin", "No list.")
    keeper = agent(runs={"FLOWAPI_TOKEN": run})
    assert row(in_use(20 * HOUR), keeper)["error"]["reason"] == "No list."
    assert row(in_use(24 * HOUR), keeper)["error"] is None


def test_a_run_that_was_followed_by_others_says_how_it_ended():
    """Not that it left no report."""
    found = in_use(20 * HOUR)
    run = Run("renew-1", "success", NOON - 2 * HOUR)
    own = replace(told(found, Outcome.ROTATED, "It was swapped."), severity=Severity.OK)
    attempts = [
        Attempt("scheduled", 0, replace(own, reason="Again.")),
        Attempt("renew-1", 0, own),
    ]
    keeper = agent(runs={"FLOWAPI_TOKEN": run}, attempts={"FLOWAPI_TOKEN": attempts})
    assert row(found, keeper)["run"]["sentence"] == "It was swapped."


def test_a_dag_that_is_gone_keeps_only_what_no_other_has_taken_over():
    """A token that was moved to another DAG is there once."""
    gone = replace(agent(there=False), dag_id="old")
    assert without_the_dead([gone, agent()]) == [agent()]
    assert without_the_dead([gone]) == [gone]
    more = replace(gone, tokens=[ManagedToken(), ManagedToken("ETL_TOKEN")])
    kept, _ = without_the_dead([more, agent()])
    assert kept.tokens == [ManagedToken("ETL_TOKEN")]
    broken = replace(gone, broken=True)
    assert without_the_dead([broken, agent()]) == [broken, agent()]


class TestWatched:
    """What those who watch are told of the same."""

    def test_a_wrong_list_is_told_of_the_dag(self):
        """A DAG that checks, and not all that it should."""
        beat = heartbeat(agent(notices=["Entry 2 has no `variable`."]), NOON)
        assert (beat.condition, beat.sentence) == ("misconfigured", "Entry 2 has no `variable`.")
        assert heartbeat(agent(), NOON).condition == "ok"

    def test_a_run_that_goes_on_changes_nothing_of_how_long_two_checks_take(self):
        """What was issued and is not in use is told all the same."""
        patient = heartbeat(agent(late_at=NOON + 2 * HOUR), NOON).patience
        assert patient == heartbeat(agent(), NOON).patience < HOUR

    def test_rotations_of_another_token_in_the_variable_are_not_its_own(self):
        """Somebody put a token of another name there."""
        found = in_use(10 * HOUR)
        longer = {"newest_issued_expires_at": NOON + 900 * HOUR, "successor_expires_at": NOON}
        report = told(found, Outcome.ROTATED, severity=Severity.OK, **longer)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, replace(report, name="OTHER"))]}
        other = watched(Managed(agent(attempts=attempts), ManagedToken(), found), NOON)
        assert (other.issued, other.last_success_at) == (None, None)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, report)]}
        own = watched(Managed(agent(attempts=attempts), ManagedToken(), found), NOON)
        assert own.issued.expires_at == NOON + 900 * HOUR
        assert own.last_success_at == report.checked_at

    def test_a_token_that_cannot_be_read_keeps_its_name(self):
        """The one that its last rotation knew, so that its service stays."""
        report = told(in_use(10 * HOUR), Outcome.ROTATED, severity=Severity.OK)
        attempts = {"FLOWAPI_TOKEN": [Attempt("scheduled__1", 0, report)]}
        gone = Managed(agent(attempts=attempts), ManagedToken(), MissingToken("There is none."))
        assert watched(gone, NOON).name == "AIRFLOW"
