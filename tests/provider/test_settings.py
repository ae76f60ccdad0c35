"""Settings of the DAG, checked where they are written: when the DAG file is parsed."""

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
def test_a_wrong_setting_of_a_token_is_named(settings):
    """One sentence with the setting's name, and what to do."""
    from flowauth_rotator.provider import ManagedToken

    with pytest.raises(Misconfigured, match=f"`{next(iter(settings))}`") as misconfigured:
        ManagedToken(**settings)
    assert misconfigured.value.advice


@pytest.mark.parametrize("tokens", ["FLOWAPI_TOKEN", {"FLOWAPI_TOKEN": None}, ["FLOWAPI_TOKEN"]])
def test_what_is_no_list_of_managed_tokens_is_refused(tokens):
    """The advice shows how to write it."""
    from flowauth_rotator.provider import rotation_dag

    with pytest.raises(Misconfigured, match="no list of managed tokens") as misconfigured:
        rotation_dag(tokens)
    assert "ManagedToken(" in misconfigured.value.advice


def test_a_variable_is_managed_once():
    """Two rotations of one Variable would take turns at it."""
    from flowauth_rotator.provider import ManagedToken, rotation_dag

    with pytest.raises(Misconfigured, match="Variable A is managed twice"):
        rotation_dag([ManagedToken("A"), ManagedToken("B"), ManagedToken("A", name="X")])


@pytest.mark.parametrize("schedule", [None, timedelta(0), 5, ["0 * * * *"]], ids=str)
def test_what_is_no_schedule_is_refused(schedule):
    """Where it is written, and not by each run."""
    from flowauth_rotator.provider import rotation_dag

    with pytest.raises(Misconfigured, match="`schedule` is"):
        rotation_dag(schedule=schedule)
