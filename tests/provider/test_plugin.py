"""The file in plugins/, in a real Airflow."""

import json
import subprocess

import pytest

from demo.parts import ROOT


@pytest.fixture(scope="module")
def ask(airflow_home):
    """Run a command of Airflow's and return what it prints as JSON, and what it complains of."""

    def run(*words):
        done = subprocess.run(
            [airflow_home.binaries / "airflow", *words, "--output", "json"],
            env=airflow_home.env,
            capture_output=True,
            text=True,
            check=True,
        )
        *complaints, document = done.stdout.splitlines()
        return json.loads(document), "\n".join(complaints) + done.stderr

    return run


def test_the_plugin_is_registered_once_and_without_complaint(ask):
    """Airflow lists it under its name, from the folder that holds the file."""
    plugins, complaints = ask("plugins")
    assert [plugin["name"] for plugin in plugins] == ["flowauth_rotator"]
    assert "flowauth_rotator_plugin.py" in plugins[0]["source"]
    assert "rror" not in complaints


def test_parsing_a_dag_file_warns_of_nothing_and_asks_nobody(airflow_home):
    """No Variable, connection, database or network; imports that warn are errors."""
    files = [*(ROOT / "dags").glob("*.py"), *(ROOT / "tests/e2e/dags").glob("*.py")]
    command = [airflow_home.binaries / "python", ROOT / "tests/provider/parse.py", *files]
    done = subprocess.run(command, env=airflow_home.env, capture_output=True, text=True)
    assert (done.returncode, done.stderr if done.returncode else "") == (0, "")


def test_the_dag_file_is_imported_without_complaint(ask, airflow_home):
    """The DAG of dags/ is the only one there, and Airflow finds no error in it."""
    errors, _ = ask("dags", "list-import-errors")
    assert errors == []
    from_the_files = () if airflow_home.version().startswith("2.") else ("--local",)
    dags, _ = ask("dags", "list", *from_the_files)
    assert [dag["dag_id"] for dag in dags] == ["flowauth_token_rotation"]
