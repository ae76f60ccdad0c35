"""docs/monitoring.md: its examples are what is printed, and its tables are complete."""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from demo.parts import ROOT
from flowauth_rotator.monitoring import checkmk, json_output, nagios, prometheus, status
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.dag_assessment import Condition
from flowauth_rotator.monitoring.service_names import service_name
from flowauth_rotator.monitoring.status import RotationDagStatus, StatusDocument, TokenStatus
from tests.monitoring.test_assessment import CONDITIONS

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
NOW = datetime(2026, 11, 23, 11, 48, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
NEXT = NOW.replace(hour=12, minute=0)


def token(name, variable, hours_left, **facts):
    """A token with a lifetime of a week."""
    expires_at = NOW + hours_left * HOUR
    return TokenStatus(
        name,
        variable=variable,
        dag_id="flowauth_token_rotation",
        issued_at=expires_at - 168 * HOUR,
        renew_at=expires_at - 56 * HOUR,
        expires_at=expires_at,
        next_check_at=NEXT,
        **facts,
    )


DAG = RotationDagStatus("flowauth_token_rotation", checked_at=NEXT - HOUR / 2, next_check_at=NEXT)
AIRFLOW = token(
    "AIRFLOW",
    "FLOWAPI_TOKEN",
    123,
    renewal_check_at=datetime(2026, 11, 26, 7, tzinfo=timezone.utc),
)
ETL = token("etl main", "ETL_TOKEN", 25.2)
DOCUMENT = StatusDocument([DAG], [AIRFLOW, ETL])


def test_the_example_of_checkmk_is_what_is_printed():
    for line in checkmk.render(assess(DOCUMENT, NOW)).splitlines():
        assert line in PAGE


def test_the_example_of_nagios_is_what_is_printed():
    assessment = assess(DOCUMENT.select(["etl main"], NOW), NOW)
    for line in nagios.render(replace(assessment, dags=None)).splitlines():
        assert line in PAGE


def test_the_example_of_json_is_an_extract_of_what_is_printed():
    [example] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    shown, printed = json.loads(example), json_output.render(assess(DOCUMENT, NOW))
    assert set(shown) == set(printed)
    [token] = shown.pop("tokens")
    [dag] = shown.pop("dags")
    assert token.items() <= printed["tokens"][1].items()
    assert dag.items() <= printed["dags"][0].items()
    assert shown.items() <= printed.items()


@pytest.mark.parametrize("condition", list(Condition))
def test_each_condition_is_listed_with_its_severity(condition):
    _, severity = CONDITIONS[condition]
    [row] = re.findall(rf"^\| `{condition}` \|.*$", PAGE, re.MULTILINE)
    assert f"| {severity.name}" in row


def test_each_metric_is_listed():
    text = prometheus.render(assess(StatusDocument(), NOW)).decode()
    names = set(re.findall(r"^# TYPE flowauth_rotator_(\w+)", text, re.MULTILINE))
    listed = set(
        re.findall(r"^\| `([a-z_]+)` \| `(?:name|dag_id|connection|version)`", PAGE, re.MULTILINE)
    )
    assert names == listed


def test_each_service_name_of_the_table_is_right():
    [table] = re.findall(r"\| name \| service \|\n\|---\|---\|\n(.*?)\n\n", PAGE, re.DOTALL)
    for name, service in re.findall(r"^\| `(.+)` \| `(.+)` \|$", table, re.MULTILINE):
        assert service_name(name.replace("\\|", "|")) == service


def test_the_schema_is_named():
    path = Path(status.__file__).parent / "status.schema.json"
    assert str(path.relative_to(ROOT)) in PAGE
