"""The published JSON Schema of the status: all fields, and every document that is written."""

import json
from copy import deepcopy
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given

from flowauth_rotator.core.policy import TokenState
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring import json_output, status
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.dag_assessment import Condition
from flowauth_rotator.monitoring.json_values import to_json
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
)
from flowauth_rotator.monitoring.token_assessment import INVALID_SIGNATURE
from tests.monitoring import hostile

jsonschema = pytest.importorskip("jsonschema")

SCHEMA = json.loads((Path(status.__file__).parent / "status.schema.json").read_text())
DEFINITIONS = SCHEMA["$defs"]
NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)


def close(schema):
    """Return the schema without further fields, so that a test finds a field without an entry."""
    closed = deepcopy(schema)
    for each in (closed, *closed["$defs"].values()):
        if "properties" in each:
            each["additionalProperties"] = False
    return closed


VALIDATOR = jsonschema.Draft202012Validator(close(SCHEMA))


def is_assessed(definition):
    return definition["description"].startswith("Assessed: ")


def test_it_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("kind", "definition", "added"),
    [
        (StatusDocument, SCHEMA, {"version"}),
        (RotationDagStatus, DEFINITIONS["dag"], set()),
        (TokenStatus, DEFINITIONS["token"], set()),
        (Event, DEFINITIONS["event"], set()),
    ],
)
def test_each_field_has_an_entry_and_the_reverse(kind, definition, added):
    """Apart from what only the assessed form has."""
    entries = {name for name, entry in definition["properties"].items() if not is_assessed(entry)}
    assert entries == {field.name for field in fields(kind)} | added


@pytest.mark.parametrize("definition", [SCHEMA, *map(DEFINITIONS.get, ("dag", "token", "event"))])
def test_each_entry_has_a_description_and_a_unit(definition):
    for name, entry in definition["properties"].items():
        description = entry["description"]
        assert description.endswith(".")
        if name.endswith("_at") or name in ("at", "now"):
            assert description.endswith("Epoch seconds.")
        if name in ("interval", "grace_period", "remaining", "warning_below", "critical_below"):
            assert description.endswith("Seconds.")


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (DEFINITIONS["severity"], Severity),
        (DEFINITIONS["outcome"], Outcome),
        (DEFINITIONS["dag"]["properties"]["condition"], Condition),
        (
            DEFINITIONS["token"]["properties"]["state"],
            {*TokenState, *Outcome, INVALID_SIGNATURE, "unknown"},
        ),
    ],
)
def test_each_enum_has_the_values_of_the_code(entry, values):
    assert set(entry["enum"]) == set(map(str, values))


@pytest.mark.parametrize(
    ("kind", "definition"), [(Event, "event"), (RotationDagStatus, "dag"), (TokenStatus, "token")]
)
def test_each_default_is_that_of_the_code(kind, definition):
    """Fields with default values are left out of the Variable's document."""
    required = {"at": NOON, "outcome": "healthy", "dag_id": "rotation", "name": "etl"}
    names = {field.name for field in fields(kind)}
    default = to_json(kind(**{key: required[key] for key in required.keys() & names}))
    for name, entry in DEFINITIONS[definition]["properties"].items():
        if "default" in entry:
            assert default[name] == entry["default"]


@given(hostile.documents)
def test_the_document_of_the_variable_is_valid(document):
    VALIDATOR.validate(json.loads(document.dump()))


@given(hostile.documents)
def test_the_document_with_all_fields_is_valid(document):
    VALIDATOR.validate(document.to_json())


@given(hostile.assessments)
def test_the_assessed_form_is_valid_and_has_all_entries(assessment):
    """What `/api/check`, `check --format json` and `plan --json` print."""
    printed = json_output.render(assessment)
    VALIDATOR.validate(printed)
    assert set(printed) == set(SCHEMA["properties"])
    for key, definition in (("dags", "dag"), ("tokens", "token")):
        for each in printed[key] or ():
            assert set(each) == set(DEFINITIONS[definition]["properties"])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"dags": [{}]},
        {"tokens": [{"name": 1}]},
        {"severity": "CRITICAL"},
        {"tokens": [{"name": "etl", "last_check": {"at": 0}}]},
        {"tokens": [{"name": "etl", "fingerprint": "a part of a token"}]},
    ],
)
def test_a_wrong_document_is_not_valid(change):
    """Otherwise the tests above would prove nothing."""
    printed = json_output.render(assess(StatusDocument(), NOON))
    VALIDATOR.validate(printed)
    assert not VALIDATOR.is_valid({**printed, **change})
