"""The operator and the DAG in a real Airflow, against a real renewal server."""

import itertools
import json
import time
from datetime import timedelta

import pytest

from demo.parts import free_port
from flowauth_rotator.core.durations import format_duration
from flowauth_rotator.core.tokens import Token, read_unverified
from proofs.flowapi import PATH, FlowApi
from proofs.flowauth import serve
from tests.provider.conftest import driven

numbers = itertools.count()
MASK_ALL = "set `hide_sensitive_var_conn_fields = True`"
MASK_NOTHING = {"AIRFLOW__CORE__HIDE_SENSITIVE_VAR_CONN_FIELDS": "False"}
TEMPLATE = "{{ 1 + 1 }} {{ var.value.HEALTHY }}"  # a token's name is other people's input


@pytest.fixture
def connection(airflow, renewal_server):
    """A connection to the renewal server of this test, signed in to as flowbot."""
    conn_id = f"flowauth_{next(numbers)}"
    airflow.put_connection(
        conn_id=conn_id,
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
    )
    return conn_id


def mint_due(server, name):
    return server.mint(name, issued_at=int(time.time()) - 2700)


def count_renewals(server):
    """The number of requests for a token; the row 0 of a rehearsal does not exist."""
    return sum(
        request.startswith("POST") and request.endswith("/renew") and "/tokens/0/" not in request
        for request in server.requests
    )


def stored(airflow, key):
    return airflow.variable(key=key)["value"]


def run_one(airflow, connection, variable="ONE"):
    done = airflow.run(dag_id="one", conf={"variable": variable, "connection": connection})
    return done["tasks"]["rotate"]


def test_a_due_token_is_rotated_and_reported(airflow, renewal_server, connection):
    """The task succeeds, the Variable holds the successor, the report is in XCom."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("success", 1)
    assert task["report"]["outcome"] == "rotated"
    assert task["report"]["name"] == "NIGHTLY"
    variable = airflow.variable(key="ONE")
    assert variable["value"] != token
    assert variable["description"].startswith("FlowAPI token NIGHTLY, expires")


def test_a_task_that_a_timeout_ends_leaves_a_report(airflow, renewal_server, connection):
    """Airflow's timeout is not one of the usual exceptions; the report names it.

    Like any failure it is a warning while there is time, with what is known of the token.
    """
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    with renewal_server.holding("/signin"):
        done = airflow.run(dag_id="hasty", conf={"connection": connection})
    task = done["tasks"]["rotate"]
    assert task["state"] == "failed"
    assert task["report"]["outcome"] == "unavailable"
    assert "The task was ended by AirflowTaskTimeout" in task["report"]["message"]
    assert "`execution_timeout`" in task["report"]["hint"]
    assert (task["report"]["name"], task["report"]["severity"]) == ("NIGHTLY", "warning")
    assert task["report"]["fingerprint"] == Token(token).fingerprint
    expires_at = read_unverified(Token(token)).expires_at
    assert task["report"]["expires_at"] == int(expires_at.timestamp())


def test_both_tokens_are_masked_in_pieces(airflow, renewal_server, connection):
    """By the time the rotation is over, Airflow's masker knows each segment of either token."""
    token = mint_due(renewal_server, "MASKED")
    airflow.put_variable(key="ONE", value=token, description=None)
    answer = run_one(airflow, connection)["answer"]
    assert answer["before"][1:] == [True, True]
    assert answer["after"] == ["log: ***!"] * 6
    assert stored(airflow, "ONE") != token


def test_a_capped_swap_is_red(airflow, renewal_server, connection):
    """The token is swapped, since it is better than none, and the task fails."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    renewal_server.limit("runner", minutes=16)
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["outcome"] == "capped"
    assert stored(airflow, "ONE") != token


def test_a_successor_that_flowapi_refuses_is_not_stored(airflow, renewal_server):
    """It accepts the token in use: the task is critical at once, and nothing has changed."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    flowapi = FlowApi(lambda presented: None if presented == token else 422)
    with serve(flowapi.answer) as url:
        airflow.put_connection(
            conn_id="probing",
            host=renewal_server.url,
            login=renewal_server.username,
            password=renewal_server.password,
            extra=json.dumps({"probe_url": f"{url}{PATH}"}),
        )
        task = run_one(airflow, "probing")
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert (task["report"]["outcome"], task["report"]["severity"]) == ("rejected", "critical")
    assert "FlowAPI refuses it, and accepts the token in use" in task["report"]["message"]
    assert stored(airflow, "ONE") == token


