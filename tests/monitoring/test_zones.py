"""All output is the same in every time zone, also on the days when clocks change."""

import json
import re
import subprocess
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from demo.parts import BIN, WAIT_LIMIT, clean_environment
from flowauth_rotator.cli.check import FORMATS
from flowauth_rotator.cli.sources import list_issued_tokens
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring import checkmk, json_output, nagios, prometheus, terminal
from flowauth_rotator.monitoring.assessment import State, assess
from flowauth_rotator.monitoring.status import (
    CheckResult,
    RotationDagStatus,
    Snapshot,
    TokenStatus,
    Validity,
)

ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]
CHANGES = [  # of the clocks of Berlin and of New York, to summer time and back
    datetime(2027, 3, 28, 1, tzinfo=timezone.utc),
    datetime(2026, 10, 25, 1, tzinfo=timezone.utc),
    datetime(2027, 3, 14, 7, tzinfo=timezone.utc),
    datetime(2026, 11, 1, 6, tzinfo=timezone.utc),
]
HALF_AN_HOUR, HOUR, SECOND = timedelta(minutes=30), timedelta(hours=1), timedelta(seconds=1)
AROUND = [-HOUR, -HALF_AN_HOUR, -SECOND, timedelta(0), HOUR - SECOND, HOUR, 2 * HOUR]


@pytest.fixture
def live_in(monkeypatch):
    """Make a time zone that of this process."""

    def move(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def snapshot_around(change, now):
    """Tokens that are issued, due and expire around a change of clocks, and their DAG."""
    tokens = []
    for step in range(-4, 5):
        expires_at = change + step * HALF_AN_HOUR
        validity = Validity(expires_at - 3 * HOUR, expires_at, expires_at - HOUR)
        result = CheckResult(
            Outcome.UNAVAILABLE, Severity.WARNING, "The issuer did not answer.", "Wait."
        )
        tokens.append(
            TokenStatus(
                f"etl {step:+}",
                place="Variable ETL",
                dag_id="rotation",
                in_use=validity,
                issued=Validity(change, expires_at + 24 * HOUR),
                last_check=result if step % 2 else None,
                renewal_check_at=validity.renew_at,
                last_success_at=validity.issued_at,
                rotations={"rotated": 3},
            )
        )
    dag = RotationDagStatus(
        "rotation",
        checked_at=change - HALF_AN_HOUR,
        deadline_at=change + HOUR,
        next_check_at=change + HALF_AN_HOUR,
        interval=HOUR,
    )
    return Snapshot(now, tokens, [dag], {"flowauth_default": 2})


def render_all(snapshot):
    """Render a snapshot in each format, also after a round trip as JSON."""
    texts = []
    for each in (snapshot, Snapshot.from_json(json.loads(json.dumps(snapshot.to_json())))):
        assessment = assess(each)
        texts += [
            nagios.render(assessment),
            checkmk.render(assessment),
            prometheus.render(each).decode(),
            json.dumps(json_output.render(assessment)),
            terminal.render(assessment),
        ]
    return texts


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_reading_is_the_same_in_every_zone(change, live_in):
    for later in AROUND:
        snapshot = snapshot_around(change, change + later)
        live_in("UTC")
        expected = render_all(snapshot)
        for zone in ZONES:
            live_in(zone)
            assert render_all(snapshot) == expected, zone


@pytest.mark.parametrize("zone", ["UTC", *ZONES])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_hour_that_the_clocks_skip_or_repeat_is_an_hour(zone, change, live_in):
    """Whatever clock `now` was read from, what is left is counted in hours that passed."""
    live_in(zone)
    validity = Validity(change - 20 * HOUR, change + 4 * HOUR, change - 4 * HOUR)
    for later in AROUND:
        now = (change + later).astimezone(ZoneInfo(zone))
        [assessed] = assess(Snapshot(now, [TokenStatus("etl main", issued=validity)])).tokens
        assert assessed.remaining == 4 * HOUR - later
        # Of the window of 8 hours: a warning below 4.8, critical below 2.4.
        states = {-HOUR: State.OK, 2 * HOUR: State.CRITICAL}
        assert assessed.status.state is states.get(later, State.WARNING)
        assert f"({change + 4 * HOUR:%Y-%m-%d %H:%M} UTC)" in assessed.status.summary


def test_the_list_of_an_issuer_is_read_alike_in_every_zone(renewal_server, live_in):
    now = datetime.now(timezone.utc)
    renewal_server.mint("etl main", lifetime_minutes=7 * 24 * 60)
    renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 30 * 60)
    documents = []
    for zone in ("UTC", *ZONES):
        live_in(zone)
        account = (renewal_server.url, renewal_server.username, renewal_server.password)
        documents.append(list_issued_tokens(*account, RotationPolicy(), now).to_json())
    assert len(documents[0]["tokens"]) == 2
    assert [document for document in documents if document != documents[0]] == []


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_command_prints_the_same_in_all_zones(airflow, form):
    """Byte for byte and with the same exit code, around the end of summer in Berlin."""
    summer_ends = CHANGES[1]
    airflow.snapshot = snapshot_around(summer_ends, summer_ends - HALF_AN_HOUR)
    expected = check_in("UTC", form, airflow)
    assert "etl +4" in expected[0]
    assert set(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(.{4})", expected[0])) <= {" UTC"}
    for zone in ("Europe/Berlin", "Pacific/Apia"):
        assert check_in(zone, form, airflow) == expected, zone


def check_in(zone, form, airflow):
    """What the command prints and its exit code, as a process that lives in this zone."""
    command = [BIN / "flowauth-rotator", "check", "--format", form]
    command += ["--airflow", airflow.url, "--scrape-token-file", "-"]
    done = subprocess.run(
        command,
        env=clean_environment(TZ=zone, NO_PROXY="127.0.0.1"),
        input=airflow.scrape_token.encode(),
        capture_output=True,
        timeout=WAIT_LIMIT,
        check=False,
    )
    assert done.stderr == b""
    return done.stdout.decode(), done.returncode
