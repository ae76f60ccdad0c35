"""Tokens in other stores than Airflow's database, in a real Airflow that looks Variables up there.

AWS Secrets Manager is moto's server; Vault is a double that follows the documentation of its API.
"""

import json
import re
import secrets
import sys
import time
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.provider import ManagedToken
from flowauth_rotator.provider.stores import open_store
from proofs.flowauth import serve
from proofs.vault import Vault
from tests.provider.conftest import driven

EXTENDING = Path(__file__).parents[2] / "docs" / "extending.md"
PATH = "variables/VAULT_TOKEN"
VAULT = {"variable": "VAULT_TOKEN", "store": "vault://vault_default/variables"}
AWS = {"variable": "AWS_TOKEN", "store": "aws://aws_default/airflow/variables"}
BACKENDS = "AIRFLOW__SECRETS__BACKEND"


@pytest.fixture(scope="module")
def vault():
    """A Vault on a loopback port."""
    vault = Vault(token=secrets.token_hex())
    with serve(vault.answer) as vault.url:
        yield vault


@pytest.fixture(autouse=True)
def permit_all(request):
    """Each test begins with a Vault that permits what Airflow needs."""
    if "vault" in request.fixturenames:
        vault = request.getfixturevalue("vault")
        vault.capabilities, vault.before_write = ("create", "read", "update"), lambda: None


@pytest.fixture(scope="module")
def airflow_with_vault(airflow_home, vault):
    """The Airflow of this folder, whose workers look up Variables in that Vault first."""
    backend = "airflow.providers.hashicorp.secrets.vault.VaultBackend"
    options = {"url": vault.url, "token": vault.token, "connections_path": None}
    settings = {BACKENDS: backend, f"{BACKENDS}_KWARGS": json.dumps(options)}
    with driven(airflow_home, **settings) as driver:
        host, port = vault.url.removeprefix("http://").split(":")
        driver.put_connection(
            conn_id="vault_default",
            conn_type="vault",
            host=host,
            port=int(port),
            password=vault.token,
        )
        yield driver


@pytest.fixture
def manage(renewal_server):
    """List a token of the renewal server in a Variable, and run the DAG that renews it."""

    def manage(airflow, *entries, **conf):
        airflow.put_connection(
            conn_id="flowauth_stores",
            host=renewal_server.url,
            login=renewal_server.username,
            password=renewal_server.password,
        )
        common = {"flowauth_conn_id": "flowauth_stores", "rehearse_every": None}
        entries = [{**entry, **common} for entry in entries]
        airflow.put_variable(
            key="flowauth_rotator_tokens", value=json.dumps(entries), description=None
        )
        return airflow.run(dag_id="managed", conf=conf)

    return manage


def mint_due(server, name="STORED"):
    return server.mint(name, issued_at=int(time.time()) - 2700)


def rotation(done):
    """The report of the one rotation of a run."""
    [task] = [task for name, task in done["tasks"].items() if name.startswith("rotate ")]
    return task["report"]


def test_a_token_in_vault_is_renewed_there(airflow_with_vault, vault, renewal_server, manage):
    """Readers of the Variable get the successor; other fields of the secret stay."""
    token = mint_due(renewal_server)
    vault.secrets[PATH] = [{"value": token, "owner": "data team"}]
    done = manage(airflow_with_vault, VAULT)
    assert (done["state"], rotation(done)["outcome"]) == ("success", "rotated")
    first, second = vault.secrets[PATH]
    assert (first["value"], second["owner"]) == (token, "data team")
    read = airflow_with_vault.probe("read", "VAULT_TOKEN")["answer"]
    assert read == second["value"] != token
    [status] = airflow_with_vault.status()["tokens"]
    assert status["settings"]["store"] == VAULT["store"]
    assert manage(airflow_with_vault, VAULT)["state"] == "success"
    assert len(vault.secrets[PATH]) == 2


def test_a_write_that_races_with_another_is_refused_by_vault(
    airflow_with_vault, vault, renewal_server, manage
):
    """The value that somebody stored between the last read and the write is not overwritten."""
    vault.secrets[PATH] = [{"value": mint_due(renewal_server)}]
    others = []

    def store_another():
        others.append(renewal_server.mint("STORED"))
        vault.secrets[PATH].append({"value": others[-1]})

    vault.before_write = store_another
    done = manage(airflow_with_vault, VAULT)
    assert rotation(done)["outcome"] == "superseded"
    assert [vault.secrets[PATH][-1]["value"]] == others


