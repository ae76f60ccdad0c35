"""The connection of type `flowauth` inside a task of a real Airflow."""

import itertools
import json

import pytest
from pyotp import TOTP, random_base32

from demo.parts import free_port
from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS
from proofs.flowapi import PATH, FlowApi
from proofs.flowauth import serve

numbers = itertools.count()


@pytest.mark.parametrize(
    ("conn_id", "settings", "issuer"),
    [
        (
            "whole_address",
            {"host": "http://127.0.0.1:9091/", "login": "flowbot", "password": "pw"},
            ["SessionIssuer", "http://127.0.0.1:9091", 30, True],
        ),
        (
            "in_parts",
            {"host": "127.0.0.1", "port": 9091, "schema": "http", "login": "flowbot"},
            ["SessionIssuer", "http://127.0.0.1:9091", 30, True],
        ),
        (
            "with_path_and_port",
            {"host": "https://x.example/flowauth", "port": 8443},
            ["BearerIssuer", "https://x.example:8443/flowauth", 30, True],
        ),
        (
            "with_its_port_twice",
            {"host": "http://127.0.0.1:9091/flowauth", "port": 9091},
            ["BearerIssuer", "http://127.0.0.1:9091/flowauth", 30, True],
        ),
        (
            "https_by_default",
            {"host": "flowauth.example.org"},
            ["BearerIssuer", "https://flowauth.example.org", 30, True],
        ),
        (
            "with_extra",
            {"host": "https://x.example", "extra": json.dumps({"timeout": 9, "verify": False})},
            ["BearerIssuer", "https://x.example", 9, False],
        ),
        (
            "with_texts_as_of_a_uri",
            {"host": "https://x.example", "extra": '{"timeout": "9.5", "verify": "False"}'},
            ["BearerIssuer", "https://x.example", 9.5, False],
        ),
        (
            "with_fields_left_empty",
            {"host": "https://x.example", "extra": json.dumps(dict.fromkeys(CONNECTION_FIELDS))},
            ["BearerIssuer", "https://x.example", 30, True],
        ),
        (
            "as_airflow_2_tests_a_form",
            {"host": "https://x.example", "extra": '{"extra__flowauth__timeout": "9"}'},
            ["BearerIssuer", "https://x.example", 9, True],
        ),
        (
            "with_empty_texts",
            {
                "host": "https://x.example",
                "extra": json.dumps(dict.fromkeys(CONNECTION_FIELDS, "")),
            },
            ["BearerIssuer", "https://x.example", 30, True],
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
        ("no_host", {"login": "flowbot"}, "The host of connection no_host is empty"),
        ("odd_extra", {"host": "https://x.example", "extra": '{"timout": 9}'}, "'timout'"),
        ("odd_type", {"host": "https://x.example", "extra": '{"timeout": "soon"}'}, "'timeout'"),
        ("no_text", {"host": "https://x.example", "extra": '{"public_key": 7}'}, "'public_key'"),
        ("no_time", {"host": "https://x.example", "extra": '{"timeout": 0}'}, "`timeout`"),
        ("no_proof", {"host": "https://x.example", "extra": '{"verify": "/no/file"}'}, "`verify`"),
        ("no_port", {"host": "https://x.example/", "port": 99999}, "has the port 99999"),
        ("two_ports", {"host": "gw:8443", "port": 9091}, "has the port 8443, and the port is 9091"),
        ("hidden", {"host": "g\u200bw"}, "U+200B ZERO WIDTH SPACE"),
    ],
)
def test_an_invalid_connection_is_reported_with_its_setting(airflow, conn_id, settings, words):
    """Each error names the setting and the correction."""
    airflow.put_connection(conn_id=conn_id, **settings)
    result = airflow.probe("issuer", conn_id)
    assert result["error"] == "Misconfigured"
    assert words in result["text"]


@pytest.mark.parametrize("extra", ["{'public_key': 'x'}", '["public_key"]'])
def test_an_extra_that_is_not_a_json_object_is_an_error(airflow, extra):
    """Airflow does not validate it in the environment or a backend, and would drop its settings."""
    connection = {"conn_type": "flowauth", "host": "https://x.example", "extra": extra}
    environment = {"AIRFLOW_CONN_ODD": json.dumps(connection)}
    result = airflow.probe("issuer", "odd", environment=environment)
    assert result["error"] == "Misconfigured"
    assert "not a JSON object" in result["text"]


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("flowauth://u:p@[::1]:9091/http", "http://[::1]:9091"),
        ("flowauth://http://u:p@[::1]:9091", "http://[::1]:9091"),
        ("flowauth://https://u:p@gw.example.org:443/flowauth", "https://gw.example.org/flowauth"),
        ("flowauth://https://u:p@gw.example.org/a/b", "https://gw.example.org/a/b"),
        ("flowauth://u:p@gw.example.org:8443/https", "https://gw.example.org:8443"),
        ("flowauth://u:p@gw.example.org", "https://gw.example.org"),
        ("flowauth://u:p@https%3A%2F%2Fgw.example.org%2Fauth", "https://gw.example.org/auth"),
        (
            '{"conn_type": "flowauth", "host": " gw.example.org\\n", "port": "8443", "login": "u"}',
            "https://gw.example.org:8443",
        ),
        (
            '{"conn_type": "flowauth", "host": "gw.example.org:8443", "port": 8443, "login": "u"}',
            "https://gw.example.org:8443",
        ),
    ],
)
def test_an_address_in_the_environment_is_what_it_says(airflow, uri, url):
    """As Airflow itself splits a URI, or reads JSON; no part is lost."""
    result = airflow.probe("issuer", "odd", environment={"AIRFLOW_CONN_ODD": uri})
    assert result["answer"][:2] == ["SessionIssuer", url]


