"""The Variable store inside tasks of a real Airflow."""

import time

import pytest

from tests.provider.conftest import driven

TEAMS = {"AIRFLOW__CORE__MULTI_TEAM": "True"}


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


@pytest.fixture(scope="module")
def airflow_with_teams(airflow_home):
    """The same Airflow with `[core] multi_team`; its tasks are those of team_a or of no team."""
    if airflow_home.version().startswith("2."):
        pytest.skip("Airflow 2 has no teams")
    with driven(airflow_home, **TEAMS) as driver:
        for key, team in (("GLOBAL", None), ("OURS", "team_a"), ("THEIRS", "team_b")):
            driver.put_team_variable(key=key, value="a.b.c", team=team)
        yield driver


@pytest.mark.parametrize(
    ("team", "key", "readable"),
    [
        ("team_a", "GLOBAL", True),
        ("team_a", "OURS", True),
        ("team_a", "THEIRS", False),
        ("team_a", "NEVER_STORED", False),
        (None, "GLOBAL", True),
        (None, "OURS", False),
        (None, "NEVER_STORED", False),
    ],
)
def test_a_variable_that_a_team_can_read_is_not_shadowed(airflow_with_teams, team, key, readable):
    """Airflow lists for a team the Variables of the team alone, and lets it write others too."""
    airflow_with_teams.set_team(team=team)
    read = airflow_with_teams.probe("read", key)
    if not readable:
        assert read["error"] == (
            "MalformedToken" if (team, key) == (None, "OURS") else "MissingToken"
        )
        assert "team" in read["text"] or (team, key) == (None, "NEVER_STORED")
        return
    assert read == {"answer": "a.b.c"}
    assert airflow_with_teams.probe("preflight", key) == {"answer": None}
    airflow_with_teams.probe("write", key, value="x.y.z", description="d")
    assert airflow_with_teams.probe("read", key) == {"answer": "x.y.z"}
    airflow_with_teams.probe("write", key, value="a.b.c", description="d")


def test_a_team_rotates_a_token_in_a_variable_without_a_team(airflow_with_teams, renewal_server):
    """The token is renewed, and the Variable still belongs to no team."""
    airflow_with_teams.set_team(team="team_a")
    airflow_with_teams.put_connection(
        conn_id="flowauth_teams",
        host=renewal_server.url,
        login=renewal_server.username,
        password=renewal_server.password,
    )
    token = renewal_server.mint("TEAMS", issued_at=int(time.time()) - 2700)
    airflow_with_teams.put_team_variable(key="GLOBAL_TOKEN", value=token, team=None)
    conf = {"variable": "GLOBAL_TOKEN", "connection": "flowauth_teams"}
    task = airflow_with_teams.run(dag_id="one", conf=conf)["tasks"]["rotate"]
    assert (task["state"], task["report"]["outcome"]) == ("success", "rotated")
    airflow_with_teams.set_team(team="team_b")
    rotated = airflow_with_teams.probe("read", "GLOBAL_TOKEN")["answer"]
    assert rotated != token


def test_a_task_without_a_team_detects_a_variable_that_the_database_lacks(airflow_with_teams):
    """Airflow lists all Variables for it, also with `[core] multi_team`."""
    airflow_with_teams.set_team(team=None)
    assert airflow_with_teams.probe("preflight", "NEVER_STORED")["error"] == "ShadowedStore"


def test_the_environment_shadows_a_variable_of_a_team(airflow_with_teams):
    """It does not depend on the list."""
    airflow_with_teams.set_team(team="team_a")
    for key in ("GLOBAL", "OURS"):
        result = airflow_with_teams.probe(
            "preflight", key, environment={f"AIRFLOW_VAR_{key}": "a.b.c"}
        )
        assert result["error"] == "ShadowedStore"


@pytest.mark.parametrize("team", ["team_a", None])
def test_a_value_that_cannot_be_decrypted_has_its_own_error(airflow_with_teams, team):
    """If Airflow lists the Variable; otherwise the error names this cause, too."""
    airflow_with_teams.set_team(team=team)
    for owner in {team, None}:
        airflow_with_teams.put_team_variable(key="GARBLED", value="a.b.c", team=owner)
        airflow_with_teams.garble(key="GARBLED")
        result = airflow_with_teams.probe("read", "GARBLED")
        assert result["error"] == ("MalformedToken" if owner == team else "MissingToken")
        assert "decrypt" in result["text"]


def test_white_space_around_a_token_is_ignored(airflow):
    """As a paste of a file ends in a line break."""
    airflow.put_variable(key="PASTED", value=" a.b.c\n", description=None)
    assert airflow.probe("read", "PASTED") == {"answer": "a.b.c"}
