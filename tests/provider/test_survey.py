"""The plan of a run, as a function of what was read before."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.agent.rotation import Inspection
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import Decision, TokenState
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.core.tokens import Token
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.stores import get_backend
from flowauth_rotator.provider.survey import (
    DEFERRED_HINT,
    RunParameters,
    SurveyedToken,
    plan_survey,
    survey_token,
    survey_tokens,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def surveyed(variable, minutes=60, *, is_due=True, name=None, **settings):
    """Return a token with so many minutes left; it cannot be read if that is None."""
    report = Report(name or variable, f"Variable {variable}", Outcome.HEALTHY, "It is fine.", NOON)
    inspection = None
    if minutes is not None:
        state = TokenState.DUE if is_due else TokenState.HEALTHY
        decision = Decision(state, "It is fine.", NOON, NOON, timedelta(minutes=minutes))
        inspection = Inspection(Token("a.b.c"), None, decision, report)
    return SurveyedToken(ManagedToken(variable, **settings), report, inspection)


def plan(*tokens, max_rotations=10, **params):
    return plan_survey(tokens, [], RunParameters.parse(params, {}), max_rotations=max_rotations)


def variables(tokens):
    return [token.token.variable for token in tokens]


def test_the_most_urgent_tokens_are_rotated_first():
    """Expired and unreadable tokens come last; what exceeds the limit is deferred."""
    tokens = [
        surveyed("GONE", None),
        surveyed("OLD", -5),
        surveyed("LATER", 20),
        surveyed("NOW", 5),
    ]
    survey = plan(*tokens, surveyed("FINE", is_due=False), max_rotations=2)
    assert variables(survey.due) == ["NOW", "LATER"]
    assert set(variables(survey.deferred)) == {"GONE", "OLD"}
    assert variables(survey.healthy) == ["FINE"]
    complete = survey.complete_reports({}, NOON)
    tokens = [*complete.healthy, *complete.deferred]
    hint = {token.report.name: token.report.hint for token in tokens}
    assert hint == {"FINE": "", "GONE": DEFERRED_HINT, "OLD": DEFERRED_HINT}


@pytest.mark.parametrize(("seconds", "asked"), [(30, ["A", "C", "E"]), (1, list("ABCDE"))])
def test_a_backend_that_does_not_respond_is_waited_for_once(seconds, asked):
    """Not for each of its tokens: other tokens are read in time. An error at once is of a token."""
    tokens = [
        ManagedToken("A", store="vault://lost/x"),
        ManagedToken("B", store="vault://lost/y"),
        ManagedToken("C", store="vault://other/x"),
        ManagedToken("D", store="vault://lost/x"),
        ManagedToken("E"),
    ]
    calls, clock = [], [0.0]

    def survey(token, silent):
        report = surveyed(token.variable).report
        if get_backend(token.store or "") not in silent:
            calls.append(token.variable)
        if "lost" in (token.store or ""):
            clock[0] += seconds
            report = replace(report, outcome=Outcome.UNAVAILABLE, severity=Severity.CRITICAL)
        return SurveyedToken(token, report)

    done = survey_tokens(tokens, survey, monotonic=lambda: clock[0])
    assert [each.token for each in done] == tokens
    assert calls == asked


def test_a_silent_backend_is_not_asked():
    """The token is unavailable, and its rotation, which has a task of its own, asks again."""
    token = ManagedToken("A", store="no_such_package.Store")
    done = survey_token(token, MINUTE, NOON, None, silent={"no_such_package.Store"})
    assert done.report.outcome is Outcome.UNAVAILABLE
    assert done.is_due


def test_a_connection_error_is_the_report_of_a_token_without_a_rotation():
    """A rotation reads the connection itself."""
    tokens = [surveyed("FINE", is_due=False, flowauth_conn_id="a"), surveyed("DUE")]
    survey = plan(*tokens)
    errors = {"a": Misconfigured("Connection a does not exist.")}
    [report] = [token.report for token in survey.complete_reports(errors, NOON).healthy]
    assert (report.name, report.outcome) == ("FINE", Outcome.MISCONFIGURED)
    assert report.severity is Severity.CRITICAL


def test_a_run_may_be_limited_to_names_or_variables():
    """A Variable takes precedence over a name."""
    tokens = [surveyed("A", name="X"), surveyed("B", name="Y"), surveyed("Y", name="Z")]
    assert variables(plan(*tokens, names=["X", " Y ", ""], lifetime_minutes=7).due) == ["A", "Y"]
    assert plan(*tokens, lifetime_minutes=7).arguments[0]["lifetime_minutes"] == 7
    with pytest.raises(Misconfigured, match="'N'") as misconfigured:
        plan(*tokens, names=["A", "N"])
    assert "A, B, X, Y, Z" in str(misconfigured.value)


def test_tokens_of_the_same_name_have_a_warning():
    """In the report and, for the log of the run, by itself."""
    survey = plan(surveyed("A", name="X"), surveyed("B", name="X"), surveyed("C"))
    assert {token.token.variable: len(token.warnings) for token in survey.due} == {
        "A": 1,
        "B": 1,
        "C": 0,
    }
    assert all(token.report.hint == " ".join(token.warnings) for token in survey.due)


def test_a_token_that_was_not_read_counts_for_shared_names():
    """Its last known name is the one that another token has."""
    unread = {ManagedToken("B"): "X"}
    tokens = [surveyed("A", name="X"), surveyed("C")]
    survey = plan_survey(tokens, [], RunParameters(), max_rotations=10, unread=unread)
    assert [len(token.warnings) for token in survey.due] == [1, 0]
    assert survey.unread == [ManagedToken("B")]


CONF = {"names": ["A"], "force": True, "lifetime_minutes": 60}


def test_the_configuration_of_a_run_counts_whatever_airflow_makes_of_it():
    """With `dag_run_conf_overrides_params = False`, Airflow leaves the defaults in `params`."""
    defaults = {"names": [], "force": False, "lifetime_minutes": None}
    parameters = RunParameters(frozenset({"A"}), force=True, lifetime_minutes=60)
    assert RunParameters.parse(defaults, CONF) == parameters
    assert RunParameters.parse(CONF, CONF) == parameters
    assert RunParameters.parse(CONF, None) == parameters
    assert RunParameters.parse(defaults, None) == RunParameters()
    assert RunParameters.parse({"names": None, "lifetime_minutes": 60.0}, {}) == RunParameters(
        lifetime_minutes=60
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "A"),
        ("names", [1]),
        ("names", {"A": 1}),
        ("force", "false"),
        ("force", 1),
        ("dry_run", "true"),
        ("lifetime_minutes", "60"),
        ("lifetime_minutes", True),
        ("lifetime_minutes", 0),
        ("lifetime_minutes", -5),
        ("lifetime_minutes", 1.5),
    ],
)
def test_a_parameter_of_another_type_is_rejected(key, value):
    """Airflow does not validate a configuration that it does not merge."""
    with pytest.raises(Misconfigured, match=f"The parameter `{key}` of this run is not"):
        RunParameters.parse({}, {key: value})


def test_a_rehearsal_has_no_lifetime_of_its_own():
    """Its result is the status of the token."""
    with pytest.raises(Misconfigured, match="`dry_run` and `lifetime_minutes`"):
        RunParameters.parse({}, {"dry_run": True, "lifetime_minutes": 60})
    assert RunParameters.parse({}, {"dry_run": True}) == RunParameters(dry_run=True)
