"""The plan of a run, as a function of what was read before."""

from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.report import Outcome, Report, Severity
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.survey import DEFERRED_HINT, SurveyedToken, plan_survey

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)


def surveyed(variable, minutes=60, *, is_due=True, name=None, **settings):
    """Return a token with so many minutes left."""
    report = Report(name or variable, f"Variable {variable}", Outcome.HEALTHY, "It is fine.", NOON)
    remaining = None if minutes is None else timedelta(minutes=minutes)
    return SurveyedToken(
        ManagedToken(variable, **settings), report, is_due=is_due, remaining=remaining
    )


def plan(*tokens, names=None, lifetime_minutes=None, max_rotations=10):
    return plan_survey(
        tokens, [], names=names, lifetime_minutes=lifetime_minutes, max_rotations=max_rotations
    )


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
    hint = {report.name: report.hint for report in survey.report_tokens({}, NOON)}
    assert hint == {"FINE": "", "GONE": DEFERRED_HINT, "OLD": DEFERRED_HINT}


def test_a_connection_error_is_the_report_of_a_token_without_a_rotation():
    """Only the connections of these tokens are read."""
    tokens = [surveyed("FINE", is_due=False, flowauth_conn_id="a"), surveyed("DUE")]
    survey = plan(*tokens)
    assert survey.connection_ids == ["a"]
    [report] = survey.report_tokens({"a": Misconfigured("Connection a does not exist.")}, NOON)
    assert (report.name, report.outcome) == ("FINE", Outcome.MISCONFIGURED)
    assert report.severity is Severity.CRITICAL


def test_a_run_may_be_limited_to_names_or_variables():
    """A Variable takes precedence over a name."""
    tokens = [surveyed("A", name="X"), surveyed("B", name="Y"), surveyed("Y", name="Z")]
    assert variables(plan(*tokens, names=["X", " Y ", ""], lifetime_minutes=7).due) == ["A", "Y"]
    assert plan(*tokens, lifetime_minutes=7).due[0].arguments["lifetime_minutes"] == 7
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
