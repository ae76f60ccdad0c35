"""A real Prometheus with the shipped alerts: what goes wrong raises the right one and no other."""

import contextlib
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.monitoring.prometheus import exposition
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Watched
from tests.e2e.deployment import until
from tests.monitoring.watching import Alertmanager, Exporter, Watch, node_exporter

HOUR = timedelta(hours=1)
NAMES = ("etl main", "AIRFLOW")


def now():
    return datetime.now(timezone.utc)


def healthy(name, **facts):
    life = Life(now() - HOUR, now() + 9 * HOUR, now() + 5 * HOUR)
    return Watched(name, dag_id="rotation", in_use=life, issued=life, rotations={}, **facts)


def snapshot(*tokens, dag_id="rotation", deadline=HOUR):
    """These tokens, and an agent that is well until its deadline."""
    agent = Heartbeat(dag_id, checked_at=now(), deadline_at=now() + deadline, interval=HOUR)
    tokens = tokens or tuple(map(healthy, NAMES))
    return Snapshot(now(), tokens, agents=[agent], clock_skews={"flowauth_default": 2})


@pytest.fixture
def watched(tmp_path):
    """An exporter in which all is well, and a Prometheus that has seen that for a while."""
    exporter = Exporter(exposition(snapshot()))
    with contextlib.ExitStack() as parts:
        parts.enter_context(exporter.running())
        watch = parts.enter_context(Watch(tmp_path / "watch", exporter.job).running())
        watch.wait_for_scrapes("own")
        assert watch.ever() == {}
        yield exporter, watch


def test_an_exporter_that_died_is_an_absent_agent_and_nothing_else(tmp_path):
    """Until it is back; also with a token that has expired meanwhile."""
    exporter = Exporter(exposition(snapshot()))
    with Watch(tmp_path / "watch", exporter.job).running() as watch:
        with exporter.running():
            watch.wait_for_scrapes("own")
        watch.wait_for("FlowAuthRotationAgentAbsent")
        assert set(watch.ever()) == {"FlowAuthRotationAgentAbsent"}
        with exporter.running():
            until(lambda: watch.alerts() == set(), "it resolves")
            watch.wait_for_scrapes("own")
        assert set(watch.ever()) == {"FlowAuthRotationAgentAbsent"}


def test_an_agent_whose_deadline_passes_has_stalled_until_it_checks(watched):
    exporter, watch = watched
    exporter.text = exposition(snapshot(deadline=timedelta(seconds=2)))
    watch.wait_for("FlowAuthRotationAgentStalled")
    exporter.text = exposition(snapshot())
    until(lambda: watch.alerts() == set(), "it resolves")
    assert set(watch.ever()) == {"FlowAuthRotationAgentStalled"}


def test_a_name_that_is_gone_has_vanished_until_it_is_back(watched):
    exporter, watch = watched
    exporter.text = exposition(snapshot(healthy("AIRFLOW")))
    watch.wait_for("FlowAuthTokenVanished")
    [(labels, _)] = watch.ask('ALERTS{alertstate="firing"}')
    assert labels["name"] == "etl main"
    exporter.text = exposition(snapshot())
    until(lambda: watch.alerts() == set(), "it resolves")
    assert set(watch.ever()) == {"FlowAuthTokenVanished"}


def test_one_of_several_names_without_a_token_is_missing(watched):
    exporter, watch = watched
    gone = replace(healthy("etl main"), in_use=None)
    exporter.text = exposition(snapshot(gone, healthy("AIRFLOW")))
    watch.wait_for("FlowAuthTokenMissing")
    [(labels, _)] = watch.ask('ALERTS{alertstate="firing"}')
    assert labels["name"] == "etl main"
    assert set(watch.ever()) == {"FlowAuthTokenMissing"}


def test_a_newer_token_that_is_not_in_use_is_told(watched):
    exporter, watch = watched
    newer = Life(now(), now() + 20 * HOUR)
    stuck = replace(healthy("etl main"), issued=newer)
    exporter.text = exposition(snapshot(stuck, healthy("AIRFLOW")))
    watch.wait_for("FlowAuthTokenNotDeployed")
    assert set(watch.ever()) == {"FlowAuthTokenNotDeployed"}


def test_a_clock_that_is_wrong_is_told(watched):
    exporter, watch = watched
    exporter.text = exposition(replace(snapshot(), clock_skews={"flowauth_default": -400}))
    watch.wait_for("FlowAuthRotationClockSkew")
    assert set(watch.ever()) == {"FlowAuthRotationClockSkew"}


