"""The page's data about a token and its rotation DAG."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import Event, RotationDagStatus
from flowauth_rotator.provider.web.live_status import add_dags, add_tokens
from flowauth_rotator.provider.web.overview import Overview
from flowauth_rotator.provider.web.page_runs import PageRun, build_next_run_id, build_run_prefix
from tests.provider.page_facts import (
    DAG,
    HOUR,
    KEY,
    MINUTE,
    NOON,
    build_document,
    describe_dag,
    describe_rotation,
    describe_token,
    encode_token,
)


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


def store(text):
    return MemoryStore(Token(text) if text else None, name=KEY)


def build_run(state, requested_at=NOON - HOUR):
    """Return a run that a user started from the page."""
    return PageRun("renew-1", state, requested_at, "admin")


def show(document, stores, run=None, renewable_dags=(DAG,), scheduled_dags=None):
    """Return the page of a document, as its DAGs and Variables are now."""
    status = add_tokens(add_dags(document, document.dags, NOON), stores, NOON)
    runs = {(DAG, build_run_prefix(KEY)): run} if run else {}
    status = replace(status, runs=runs, scheduled_dags=scheduled_dags or {})
    overview = Overview(status, assess(status.document, NOON), set(renewable_dags), Pages())
    return overview.to_json()


def build_row(text, known=None, dag=None, **others):
    """Return the row of a single token, of which the document knows `known`."""
    is_token = text and text.count(".") == 2
    known = known or describe_token(text if is_token else encode_token())
    document = build_document(known, dags=[dag or describe_dag()])
    [row] = show(document, {KEY: store(text)}, **others)["tokens"]
    return row


@pytest.mark.parametrize(
    ("left", "state", "severity"),
    [
        (20 * HOUR, "healthy", "ok"),
        (7 * HOUR, "due", "ok"),
        (2 * HOUR, "critical", "critical"),
        (-HOUR, "expired", "critical"),
    ],
)
def test_a_token_has_its_state_and_severity(left, state, severity):
    """With its times, its roles and their scopes."""
    row = build_row(encode_token(left))
    assert (row["state"], row["severity"]) == (state, severity)
    expires_at = round((NOON + left).timestamp())
    assert row["expires_at"] == expires_at
    assert row["renew_at"] == expires_at - 8 * 3600
    assert row["critical_at"] == expires_at - 8640
    assert (row["owner"], row["audience"]) == ("flowbot", "TEST_SERVER")
    assert row["roles"] == ["viewer"]
    assert row["scopes"] == [{"name": "viewer", "scopes": ["get_results", "run"]}]


def test_a_due_token_needs_attention_if_its_dag_will_not_renew_it():
    """The forecast says what the next check does, or why there is none."""
    token = encode_token(7 * HOUR)
    row = build_row(token)
    assert row["forecast"] == "The next check, at 2026-11-25 12:04 UTC, renews the token."
    row = build_row(token, dag=describe_dag(is_paused=True, next_check_at=None))
    assert (row["severity"], row["next_check_at"]) == ("warning", None)
    assert row["forecast"].startswith("The token is not being renewed.")


def test_a_token_in_another_store_is_as_the_last_check_found_it():
    """The web server reads Airflow's database alone, which does not have the token."""
    token = encode_token(20 * HOUR)
    settings = {"variable": KEY, "store": "vault://vault_default/variables"}
    renew_at = NOON + 12 * HOUR
    row = build_row(None, describe_token(token, settings=settings, renew_at=renew_at))
    assert (row["state"], row["severity"]) == ("healthy", "ok")
    assert row["expires_at"] == round((NOON + 20 * HOUR).timestamp())
    assert row["renewal_check_at"] >= round(renew_at.timestamp())


def test_a_failure_is_shown_until_another_token_is_in_use():
    """With the message, the hint and the task of the rotation."""
    token = encode_token(7 * HOUR)
    refused = describe_rotation(token, message="The issuer refused.", hint="Mint a new token.")
    known = describe_token(token, rotations=[refused], last_check=refused)
    row = build_row(token, known)
    assert (row["state"], row["severity"]) == ("refused", "warning")
    assert row["hint"] == "Mint a new token."
    assert row["error"] == {
        "outcome": "refused",
        "message": "The issuer refused.",
        "hint": "Mint a new token.",
        "at": round((NOON - MINUTE).timestamp()),
        "url": "task rotate 3 of scheduled",
    }
    another = build_row(encode_token(20 * HOUR), known)
    assert (another["state"], another["error"]) == ("healthy", None)


