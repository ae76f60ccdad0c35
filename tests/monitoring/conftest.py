"""What the checks are given: files with secrets, and an Airflow that answers what a test wants."""

import json
import secrets
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flowauth_rotator.cli.sources import PATH
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Watched

HOUR = timedelta(hours=1)


@pytest.fixture
def password_file(tmp_path, renewal_server):
    """A file with the password of the renewal server's user."""
    return write_secret(tmp_path / "password", renewal_server.password)


class Airflow(ThreadingHTTPServer):
    """A stand-in for the API of the page, as a real Airflow answers it in tests/page.

    Attributes:
        url: its address.
        scrape_token: what a client must present.
        snapshot: what it answers.
    """

    snapshot: Snapshot

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Api)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.scrape_token = secrets.token_urlsafe(16)

    def watch(self, hours_left, condition="ok"):
        """Answer with tokens that live for 60 hours, and with one DAG.

        Args:
            hours_left: of each name, how many hours its token has left.
            condition: of the DAG.
        """
        now = datetime.now(timezone.utc)
        tokens = []
        for name, hours in hours_left.items():
            end = now + hours * HOUR
            life = Life(end - 60 * HOUR, end, end - 20 * HOUR)
            tokens.append(Watched(name, f"Variable {len(tokens)}", "rotation", in_use=life))
        advice = "" if condition == "ok" else "Unpause it."
        agents = [Heartbeat("rotation", condition, advice, checked_at=now)]
        self.snapshot = Snapshot(now, tokens, agents)


class Api(BaseHTTPRequestHandler):
    """Answers requests to an `Airflow`."""

    def do_GET(self):
        is_known = self.headers["Authorization"] == f"Bearer {self.server.scrape_token}"
        is_served = is_known and self.path == PATH
        self.send_response(200 if is_served else 403)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        document = self.server.snapshot.to_json() if is_served else {}
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_args):
        """Say nothing."""


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
    """Write a file that nobody else can read."""
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")
    return path
