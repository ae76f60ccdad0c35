"""Settings of the DAG are validated when the DAG file is parsed."""

from datetime import timedelta

import pytest

from flowauth_rotator.core.errors import Misconfigured


@pytest.mark.parametrize(
    "settings",
    [
        {"variable": ""},
        {"variable": None},
        {"flowauth_conn_id": ""},
        {"renew_before": "8h"},
        {"renew_before": 0.7},
        {"critical_before": timedelta(0)},
        {"lifetime_minutes": "60"},
        {"lifetime_minutes": 1.5},
    ],
    ids=str,
)
def test_an_invalid_setting_of_a_token_is_named(settings):
    """The error names the setting and the correction."""
    from flowauth_rotator.provider import ManagedToken

    with pytest.raises(Misconfigured, match=f"`{next(iter(settings))}`") as misconfigured:
        ManagedToken(**settings)
    assert misconfigured.value.hint


@pytest.mark.parametrize("tokens", ["FLOWAPI_TOKEN", {"FLOWAPI_TOKEN": None}, ["FLOWAPI_TOKEN"]])
def test_an_invalid_list_of_managed_tokens_is_refused(tokens):
    """The hint shows an example."""
    from flowauth_rotator.provider import rotation_dag

    with pytest.raises(Misconfigured, match="not a list of managed tokens") as misconfigured:
        rotation_dag(tokens)
    assert "ManagedToken(" in misconfigured.value.hint


def test_a_variable_cannot_be_listed_twice():
    """Two rotations of the same Variable would conflict."""
    from flowauth_rotator.provider import ManagedToken, rotation_dag

    with pytest.raises(Misconfigured, match="Variable A is listed twice"):
        rotation_dag([ManagedToken("A"), ManagedToken("B"), ManagedToken("A", name="X")])


@pytest.mark.parametrize("schedule", [None, timedelta(0), 5, ["0 * * * *"]], ids=str)
def test_an_invalid_schedule_is_refused(schedule):
    """When the file is parsed, not in each run."""
    from flowauth_rotator.provider import rotation_dag

    with pytest.raises(Misconfigured, match="`schedule` is"):
        rotation_dag(schedule=schedule)