def test_a_renewal_that_fails_is_told_once_it_is_due(watched):
    """A counter that rises while the token is not due is none of these."""
    exporter, watch = watched
    failed = replace(healthy("etl main"), rotations={"refused": 1, "rotated": 3})
    exporter.text = exposition(snapshot(failed, healthy("AIRFLOW")))
    watch.wait_for_scrapes("own")
    assert watch.ever() == {}
    due = Life(now() - 5 * HOUR, now() + 2 * HOUR, now() - timedelta(minutes=1))
    failed = replace(failed, in_use=due, issued=due, rotations={"refused": 2, "rotated": 3})
    exporter.text = exposition(snapshot(failed, healthy("AIRFLOW")))
    watch.wait_for("FlowAuthRotationFailing")
    [(labels, _)] = watch.ask('ALERTS{alertstate="firing"}')
    assert (labels["name"], labels["outcome"]) == ("etl main", "refused")
    assert set(watch.ever()) == {"FlowAuthRotationFailing"}


def test_time_runs_out_for_a_token_and_each_alert_mutes_the_one_before(tmp_path):
    """Warning, critical, expired, one after the other; a successor ends them all."""
    exporter, mutes = Exporter(), Alertmanager(tmp_path / "alertmanager")
    born = now()
    seconds = [timedelta(seconds=number) for number in range(40)]
    life = Life(born - seconds[10], born + seconds[30], born - seconds[10])
    names = ("FlowAuthTokenExpiringSoon", "FlowAuthTokenExpiryCritical", "FlowAuthTokenExpired")
    with contextlib.ExitStack() as parts:
        parts.enter_context(mutes.running())
        parts.enter_context(exporter.running())
        dying = replace(healthy("etl main"), in_use=life, issued=life)
        exporter.text = exposition(snapshot(dying, healthy("AIRFLOW")))
        watch = Watch(tmp_path / "watch", exporter.job, alertmanager=mutes.port)
        parts.enter_context(watch.running())
        for number, name in enumerate(names, start=1):
            until(lambda name=name: name in watch.alerts(), name)
            assert watch.alerts() == set(names[:number])
        wanted = dict.fromkeys(names[:2], "suppressed") | {names[2]: "active"}
        until(lambda: mutes.states() == wanted, "the louder one mutes the others")
        exporter.text = exposition(snapshot())
        until(lambda: watch.alerts() == set(), "all are resolved")
        assert set(watch.ever()) == set(names)


def test_a_hundred_rotations_have_the_series_of_one(watched):
    """The values change, and what identifies them does not; nothing fires."""
    exporter, watch = watched
    selector = '{__name__=~"flowauth_rotator_.*"}'
    before = watch.series(selector)
    for number in range(100):
        life = Life(now(), now() + 9 * HOUR + timedelta(seconds=number), now() + 5 * HOUR)
        rotated = [
            replace(healthy(name), in_use=life, issued=life, rotations={"rotated": number})
            for name in NAMES
        ]
        exporter.text = exposition(snapshot(*rotated))
        if number % 20 == 19:
            watch.wait_for_scrapes("own", 1)
    assert watch.series(selector) == before > 0
    assert watch.ever() == {}


def test_textfiles_of_two_dags_are_read_and_an_old_one_is_told(tmp_path):
    """They explain each metric alike, or one would be dropped; old ones are served for ever."""
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()

    def write(dag_id, name, **options):
        text = exposition(snapshot(healthy(name), dag_id=dag_id, **options), build_info=False)
        (tmp_path / "draft").write_bytes(text)
        shutil.move(tmp_path / "draft", textfiles / f"flowauth_rotator_{dag_id}.prom")

    write("north", "etl main")
    write("south", "AIRFLOW")
    with contextlib.ExitStack() as parts:
        port = parts.enter_context(node_exporter(tmp_path, textfiles))
        job = {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        watch = parts.enter_context(Watch(tmp_path / "watch", job).running())
        watch.wait_for_scrapes("node")
        assert watch.ask("node_textfile_scrape_error")[0][1] == 0
        expected = watch.ask("flowauth_rotator_token_expected")
        assert {labels["name"] for labels, _ in expected} == set(NAMES)
        assert watch.ever() == {}
        write("south", "AIRFLOW", deadline=timedelta(seconds=2))
        watch.wait_for("FlowAuthRotationAgentStalled")
        [(labels, _)] = watch.ask('ALERTS{alertstate="firing"}')
        assert labels["dag_id"] == "south"
        assert set(watch.ever()) == {"FlowAuthRotationAgentStalled"}
