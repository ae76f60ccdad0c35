"""Fixtures of the checks: files with secrets, and a stand-in for a remote Airflow."""

import json
import secrets
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flowauth_rotator.cli.sources import CHECK_PATH
from flowauth_rotator.monitoring.status import RotationDagStatus, Snapshot, TokenStatus, Validity

HOUR = timedelta(hours=1)


@pytest.fixture
def password_file(tmp_path, renewal_server):
    """A file with the password of the renewal server's user."""
    return write_secret(tmp_path / "password", renewal_server.password)


class Airflow(ThreadingHTTPServer):
    """A stand-in for the API of the plugin; tests/page runs the real one.

    Attributes:
        url: its address.
        scrape_token: the token that a client must send.
        snapshot: the content of its responses.
    """

    snapshot: Snapshot

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Api)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.scrape_token = secrets.token_urlsafe(16)

    def watch(self, hours_left, condition="ok"):
        """Serve a snapshot of tokens with a lifetime of 60 hours, and of one DAG.

        Args:
            hours_left: the remaining hours of the token, by name.
            condition: the condition of the DAG.
        """
        now = datetime.now(timezone.utc)
        tokens = []
        for name, hours in hours_left.items():
            end = now + hours * HOUR
            validity = Validity(end - 60 * HOUR, end, end - 20 * HOUR)
            tokens.append(TokenStatus(name, f"Variable {len(tokens)}", "rotation", in_use=validity))
        hint = "" if condition == "ok" else "Unpause it."
        dags = [RotationDagStatus("rotation", condition, hint, checked_at=now)]
        self.snapshot = Snapshot(now, tokens, dags)


class Api(BaseHTTPRequestHandler):
    """Answers requests to an `Airflow`."""

    def do_GET(self):
        is_known = self.headers["Authorization"] == f"Bearer {self.server.scrape_token}"
        is_served = is_known and self.path == CHECK_PATH
        self.send_response(200 if is_served else 403)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        document = self.server.snapshot.to_json() if is_served else {}
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_args):
        """Log nothing."""


@pytest.fixture
def airflow():
    """An `Airflow` on a free port."""
    with Airflow() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def scrape_token_file(tmp_path, airflow):
    """A file with the scrape token of the Airflow."""
    return write_secret(tmp_path / "scrape", airflow.scrape_token)


def write_secret(path, secret):
    """Write a file that other users cannot read."""
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")
    return path
