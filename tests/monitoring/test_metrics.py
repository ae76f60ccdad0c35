"""The metrics: any assessment can be parsed, and each series has its value."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families

from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.plugin_codes import PLUGIN_CODES
from flowauth_rotator.monitoring.prometheus import render
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    Signature,
    StatusDocument,
    TokenStatus,
)
from tests.monitoring import hostile

NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
SECONDS = NOON.timestamp()


def parse(text):
    """The value of each series; fails if a series occurs twice."""
    samples = [
        (sample.name.removeprefix("flowauth_rotator_"), *sample.labels.values(), sample.value)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    ]
    values = {sample[:-1]: sample[-1] for sample in samples}
    assert len(values) == len(samples)
    return values


def measure(document):
    return parse(render(assess(document, NOON)))


@given(hostile.assessments)
def test_any_assessment_can_be_parsed(assessment):
    """Each series occurs once, and each name and DAG has its severity."""
    values = parse(render(assessment))
    severities = {key for key in values if key[0] == "token_severity"}
    expected = {name.encode("utf-8", "replace").decode() for name in assessment.by_name}
    assert {key[1] for key in severities} == expected
    assert len([key for key in values if key[0] == "dag_severity"]) <= len(assessment.dags or ())


def test_the_codes_are_those_of_plugins():
    assert dict(zip(Severity, range(4), strict=True)) == PLUGIN_CODES


def test_each_fact_of_a_token_has_its_series():
    token = TokenStatus(
        "etl main",
        variable="ETL",
        dag_id="rotation",
        former_name="ETL",
        renamed_at=NOON - HOUR,
        issued_at=NOON - 9 * HOUR,
        renew_at=NOON - 8 * HOUR,
        expires_at=NOON + HOUR,
        rotation_counts={"rotated": 3, "refused": 1},
        last_success_at=NOON - 9 * HOUR,
        newest_issued_at=NOON - 9 * HOUR,
        newest_issued_expires_at=NOON + HOUR,
    )
    dag = RotationDagStatus("rotation", checked_at=NOON, grace_period=timedelta(minutes=20))
    values = measure(StatusDocument([dag], [token]))
    of_token = {key[0]: value for key, value in values.items() if key[1:] == ("etl main",)}
    assert of_token == {
        "token_expected": 1,
        "token_severity": 2,
        "token_name_known": 1,
        "token_readable": 1,
        "token_expiration_timestamp_seconds": SECONDS + 3600,
        "token_issued_timestamp_seconds": SECONDS - 9 * 3600,
        "token_renewal_timestamp_seconds": SECONDS - 8 * 3600,
        "issued_expiration_timestamp_seconds": SECONDS + 3600,
        "issued_deadline_timestamp_seconds": SECONDS - 9 * 3600 + 1200,
        "last_success_timestamp_seconds": SECONDS - 9 * 3600,
    }
    assert values["token_info", "etl main", "ETL"] == 1
    counts = {key[2]: value for key, value in values.items() if key[0] == "rotations_total"}
    assert counts == {str(outcome): token.rotation_counts.get(outcome, 0) for outcome in Outcome}


@pytest.mark.parametrize(
    ("signature", "values"),
    [(None, []), (Signature.UNVERIFIED, []), (Signature.VALID, [1]), (Signature.INVALID, [0])],
)
def test_a_signature_has_a_series_if_a_key_is_known(signature, values):
    """An alert on a signature that could not be verified would blame the token."""
    token = TokenStatus(
        "etl main", issued_at=NOON - HOUR, expires_at=NOON + HOUR, signature=signature
    )
    measured = measure(StatusDocument([], [token]))
    assert [value for key, value in measured.items() if key[0] == "token_signature_valid"] == values


def test_each_fact_of_a_dag_has_its_series():
    dag = RotationDagStatus(
        "rotation",
        checked_at=NOON - HOUR,
        deadline_at=NOON + HOUR,
        interval=HOUR,
        configuration_errors=["Entry 2 is invalid."],
        clock_skews={"flowauth_default": -3},
    )
    values = measure(StatusDocument([dag, RotationDagStatus("new")]))
    assert {key: value for key, value in values.items() if key[0] != "build_info"} == {
        ("agent_expected", "rotation"): 1,
        ("agent_expected", "new"): 1,
        ("dag_severity", "rotation"): 2,
        ("dag_severity", "new"): 1,
        ("agent_misconfigured", "rotation"): 1,
        ("agent_misconfigured", "new"): 0,
        ("last_check_timestamp_seconds", "rotation"): SECONDS - 3600,
        ("check_interval_seconds", "rotation"): 3600,
        ("check_deadline_timestamp_seconds", "rotation"): SECONDS + 3600,
        ("issuer_clock_skew_seconds", "flowauth_default"): -3,
    }


def fail(*outcomes, fingerprint="ab"):
    """The series of failures of a token with these rotations, the newest first."""
    events = [
        Event(NOON - number * HOUR, outcome, severity, fingerprint="ab")
        for number, (outcome, severity) in enumerate(outcomes)
    ]
    token = TokenStatus(
        "etl main",
        fingerprint=fingerprint,
        issued_at=NOON - 9 * HOUR,
        renew_at=NOON - HOUR,
        expires_at=NOON + HOUR,
        rotations=events,
    )
    values = measure(StatusDocument([RotationDagStatus("rotation", checked_at=NOON)], [token]))
    return {
        key[1:]: value
        for key, value in values.items()
        if key[0] == "last_failure_timestamp_seconds"
    }


def test_a_failure_has_its_time_until_a_rotation_succeeds_or_another_token_is_in_use():
    """Counters, and what Airflow keeps of runs, have no part in it."""
    refused = ("refused", Severity.WARNING)
    assert fail(refused, ("unavailable", Severity.WARNING)) == {("etl main", "refused"): SECONDS}
    assert fail(("rotated", Severity.OK), refused) == {}
    assert fail(("rotated", Severity.WARNING), refused) == {}
    assert fail(refused, fingerprint="cd") == {}
    assert fail() == {}


def test_a_token_of_which_nothing_is_known_is_neither_readable_nor_missing():
    values = measure(StatusDocument([RotationDagStatus("rotation")], [TokenStatus("etl main")]))
    assert values["token_expected", "etl main"] == 1
    assert ("token_readable", "etl main") not in values


def test_a_token_that_cannot_be_read_has_no_dates():
    """FlowAuthTokenMissing fires, whatever the last check knew."""
    error = Event(NOON, "missing", Severity.CRITICAL, "There is none.")
    token = TokenStatus("ETL", name_is_known=False, expires_at=NOON, read_error=error)
    values = measure(StatusDocument([], [token]))
    assert ("token_expiration_timestamp_seconds", "ETL") not in values
    assert values["token_expected", "ETL"] == 1
    assert values["token_readable", "ETL"] == 0
    assert values["token_severity", "ETL"] == 2
    assert values["token_name_known", "ETL"] == 0


def test_the_series_of_a_shared_name_are_of_the_most_severe_token():
    tokens = [
        TokenStatus("etl", issued_at=NOON - HOUR, expires_at=NOON + hours * HOUR)
        for hours in (9, 8)
    ]
    values = measure(StatusDocument([], tokens))
    assert values["token_expiration_timestamp_seconds", "etl"] == SECONDS + 8 * 3600


def test_an_issuers_list_has_no_token_in_use():
    """An issuer does not know which tokens should be in use."""
    issued = TokenStatus("etl main", issued_at=NOON - HOUR, expires_at=NOON + 9 * HOUR)
    values = measure(StatusDocument(None, [issued]))
    assert {key for key in values if key[1] == "etl main"} == {
        ("token_severity", "etl main"),
        ("token_name_known", "etl main"),
        ("issued_expiration_timestamp_seconds", "etl main"),
    }


def test_a_textfile_has_all_but_the_version():
    """Several textfiles are read together, and a series must not occur twice."""
    document = StatusDocument([RotationDagStatus("rotation", checked_at=NOON)])
    whole = render(assess(document, NOON)).decode()
    textfile = render(assess(document, NOON), build_info=False).decode()
    assert (
        textfile + "".join(line for line in whole.splitlines(keepends=True) if "build_info" in line)
        == whole
    )
