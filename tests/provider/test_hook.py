"""The connection of type `flowauth` inside a task of a real Airflow."""

import itertools
import json
import time

import jwt
import pytest
from pyotp import TOTP, random_base32

from demo.parts import free_port
from flowauth_rotator.provider.provider_info import CONNECTION_FIELDS
from proofs.flowauth import FlowAuth, serve

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
        ("no_host", {"login": "flowbot"}, "issuer's address"),
        ("odd_extra", {"host": "https://x.example", "extra": '{"timout": 9}'}, "'timout'"),
        ("odd_type", {"host": "https://x.example", "extra": '{"timeout": "soon"}'}, "'timeout'"),
        ("no_text", {"host": "https://x.example", "extra": '{"public_key": 7}'}, "'public_key'"),
        ("no_time", {"host": "https://x.example", "extra": '{"timeout": 0}'}, "`timeout`"),
        ("no_proof", {"host": "https://x.example", "extra": '{"verify": "/no/file"}'}, "`verify`"),
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


@pytest.fixture
def tested(airflow, renewal_server):
    """What the button Test says of a connection, by default to the renewal server."""

    def tested(extra=None, **settings):
        conn_id = f"tested_{next(numbers)}"
        login = {"login": renewal_server.username, "password": renewal_server.password}
        settings = {"host": renewal_server.url, **login, **settings}
        airflow.put_connection(conn_id=conn_id, extra=json.dumps(extra or {}), **settings)
        return airflow.probe("test", conn_id)["answer"]

    return tested


def test_a_good_connection_says_who_answers(tested, renewal_server):
    """Address, version, user, audiences, clock; with the token as credential, no user."""
    good, words = tested()
    assert good
    assert words.startswith(f"{renewal_server.url}, version ")
    assert "signed in as 'flowbot', for TEST_SERVER" in words
    assert "clock" in words
    good, words = tested(login=None, password=None)
    assert (good, "each token is its own credential" in words) == (True, True)
    assert renewal_server.requests[-2:] == ["GET /version", "GET /.well-known/jwks.json"]


def test_a_clock_that_is_wrong_is_told(tested, renewal_server):
    """By how much."""
    renewal_server.date_offset = 3630
    good, words = tested()
    assert not good
    assert "its clock is 1:00:" in words
    assert "ahead of the one here" in words


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"password": "wrong-canary"}, "Sign-in of 'flowbot' failed: "),
        ({"host": f"http://127.0.0.1:{free_port()}"}, "cannot be reached"),
        ({"extra": {"public_key": "no key"}}, "public key is no PEM text"),
        ({"extra": {"totp_secret": "not-base-32!"}}, "`totp_secret` is no text in base 32"),
    ],
    ids=["password", "nobody", "key", "secret"],
)
def test_what_is_wrong_with_a_connection_is_one_sentence(tested, settings, sentence):
    """With what to do, and without the password."""
    told = tested(**settings)
    assert not told[0]
    assert sentence in told[1]
    assert "wrong-canary" not in told[1]


def test_a_user_without_roles_is_told(tested, renewal_server):
    """Nothing could be renewed."""
    for role in ("runner", "viewer"):
        renewal_server.revoke(role)
    good, words = tested()
    assert (good, "Have a role granted to the user." in words) == (False, True)


@pytest.fixture
def flowauth(signing_key):
    """FlowAuth on a socket, as far as a client can tell; with its address."""
    model = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, signing_key, algorithm="RS256"),
        roles={"viewer": ["get_results"]},
    )
    with serve(model.answer) as model.url:
        yield model


def test_flowauth_wants_a_login(tested, flowauth):
    """It renews no token by itself, and the sentence says so before a token is due."""
    good, words = tested(host=flowauth.url, login=None)
    assert (good, "Give the connection the login and password" in words) == (False, True)


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
    """The address is a setting, and one that has none is told."""
    address = f"{renewal_server.url}/.well-known/jwks.json"
    assert tested({"public_key": address})[0]
    assert "GET /.well-known/jwks.json" in renewal_server.requests
    good, words = tested({"public_key": f"{renewal_server.url}/version"})
    assert (good, "JWK Set has no public key" in words) == (False, True)
    assert not tested({"public_key": f"{renewal_server.url}/keys"})[0]
