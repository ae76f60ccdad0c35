"""What the checks are given: files with secrets, and an Airflow that tells what a test wants."""

import json
import secrets
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Watched
from flowauth_rotator.sources import PATH


@pytest.fixture
def password_file(tmp_path, renewal_server):
    """A file with the password of the renewal server's user."""
    return _secret(tmp_path / "password", renewal_server.password)


@pytest.fixture
def airflow(tmp_path):
    """A stand-in for the API of the page, as a real Airflow answers it in tests/page."""

    class Airflow:
        scrape_token = secrets.token_urlsafe(16)
        scrape_token_file = _secret(tmp_path / "scrape", scrape_token)
        document = None

        def tells(self, minutes_left, condition="ok"):
            """Tokens that live for 60 minutes, with so many left, and a DAG in this condition."""
            now = datetime.now(timezone.utc)
            tokens = []
            for name, minutes in minutes_left.items():
                end = now + timedelta(minutes=minutes)
                life = Life(end - timedelta(hours=1), end, end - timedelta(minutes=20))
                tokens.append(Watched(name, f"Variable {len(tokens)}", "rotation", in_use=life))
            advice = "" if condition == "ok" else "Unpause it."
            agents = [Heartbeat("rotation", condition, advice, checked_at=now)]
            self.document = Snapshot(now, tokens, agents).to_json()

    told = Airflow()

    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == f"Bearer {told.scrape_token}"
            self.send_response(200 if known and self.path == PATH else 403)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(told.document if known else {}).encode())

        def log_message(self, *_args):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def _secret(path, text):
    path.touch(mode=0o600)
    path.write_text(f"{text}\n")
    return path
