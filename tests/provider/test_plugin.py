"""The plugin and its file in plugins/, in a real Airflow."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from demo.parts import ROOT


@pytest.fixture(scope="module")
def ask(airflow_home):
    """Run a command of Airflow's and return what it prints as JSON, and what it complains of."""

    def run(*words, airflow=(airflow_home.binaries / "airflow",), **environment):
        done = subprocess.run(
            [*airflow, *words, "--output", "json"],
            env=airflow_home.env | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        *complaints, document = done.stdout.splitlines()
        return json.loads(document), "\n".join(complaints) + done.stderr

    return run


def test_the_plugin_is_registered_once_and_without_complaint(ask):
    """An installed package brings it along; the file in the plugins folder adds nothing to that."""
    plugins, complaints = ask("plugins")
    assert [plugin["name"] for plugin in plugins] == ["flowauth_rotator"]
    assert "EntryPoint" in plugins[0]["source"]
    assert "rror" not in complaints
    assert "already registered" not in complaints


def test_the_file_registers_a_package_that_is_only_on_the_path(ask, airflow_home, tmp_path):
    """As where an image cannot be changed and a folder is all there is."""
    where = "import sys, sysconfig; print(sys._base_executable, sysconfig.get_path('purelib'))"
    python = airflow_home.binaries / "python"
    base, installed = subprocess.check_output([python, "-c", where], text=True).split()
    for path in Path(installed).iterdir():
        if not path.name.startswith("flowauth_rotator"):
            (tmp_path / path.name).symlink_to(path)
    plugins, complaints = ask(
        "plugins",
        airflow=(base, "-S", "-m", "airflow"),  # without what may be installed beside that one
        PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))),
    )
    assert [plugin["name"] for plugin in plugins] == ["flowauth_rotator"]
    assert "flowauth_rotator_plugin.py" in plugins[0]["source"]
    assert "rror" not in complaints


def test_parsing_a_dag_file_has_no_warnings_and_no_requests(airflow_home):
    """No Variable, connection, database or network; imports that warn are errors."""
    files = [*(ROOT / "dags").glob("*.py"), *(ROOT / "tests/e2e/dags").glob("*/*.py")]
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