def test_a_refusal_fails_the_task_at_once(airflow, renewal_server, connection):
    """A refusal is not retried, and the report contains the issuer's message."""
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description="ask Jo")
    renewal_server.revoke("runner")
    task = run_one(airflow, connection)
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["outcome"] == "refused"
    assert "no longer assigned to you: runner" in task["report"]["message"]
    assert (task["report"]["name"], task["report"]["renewal_requests"]) == ("NIGHTLY", 1)
    assert task["report"]["severity"] == "warning"
    assert airflow.variable(key="ONE") == {"value": token, "description": "ask Jo"}


def test_an_unreachable_issuer_is_tried_again(airflow, renewal_server):
    """Airflow's retries are used, and the token in use stays."""
    airflow.put_connection(conn_id="unreachable", host=f"http://127.0.0.1:{free_port()}")
    token = mint_due(renewal_server, "NIGHTLY")
    airflow.put_variable(key="ONE", value=token, description=None)
    task = run_one(airflow, "unreachable")
    assert (task["state"], task["tries"]) == ("failed", 2)
    assert task["report"]["outcome"] == "unavailable"
    assert stored(airflow, "ONE") == token


def test_a_missing_connection_fails_the_task(airflow, renewal_server):
    """The report names it, and the task is not retried."""
    airflow.put_variable(key="ONE", value=mint_due(renewal_server, "NIGHTLY"), description=None)
    task = run_one(airflow, "nowhere")
    assert (task["state"], task["tries"]) == ("failed", 1)
    assert task["report"]["message"] == "Connection nowhere does not exist."


@pytest.fixture
def several(airflow, renewal_server):
    """A Variable for each of the DAG's tokens; the one named MISSING is not there."""
    airflow.put_connection(
        conn_id="flowauth_default",
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
    )
    tokens = {
        "HEALTHY": renewal_server.mint("HEALTHY"),
        "DUE": mint_due(renewal_server, "ETL"),
        "MALFORMED": "Bearer opaque-canary",
        "ALSO_DUE": mint_due(renewal_server, TEMPLATE),
    }
    for key, value in tokens.items():
        airflow.put_variable(key=key, value=value, description=None)
    return tokens


def test_each_token_is_handled_whatever_the_state_of_the_others(airflow, renewal_server, several):
    """Due tokens are rotated, failures are named, a new healthy token is rehearsed."""
    done = airflow.run(dag_id="several")
    tasks = done["tasks"]
    assert {label: task["state"] for label, task in tasks.items()} == {
        "survey": "success",
        "rotate HEALTHY": "success",
        "rotate ETL": "success",
        "rotate MALFORMED": "failed",
        "rotate MISSING": "failed",
        f"rotate {TEMPLATE}": "success",
        "report": "failed",
    }
    assert done["state"] == "failed"
    outcomes = [task["report"]["outcome"] for label, task in tasks.items() if "rotate" in label]
    assert sorted(outcomes) == ["healthy", "malformed", "missing", "rotated", "rotated"]
    assert stored(airflow, "HEALTHY") == several["HEALTHY"]
    assert stored(airflow, "MALFORMED") == several["MALFORMED"]
    for key in ("DUE", "ALSO_DUE"):
        assert stored(airflow, key) != several[key]
    assert airflow.variable(key="DUE")["description"] == "for the nightly ETL"
    assert count_renewals(renewal_server) == 2


@pytest.fixture
def managed(airflow, connection):
    """Runs the DAG on a list of tokens, as somebody who fills in the form does."""

    def run(*entries, settings=None, **params):
        text = json.dumps([{"flowauth_conn_id": connection, **entry} for entry in entries])
        environment = {"AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": text, **(settings or {})}
        return airflow.run(dag_id="managed", conf=params, environment=environment)

    return run


@pytest.fixture
def put(airflow, renewal_server):
    """Store a token of the server in the Variable of its name; it is due unless said otherwise."""

    def store(name, *, age=2700, lifetime_minutes=60):
        issued_at = int(time.time()) - age
        token = renewal_server.mint(name, lifetime_minutes=lifetime_minutes, issued_at=issued_at)
        airflow.put_variable(key=name, value=token, description=None)
        return token

    return store


