"""What the demo and all tests stand on: ports that nobody else is given, and waits."""

import subprocess
import sys

import pytest

from demo import parts

CLAIM = """
from demo import parts
parts.PORTS = range(31_000, 31_040)
print(*sorted(parts.free_port() for _ in range(10)), flush=True)
input()
"""


def test_processes_are_given_different_ports():
    """Though none of them listens yet."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM], cwd=parts.ROOT, stdin=-1, stdout=-1, text=True
        )
        for _ in range(3)
    ]
    try:
        ports = [port for process in processes for port in process.stdout.readline().split()]
    finally:
        for process in processes:
            process.communicate("\n")
    assert len(set(ports)) == len(ports) == 30


def test_the_settings_of_another_server_are_not_inherited(monkeypatch):
    """Else the demo would write into the database that a shell names."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example.org/production")
    monkeypatch.setenv("FLOWAUTH_ROTATOR_DATA_DIR", "/var/lib/flowauth-rotator")
    environment = parts.clean_environment(FLOWAUTH_ROTATOR_DATA_DIR="here")
    assert "DATABASE_URL" not in environment
    assert environment["FLOWAUTH_ROTATOR_DATA_DIR"] == "here"


def test_a_wait_ends_with_what_was_waited_for(monkeypatch):
    """It does not last for ever."""
    monkeypatch.setattr(parts, "WAIT_LIMIT", 0)
    parts.wait_until(lambda: True, "it is there")
    with pytest.raises(parts.PartFailed, match="Timeout after 0 s: waiting until it comes"):
        parts.wait_until(lambda: False, "it comes", interval=0)
