"""The server's commands in the environment of an Airflow, whose packages may be too old for it."""

import subprocess

import pytest

from demo.parts import ROOT

CODE = "import sys; from flowauth_rotator.cli.main import main; main(sys.argv[1:])"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "server"])
def test_the_commands_work_or_advise_an_environment_of_their_own(airflow_binaries, command):
    """In an Airflow 2 they cannot work: never `pip install` there, which replaces its Flask."""
    python = airflow_binaries / "python"
    is_usable = subprocess.run([python, "-c", "import argon2"], capture_output=True).returncode == 0
    shown = subprocess.run(
        [python, "-c", CODE, command, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    if is_usable:
        assert (shown.returncode, shown.stderr) == (0, "")
    else:
        assert shown.returncode == 1
        assert (
            "python3 -m venv DIR && DIR/bin/pip install 'flowauth-rotator[server]'" in shown.stderr
        )