def test_a_policy_that_forbids_writes_is_found_before_a_token_is_issued(
    airflow_with_vault, vault, renewal_server, manage
):
    """The message names the connection and the secret."""
    vault.secrets[PATH] = [{"value": mint_due(renewal_server)}]
    vault.capabilities = ("read",)
    report = rotation(manage(airflow_with_vault, VAULT))
    assert (report["outcome"], report["severity"]) == ("misconfigured", "warning")
    assert report["message"] == (
        f"Connection vault_default has no permission to write Vault secret {PATH}."
    )
    assert not any(request.endswith("/renew") for request in renewal_server.requests)


def test_a_secret_that_airflow_does_not_look_up_is_not_written(
    airflow_with_vault, vault, renewal_server, manage
):
    """Its readers would not get the successor."""
    vault.secrets["elsewhere/VAULT_TOKEN"] = [{"value": mint_due(renewal_server)}]
    vault.secrets.pop(PATH, None)
    done = manage(airflow_with_vault, {**VAULT, "store": "vault://vault_default/elsewhere"})
    report = rotation(done)
    assert report["outcome"] == "shadowed"
    assert "AIRFLOW_VAR_VAULT_TOKEN" in report["hint"]


def test_copies_in_vault_are_filled_whatever_is_there(
    airflow_with_vault, vault, renewal_server, manage
):
    """No secret, a deleted one, and one without the field, whose other fields stay."""
    token = mint_due(renewal_server)
    vault.secrets |= {
        PATH: [{"value": token}],
        "variables/DELETED_TOKEN": [{"value": token}, None],
        "variables/OTHER_TOKEN": [{"owner": "data team"}],
        "variables/BLANK_TOKEN": [{"value": token}, {"value": " "}],
    }
    copies = ["NO_TOKEN", "DELETED_TOKEN", "OTHER_TOKEN", "BLANK_TOKEN"]
    report = rotation(manage(airflow_with_vault, {**VAULT, "also_variables": copies}))
    assert (report["outcome"], report["severity"], report["hint"]) == ("rotated", "ok", "")
    newest = {key: vault.secrets[f"variables/{key}"][-1] for key in ("VAULT_TOKEN", *copies)}
    assert len({fields["value"] for fields in newest.values()} - {token}) == 1
    assert newest["OTHER_TOKEN"]["owner"] == "data team"


def test_a_deleted_secret_is_a_missing_token(airflow_with_vault, vault, manage):
    """It is not written: nobody knows which token it should have."""
    vault.secrets[PATH] = [{"value": "a.b.c"}, None]
    report = rotation(manage(airflow_with_vault, VAULT))
    assert report["outcome"] == "missing"
    assert vault.secrets[PATH][-1] is None


def test_an_outage_of_vault_concerns_its_tokens_alone(
    airflow_with_vault, vault, renewal_server, manage
):
    """Another token is checked meanwhile, and the report shows no secret."""
    vault.secrets[PATH] = [{"value": mint_due(renewal_server)}]
    airflow_with_vault.put_connection(
        conn_id="vault_lost", conn_type="vault", host="127.0.0.1", port=9, password=vault.token
    )
    done = manage(airflow_with_vault, {**VAULT, "store": "vault://vault_lost/variables"})
    report = rotation(done)
    assert report["outcome"] == "unavailable"
    assert report["message"].startswith(f"The request to read Vault secret {PATH} failed with")
    assert vault.token not in json.dumps(done)