def test_the_reasons_do_not_repeat_the_failure_or_the_expiry():
    """The row has those in places of their own; a message may contain what separates clauses."""
    token = encode_token(7 * HOUR)
    refused = describe_rotation(token, message="It refused; try later; 2024-01-01.")
    known = describe_token(token, rotations=[refused], last_check=refused)
    assert build_row(token, known)["reasons"] == []
    paused = describe_dag(is_paused=True, next_check_at=None)
    assert build_row(token, known, dag=paused)["reasons"] == [f"{DAG} is paused"]
    [reason] = build_row("Bearer x")["reasons"]
    assert reason == build_row("Bearer x")["message"]


def test_a_failed_renewal_of_a_healthy_token_stays_in_its_row():
    """The next check finds it healthy again; the failure stays until the next rotation."""
    token = encode_token()
    failed = describe_rotation(token, "unavailable", message="No answer.")
    known = describe_token(token, rotations=[failed])
    document = build_document(known)
    document = type(document).load(document.dump())  # the Variable keeps the message
    live = replace(document, dags=[describe_dag()])
    [row] = show(live, {KEY: store(token)})["tokens"]
    assert (row["state"], row["severity"]) == ("healthy", "ok")
    assert row["error"]["message"] == "No answer."


def test_a_swap_is_the_last_rotation_and_no_failure():
    """With the lifetime that the issuer granted, and the newest token that was seen there."""
    token = encode_token(23 * HOUR)
    swapped = describe_rotation(token, "rotated", Severity.OK)
    known = describe_token(
        token,
        rotations=[swapped],
        longest_minutes=1440,
        newest_issued_at=NOON - HOUR,
        newest_issued_expires_at=NOON + 24 * HOUR,
    )
    row = build_row(token, known)
    assert row["rotations"][0]["outcome"] == "rotated"
    assert row["rotations"][0]["url"] == "task rotate 3 of scheduled"
    assert row["newest_issued_expires_at"] == round((NOON + 24 * HOUR).timestamp())
    assert row["renewal"]["longest_minutes"] == 1440
    assert row["error"] is None


def test_the_most_severe_and_the_first_to_expire_come_first():
    """Within a severity, tokens that cannot be read are the first."""
    tokens = {
        "healthy": encode_token(20 * HOUR),
        "due": encode_token(7 * HOUR),
        "late": encode_token(4 * HOUR),
        "expired": encode_token(-HOUR),
        "critical": encode_token(HOUR),
        "unreadable": None,
    }
    known = [describe_token(text or encode_token(), key, name=key) for key, text in tokens.items()]
    stores = {key: store(text) for key, text in tokens.items()}
    rows = show(build_document(*known), stores)["tokens"]
    expected = ["unreadable", "expired", "critical", "late", "due", "healthy"]
    assert [row["name"] for row in rows] == expected


@pytest.mark.parametrize(
    ("left", "dag", "failure", "runbook", "alert"),
    [
        (20 * HOUR, {}, None, None, None),
        (-HOUR, {}, None, "FlowAuthTokenExpired", "FlowAuthTokenExpired"),
        (2 * HOUR, {}, None, "FlowAuthTokenExpiryCritical", "FlowAuthTokenExpiryCritical"),
        (4 * HOUR, {}, None, "FlowAuthTokenExpiringSoon", "FlowAuthTokenExpiringSoon"),
        (7 * HOUR, {}, "refused", "FlowAuthRotationFailing", "FlowAuthRotationFailing"),
        (20 * HOUR, {}, "misconfigured", "FlowAuthRotationFailing", None),
        (20 * HOUR, {"is_paused": True}, None, "FlowAuthRotationAgentStalled", None),
        (
            20 * HOUR,
            {"is_paused": True, "deadline_at": NOON - MINUTE},
            None,
            "FlowAuthRotationAgentStalled",
            "FlowAuthRotationAgentStalled",
        ),
        (None, {}, None, "FlowAuthTokenMissing", "FlowAuthTokenMissing"),
    ],
)
def test_a_state_has_a_runbook_and_an_alert(left, dag, failure, runbook, alert):
    """An alert that fires; the runbook is for all that is not OK."""
    token = encode_token(left or HOUR)
    event = failure and describe_rotation(token, failure)
    known = describe_token(token, **({"last_check": event} if event else {}))
    row = build_row(token if left else None, known, dag=describe_dag(**dag))
    url = f"flowauth-rotator/runbooks/{runbook}"
    assert row["runbook"] == (runbook and {"text": runbook, "url": url})
    assert row["alert"] == alert


