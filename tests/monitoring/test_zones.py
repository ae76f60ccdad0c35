"""All output is the same in every time zone, also on the days when clocks change."""

import json
import re
import time
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

import flowauth_rotator.cli.check
from flowauth_rotator.cli.check import FORMATS
from flowauth_rotator.cli.main import main
from flowauth_rotator.cli.sources import list_issued_tokens
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring import checkmk, json_output, nagios, prometheus, terminal
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
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


def document_around(change):
    """Tokens that are issued, due and expire around a change of clocks, and their DAG."""
    failure = Event(change, Outcome.UNAVAILABLE, Severity.WARNING, "No response.", "Wait.")
    tokens = []
    for step in range(-4, 5):
        expires_at = change + step * HALF_AN_HOUR
        tokens.append(
            TokenStatus(
                f"etl {step:+}",
                variable="ETL",
                dag_id="rotation",
                former_name="ETL",
                renamed_at=change,
                issued_at=expires_at - 3 * HOUR,
                renew_at=expires_at - HOUR,
                expires_at=expires_at,
                newest_issued_at=change,
                newest_issued_expires_at=expires_at + 24 * HOUR,
                last_check=failure if step % 2 else None,
                renewal_check_at=expires_at - HOUR,
                last_success_at=expires_at - 3 * HOUR,
                rotation_counts={"rotated": 3},
            )
        )
    dag = RotationDagStatus(
        "rotation",
        checked_at=change - HALF_AN_HOUR,
        deadline_at=change + HOUR,
        next_check_at=change + HALF_AN_HOUR,
        interval=HOUR,
        clock_skews={"flowauth_default": 2},
    )
    return StatusDocument([dag], tokens)


def render_all(document, now):
    """Render a document in each format, also after a round trip as JSON."""
    texts = []
    for each in (document, StatusDocument.from_json(json.loads(json.dumps(document.to_json())))):
        assessment = assess(each, now)
        texts += [
            nagios.render(assessment),
            checkmk.render(assessment),
            prometheus.render(assessment).decode(),
            json.dumps(json_output.render(assessment)),
            terminal.render(assessment),
            each.dump(),
        ]
    return texts


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_format_is_the_same_in_every_zone(change, live_in):
    document = document_around(change)
    for later in AROUND:
        live_in("UTC")
        expected = render_all(document, change + later)
        for zone in ZONES:
            live_in(zone)
            assert render_all(document, change + later) == expected, zone


@pytest.mark.parametrize("zone", ["UTC", *ZONES])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_hour_that_the_clocks_skip_or_repeat_is_an_hour(zone, change, live_in):
    """Whatever clock `now` was read from, what is left is counted in hours that passed."""
    live_in(zone)
    token = TokenStatus(
        "etl main",
        issued_at=change - 20 * HOUR,
        renew_at=change - 4 * HOUR,
        expires_at=change + 4 * HOUR,
    )
    for later in AROUND:
        now = (change + later).astimezone(ZoneInfo(zone))
        [assessed] = assess(StatusDocument(None, [token]), now).tokens
        assert assessed.remaining == 4 * HOUR - later
        # Of the window of 8 hours: a warning below 4.8, critical below 2.4.
        severities = {-HOUR: Severity.OK, 2 * HOUR: Severity.CRITICAL}
        assert assessed.severity is severities.get(later, Severity.WARNING)
        assert f"({change + 4 * HOUR:%Y-%m-%d %H:%M} UTC)" in assessed.verdict.message


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


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_command_prints_the_same_in_all_zones(
    airflow, output_format, live_in, capfd, scrape_token_file, monkeypatch
):
    """Byte for byte and with the same exit code, around the end of summer in Berlin."""
    summer_ends = CHANGES[1]
    airflow.document = document_around(summer_ends)
    airflow.read_clock = lambda: summer_ends - HALF_AN_HOUR

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return (summer_ends - HALF_AN_HOUR).astimezone(tz)

    monkeypatch.setattr(flowauth_rotator.cli.check, "datetime", Clock)
    options = ("--airflow", airflow.url, "--scrape-token-file", str(scrape_token_file))
    printed = set()
    for zone in ("UTC", "Europe/Berlin", "Pacific/Apia"):
        live_in(zone)
        with pytest.raises(SystemExit) as ended:
            main(["check", "--format", output_format, *options])
        printed.add((capfd.readouterr().out, ended.value.code))
    [(text, _)] = printed
    assert "etl +4" in text
    assert set(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(.{4})", text)) <= {" UTC"}
