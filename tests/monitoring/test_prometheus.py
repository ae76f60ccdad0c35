"""A real Prometheus with the shipped alerts: what goes wrong raises the right one and no other."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest

from demo.parts import wait_until
from flowauth_rotator.monitoring.prometheus import exposition
from flowauth_rotator.monitoring.snapshot import Heartbeat, Life, Snapshot, Watched
from tests.monitoring.watching import Alertmanager, Exporter, Watch, node_exporter

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
NAMES = ("etl main", "AIRFLOW")


def now():
    return datetime.now(timezone.utc)


def token(name="etl main", **facts):
    """A token that lives for ten hours, nine of them yet to come."""
    life = Life(now() - HOUR, now() + 9 * HOUR, now() + 5 * HOUR)
    well = Watched(name, dag_id="rotation", in_use=life, issued=life, rotations={"rotated": 1})
    return replace(well, **facts)


def well(*tokens, dag_id="rotation", deadline=HOUR, **facts):
    """What is told of these tokens, by default two that are well, and of a DAG that is, too."""
    agent = Heartbeat(dag_id, checked_at=now(), deadline_at=now() + deadline, interval=HOUR)
    tokens = tokens or tuple(map(token, NAMES))
    return exposition(replace(Snapshot(now(), tokens, [agent], {"flowauth_default": 2}), **facts))


def one(**facts):
    """The same, with something about the first of both tokens."""
    return well(token("etl main", **facts), token("AIRFLOW"))


def due():
    life = Life(now() - 5 * HOUR, now() + 3 * HOUR, now() - 60 * SECOND)
    return {"in_use": life, "issued": life}


def rotating():
    """Ten rotations further each time that somebody asks."""
    numbers = itertools.count(step=10)

    def text():
        number = next(numbers)
        life = Life(now(), now() + 9 * HOUR + number * SECOND, now() + 5 * HOUR)
        return one(in_use=life, issued=life, rotations={"rotated": number})

    return text


def unsteady():
    """No answer to each fourth request."""
    numbers = itertools.count(1)
    return lambda: well() if next(numbers) % 4 else None


@dataclass
class Fault:
    """What an exporter tells from some moment on.

    Attributes:
        text: what, or a function that says it anew each time; None if it has died.
        alert: what that raises; empty if nothing.
        labels: of what the alert is.
    """

    text: Callable[[], bytes | Callable[[], bytes | None] | None]
    alert: str = ""
    labels: tuple = ("name", "etl main")


FAULTS = {
    "well": Fault(well),
    "a_hundred_rotations": Fault(rotating),
    "scrapes_that_are_missed": Fault(unsteady),
    "failures_before_it_is_due": Fault(lambda: one(rotations={"refused": 3})),
    "a_database_that_was_cleaned": Fault(lambda: one(rotations={})),
    "an_exporter_that_died": Fault(
        lambda: None, "FlowAuthRotationAgentAbsent", ("dag_id", "rotation")
    ),
    "a_deadline_that_passed": Fault(
        lambda: well(deadline=-SECOND), "FlowAuthRotationAgentStalled", ("dag_id", "rotation")
    ),
    "a_name_that_is_gone": Fault(lambda: well(token("AIRFLOW")), "FlowAuthTokenVanished"),
    "a_name_without_a_token": Fault(lambda: one(in_use=None), "FlowAuthTokenMissing"),
    "a_newer_token_not_in_use": Fault(
        lambda: one(issued=Life(now(), now() + 20 * HOUR)), "FlowAuthTokenNotDeployed"
    ),
    "failures_once_it_is_due": Fault(
        lambda: one(**due(), rotations={"rotated": 1, "refused": 3}), "FlowAuthRotationFailing"
    ),
    "a_clock_that_is_wrong": Fault(
        lambda: well(clock_skews={"flowauth_default": -400}),
        "FlowAuthRotationClockSkew",
        ("connection", "flowauth_default"),
    ),
}


@dataclass
class Told:
    """What a Prometheus said, by job.

    Attributes:
        before: all that had fired before anything was wrong.
        firing: the labels of what fired while it was.
        after: what still fired when all was well again.
        ever: all that fired at any moment.
        series: how many series there were of a hundred rotations, before and after.
    """

    before: dict
    firing: dict
    after: set
    ever: dict
    series: tuple


@pytest.fixture(scope="module")
def told(monitors, tmp_path_factory):
    """All is well with twelve exporters, then something is wrong with each, then all is well."""
    exporters = {name: Exporter(name, well()) for name in FAULTS}
    jobs = [exporter.job for exporter in exporters.values()]
    rotations = '{__name__=~"flowauth_rotator_.*", job="a_hundred_rotations"}'
    dead = [name for name, it in FAULTS.items() if it.text() is None]
    with contextlib.ExitStack() as parts:
        with contextlib.ExitStack() as mortal:
            for name, exporter in exporters.items():
                (mortal if name in dead else parts).enter_context(exporter.running())
            watch = Watch(monitors, tmp_path_factory.mktemp("watch") / "watch", *jobs)
            parts.enter_context(watch.running())
            watch.wait_for_scrapes(*FAULTS)
            before, series = watch.ever(), watch.series(rotations)
        for name, it in FAULTS.items():
            exporters[name].text = it.text()
        watch.wait_for_scrapes(*(name for name in FAULTS if name not in dead))
        firing = wait_for_alerts_of_all_jobs(watch)
        for name in FAULTS:
            exporters[name].text = well()
            if name in dead:
                parts.enter_context(exporters[name].running())
        wait_until(lambda: watch.alerts() == set(), "all resolve")
        watch.wait_for_scrapes(*FAULTS)
        ever = {name: set(watch.ever(f'job="{name}"')) for name in FAULTS}
        ever[""] = set(watch.ever('job=""'))
        return Told(before, firing, watch.alerts(), ever, (series, watch.series(rotations)))


def wait_for_alerts_of_all_jobs(watch):
    """Wait until each fault is told at the same time; gives the labels of all that fires then.

    After a scrape that a busy machine missed, an alert begins to wait anew.
    """
    firing = {}

    def are_all_told():
        for name in FAULTS:
            firing[name] = []
        for labels, _ in watch.ask('ALERTS{alertstate="firing"}'):
            firing[labels["job"]].append(labels)
        return all(bool(firing[name]) == bool(it.alert) for name, it in FAULTS.items())

    wait_until(are_all_told, "the alert of each fault")
    return firing


def test_nothing_fires_while_all_is_well(told):
    assert told.before == {}
    assert told.ever[""] == set()


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_raises_its_alert_and_no_other(told, name):
    """About the one thing that it is about."""
    wanted = FAULTS[name]
    firing = [(labels["alertname"], labels.get(wanted.labels[0])) for labels in told.firing[name]]
    assert firing == ([(wanted.alert, wanted.labels[1])] if wanted.alert else [])
    assert told.ever[name] == ({wanted.alert} if wanted.alert else set())


def test_all_resolve_when_all_is_well_again(told):
    assert told.after == set()


def test_a_hundred_rotations_have_the_series_of_one(told):
    """The values change, and what identifies them does not."""
    before, after = told.series
    assert after == before > 0


def test_the_only_exporter_that_dies_is_an_absent_agent_and_nothing_else(monitors, tmp_path):
    """Until it is back."""
    exporter = Exporter("own", well())
    watch = Watch(monitors, tmp_path / "watch", exporter.job)
    with contextlib.ExitStack() as parts:
        with exporter.running():
            parts.enter_context(watch.running())
        watch.wait_for("FlowAuthRotationAgentAbsent", evaluations=3)  # no other waits for longer
        parts.enter_context(exporter.running())
        wait_until(lambda: watch.alerts() == set(), "it resolves")
        assert set(watch.ever()) == {"FlowAuthRotationAgentAbsent"}


def test_time_runs_out_for_a_token_and_each_alert_mutes_the_one_before(monitors, tmp_path):
    """Warning, critical, expired, one after the other; a successor ends them all."""
    mutes = Alertmanager(monitors, tmp_path / "alertmanager")
    names = ("FlowAuthTokenExpiringSoon", "FlowAuthTokenExpiryCritical", "FlowAuthTokenExpired")
    exporter = Exporter("own", well())
    with contextlib.ExitStack() as parts:
        parts.enter_context(mutes.running())
        parts.enter_context(exporter.running())
        watch = Watch(monitors, tmp_path / "watch", exporter.job, alertmanager=mutes.port)
        parts.enter_context(watch.running())
        for number, left in enumerate((0.5, 0.2, -0.1), start=1):
            life = Life(now() - 20 * HOUR, now() + left * 10 * HOUR, now() + (left - 1) * 10 * HOUR)
            exporter.text = one(in_use=life, issued=life)
            expected = set(names[:number])
            wait_until(lambda expected=expected: watch.alerts() == expected, names[number - 1])
            assert set(watch.ever()) == expected
        wanted = dict.fromkeys(names[:2], "suppressed") | {names[2]: "active"}
        wait_until(lambda: mutes.states() == wanted, "the loudest mutes the others")
        exporter.text = well()
        wait_until(lambda: watch.alerts() == set(), "all are resolved")
        assert set(watch.ever()) == set(names)


def test_textfiles_of_two_dags_are_read_and_an_old_one_is_told(monitors, tmp_path):
    """They explain each metric alike, or one would be dropped; old ones are served for ever."""
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()

    def write(dag_id, name, deadline=HOUR):
        agent = Heartbeat(dag_id, checked_at=now(), deadline_at=now() + deadline, interval=HOUR)
        text = exposition(Snapshot(now(), [token(name)], [agent]), build_info=False)
        draft = tmp_path / "draft"
        draft.write_bytes(text)
        draft.replace(textfiles / f"flowauth_rotator_{dag_id}.prom")

    write("north", "etl main")
    write("south", "AIRFLOW")
    with contextlib.ExitStack() as parts:
        port = parts.enter_context(node_exporter(monitors, tmp_path, textfiles))
        job = {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        watch = parts.enter_context(Watch(monitors, tmp_path / "watch", job).running())
        watch.wait_for_scrapes("node")
        assert watch.ask("node_textfile_scrape_error")[0][1] == 0
        expected = watch.ask("flowauth_rotator_token_expected")
        assert {labels["name"] for labels, _ in expected} == set(NAMES)
        assert watch.ever() == {}
        write("south", "AIRFLOW", deadline=-SECOND)
        watch.wait_for("FlowAuthRotationAgentStalled")
        [(labels, _)] = watch.ask('ALERTS{alertstate="firing"}')
        assert labels["dag_id"] == "south"
        assert set(watch.ever()) == {"FlowAuthRotationAgentStalled"}