@pytest.fixture(scope="module")
def aws():
    """A client of AWS Secrets Manager as moto serves it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield boto3.client(
        "secretsmanager",
        endpoint_url=f"http://{host}:{port}",
        region_name="eu-west-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    server.stop()


@pytest.fixture(scope="module")
def token_folder(tmp_path_factory):
    """The folder of the store in docs/extending.md, and in `modules` that store."""
    folder = tmp_path_factory.mktemp("tokens")
    [code] = re.findall(r"```python\n(# folder_store.py\n.*?)```", EXTENDING.read_text(), re.DOTALL)
    (folder / "folder_store.py").write_text(code)
    return folder


@pytest.fixture(scope="module")
def airflow_with_aws(airflow_home, aws, token_folder):
    """The Airflow of this folder, whose workers look up Variables in Secrets Manager first."""
    backend = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"
    client = {"region_name": "eu-west-1", "endpoint_url": aws.meta.endpoint_url}
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    options = {**client, **keys, "connections_prefix": None}
    settings = {BACKENDS: backend, f"{BACKENDS}_KWARGS": json.dumps(options)}
    folders = {"PYTHONPATH": str(token_folder), "TOKEN_FOLDER": str(token_folder)}
    with driven(airflow_home, **settings, **folders) as driver:
        driver.put_connection(
            conn_id="aws_default",
            conn_type="aws",
            login="testing",
            password="testing",
            extra=json.dumps(client),
        )
        yield driver


def test_a_token_in_secrets_manager_is_renewed_there(airflow_with_aws, aws, renewal_server, manage):
    """Readers of the Variable get the successor, and the preflight adds no version."""
    token = mint_due(renewal_server)
    path = "airflow/variables/AWS_TOKEN"
    aws.create_secret(Name=path, SecretString=token)
    done = manage(airflow_with_aws, AWS)
    assert (done["state"], rotation(done)["outcome"]) == ("success", "rotated")
    stored = aws.get_secret_value(SecretId=path)["SecretString"]
    assert airflow_with_aws.probe("read", "AWS_TOKEN")["answer"] == stored != token
    versions = aws.list_secret_version_ids(SecretId=path, IncludeDeprecated=True)["Versions"]
    assert len(versions) == 2


def test_a_secret_that_does_not_exist_is_a_missing_token(airflow_with_aws, manage):
    """The message names the secret."""
    done = manage(airflow_with_aws, {**AWS, "variable": "NO_TOKEN"})
    report = rotation(done)
    assert report["outcome"] == "missing"
    assert report["message"] == "AWS secret airflow/variables/NO_TOKEN does not exist."


def test_secrets_that_are_to_be_deleted_are_named(airflow_with_aws, aws, renewal_server, manage):
    """No retry helps. A copy does not stop the renewal of its token."""
    token = mint_due(renewal_server)
    for key in ("LEAVING_TOKEN", "STAYING_TOKEN"):
        aws.create_secret(Name=f"airflow/variables/{key}", SecretString=token)
    aws.delete_secret(SecretId="airflow/variables/LEAVING_TOKEN")
    report = rotation(manage(airflow_with_aws, {**AWS, "variable": "LEAVING_TOKEN"}))
    assert report["outcome"] == "misconfigured"
    sentence = "airflow/variables/LEAVING_TOKEN: InvalidRequestException."
    assert report["message"].endswith(sentence)
    assert "restore it" in report["hint"]
    entry = {**AWS, "variable": "STAYING_TOKEN", "also_variables": ["LEAVING_TOKEN"]}
    report = rotation(manage(airflow_with_aws, entry))
    assert (report["outcome"], report["severity"]) == ("rotated", "warning")
    assert sentence in report["hint"]


def test_a_binary_secret_is_a_value_that_stays(airflow_with_aws, aws, renewal_server, manage):
    """It is not empty: a copy there is not filled."""
    for key, value in (
        ("TEXT_TOKEN", {"SecretString": renewal_server.mint("STORED")}),
        ("BINARY_TOKEN", {"SecretBinary": b"\0\1"}),
    ):
        aws.create_secret(Name=f"airflow/variables/{key}", **value)
    entry = {**AWS, "variable": "TEXT_TOKEN", "also_variables": ["BINARY_TOKEN"]}
    report = rotation(manage(airflow_with_aws, entry))
    assert report["outcome"] == "conflict"
    assert report["message"] == "AWS secret airflow/variables/BINARY_TOKEN is binary."
    stored = aws.get_secret_value(SecretId="airflow/variables/BINARY_TOKEN")
    assert stored["SecretBinary"] == b"\0\1"


def test_the_store_of_the_documentation_rotates_a_token(
    airflow_with_aws, renewal_server, manage, token_folder
):
    """A class of the operator's own, found by its path."""
    token, file = mint_due(renewal_server), token_folder / "etl.jwt"
    file.write_text(token)
    done = manage(airflow_with_aws, {"variable": "etl.jwt", "store": "folder_store.FolderStore"})
    assert (done["state"], rotation(done)["outcome"]) == ("success", "rotated")
    assert file.read_text() != token


@pytest.mark.parametrize(
    ("store", "sentence"),
    [
        ("vault", "neither the address of a secrets backend nor the path of a class"),
        ("gcp://conn/folder", "neither the address"),
        ("vault://", "neither the address"),
        (7, "not a non-empty string"),
    ],
)
def test_an_invalid_store_is_refused_when_the_dag_file_is_read(store, sentence):
    """Without an import of the backend's libraries."""
    with pytest.raises(Misconfigured, match=sentence):
        ManagedToken(store=store)


def test_a_store_that_is_not_installed_is_named(airflow, manage):
    """With what to do, and for that token alone."""
    done = manage(airflow, {"variable": "X_TOKEN", "store": "no_such_package.Store"})
    report = rotation(done)
    assert report["outcome"] == "misconfigured"
    assert "The store no_such_package.Store cannot be imported" in report["message"]