def test_a_token_with_an_invalid_signature_is_not_healthy():
    """It has a state, a reason, an alert and a runbook of its own."""
    token = encode_token()  # not signed with that key
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    row = build_row(token, dag=describe_dag(public_keys={"flowauth_default": pem}))
    assert (row["state"], row["severity"]) == ("invalid_signature", "critical")
    assert row["reasons"] == ["its signature is not valid"]
    assert row["alert"] == row["runbook"]["text"] == "FlowAuthTokenSignatureInvalid"


def test_a_newer_token_that_is_not_in_use_has_its_runbook():
    """Also an alert."""
    token = encode_token()
    newer = {"newest_issued_at": NOON - 3 * HOUR, "newest_issued_expires_at": NOON + 24 * HOUR}
    row = build_row(token, describe_token(token, **newer))
    assert row["alert"] == "FlowAuthTokenNotDeployed"
    assert row["runbook"]["url"].endswith("/FlowAuthTokenNotDeployed")


def test_each_rotation_has_its_task_and_the_user_who_started_it():
    """None for the schedule."""
    token = encode_token()
    by_hand = describe_rotation(token, "rotated", Severity.OK, requested_by="alice")
    scheduled = describe_rotation(token, "rotated", Severity.OK, map_index=-1)
    row = build_row(token, describe_token(token, rotations=[by_hand, scheduled]))
    assert [(each["requested_by"], each["url"]) for each in row["rotations"]] == [
        ("alice", "task rotate 3 of scheduled"),
        (None, "task rotate -1 of scheduled"),
    ]


def test_the_lifetimes_on_offer_are_bounded():
    """By the token in use and by what the issuer granted; unknown for a token without dates."""
    token = encode_token(90 * MINUTE)
    renewal = build_row(token, describe_token(token, longest_minutes=1440))["renewal"]
    assert (renewal["shortest_minutes"], renewal["longest_minutes"]) == (91, 1440)
    assert build_row(encode_token(-HOUR))["renewal"]["shortest_minutes"] == 1
    assert build_row(None)["renewal"]["shortest_minutes"] is None


def test_a_row_has_the_dags_on_its_asset():
    """By the name of the token."""
    token = encode_token()
    document = build_document(describe_token(token, name="etl main"))
    scheduled = {"flowauth://etl%20main": ["load"]}
    [row] = show(document, {KEY: store(token)}, scheduled_dags=scheduled)["tokens"]
    assert row["scheduled_dags"] == [{"dag_id": "load", "url": "dag load"}]


@pytest.mark.parametrize(
    ("text", "dag", "why_not", "url"),
    [
        (encode_token(), {"exists": False}, "The DAG does not exist", None),
        (
            encode_token(),
            {"has_import_error": True},
            "The DAG file has an import error",
            "import errors",
        ),
        (encode_token(), {"is_paused": True}, "The DAG is paused.", f"dag {DAG}"),
        (None, {}, "The Variable does not contain a token to renew.", f"variable {KEY}"),
        ("Bearer x", {}, "The Variable does not contain a token to renew.", f"variable {KEY}"),
        (encode_token(roles=()), {}, "The token has no roles.", f"variable {KEY}"),
    ],
    ids=["missing", "broken", "paused", "no token", "malformed", "no roles"],
)
def test_a_renewal_that_cannot_work_is_not_offered(text, dag, why_not, url):
    """The reason is, and a link to the place to correct it if there is one."""
    renewal = build_row(text, dag=describe_dag(**dag))["renewal"]
    assert not renewal["possible"]
    assert why_not in renewal["why_not"]
    assert (renewal["way_out"] or {}).get("url") == url


def test_a_token_that_the_issuer_no_longer_renews_is_not_offered_again():
    """A new token is."""
    token = encode_token(7 * HOUR)
    refused = describe_rotation(token, needs_new_token=True)
    known = describe_token(token, rotations=[refused], last_check=refused)
    renewal = build_row(token, known)["renewal"]
    assert renewal["why_not"].startswith("The issuer no longer renews this token.")
    assert renewal["way_out"]["url"] == f"variable {KEY}"
    assert build_row(encode_token(), known)["renewal"]["possible"]