def states(done):
    return {label: task["state"] for label, task in done["tasks"].items()}


@pytest.fixture
def results(airflow):
    """Returns the last result of each token in the status document, by name."""

    def read():
        tokens = airflow.status()["tokens"]
        return {
            token["name"]: {"severity": "ok", "hint": "", **token["last_check"]}
            for token in tokens
            if "last_check" in token
        }

    return read


def test_a_selected_variable_selects_no_token_of_that_name(managed, put, airflow, renewal_server):
    """The page selects by Variable: a click renews one token."""
    put("ASKED", age=2)
    named_alike = renewal_server.mint("ASKED")
    airflow.put_variable(key="NAMED_ALIKE", value=named_alike, description=None)
    done = managed({"variable": "ASKED"}, {"variable": "NAMED_ALIKE"}, names=["ASKED"], force=True)
    assert states(done) == {"survey": "success", "rotate ASKED": "success", "report": "success"}
    assert stored(airflow, "NAMED_ALIKE") == named_alike


def test_the_tokens_of_the_list_variable_are_rotated(managed, put, airflow, results):
    """No DAG file is edited: the list is read at each run, with each token's own settings."""
    old = put("LIST_DUE"), put("LIST_EARLY", age=1200)
    kept = put("LIST_HEALTHY", age=0)
    done = managed(
        {"variable": "LIST_DUE", "name": "LIST_DUE"},
        {"variable": "LIST_EARLY", "renew_before": 0.5, "critical_before": "5m"},
        {"variable": "LIST_HEALTHY"},
    )
    assert done["state"] == "success"
    assert {"rotate LIST_DUE", "report"} < states(done).keys()
    outcomes = {name: result["outcome"] for name, result in results().items()}
    assert outcomes == {"LIST_DUE": "rotated", "LIST_EARLY": "healthy", "LIST_HEALTHY": "healthy"}
    assert stored(airflow, "LIST_DUE") != old[0]
    done = managed({"variable": "LIST_EARLY", "renew_before": "40m"}, {"variable": "LIST_HEALTHY"})
    assert states(done)["survey"] == "success"
    assert stored(airflow, "LIST_EARLY") == old[1]
    assert stored(airflow, "LIST_HEALTHY") == kept


def test_without_a_list_there_is_one_token(airflow, several, put, results):
    """It is in FLOWAPI_TOKEN, as ever."""
    put("FLOWAPI_TOKEN", age=0)
    done = airflow.run(dag_id="managed")
    assert done["state"] == "success"
    assert results().keys() == {"FLOWAPI_TOKEN"}


def test_a_healthy_run_costs_one_task(managed, put, renewal_server, results):
    """However many tokens there are; the survey itself reports on them.

    The first check of a token is another: it rehearses.
    """
    entries = [{"variable": f"WELL_{number}"} for number in range(3)]
    for entry in entries:
        put(entry["variable"], age=0)
    managed(*entries)
    renewal_server.requests.clear()
    done = managed(*entries)
    assert done["state"] == "success"
    assert states(done) == {"survey": "success", "rotate": "skipped", "report": "skipped"}
    assert {report["outcome"] for report in results().values()} == {"healthy"}
    assert len(results()) == 3
    assert renewal_server.requests == []


def test_an_invalid_entry_stops_no_other(managed, put, airflow):
    """The others are rotated; the run is red in the end and names the entry."""
    old = put("BESIDE")
    done = managed({"variable": "BESIDE"}, {"variable": "X", "name": "ETL", "lifetime": 60})
    assert done["state"] == "failed"
    assert states(done) == {"survey": "success", "rotate BESIDE": "success", "report": "failed"}
    assert stored(airflow, "BESIDE") != old
    [error] = airflow.status()["dags"][0]["configuration_errors"]
    assert "unknown key 'lifetime'" in error


def test_an_invalid_entry_fails_a_run_in_which_nothing_is_due(
    managed, put, renewal_server, airflow
):
    """It is reported by the survey."""
    put("BESIDE", age=0)
    managed({"variable": "BESIDE"})
    renewal_server.requests.clear()
    done = managed({"variable": "BESIDE"}, {"variable": "BESIDE"})
    assert done["state"] == "failed"
    [error] = airflow.status()["dags"][0]["configuration_errors"]
    assert "Variable BESIDE is listed twice" in error
    assert renewal_server.requests == []


