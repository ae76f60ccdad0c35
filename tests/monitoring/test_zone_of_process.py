"""The command, as a process in whatever zone, tells byte for byte the same of one moment."""

import json
import re
import subprocess
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.parts import BIN, PATIENCE, clean_environment
from flowauth_rotator.checking import FORMATS
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Told, Watched

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia")
HALF_AN_HOUR = timedelta(minutes=30)
SUMMER_ENDS = datetime(2026, 10, 25, 1, tzinfo=timezone.utc)  # in Berlin


def found_at(moment, change):
    """What there is to tell of tokens that are issued, due and expire around a change of clocks."""
    tokens = []
    for step in range(-4, 5):
        expires_at = change + step * HALF_AN_HOUR
        life = Life(expires_at - timedelta(hours=3), expires_at, expires_at - timedelta(hours=1))
        told = Told(Outcome.UNAVAILABLE, Severity.WARNING, "The issuer did not answer.", "Wait.")
        tokens.append(
            Watched(
                f"etl {step:+}",
                place="Variable ETL",
                dag_id="rotation",
                in_use=life,
                issued=Life(change, expires_at + timedelta(days=1)),
                told=told if step % 2 else None,
                renewal_check_at=life.renew_at,
                last_success_at=life.issued_at,
            )
        )
    agent = Heartbeat(
        "rotation",
        checked_at=change - HALF_AN_HOUR,
        deadline_at=change + 2 * HALF_AN_HOUR,
        next_check_at=change + HALF_AN_HOUR,
        interval=2 * HALF_AN_HOUR,
    )
    return Snapshot(moment, tokens, [agent])


def times_in(text):
    """Each time of day that people are shown, with what follows it."""
    return re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(.{4})", text)


class Airflow(BaseHTTPRequestHandler):
    """Answers what an Airflow found at a moment that stands still."""

    def do_GET(self):
        body = json.dumps(self.server.found.to_json()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Say nothing."""


@pytest.fixture
def airflow_elsewhere():
    """The address of one that says what it is given as `found`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Airflow)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def checked(zone, form, *words, secret):
    """What the command prints and its exit code, as a process that lives in this zone."""
    done = subprocess.run(
        [BIN / "flowauth-rotator", "check", "--format", form, *words],
        env=clean_environment(TZ=zone, NO_PROXY="127.0.0.1"),
        input=secret.encode(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.decode(), done.returncode


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_the_same_in_all_zones(airflow_elsewhere, form):
    """Byte for byte and with the same exit code, around the end of summer in Berlin."""
    airflow_elsewhere.found = found_at(SUMMER_ENDS - HALF_AN_HOUR, SUMMER_ENDS)
    words = ("--airflow", airflow_elsewhere.url, "--scrape-token-file", "-")
    expected = checked("UTC", form, *words, secret="scrape")
    assert "etl +4" in expected[0]
    assert set(times_in(expected[0])) <= {" UTC"}
    for zone in ZONES:
        assert checked(zone, form, *words, secret="scrape") == expected, zone