def test_a_user_who_may_not_start_runs_sees_the_missing_permission():
    """The permission is named."""
    renewal = build_row(encode_token(), renewable_dags=())["renewal"]
    assert not renewal["possible"]
    assert f"You do not have the permission to create DAG runs of {DAG}." in renewal["why_not"]


def test_a_variable_of_two_dags_cannot_be_renewed():
    """Each of them is named."""
    token = encode_token()
    document = build_document(
        describe_token(token),
        describe_token(token, dag_id="another"),
        dags=[describe_dag(), describe_dag("another")],
    )
    rows = show(document, {KEY: store(token)}, renewable_dags=(DAG, "another"))["tokens"]
    assert [row["renewal"]["possible"] for row in rows] == [False, False]
    assert [row["dag_ids"] for row in rows] == [["another", DAG]] * 2
    assert [row["severity"] for row in rows] == ["warning", "warning"]
    assert "another and flowauth_token_rotation" in rows[0]["renewal"]["why_not"]


def test_the_lifetime_of_the_settings_is_the_usual_one():
    """Settings that this version does not know are ignored."""
    token = encode_token()
    settings = {"variable": KEY, "lifetime_minutes": 600, "renew_before": "11h"}
    row = build_row(token, describe_token(token, settings=settings))
    assert row["renewal"]["usual_minutes"] == 600
    assert row["expires_at"] - row["renew_at"] == 11 * 3600
    row = build_row(token, describe_token(token, settings={**settings, "unknown": 1}))
    assert row["renewal"]["usual_minutes"] is None


class TestPageRun:
    """A run that a user started from the page."""

    @pytest.mark.parametrize(
        ("state", "result", "message"),
        [
            ("queued", None, "Waiting for the scheduler."),
            ("running", None, "Renewing."),
            ("failed", "Connection nowhere does not exist.", "Connection nowhere does not exist."),
            ("failed", None, "The run ended without a report; see its log."),
            ("success", "It was issued since.", "It was issued since."),
            ("success", None, ""),
        ],
    )
    def test_it_is_followed_to_its_end(self, state, result, message):
        """Its result is the last one that has its id."""
        token, run = encode_token(), build_run(state)
        known = describe_token(token)
        if result:
            last_check = Event(NOON - MINUTE, "misconfigured", message=result, run_id="renew-1")
            known = replace(known, last_check=last_check)
        row = build_row(token, known, run=run)
        assert row["run"] == {
            "run_id": "renew-1",
            "state": state,
            "active": state in ("queued", "running"),
            "requested_at": round((NOON - HOUR).timestamp()),
            "requested_by": "admin",
            "is_rehearsal": False,
            "step": None,
            "message": message,
            "url": "run renew-1",
        }
        error = (row["error"]["message"], row["error"]["url"]) if row["error"] else None
        assert error == ((message, "run renew-1") if state == "failed" else None)

    def test_its_failure_as_a_whole_is_its_result(self):
        """As of an Airflow that did not respond to the survey."""
        token, run = encode_token(), build_run("failed")
        failure = Event(
            NOON, "unavailable", Severity.WARNING, "No response.", "Wait.", run_id="renew-1"
        )
        row = build_row(token, dag=describe_dag(failure=failure), run=run)
        assert row["run"]["message"] == "No response."
        assert (row["error"]["outcome"], row["error"]["hint"]) == ("unavailable", "Wait.")

    def test_its_rotation_is_its_result_and_the_failure(self):
        """With the task of the rotation."""
        token, run = encode_token(), build_run("failed")
        refused = describe_rotation(token, message="No.", run_id="renew-1")
        known = describe_token(token, rotations=[refused], last_check=refused)
        row = build_row(token, known, run=run)
        assert row["run"]["message"] == "No."
        assert (row["error"]["outcome"], row["error"]["url"]) == (
            "refused",
            "task rotate 3 of renew-1",
        )

    @pytest.mark.parametrize(("state", "severity"), [("success", "ok"), ("failed", "warning")])
    def test_a_rehearsal_is_its_own_result(self, state, severity):
        """Not the check before it, and no failure of a renewal."""
        token, run = encode_token(), replace(build_run(state), is_rehearsal=True)
        checked = Event(NOON, "healthy", message="It is fine.", run_id="renew-1")
        event = describe_rotation(token, severity=Severity(severity), run_id="renew-1")
        known = describe_token(token, last_rehearsal=event, last_check=checked)
        row = build_row(token, known, run=run)
        assert (row["run"]["is_rehearsal"], row["run"]["message"]) == (True, "A message.")
        assert row["last_rehearsal"]["url"] == "task rotate 3 of renew-1"
        assert (row["severity"], row["error"]) == (severity, None)

    def test_a_rehearsal_of_a_token_that_cannot_be_read_has_the_result_of_its_check(self):
        token = encode_token()
        run = replace(build_run("failed"), is_rehearsal=True)
        missing = Event(NOON, "missing", Severity.CRITICAL, "It is empty.", run_id="renew-1")
        row = build_row(token, describe_token(token, last_check=missing), run=run)
        assert row["run"]["message"] == "It is empty."

    def test_a_token_that_was_stored_since_ends_its_failure(self):
        """The failure was about the token before it."""
        run = build_run("failed")
        assert build_row(encode_token(20 * HOUR), run=run)["error"]
        assert build_row(encode_token(24 * HOUR), run=run)["error"] is None

    def test_a_later_rotation_ends_its_failure(self):
        """Whatever the result of the run was."""
        token, run = encode_token(), build_run("failed")
        swapped = describe_rotation(token, "rotated", Severity.OK)
        assert (
            build_row(token, describe_token(token, rotations=[swapped]), run=run)["error"] is None
        )

    def test_its_id_follows_that_of_the_last_one(self):
        """So that two requests that saw the same run start one."""
        first = build_next_run_id(KEY, None)
        assert first == f"{build_run_prefix(KEY)}1"
        assert build_next_run_id(KEY, PageRun(first, "success", NOON)).endswith("-2")
        assert build_next_run_id("ANOTHER", None) != first