@pytest.mark.parametrize("text", ["", "{'variable': 'X'}", '{"variable": "X"}'])
def test_an_invalid_list_fails_the_run(airflow, text):
    """No token is known."""
    environment = {"AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": text}
    done = airflow.run(dag_id="managed", environment=environment)
    assert done["state"] == "failed"
    [error] = airflow.status()["dags"][0]["configuration_errors"]
    assert error.startswith("Variable flowauth_rotator_tokens is not ")


def test_a_missing_connection_is_reported_before_the_token_is_due(
    managed, put, renewal_server, results
):
    """It stops no other token, and causes no request."""
    put("ALONE", age=0)
    put("OTHER")
    put("LATE")
    done = managed(
        {"variable": "ALONE", "flowauth_conn_id": "not_made"},
        {"variable": "LATE", "flowauth_conn_id": "not_made"},
        {"variable": "OTHER"},
    )
    assert done["state"] == "failed"
    assert states(done) == {
        "survey": "success",
        "rotate LATE": "failed",
        "rotate OTHER": "success",
        "report": "failed",
    }
    assert (results()["ALONE"]["outcome"], results()["ALONE"]["severity"]) == (
        "misconfigured",
        "critical",
    )
    assert results()["ALONE"]["message"] == "Connection not_made does not exist."
    assert count_renewals(renewal_server) == 1


def test_a_schedule_that_is_too_slow_for_a_token_is_a_warning(managed, put, results):
    """The report has the correction; the run succeeds."""
    put("SHORT_TOKEN", age=0, lifetime_minutes=12)
    put("LONG_TOKEN", age=0)
    done = managed({"variable": "SHORT_TOKEN"}, {"variable": "LONG_TOKEN"})
    assert done["state"] == "success"
    assert (
        "Only 4 checks fit between due and expiry (8 recommended)."
        in results()["SHORT_TOKEN"]["hint"]
    )
    assert "Check every 30 s" in results()["SHORT_TOKEN"]["hint"]
    assert results()["LONG_TOKEN"]["hint"] == ""


@pytest.mark.parametrize(("scheduled", "severity"), [(True, "critical"), (False, "ok")])
def test_a_schedule_without_any_check_in_time_turns_its_runs_red(airflow, put, scheduled, severity):
    """Before the token is lost; a run by hand only warns."""
    put("BRIEF_TOKEN", age=0, lifetime_minutes=12)
    report = airflow.probe("survey", "BRIEF_TOKEN", schedule=300, scheduled=scheduled)["answer"]
    assert report["severity"] == severity
    assert "No check fits between due and expiry (8 recommended)." in report["hint"]


def test_a_variable_that_airflow_does_not_mask_is_a_warning(managed, put, airflow_home, results):
    """In the report of the survey, or in its log if the token has a rotation task."""
    put("OPEN", age=0)
    put("OPEN_DUE")
    done = managed({"variable": "OPEN"}, {"variable": "OPEN_DUE"})
    assert done["state"] == "success"
    sentence = "rename the Variable to a key that contains `token`."
    assert results()["OPEN"]["hint"].endswith(sentence)
    warning = "OPEN_DUE: Airflow does not mask the value of Variable OPEN_DUE"
    assert warning in airflow_home.log.read_text()


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, {"MASKED_TOKEN": None, "OPEN": "rename the Variable to a key that contains `token`"}),
        ({"AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES": "oddly"}, {"ODDLY_NAMED": None}),
        (MASK_NOTHING, dict.fromkeys(("MASKED_TOKEN", "OPEN"), MASK_ALL)),
    ],
    ids=str,
)
def test_the_advice_on_masking_helps(put, airflow_home, settings, advice):
    """Airflow may mask no key at all: then another key does not help."""
    with driven(airflow_home, **settings) as configured:
        for key, sentence in advice.items():
            put(key, age=0)
            report = configured.probe("survey", key, schedule=60, scheduled=False)["answer"]
            assert (sentence in report["hint"]) if sentence else report["hint"] == ""


