"""The connection of type `flowauth` inside a task of a real Airflow."""

import json

import pytest

PEM = "-----BEGIN PUBLIC KEY-----\n..."


@pytest.mark.parametrize(
    ("conn_id", "settings", "issuer"),
    [
        (
            "whole_address",
            {"host": "http://127.0.0.1:9091/", "login": "flowbot", "password": "pw"},
            ["SessionIssuer", "http://127.0.0.1:9091", 30, None],
        ),
        (
            "in_parts",
            {"host": "127.0.0.1", "port": 9091, "schema": "http", "login": "flowbot"},
            ["SessionIssuer", "http://127.0.0.1:9091", 30, None],
        ),
        (
            "with_path_and_port",
            {"host": "https://x.example/flowauth", "port": 8443},
            ["BearerIssuer", "https://x.example:8443/flowauth", 30, None],
        ),
        (
            "https_by_default",
            {"host": "flowauth.example.org"},
            ["BearerIssuer", "https://flowauth.example.org", 30, None],
        ),
        (
            "with_extra",
            {"host": "https://x.example", "extra": json.dumps({"timeout": 9, "public_key": PEM})},
            ["BearerIssuer", "https://x.example", 9, PEM],
        ),
    ],
)
def test_a_connection_describes_an_issuer(airflow, conn_id, settings, issuer):
    """Host in one or in parts, a login for a sign-in, none for the token itself, and the extra."""
    airflow.put_connection(conn_id=conn_id, **settings)
    assert airflow.probe("issuer", conn_id) == {"answer": issuer}


@pytest.mark.parametrize(
    ("conn_id", "settings", "words"),
    [
        ("no_host", {"login": "flowbot"}, "issuer's address"),
        ("odd_extra", {"host": "https://x.example", "extra": '{"timout": 9}'}, "'timout'"),
        ("odd_type", {"host": "https://x.example", "extra": '{"timeout": "9"}'}, "'timeout'"),
        ("no_time", {"host": "https://x.example", "extra": '{"timeout": 0}'}, "`timeout`"),
        ("no_proof", {"host": "https://x.example", "extra": '{"verify": ""}'}, "`verify`"),
        ("no_port", {"host": "https://x.example/", "port": 99999}, "malformed"),
    ],
)
def test_a_wrong_connection_is_told_by_its_setting(airflow, conn_id, settings, words):
    """Each mistake in one sentence, with what to do."""
    airflow.put_connection(conn_id=conn_id, **settings)
    told = airflow.probe("issuer", conn_id)
    assert told["error"] == "Misconfigured"
    assert words in told["text"]


@pytest.mark.parametrize("extra", ["{'public_key': 'x'}", '["public_key"]'])
def test_an_extra_that_is_no_json_object_is_not_dropped(airflow, extra):
    """From the environment or a backend such a text comes unchecked; its settings would be lost."""
    connection = {"conn_type": "flowauth", "host": "https://x.example", "extra": extra}
    environment = {"AIRFLOW_CONN_ODD": json.dumps(connection)}
    told = airflow.probe("issuer", "odd", environment=environment)
    assert told["error"] == "Misconfigured"
    assert "no JSON object" in told["text"]


def test_a_connection_that_is_not_there_is_named(airflow):
    """Create it, the sentence says."""
    told = airflow.probe("issuer", "flowauth_nowhere")
    assert told["error"] == "Misconfigured"
    assert "There is no connection flowauth_nowhere. Create it" in told["text"]


def test_an_outage_is_not_a_missing_connection(airflow):
    """Airflow 3 answers 'not found' when its API server is down; the hook does not."""
    airflow.put_connection(conn_id="there", host="https://x.example")
    for conn_id in ("there", "not_there"):
        told = airflow.probe("issuer", conn_id, outage=True)
        assert told["error"] == "StoreUnavailable"
