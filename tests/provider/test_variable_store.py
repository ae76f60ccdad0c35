"""The Variable store inside tasks of a real Airflow."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def variables(airflow):
    """Variables as an operator stores them."""
    airflow.put_variable(key="FLOWAPI_TOKEN", value="a.b.c", description="ask Jo")
    airflow.put_variable(key="FLOWAPI_TOKEN_2", value="d.e.f", description=None)
    airflow.put_variable(key="EMPTY", value=" ", description=None)


def test_a_variable_is_read_as_the_worker_sees_it(airflow):
    """Its whole text, and nothing of a Variable whose key begins alike."""
    assert airflow.probe("read", "FLOWAPI_TOKEN") == {"answer": "a.b.c"}


def test_a_variable_that_does_not_exist_is_missing(airflow):
    """The error names the Variable and the correction."""
    result = airflow.probe("read", "FLOWAPI")
    assert result["error"] == "MissingToken"
    assert result["text"].startswith("Variable FLOWAPI does not exist. Store")


def test_an_empty_variable_is_missing(airflow):
    """A blank value counts as empty."""
    assert airflow.probe("read", "EMPTY")["error"] == "MissingToken"


def test_an_outage_is_not_a_missing_variable(airflow):
    """Airflow 3 reports 'not found' when its API server is down; the store does not."""
    for key in ("FLOWAPI_TOKEN", "NEVER_STORED"):
        result = airflow.probe("read", key, outage=True)
        assert result["error"] == "StoreUnavailable"
        assert key in result["text"]


def test_a_value_that_cannot_be_decrypted_is_not_missing(airflow):
    """A changed Fernet key is distinguished from a missing Variable."""
    airflow.put_variable(key="GARBLED", value="a.b.c", description=None)
    airflow.garble(key="GARBLED")
    result = airflow.probe("read", "GARBLED")
    assert result["error"] == "MalformedToken"
    assert "Fernet" in result["text"]


def test_a_write_replaces_value_and_description(airflow):
    """Read back from the database, not from the task."""
    airflow.put_variable(key="WRITTEN", value="a.b.c", description="before")
    result = airflow.probe("write", "WRITTEN", value="x.y.z", description="after")
    assert result == {"answer": None}
    assert airflow.variable(key="WRITTEN") == {"value": "x.y.z", "description": "after"}


def test_a_failed_write_is_an_outage_without_content(airflow):
    """The error names the Variable and shows neither value."""
    result = airflow.probe(
        "write", "FLOWAPI_TOKEN", value="new-secret", description="d", outage=True
    )
    assert result["error"] == "StoreUnavailable"
    assert "new-secret" not in result["text"]
    assert airflow.variable(key="FLOWAPI_TOKEN") == {"value": "a.b.c", "description": "ask Jo"}


def test_preflight_passes_a_variable_of_the_database(airflow):
    """Nothing hides it."""
    assert airflow.probe("preflight", "FLOWAPI_TOKEN") == {"answer": None}


def test_preflight_finds_the_environment(airflow):
    """A variable of the worker's environment shadows the Variable; the error says how to fix it."""
    result = airflow.probe(
        "preflight", "FLOWAPI_TOKEN", environment={"AIRFLOW_VAR_FLOWAPI_TOKEN": "a.b.c"}
    )
    assert result["error"] == "ShadowedStore"
    assert "Remove AIRFLOW_VAR_FLOWAPI_TOKEN" in result["text"]


def test_preflight_finds_a_secrets_backend(airflow_with_backend):
    """A backend that Airflow reads first is named."""
    result = airflow_with_backend.probe("preflight", "BACKED")
    assert result["error"] == "ShadowedStore"
    assert "LocalFilesystemBackend" in result["text"]
    assert airflow_with_backend.probe("preflight", "FLOWAPI_TOKEN") == {"answer": None}


def test_preflight_finds_a_variable_that_the_database_does_not_have(airflow):
    """What only the API server's own environment or backend knows cannot be swapped."""
    result = airflow.probe("preflight", "NEVER_STORED")
    assert result["error"] == "ShadowedStore"
    assert "not in Airflow's database" in result["text"]


def test_each_segment_of_a_token_is_masked(airflow):
    """Airflow's masker knows the parts of a token alone, which its own pattern would not find."""
    pieces = ["first-canary-segment", "second-canary-segment", "third-canary-segment"]
    result = airflow.probe("mask", "FLOWAPI_TOKEN", pieces=pieces)
    assert result == {"answer": [[True] * 3, [True] * 3]}