def test_a_run_by_hand_rotates_the_tokens_that_it_names(managed, put, airflow):
    """By name or by Variable; blank lines of the form are no names."""
    old = {name: put(name) for name in ("NAMED_1", "NAMED_2", "NAMED_3")}
    entries = [{"variable": "NAMED_1"}, {"variable": "NAMED_2"}, {"variable": "NAMED_3"}]
    done = managed(*entries, names=["NAMED_1", " NAMED_3 ", ""])
    assert done["state"] == "success"
    assert {name for name in old if stored(airflow, name) != old[name]} == {"NAMED_1", "NAMED_3"}


def test_two_tokens_of_the_same_name_are_reported(managed, airflow, renewal_server):
    """Their JWTs show it, even if the list does not; both are checked."""
    for key in ("TWIN_1_TOKEN", "TWIN_2_TOKEN"):
        airflow.put_variable(key=key, value=renewal_server.mint("TWINS"), description=None)
    done = managed({"variable": "TWIN_1_TOKEN"}, {"variable": "TWIN_2_TOKEN"})
    assert done["state"] == "success"
    hints = [token["last_check"]["hint"] for token in airflow.status()["tokens"]]
    sentence = "Another managed token has the same name: give each a name of its own at the issuer."
    assert hints == [sentence, sentence]


def test_a_name_that_no_token_has_fails_the_run(managed, put, airflow, airflow_home):
    """The error lists the known names, and nothing is rotated."""
    old = put("KNOWN")
    done = managed({"variable": "KNOWN"}, names=["KNOWN", "UNKNOWN"])
    assert done["state"] == "failed"
    assert states(done)["survey"] == "failed"
    sentence = (
        "No managed token has the name or Variable 'UNKNOWN'. Known names and Variables: KNOWN."
    )
    log = airflow_home.log.read_text()
    assert f"The survey failed; no token was rotated. {sentence}" in log
    assert stored(airflow, "KNOWN") == old


def test_force_renews_what_is_not_due(managed, put, airflow, renewal_server, results):
    """Once: a token that was issued after the run was requested is not renewed."""
    old = put("FORCED", age=600)
    later = put("MADE_SINCE", age=-30)
    done = managed({"variable": "FORCED"}, {"variable": "MADE_SINCE"}, force=True)
    assert done["state"] == "success"
    assert done["tasks"]["rotate FORCED"]["report"]["outcome"] == "rotated"
    assert stored(airflow, "FORCED") != old
    assert stored(airflow, "MADE_SINCE") == later
    assert results()["MADE_SINCE"]["message"].startswith(
        "It was issued after this renewal was requested."
    )
    assert len(renewal_server.rows("FORCED")) == 2


def test_the_lifetime_of_a_run_goes_before_that_of_the_token(managed, put, airflow):
    """For that run; the report of a successor with a small gain contains the gain."""
    old = read_unverified(Token(put("LIFETIME", age=600)))
    entry = {"variable": "LIFETIME", "lifetime_minutes": 600}
    done = managed(entry, force=True, lifetime_minutes=55)
    report = done["tasks"]["rotate LIFETIME"]["report"]
    assert (done["state"], report["outcome"]) == ("success", "rotated")
    new = read_unverified(Token(stored(airflow, "LIFETIME")))
    assert new.lifetime == timedelta(minutes=55)
    assert f"{format_duration(new.expires_at - old.expires_at)} later" in report["message"]


def test_tokens_beyond_the_limit_of_a_run_follow_in_the_next(managed, put, airflow_home, results):
    """The most urgent first; expired and unreadable tokens do not delay the others."""
    for name, age in (("EXPIRED", 4000), ("TWO", 2700), ("ONE", 3000), ("THREE", 2600)):
        put(name, age=age)
    entries = [{"variable": name} for name in ("NEVER_PUT", "EXPIRED", "THREE", "TWO", "ONE")]
    settings = {"AIRFLOW__CORE__MAX_MAP_LENGTH": "2"}
    done = managed(*entries[1:], settings=settings)
    assert done["state"] == "success"
    assert {"rotate ONE", "rotate TWO"} < states(done).keys()
    for name in ("THREE", "EXPIRED"):
        assert results()[name]["hint"].endswith("the next check rotates the token.")
    assert "2 due tokens exceed the limit of a run" in airflow_home.log.read_text()
    done = managed(*entries, settings=settings)
    assert {"rotate THREE", "rotate EXPIRED"} < states(done).keys()
    assert len(states(done)) == 4, "no rehearsal exceeds the limit"
    assert results()["NEVER_PUT"]["outcome"] == "missing"
