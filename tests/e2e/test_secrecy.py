"""The DAG of dags/ in a real Airflow, and then a search for parts of its secrets."""

import base64
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from demo.parts import ROOT, AirflowHome
from flowauth_rotator.server.signing import Signer
from tests.e2e.search import leaks, parts_of
from tests.external import announce
from tests.provider.conftest import driven


class UnlikeJwt(Signer):
    """Signs tokens that no pattern for JWTs finds: their JSON begins with a line break."""

    def sign(self, claims):
        segments = ({"alg": "RS256", "typ": "JWT", "kid": self.kid}, claims)
        signed = ".".join(encoded(b"\n" + json.dumps(part).encode()) for part in segments)
        return f"{signed}.{encoded(self.key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.mark.parametrize("where", ["airflow.db", "logs/task.log"])
def test_the_search_finds_what_there_is(tmp_path, renewal_server, where):
    """Twelve characters of a payload, of a signature or of the password are found."""
    _, payload, signature = renewal_server.mint("AIRFLOW").split(".")
    file = tmp_path / "home" / where
    file.parent.mkdir(parents=True)
    for secret in (payload, signature, renewal_server.password):
        file.write_bytes(b"\x00\xff{'x': '" + secret[7:19].encode() + b"'}\n")
        assert leaks(tmp_path / "home", payload, signature, renewal_server.password) == {file.name}
    file.write_bytes(secret[7:18].encode())
    assert leaks(tmp_path / "home", payload, signature, renewal_server.password) == set()


@pytest.fixture(scope="module")
def home(tmp_path_factory, airflow_binaries, request):
    """The folder of a real Airflow with the DAG and the plugin of this checkout."""
    announce(request.config, "Starting an Airflow to search for secrets ...")
    home = AirflowHome(tmp_path_factory.mktemp("searched"), airflow_binaries)
    home.set_up()
    return home


@pytest.fixture(scope="module")
def airflow(home):
    """That Airflow, in a process of its own."""
    with driven(home, AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags")) as driver:
        yield driver


@pytest.fixture
def rotate(airflow):
    """Store a token and the connection to a server, as a person does, and run the DAG."""

    def rotate(token, server):
        airflow.put_variable(key="FLOWAPI_TOKEN", value=token, description="stored by hand")
        airflow.put_connection(
            conn_id="flowauth_default",
            host=server.url,
            login=server.username,
            password=server.password,
        )
        return airflow.run(dag_id="flowauth_token_rotation")

    return rotate


def mint_due(server) -> str:
    return server.mint("AIRFLOW", issued_at=int(time.time()) - 2700)


@pytest.mark.parametrize(
    ("make_signer", "begins_like_a_jwt"),
    [(Signer, True), (UnlikeJwt, False)],
    ids=["JWT", "unlike a JWT"],
)
def test_a_rotation_leaves_no_trace_of_either_token(
    airflow, home, rotate, start_renewal_server, signing_key, make_signer, begins_like_a_jwt
):
    """Rotated by the DAG; no part of either token in the database, the logs or what it printed."""
    server = start_renewal_server(make_signer(signing_key))
    old = mint_due(server)
    assert old.startswith("eyJ") is begins_like_a_jwt
    done = rotate(old, server)
    new = airflow.variable(key="FLOWAPI_TOKEN")["value"]
    assert done["state"] == "success"
    assert new != old
    assert server.rows("AIRFLOW")[-1].parent_id == 1
    searched = leaks(home.folder.parent, "flowauth_token_rotation")
    assert {name.removesuffix("-wal") for name in searched} >= {"airflow.db", "airflow.log"}
    assert leaks(home.folder.parent, *parts_of(old, new), server.password) == set()


def test_what_is_not_a_token_is_not_shown_either(airflow, home, rotate, renewal_server):
    """The run fails, says why, and shows nothing of what was in the Variable."""
    canary = "opaque-canary-" + encoded(bytes(range(60)))
    assert rotate(canary, renewal_server)["state"] == "failed"
    assert (
        "FLOWAPI_TOKEN: malformed. The text has 1 segment; a signed JWT has 3"
        in home.log.read_text()
    )
    assert leaks(home.folder.parent, canary) == set()
    stored = airflow.variable(key="FLOWAPI_TOKEN")
    assert stored == {"value": canary, "description": "stored by hand"}
    assert renewal_server.requests == []


@pytest.mark.parametrize("refusal", ["revoked role", "other roles"])
def test_a_failure_leaves_no_trace_of_a_token(
    airflow, home, rotate, start_renewal_server, signing_key, refusal
):
    """Refused by the issuer or rejected by the agent: red, with the message, without content."""
    made = []

    class Dropping(UnlikeJwt):
        def sign(self, claims):
            if made and refusal == "other roles":
                claims = {**claims, "user_claims": {"admin": ["everything"]}}
            made.append(super().sign(claims))
            return made[-1]

    server = start_renewal_server(Dropping(signing_key))
    due = mint_due(server)
    if refusal == "revoked role":
        server.revoke("runner")
    assert rotate(due, server)["state"] == "failed"
    assert airflow.variable(key="FLOWAPI_TOKEN")["value"] == made[0]
    words = {"revoked role": "no longer assigned to you: runner", "other roles": "set of roles"}
    assert words[refusal] in home.log.read_text()
    assert leaks(home.folder.parent, *parts_of(*made), server.password) == set()