class TestName:
    """FlowAuth's tokens do not carry their names, which rotations learn from the issuer."""

    def name_of(self, text, known):
        row = build_row(text, known)
        return row["name"], row["name_is_known"]

    def test_a_learnt_name_stays_with_its_token(self):
        """Also while the Variable cannot be read."""
        token = encode_token()
        known = describe_token(token)
        assert self.name_of(token, known) == ("AIRFLOW", True)
        assert self.name_of(None, known) == ("AIRFLOW", True)

    def test_a_successor_that_no_check_has_seen_has_the_same_name(self):
        """Otherwise the name would change between the swap and the end of the run."""
        known = describe_token(encode_token(7 * HOUR))
        assert self.name_of(encode_token(24 * HOUR), known) == ("AIRFLOW", True)

    @pytest.mark.parametrize(
        "difference", [{"sub": "somebody"}, {"aud": "OTHER"}, {"roles": ("admin",)}, {"left": HOUR}]
    )
    def test_another_token_has_another_name(self, difference):
        """Until it is known, the key of the Variable stands in."""
        known = describe_token(encode_token())
        another = encode_token(**{"left": 24 * HOUR, **difference})
        assert self.name_of(another, known) == (KEY, False)

    def test_the_name_in_a_token_counts(self):
        """The bundled renewal server writes it there."""
        token = encode_token(token_name="INSIDE")
        assert self.name_of(token, describe_token(token)) == ("INSIDE", True)


