"""The renewal server as a process: prepared, started, and started again when it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from demo.parts import ROOT, free_port
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.signing import PrivateKey
from proofs.processes.serve import CHEAP

AUDIENCE = "TEST_SERVER"
USERNAME = "flowbot"
ROLES = {"runner": ["run"], "viewer": ["get_available_dates", "get_results"]}
WAIT_LIMIT = 60  # seconds


def prepare(settings: Settings, password: str, key: PrivateKey | None = None) -> None:
    """A new server with one audience and one user, who holds all of its roles.

    Args:
        settings: of the server.
        password: of the user.
        key: signs the tokens; by default an RSA key.
    """
    key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
    Services.create(settings, key, now=0)
    services = Services.open(settings, hasher=CHEAP)
    week = Limit(7 * 24 * 60)
    services.accounts.add_audience(AUDIENCE, week)
    for role, scopes in ROLES.items():
        services.accounts.add_role(role, AUDIENCE, scopes, week)
    services.accounts.add_user(USERNAME, password)
    services.accounts.grant(USERNAME, tuple(ROLES))
    services.database.close()


class Serving:
    """Gunicorn with two workers, and the folder that names the points at which it is killed.

    Args:
        data_dir: the prepared data directory.
        folder: for its logs and faults.
        settings: variables of its environment.
    """

    def __init__(self, data_dir: Path, folder: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._faults = folder / "faults"
        self._faults.mkdir()
        bind = f"127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "proofs.processes.serve", str(self._faults)]
        self._command += ["--data-dir", str(data_dir), "--bind", bind]
        self._environment = {**os.environ, **settings}
        self._process = self._started()

    def die_at(self, point: str, *, whole: bool) -> None:
        """Have the first worker that gets to a point kill itself, or the whole server."""
        draft = self._faults / "draft"
        draft.write_text("all" if whole else "worker")
        draft.rename(self._faults / point)

    def has_struck(self, point: str) -> bool:
        """Whether the fault for a point has been consumed."""
        return not (self._faults / point).exists()

    def revive(self) -> bool:
        """Once the whole server has died, start it again; whether it has died at all."""
        try:
            self._process.wait(timeout=WAIT_LIMIT)
        except subprocess.TimeoutExpired:
            return False
        self._process = self._started()
        return True

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        """Start the process, again while another has its port; return it once it listens."""
        deadline = time.monotonic() + WAIT_LIMIT
        while time.monotonic() < deadline:
            with self.log.open("ab") as log:
                before = log.tell()
                process = subprocess.Popen(  # noqa: S603 - ours
                    self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
                )
            while process.poll() is None and time.monotonic() < deadline:
                if f" on {self.url}\n".encode() in self.log.read_bytes()[before:]:
                    return process
                time.sleep(0.005)
        process.kill()
        raise RuntimeError(f"The server did not start; see {self.log}")