@pytest.mark.parametrize(
    ("store", "module", "extra"),
    [
        (VAULT["store"], "airflow.providers.hashicorp.hooks.vault", "vault"),
        (AWS["store"], "airflow.providers.amazon.aws.hooks.secrets_manager", "aws"),
    ],
)
def test_a_provider_of_airflow_that_is_not_installed_is_named(monkeypatch, store, module, extra):
    """Its library may be there without it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Misconfigured, match="X_TOKEN is not installed") as refused:
        open_store("X_TOKEN", store).read()
    assert refused.value.hint == f"Install flowauth-rotator[{extra}] where Airflow's tasks run."


def test_an_error_of_a_store_concerns_its_token_alone(
    airflow_with_aws, renewal_server, manage, token_folder
):
    """Whatever its class raises, when it is made, read, or read as a copy; nothing of it leaks."""
    code = """
class Made:
    def __init__(self, key):
        raise ValueError("secret " + key)

class Read:
    def __init__(self, key):
        self.name = self.place = self.key = key

    def read(self):
        raise KeyError("secret")
"""
    (token_folder / "faulty_stores.py").write_text(code)
    (token_folder / "faulty_module.py").write_text("1 / 0")
    airflow_with_aws.put_variable(
        key="GOOD_TOKEN", value=mint_due(renewal_server), description=None
    )
    entries = [
        {"variable": "A_TOKEN", "store": "faulty_stores.Made"},
        {"variable": "B_TOKEN", "store": "faulty_stores.Read"},
        {"variable": "C_TOKEN", "store": "faulty_module.Store"},
        {"variable": "GOOD_TOKEN"},
    ]
    done = manage(airflow_with_aws, *entries)
    assert done["tasks"]["survey"]["state"] == "success"
    reports = {key: task["report"] for key, task in done["tasks"].items() if "rotate" in key}
    assert {key: report["outcome"] for key, report in reports.items()} == {
        "rotate A_TOKEN": "unavailable",
        "rotate B_TOKEN": "unavailable",
        "rotate C_TOKEN": "misconfigured",
        "rotate STORED": "rotated",
    }
    assert "faulty_stores.Made failed with ValueError" in reports["rotate A_TOKEN"]["message"]
    assert "secret" not in json.dumps(reports)


def test_copies_get_the_same_successor(airflow, renewal_server, manage):
    """Also one that does not exist yet; a foreign value stays, and is reported."""
    token = mint_due(renewal_server)
    for key in ("ONE_TOKEN", "TWO_TOKEN"):
        airflow.put_variable(key=key, value=token, description=None)
    airflow.put_variable(key="FOREIGN_TOKEN", value="somebody's", description=None)
    copies = ["TWO_TOKEN", "THREE_TOKEN"]
    done = manage(airflow, {"variable": "ONE_TOKEN", "also_variables": copies})
    assert (done["state"], rotation(done)["outcome"]) == ("success", "rotated")
    values = {airflow.variable(key=key)["value"] for key in ("ONE_TOKEN", *copies)}
    assert len(values) == 1
    assert token not in values
    done = manage(airflow, {"variable": "ONE_TOKEN", "also_variables": ["FOREIGN_TOKEN"]})
    report = rotation(done)
    assert (done["state"], report["outcome"], report["severity"]) == (
        *("failed", "conflict", "warning"),
    )
    assert "FOREIGN_TOKEN contains something else" in report["message"]
    [status] = [it for it in airflow.read_assessment()["tokens"] if it["dag_id"] == "managed"]
    assert status["severity"] == "warning"
    assert "conflict: Variable FOREIGN_TOKEN contains something else" in status["message"]
    assert airflow.variable(key="FOREIGN_TOKEN")["value"] == "somebody's"


def test_the_operator_validates_the_settings_of_a_token(airflow):
    """A single key is not taken for a list of copies with a key of one letter each."""
    task = airflow.run(dag_id="careless")["tasks"]["rotate"]
    assert (task["state"], task["report"]["outcome"]) == ("failed", "misconfigured")
    assert "`also_variables` is not a list of keys" in task["report"]["message"]


def test_a_copy_that_falls_behind_is_updated_by_the_next_check(airflow, renewal_server, manage):
    """As when somebody stores a new token in the first Variable alone."""
    airflow.put_variable(key="OLD_TOKEN", value=mint_due(renewal_server), description=None)
    token = renewal_server.mint("STORED")
    airflow.put_variable(key="NEW_TOKEN", value=token, description=None)
    requests = len(renewal_server.requests)
    done = manage(airflow, {"variable": "NEW_TOKEN", "also_variables": ["OLD_TOKEN"]})
    assert (done["state"], rotation(done)["outcome"]) == ("success", "healthy")
    assert airflow.variable(key="OLD_TOKEN")["value"] == token
    assert len(renewal_server.requests) == requests