class TestDag:
    """The rotation DAGs on the page."""

    @pytest.mark.parametrize(
        ("settings", "condition", "severity", "hint"),
        [
            ({}, "ok", "ok", ""),
            ({"checked_at": None, "deadline_at": None}, "new", "warning", "The next run"),
            ({"is_paused": True}, "paused", "critical", "Unpause to resume"),
            ({"has_import_error": True, "exists": False}, "broken", "critical", "import error"),
            ({"exists": False}, "missing", "critical", "put its file back"),
            ({"deadline_at": NOON - HOUR}, "late", "critical", "Two checks were missed"),
            (
                {"failure": Event(NOON, "unavailable", message="No response.")},
                "failed",
                "warning",
                "No response.",
            ),
            ({"configuration_errors": ["Entry 2."]}, "misconfigured", "critical", "Entry 2."),
        ],
    )
    def test_its_condition_comes_with_a_hint(self, settings, condition, severity, hint):
        """And with its page in Airflow."""
        document = build_document(describe_token(encode_token()), dags=[describe_dag(**settings)])
        [dag] = show(document, {KEY: store(encode_token())})["dags"]
        assert (dag["condition"], dag["severity"], dag["url"]) == (
            condition,
            severity,
            f"dag {DAG}",
        )
        assert hint in dag["hint"]

    def test_a_dag_without_a_document_has_not_checked_yet(self):
        """A document without a DAG is of a missing one."""
        old = build_document(
            describe_token(encode_token(), dag_id="old"), dags=[describe_dag("old")]
        )
        live = [RotationDagStatus("new", next_check_at=NOON)]
        dags = {dag.dag_id: dag for dag in add_dags(old, live, NOON).dags}
        assert dags["new"].checked_at is None
        assert dags["new"].next_check_at == NOON
        assert not dags["old"].exists
        assert dags["old"].checked_at

    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            ("0 * * * *", NOON + HOUR),
            (3600, NOON + 30 * MINUTE),
            (600, NOON + 10 * MINUTE),
            (None, None),
        ],
    )
    def test_it_has_a_next_check_while_one_runs(self, schedule, expected):
        """For which Airflow 2 has no time then."""
        running = RotationDagStatus(DAG, schedule=schedule, checked_at=NOON - 30 * MINUTE)
        document, live = build_document(dags=[running]), [RotationDagStatus(DAG)]
        [dag] = add_dags(document, live, NOON + MINUTE).dags
        assert dag.next_check_at == expected

    @pytest.mark.parametrize("state", ["is_paused", "has_import_error"])
    def test_it_has_no_next_check_if_it_is_not_scheduled(self, state):
        """A schedule alone runs nothing."""
        live = RotationDagStatus(DAG, **{state: True})
        [dag] = add_dags(build_document(dags=[describe_dag()]), [live], NOON).dags
        assert dag.next_check_at is None

    def test_a_missing_dag_stays_for_tokens_that_no_other_manages(self):
        """Its other tokens are those of the DAG that took them over."""
        token = encode_token()
        moved, left = (describe_token(token, key, dag_id="old") for key in (KEY, "LEFT_TOKEN"))
        dags = [describe_dag("old"), describe_dag()]
        live = [RotationDagStatus(DAG)]
        merged = add_dags(build_document(moved, describe_token(token), dags=dags), live, NOON)
        assert [dag.dag_id for dag in merged.dags] == [DAG]
        merged = add_dags(build_document(moved, left, describe_token(token), dags=dags), live, NOON)
        assert [dag.dag_id for dag in merged.dags] == [DAG, "old"]
        assert [(each.dag_id, each.variable) for each in merged.tokens] == [
            ("old", "LEFT_TOKEN"),
            (DAG, KEY),
        ]

    def test_a_missing_dag_without_tokens_is_left_out(self):
        """As one whose file was removed before its first check."""
        gone = RotationDagStatus("gone", exists=False)
        dags = add_dags(build_document(), [gone, RotationDagStatus(DAG)], NOON).dags
        assert [dag.dag_id for dag in dags] == [DAG]


def test_a_failure_before_the_token_was_read_is_about_the_token_of_that_time():
    """As of a connection that does not exist: its event has no fingerprint."""
    token = encode_token(7 * HOUR)
    failed = describe_rotation(None, "misconfigured", message="No.")
    known = describe_token(token, rotations=[failed], last_check=failed)
    row = build_row(token, known)
    assert (row["state"], row["severity"]) == ("misconfigured", "warning")
    assert row["error"]["message"] == "No."
    assert build_row(encode_token(24 * HOUR), known)["error"] is None


def test_a_shadowed_variable_is_shown_whatever_is_stored():
    """The event has the fingerprint of the value that hides it."""
    hiding = encode_token(5 * HOUR)
    shadowed = describe_rotation(hiding, Outcome.SHADOWED, message="It is hidden")
    known = describe_token(hiding, rotations=[shadowed], last_check=shadowed)
    for text in (encode_token(7 * HOUR), None):
        row = build_row(text, known)
        assert row["state"] == "shadowed"
        assert "It is hidden" in row["message"]


def test_an_unreadable_token_says_why():
    """Nothing that the document knows of its dates counts any more."""
    row = build_row("Bearer x")
    assert (row["state"], row["severity"]) == ("malformed", "critical")
    assert row["read_error"]["hint"]
    assert (row["expires_at"], row["roles"], row["scopes"]) == (None, [], [])
