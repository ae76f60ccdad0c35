import json
from dataclasses import replace
from datetime import timedelta

import pytest

from flowauth_rotator.core import errors
from flowauth_rotator.core.report import Outcome, Report, Severity


@pytest.fixture
def report(noon):
    """Of a rotation an hour before the expiry."""
    return Report(
        name="AIRFLOW",
        place="Variable FLOWAPI_TOKEN",
        outcome=Outcome.ROTATED,
        message="The successor expires tomorrow.",
        checked_at=noon,
        predecessor_expires_at=noon + timedelta(hours=1),
        successor_expires_at=noon + timedelta(days=1),
        renewal_requests=1,
    )


def test_a_report_survives_json(report):
    """What one task writes another reads; times are whole epoch seconds."""
    document = json.loads(json.dumps(report.to_json()))
    assert document["checked_at"] == 1_795_435_200
    assert document["outcome"] == "rotated"
    assert Report.from_json(document) == report


def test_the_overlap_lasts_until_the_predecessor_expires(report, noon):
    """An hour is left, or nothing if it had expired, or there is no overlap without a swap."""
    assert report.overlap == timedelta(hours=1)
    late = replace(report, predecessor_expires_at=noon - timedelta(hours=1))
    assert late.overlap == timedelta(0)
    assert replace(report, successor_expires_at=None).overlap is None


def leaves(error: type) -> list[type]:
    below = error.__subclasses__()
    return [leaf for each in below for leaf in leaves(each)] if below else [error]


@pytest.mark.parametrize(
    "error",
    [error for error in leaves(errors.RotatorError) if error.__module__ == errors.__name__],
    ids=lambda error: error.__name__,
)
def test_every_error_is_an_outcome_that_is_loud(error, noon):
    """Each failure has its outcome, and is critical until there is known to be time left."""
    evidence = {
        "Refused": {"issuer_message": "no", "status": 401},
        "Rejected": {"violations": ("x",)},
        "Throttled": {"retry_after": 1.0},
    }
    raised = error("Something is wrong.", **evidence.get(error.__name__, {}))
    report = raised.report(name="AIRFLOW", place="Variable X", checked_at=noon)
    assert report.failed
    assert report.severity is Severity.CRITICAL
    assert report.outcome not in (Outcome.HEALTHY, Outcome.ROTATED, Outcome.ADOPTED)
    assert str(report).startswith(f"AIRFLOW: {report.outcome}. Something is wrong.")


def test_a_report_tells_until_when_the_token_in_use_lives(report, noon):
    """Of a swap it is the predecessor that is meant; what has expired is told only once."""
    before, after = "2026-11-23 12:20:00 UTC", "2026-11-23 11:50:00 UTC"
    kept = replace(report, successor_expires_at=None, outcome=Outcome.REFUSED)
    swapped = replace(report, predecessor_expires_at=noon + timedelta(minutes=20))
    assert f"The predecessor expires at {before}." in str(swapped)
    late = replace(kept, predecessor_expires_at=noon - timedelta(minutes=10))
    assert f"The token in use expired at {after}." in str(late)
    assert "expired at" not in str(replace(late, outcome=Outcome.EXPIRED))
    assert "in use" not in str(replace(kept, predecessor_expires_at=None))


def test_every_failure_outcome_has_an_error():
    """The closed set of outcomes has no word that nothing says."""
    fine = {Outcome.HEALTHY, Outcome.ROTATED, Outcome.ADOPTED, Outcome.SUPERSEDED}
    said = {error.outcome for error in leaves(errors.RotatorError)}
    assert said == set(Outcome) - fine


def test_the_tree_in_the_docstring_is_the_tree():
    """The drawing at the head of the module names every class, and no other."""
    drawn = {
        line.split()[0]
        for line in errors.__doc__.replace("│", " ")
        .replace("├──", " ")
        .replace("└──", " ")
        .splitlines()
        if line.strip() and line.split()[0].isidentifier() and line.split()[0][0].isupper()
    }
    real = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RotatorError)
    }
    assert real <= drawn
    assert {name for name in drawn if hasattr(errors, name)} == real