def test_a_missing_connection_is_named(airflow):
    """The error says that it must be created."""
    result = airflow.probe("issuer", "flowauth_nowhere")
    assert result["error"] == "Misconfigured"
    assert "Connection flowauth_nowhere does not exist. Create it" in result["text"]


def test_an_outage_is_not_a_missing_connection(airflow):
    """Airflow 3 reports 'not found' when its API server is down; the hook does not."""
    airflow.put_connection(conn_id="there", host="https://x.example")
    for conn_id in ("there", "not_there"):
        result = airflow.probe("issuer", conn_id, outage=True)
        assert result["error"] == "StoreUnavailable"


@pytest.fixture
def tested(airflow, renewal_server):
    """Return the result of the button Test for a connection, by default to the renewal server."""

    def tested(extra=None, **settings):
        conn_id = f"tested_{next(numbers)}"
        login = {"login": renewal_server.username, "password": renewal_server.password}
        settings = {"host": renewal_server.url, **login, **settings}
        airflow.put_connection(conn_id=conn_id, extra=json.dumps(extra or {}), **settings)
        return airflow.probe("test", conn_id)["answer"]

    return tested


def test_a_valid_connection_describes_the_issuer(tested, renewal_server):
    """Address, version, user, audiences, clock; with the token as credential, no user."""
    good, words = tested()
    assert good
    assert words.startswith(f"{renewal_server.url} (version ")
    assert "signed in as 'flowbot', for TEST_SERVER" in words
    assert words.endswith("Its clock agrees with the clock of this machine.")
    good, words = tested(login=None, password=None)
    assert (good, "each token is its own credential" in words) == (True, True)
    assert renewal_server.requests[-2:] == ["GET /version", "GET /.well-known/jwks.json"]


def test_a_wrong_clock_is_reported(tested, renewal_server):
    """With the difference."""
    renewal_server.date_offset = 3630
    good, words = tested()
    assert not good
    assert "Its clock is 1 h ahead of" in words
    assert "ahead of the clock of this machine" in words


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"password": "wrong-canary"}, "Sign-in of 'flowbot' failed: "),
        ({"host": f"http://127.0.0.1:{free_port()}"}, "cannot be reached"),
        ({"extra": {"public_key": "no key"}}, "is not a valid PEM public key"),
        ({"extra": {"totp_secret": "not-base-32!"}}, "`totp_secret` is not a base32 text"),
        ({"extra": {"probe_url": "flowapi"}}, "`probe_url` does not begin with http"),
    ],
    ids=["password", "unreachable", "key", "secret", "probe"],
)
def test_a_connection_that_fails_names_the_reason(tested, settings, sentence):
    """With the correction, and without the password."""
    result = tested(**settings)
    assert not result[0]
    assert sentence in result[1]
    assert "wrong-canary" not in result[1]


def test_a_user_without_roles_is_reported(tested, renewal_server):
    """Nothing could be renewed."""
    for role in ("runner", "viewer"):
        renewal_server.revoke(role)
    good, words = tested()
    assert (good, "grant the user a role" in words) == (False, True)


def test_flowauth_requires_a_login(tested, flowauth):
    """It accepts no token as a credential, and the error says so before a token is due."""
    good, words = tested(host=flowauth.url, login=None)
    assert (good, "Add `login` and `password` of the token's owner." in words) == (False, True)


def test_the_secret_of_two_factor_codes_is_used(tested, flowauth):
    """Without it the sentence names the setting; with it the sign-in succeeds."""
    secret = random_base32()
    flowauth.totp = TOTP(secret)
    login = {"login": flowauth.username, "password": flowauth.password}
    good, words = tested(host=flowauth.url, **login)
    assert (good, "`totp_secret`" in words) == (False, True)
    good, words = tested({"totp_secret": secret}, host=flowauth.url, **login)
    assert (good, "signed in as 'flowbot', for TEST_SERVER" in words) == (True, True)


def test_public_keys_are_read_where_the_issuer_publishes_them(tested, renewal_server):
    """The address is a setting, and an address without a key is reported."""
    address = f"{renewal_server.url}/.well-known/jwks.json"
    assert tested({"public_key": address})[0]
    assert "GET /.well-known/jwks.json" in renewal_server.requests
    good, words = tested({"public_key": f"{renewal_server.url}/version"})
    assert (good, "JWK Set has no public signing key" in words) == (False, True)
    assert not tested({"public_key": f"{renewal_server.url}/keys"})[0]


def test_flowapi_must_refuse_a_request_without_a_token(tested):
    """Otherwise the address says nothing about tokens."""
    with serve(FlowApi(lambda _: None).answer) as flowapi:
        assert tested({"probe_url": f"{flowapi}{PATH}"})[0]
        good, words = tested({"probe_url": flowapi})
    assert (good, "does not refuse a request without a token" in words) == (False, True)
