"""What is told of a token is the same wherever it is told, and on the days when clocks change."""

import json
import re
import subprocess
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from prometheus_client.utils import floatToGoString

from demo.parts import BIN, clean_environment
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring import checkmk, document, nagios, plan, prometheus
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Told, Watched
from flowauth_rotator.monitoring.state import State, assess

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]
CHANGES = [  # of the clocks of Berlin and of New York, to summer time and back
    datetime(2027, 3, 28, 1, tzinfo=timezone.utc),
    datetime(2026, 10, 25, 1, tzinfo=timezone.utc),
    datetime(2027, 3, 14, 7, tzinfo=timezone.utc),
    datetime(2026, 11, 1, 6, tzinfo=timezone.utc),
]
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
AROUND = [-HOUR, -SECOND, timedelta(0), HOUR - SECOND, HOUR, 2 * HOUR]


@pytest.fixture
def live_in(monkeypatch):
    """Make a time zone that of this process."""

    def move(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def found(now, change):
    """A token that was issued before the clocks change and is due and ends after, and its DAG."""
    life = Life(change - 20 * HOUR, change + 4 * HOUR, change - 4 * HOUR)
    newer = Life(change - HOUR, change + 23 * HOUR)
    told = Told("unavailable", Severity.WARNING, "The issuer does not answer.")
    token = Watched(
        *("etl main", "Variable ETL", "rotation"),
        *(life, newer, told),
        renewal_check_at=change - 3 * HOUR,
        last_success_at=change - 20 * HOUR,
        rotations={"rotated": 3},
    )
    agent = Heartbeat(
        "rotation",
        checked_at=change - 2 * HOUR,
        deadline_at=change + 2 * HOUR,
        next_check_at=change + HOUR / 2,
        interval=HOUR,
    )
    return Snapshot(now, [token], [agent], {"flowauth_default": 2})


def readings(now, change):
    """All of them, also of what has travelled as JSON."""
    snapshot = found(now, change)
    told = []
    for one in (snapshot, Snapshot.from_json(json.loads(json.dumps(snapshot.to_json())))):
        assessment = assess(one)
        told += [
            nagios.reading(assessment),
            checkmk.reading(assessment),
            prometheus.exposition(one).decode(),
            json.dumps(document.document(assessment)),
            plan.lines(assessment),
        ]
    return told


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_reading_is_the_same_in_every_zone(zone, change, live_in):
    for later in AROUND:
        now = change + later
        live_in("UTC")
        told = readings(now, change)
        live_in(zone)
        assert readings(now, change) == told


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_hour_that_the_clocks_skip_or_repeat_is_an_hour(zone, change, live_in):
    """Whatever clock `now` was read from, what is left is counted in hours that passed."""
    live_in(zone)
    for later in AROUND:
        now = (change + later).astimezone(ZoneInfo(zone))
        [judged] = assess(found(now, change)).tokens
        assert judged.remaining == 4 * HOUR - later
        # Of the window of 8 hours: a warning below 4.8, critical below 2.4.
        assert judged.verdict.state is (State.CRITICAL if later > 1.6 * HOUR else State.WARNING)
        assert f"({change + 4 * HOUR:%Y-%m-%d %H:%M} UTC)" in judged.verdict.sentence


@pytest.mark.parametrize("form", ["nagios", "checkmk", "prometheus", "json"])
def test_the_command_says_the_same_in_every_zone(form, renewal_server, tmp_path):
    """To the byte, but for the seconds that pass from one call to the next."""
    now = int(time.time())
    for name, left in (("etl main", 100.5 * HOUR), ("AIRFLOW", 30.5 * HOUR)):
        issued_at = now + int(left.total_seconds()) - 7 * 24 * 3600
        renewal_server.mint(name, lifetime_minutes=7 * 24 * 60, issued_at=issued_at)
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(renewal_server.password)
    command = [str(BIN / "flowauth-rotator"), "check", "--format", form]
    command += ["--issuer", renewal_server.url, "--username", renewal_server.username]
    command += ["--password-file", str(password)]
    calls = {
        zone: subprocess.run(
            command, env=clean_environment(TZ=zone), capture_output=True, text=True, check=False
        )
        for zone in ZONES
    }
    assert {call.stderr for call in calls.values()} == {""}
    assert {call.returncode for call in calls.values()} == {1 if form == "nagios" else 0}
    [said] = {timeless(call.stdout) for call in calls.values()}
    expiry = datetime.fromtimestamp(now, timezone.utc) + 30.5 * HOUR
    if form == "prometheus":
        assert f'{{name="AIRFLOW"}} {floatToGoString(expiry.timestamp())}\n' in said
    else:
        assert f"expires in 1 d 6 h ({expiry:%Y-%m-%d %H:%M} utc)" in said.lower()


def timeless(text):
    """Without what changes from second to second: what is left, and how much that is."""
    return re.sub(r'("?(?:now|remaining|used)"?[=:] ?)[\d.]+', r"\1...", text)
