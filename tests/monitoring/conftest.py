"""Fixtures of the checks: files with secrets, and a stand-in for a remote Airflow."""

import json
import secrets
import ssl
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flowauth_rotator.cli.sources import CHECK_PATH
from flowauth_rotator.monitoring import json_output
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import RotationDagStatus, StatusDocument, TokenStatus

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
        document: the facts in its responses.
        read_clock: returns the time of its responses.
    """

    document: StatusDocument

    def __init__(self):
        self.read_clock = lambda: datetime.now(timezone.utc)
        super().__init__(("127.0.0.1", 0), Api)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.scrape_token = secrets.token_urlsafe(16)

    def use_tls(self, certificate):
        """Serve with a certificate, from the next connection on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = self.url.replace("http:", "https:")

    def watch(self, hours_left, *, is_paused=False):
        """Serve tokens with a lifetime of 60 hours, and one DAG.

        Args:
            hours_left: the remaining hours of the token, by name.
            is_paused: whether the DAG is paused.
        """
        now = datetime.now(timezone.utc)
        tokens = [
            TokenStatus(
                name,
                variable=f"TOKEN_{number}",
                dag_id="rotation",
                issued_at=now + (hours - 60) * HOUR,
                renew_at=now + (hours - 20) * HOUR,
                expires_at=now + hours * HOUR,
            )
            for number, (name, hours) in enumerate(hours_left.items())
        ]
        dag = RotationDagStatus("rotation", checked_at=now, is_paused=is_paused)
        self.document = StatusDocument([dag], tokens)


class Api(BaseHTTPRequestHandler):
    """Answers requests to an `Airflow`."""

    def do_GET(self):
        is_known = self.headers["Authorization"] == f"Bearer {self.server.scrape_token}"
        is_served = is_known and self.path == CHECK_PATH
        self.send_response(200 if is_served else 403)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        assessment = assess(self.server.document, self.server.read_clock())
        document = json_output.render(assessment) if is_served else {}
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
