"""The signature of a token in use on every surface: a real Airflow checks, its page reads."""

import json
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.report import Severity
from flowauth_rotator.core.tokens import PublicKey, Token
from flowauth_rotator.monitoring import checkmk, nagios, prometheus
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import Signature, StatusDocument
from flowauth_rotator.provider.signatures import verify_signature
from flowauth_rotator.provider.web.live_status import add_tokens
from tests.monitoring import grammar

JWKS = "/.well-known/jwks.json"


def alter(token):
    """Return a token with another signature of the same length."""
    text, _, signature = token.rpartition(".")
    return f"{text}.{signature[:9]}{'A' if signature[9] != 'A' else 'B'}{signature[10:]}"


@pytest.fixture(params=["PEM", "JWK Set"])
def check(request, airflow, renewal_server):
    """Check a token; the connection has the public key, or the address of a key set."""
    is_pem = request.param == "PEM"
    connection = {
        "conn_type": "flowauth",
        "host": renewal_server.url,
        "login": renewal_server.username,
        "password": renewal_server.password,
        "extra": {
            "public_key": renewal_server.public_key_pem if is_pem else renewal_server.url + JWKS
        },
    }
    airflow.forget_status()

    def check(token, **params):
        airflow.put_variable(key="SIGNED_TOKEN", value=token, description=None)
        environment = {
            "AIRFLOW_CONN_FLOWAUTH_DEFAULT": json.dumps(connection),
            "AIRFLOW_VAR_FLOWAUTH_ROTATOR_TOKENS": json.dumps([{"variable": "SIGNED_TOKEN"}]),
        }
        airflow.run(dag_id="managed", conf=params, environment=environment)
        return StatusDocument.from_json(airflow.status())

    return check


def read(document, token):
    """Return the assessment of a document by a reader that finds this token in the Variable."""
    store = MemoryStore(Token(token), name="SIGNED_TOKEN")
    checked_at = document.dags[0].checked_at
    status = add_tokens(document, {"SIGNED_TOKEN": store}, checked_at)
    return assess(status.document, checked_at)


def test_an_altered_signature_is_critical_on_every_surface(check, renewal_server):
    """At once, without another check, and with it; the page, metrics and checks agree."""
    token = renewal_server.mint("SIGNED")
    document = check(token)
    assert document.tokens[0].signature is Signature.VALID
    assert read(document, token).severity is Severity.OK
    requests = list(renewal_server.requests)
    seen_at_once = read(document, alter(token))
    assert renewal_server.requests == requests, "a reader makes no request"
    for assessment in (seen_at_once, assess(check(alter(token)), seen_at_once.now)):
        assert assessment.tokens[0].severity is Severity.CRITICAL
        assert "its signature is not valid" in nagios.render(assessment)
        assert grammar.checkmk(checkmk.render(assessment))["FlowAuth_Token_SIGNED"].state == 2
        assert 'token_severity{name="SIGNED"} 2.0' in prometheus.render(assessment).decode()


def test_a_key_set_is_requested_once_for_each_key(check, renewal_server):
    """Neither a check of a valid token nor a rotation to a successor requests it again.

    The first check requests it once more: a rehearsal finds whether a rotation can read it.
    """
    token = renewal_server.mint("SIGNED", issued_at=int(time.time()) - 2)
    check(token)
    first = renewal_server.requests.count(f"GET {JWKS}")
    assert first <= 2
    for _ in range(3):
        document = check(token)
    assert renewal_server.requests.count(f"GET {JWKS}") == first
    assert document.dags[0].public_keys["flowauth_default"]
    document = check(token, force=True)
    assert document.tokens[0].signature is Signature.VALID


def test_a_key_that_cannot_be_read_leaves_a_token_unverified(check, renewal_server):
    """UNKNOWN; what was verified before stays."""
    token = renewal_server.mint("SIGNED")
    document = check(token)
    dag = replace(document.dags[0], public_keys={"flowauth_default": ""})
    without_key = replace(document, dags=[dag])
    assert read(without_key, token).severity is Severity.OK
    assert read(without_key, alter(token)).tokens[0].severity is Severity.UNKNOWN


def test_a_token_of_another_key_is_not_valid(renewal_server):
    """Without a public key nothing is said about it."""
    token = Token(renewal_server.mint("SIGNED"))
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    assert verify_signature(token, renewal_server.public_key_pem) is Signature.VALID
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert verify_signature(token, pem) is Signature.INVALID
    assert verify_signature(token, "no key") is Signature.UNVERIFIED
    assert verify_signature(token, None) is None
    assert PublicKey(renewal_server.public_key_pem).has_key_of(token)
