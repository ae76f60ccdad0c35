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


def test_a_variable_that_is_not_there_is_missing(airflow):
    """The sentence names the Variable and says what to do."""
    told = airflow.probe("read", "FLOWAPI")
    assert told["error"] == "MissingToken"
    assert told["text"].startswith("There is no Variable FLOWAPI. Store")


def test_an_empty_variable_is_missing(airflow):
    """Nothing but blanks is nothing."""
    assert airflow.probe("read", "EMPTY")["error"] == "MissingToken"


def test_an_outage_is_not_a_missing_variable(airflow):
    """Airflow 3 answers 'not found' when its API server is down; the store does not."""
    for key in ("FLOWAPI_TOKEN", "NEVER_STORED"):
        told = airflow.probe("read", key, outage=True)
        assert told["error"] == "StoreUnavailable"
        assert key in told["text"]


def test_a_value_that_cannot_be_decrypted_is_not_missing(airflow):
    """A changed Fernet key is told apart from a Variable that nobody stored."""
    airflow.put_variable(key="GARBLED", value="a.b.c", description=None)
    airflow.garble(key="GARBLED")
    told = airflow.probe("read", "GARBLED")
    assert told["error"] == "MalformedToken"
    assert "Fernet" in told["text"]


def test_a_write_replaces_value_and_description(airflow):
    """Read back from the database, not from the task."""
    airflow.put_variable(key="WRITTEN", value="a.b.c", description="before")
    told = airflow.probe("write", "WRITTEN", value="x.y.z", description="after")
    assert told == {"answer": None}
    assert airflow.variable(key="WRITTEN") == {"value": "x.y.z", "description": "after"}


def test_a_failed_write_is_an_outage_without_content(airflow):
    """The error names the Variable and shows neither value."""
    told = airflow.probe("write", "FLOWAPI_TOKEN", value="new-secret", description="d", outage=True)
    assert told["error"] == "StoreUnavailable"
    assert "new-secret" not in told["text"]
    assert airflow.variable(key="FLOWAPI_TOKEN") == {"value": "a.b.c", "description": "ask Jo"}


def test_preflight_passes_a_variable_of_the_database(airflow):
    """Nothing hides it."""
    assert airflow.probe("preflight", "FLOWAPI_TOKEN") == {"answer": None}


def test_preflight_finds_the_environment(airflow):
    """A variable of the worker's environment hides any write; the way out is named."""
    told = airflow.probe(
        "preflight", "FLOWAPI_TOKEN", environment={"AIRFLOW_VAR_FLOWAPI_TOKEN": "a.b.c"}
    )
    assert told["error"] == "ShadowedStore"
    assert "Remove AIRFLOW_VAR_FLOWAPI_TOKEN" in told["text"]


def test_preflight_finds_a_secrets_backend(airflow_with_backend):
    """A backend that answers first is named."""
    told = airflow_with_backend.probe("preflight", "BACKED")
    assert told["error"] == "ShadowedStore"
    assert "LocalFilesystemBackend" in told["text"]
    assert airflow_with_backend.probe("preflight", "FLOWAPI_TOKEN") == {"answer": None}


def test_preflight_finds_a_variable_that_the_database_does_not_have(airflow):
    """What only the API server's own environment or backend knows cannot be swapped."""
    told = airflow.probe("preflight", "NEVER_STORED")
    assert told["error"] == "ShadowedStore"
    assert "not in Airflow's database" in told["text"]


def test_each_segment_of_a_token_is_masked(airflow):
    """Airflow's masker knows the parts of a token alone, which its own pattern would not find."""
    pieces = ["first-canary-segment", "second-canary-segment", "third-canary-segment"]
    told = airflow.probe("mask", "FLOWAPI_TOKEN", pieces=pieces)
    assert told == {"answer": [[True] * 3, [True] * 3]}
