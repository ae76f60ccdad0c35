"""A real Prometheus with the bundled alerts: each fault fires its alert and no other.

Each job is an Airflow of its own. All have a DAG of the same name, and tokens of the same names.
"""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from demo.parts import wait_until
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring import prometheus
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.status import Event, RotationDagStatus, StatusDocument, TokenStatus
from tests.monitoring.watching import Alertmanager, Exporter, Watch, node_exporter

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
VARIABLES = {"etl main": "ETL_TOKEN", "AIRFLOW": "FLOWAPI_TOKEN"}
NAMES = tuple(VARIABLES)
UNREADABLE = {"issued_at": None, "renew_at": None, "expires_at": None}


def now():
    return datetime.now(timezone.utc)


def dates(issued_at, expires_at, renew_at):
    """A token with these dates, as it is in use and at the issuer."""
    return {
        "issued_at": issued_at,
        "expires_at": expires_at,
        "renew_at": renew_at,
        "newest_issued_at": issued_at,
        "newest_issued_expires_at": expires_at,
    }


def token(name="etl main", **facts):
    """A token with a lifetime of ten hours, of which nine remain."""
    well = dates(now() - HOUR, now() + 9 * HOUR, now() + 5 * HOUR)
    more = {"variable": VARIABLES.get(name), "fingerprint": "ab", "rotation_counts": {"rotated": 1}}
    return TokenStatus(**{"name": name, "dag_id": "rotation", **well, **more, **facts})


def failed():
    """The last rotation of a token was refused a moment ago."""
    event = Event(now(), "refused", Severity.WARNING, fingerprint="ab")
    return {"rotations": [event], "rotation_counts": {"rotated": 1, "refused": 3}}


def unreadable():
    """A token that is not in its Variable."""
    return UNREADABLE | {"read_error": Event(now(), "missing", Severity.CRITICAL, "There is none.")}


def render(tokens, dag_id, deadline=HOUR, skew=2, **options):
    dag = RotationDagStatus(
        dag_id,
        checked_at=now(),
        deadline_at=now() + deadline,
        interval=HOUR,
        clock_skews={"flowauth_default": skew},
    )
    return prometheus.render(assess(StatusDocument([dag], tokens), now()), **options)


def well(*tokens, **facts):
    """The metrics of these tokens, by default of two healthy tokens, and of a healthy DAG."""
    return render(tokens or tuple(map(token, NAMES)), "rotation", **facts)


def with_first(**facts):
    """The metrics of both tokens, with other facts about the first."""
    return well(token("etl main", **facts), token("AIRFLOW"))


def due():
    return dates(now() - 5 * HOUR, now() + 3 * HOUR, now() - 60 * SECOND)


def rotating():
    """Metrics that advance by ten rotations at each scrape."""
    numbers = itertools.count(step=10)

    def text():
        number = next(numbers)
        current = dates(now(), now() + 9 * HOUR + number * SECOND, now() + 5 * HOUR)
        return with_first(**current, rotation_counts={"rotated": number})

    return text


def renamed():
    """The first token has got another name."""
    return well(token("new name", variable="ETL_TOKEN"), token("AIRFLOW"))


def nameless():
    """The first token cannot be read, and the key of its Variable stands in for its name."""
    first = token("ETL_TOKEN", variable="ETL_TOKEN", name_is_known=False, **unreadable())
    return well(first, token("AIRFLOW"))


@dataclass
class Fault:
    """A fault of one exporter.

    Attributes:
        text: returns the metrics, or a function that returns them; None if the exporter has died.
        alert: the alert that fires; empty for none.
        labels: name and value of the label that identifies it.
        repaired: returns the metrics after the fault.
    """

    text: Callable[[], bytes | Callable[[], bytes | None] | None]
    alert: str = ""
    labels: tuple = ("name", "etl main")
    repaired: Callable[[], bytes] = well


FAULTS = {
    "well": Fault(well),
    "a_hundred_rotations": Fault(rotating),
    "failures_before_it_is_due": Fault(lambda: with_first(**failed())),
    "a_document_that_was_deleted": Fault(lambda: with_first(rotation_counts={})),
    "tokens_that_no_check_has_read_yet": Fault(
        lambda: well(*(TokenStatus(name, VARIABLES[name], "rotation") for name in NAMES))
    ),
    "a_name_that_became_known": Fault(renamed, repaired=renamed),
    "an_exporter_that_died": Fault(
        lambda: None, "FlowAuthRotationAgentAbsent", ("job", "an_exporter_that_died")
    ),
    "a_target_that_died": Fault(well, "FlowAuthRotationAgentAbsent", ("job", "a_target_that_died")),
    "a_deadline_that_passed": Fault(
        lambda: well(deadline=-SECOND), "FlowAuthRotationAgentStalled", ("dag_id", "rotation")
    ),
    "a_name_that_is_gone": Fault(lambda: well(token("AIRFLOW")), "FlowAuthTokenVanished"),
    "a_name_without_a_token": Fault(lambda: with_first(**unreadable()), "FlowAuthTokenMissing"),
    "a_name_that_became_unknown": Fault(nameless, "FlowAuthTokenMissing", ("name", "ETL_TOKEN")),
    "a_newer_token_not_in_use": Fault(
        lambda: with_first(newest_issued_expires_at=now() + 20 * HOUR), "FlowAuthTokenNotDeployed"
    ),
    "failures_once_it_is_due": Fault(
        lambda: with_first(**due(), **failed()),
        "FlowAuthRotationFailing",
    ),
    "a_clock_that_is_wrong": Fault(
        lambda: well(skew=-400),
        "FlowAuthRotationClockSkew",
        ("connection", "flowauth_default"),
    ),
}


@dataclass
class Observation:
    """The alerts of a Prometheus, by job.

    Attributes:
        before: the alerts that fired before the faults.
        firing: the labels of the alerts that fired during the faults.
        muted: the alerts of these that Alertmanager did not send, by name and job.
        interrupted: the alerts of these that did not go on, by name and job.
        after: the alerts that fired after the faults.
        ever: the alerts that fired at any time.
        series: the number of series of a hundred rotations, before and after.
    """

    before: dict
    firing: dict
    muted: list
    interrupted: list
    after: set
    ever: dict
    series: tuple


@pytest.fixture(scope="module")
def observed(monitors, tmp_path_factory):
    """Healthy exporters, then a fault in each and failed scrapes, then all are healthy again."""
    exporters = {name: Exporter(name, well()) for name in FAULTS}
    second = Exporter("a_target_that_died", well())
    jobs = [each.job_with(*[second] * (each.name == second.name)) for each in exporters.values()]
    rotations = '{__name__=~"flowauth_rotator_.*", job="a_hundred_rotations"}'
    dead = [name for name, fault in FAULTS.items() if fault.text() is None]
    folder = tmp_path_factory.mktemp("watch")
    with contextlib.ExitStack() as parts:
        mutes = parts.enter_context(Alertmanager(monitors, folder / "alertmanager").running())
        with contextlib.ExitStack() as mortal:
            mortal.enter_context(second.running())
            for name, exporter in exporters.items():
                (mortal if name in dead else parts).enter_context(exporter.running())
            watch = Watch(monitors, folder / "watch", *jobs, alertmanager=mutes.port)
            parts.enter_context(watch.running())
            watch.wait_for_scrapes(*FAULTS)
            before, series = watch.ever(), watch.series(rotations)
        for name, fault in FAULTS.items():
            exporters[name].text, exporters[name].is_unsteady = fault.text(), True
        watch.wait_for_scrapes(*(name for name in FAULTS if name not in dead))
        firing = wait_for_alerts_of_all_jobs(watch)
        sent = {(each["alertname"], name) for name, alerts in firing.items() for each in alerts}
        wait_until(lambda: {key[:2] for key in mutes.states()} >= sent, "Alertmanager has them")
        muted = [key for key, state in mutes.states().items() if state != "active"]
        watch.wait_for_scrapes(*(name for name in FAULTS if name not in dead))
        interrupted = watch.interrupted()
        parts.enter_context(second.running())
        for name in FAULTS:
            exporters[name].text = FAULTS[name].repaired()
            if name in dead:
                parts.enter_context(exporters[name].running())
        wait_until(lambda: watch.alerts() == set(), "all resolve")
        watch.wait_for_scrapes(*FAULTS)
        ever = {name: set(watch.ever(f'job="{name}"')) for name in FAULTS}
        ever[""] = set(watch.ever('job=""'))
        series = (series, watch.series(rotations))
        return Observation(before, firing, muted, interrupted, watch.alerts(), ever, series)


def wait_for_alerts_of_all_jobs(watch):
    """Wait until all faults fire at the same time; returns the labels of the alerts, by job."""
    firing = {}

    def are_all_firing():
        for name in FAULTS:
            firing[name] = []
        for labels, _ in watch.ask('ALERTS{alertstate="firing"}'):
            firing[labels["job"]].append(labels)
        return all(bool(firing[name]) == bool(fault.alert) for name, fault in FAULTS.items())

    wait_until(are_all_firing, "the alert of each fault")
    return firing


def test_nothing_fires_while_all_is_well(observed):
    assert observed.before == {}
    assert observed.ever[""] == set()


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_fault_raises_its_alert_and_no_other(observed, name):
    """With the label of the faulty token, DAG or connection."""
    wanted = FAULTS[name]
    firing = [
        (labels["alertname"], labels.get(wanted.labels[0])) for labels in observed.firing[name]
    ]
    assert firing == ([(wanted.alert, wanted.labels[1])] if wanted.alert else [])
    assert observed.ever[name] == ({wanted.alert} if wanted.alert else set())


def test_failed_scrapes_interrupt_no_alert(observed):
    """One scrape in six fails."""
    assert observed.interrupted == []


def test_no_airflow_mutes_the_alerts_of_another(observed):
    """All have a DAG and tokens of the same names, one is absent, and another is stalled."""
    assert observed.muted == []


def test_all_resolve_when_all_is_well_again(observed):
    assert observed.after == set()


def test_a_hundred_rotations_have_the_series_of_one(observed):
    """The values change, and what identifies them does not."""
    before, after = observed.series
    assert after == before > 0


def test_the_only_exporter_that_dies_is_an_absent_agent_and_nothing_else(monitors, tmp_path):
    """Until it is back."""
    exporter = Exporter("own", well())
    watch = Watch(monitors, tmp_path / "watch", exporter.job_with())
    with contextlib.ExitStack() as parts:
        with exporter.running():
            parts.enter_context(watch.running())
        watch.wait_for("FlowAuthRotationAgentAbsent", evaluations=3)
        parts.enter_context(exporter.running())
        wait_until(lambda: watch.alerts() == set(), "it resolves")
        assert set(watch.ever()) == {"FlowAuthRotationAgentAbsent"}


def test_time_runs_out_for_a_token_and_each_alert_mutes_the_one_before(monitors, tmp_path):
    """Warning, critical, expired, with a lifetime of a minute; a successor ends them all.

    One scrape in six fails. A token of the same name in another Airflow has a lifetime of a year.
    """
    mutes = Alertmanager(monitors, tmp_path / "alertmanager")
    soon, critical, expired = (
        f"FlowAuthToken{each}" for each in ("ExpiringSoon", "ExpiryCritical", "Expired")
    )
    own, other = (Exporter(name, well(), is_unsteady=True) for name in ("own", "other"))
    with contextlib.ExitStack() as parts:
        for part in (mutes, own, other):
            parts.enter_context(part.running())
        jobs = [each.job_with() for each in (own, other)]
        watch = Watch(monitors, tmp_path / "watch", *jobs, alertmanager=mutes.port)
        parts.enter_context(watch.running())
        year = timedelta(days=360)
        other.text = with_first(**dates(now() - year * 5 / 6, now() + year / 6, now() - year / 6))
        own.text = with_first(**dates(now() - 45 * SECOND, now() + 15 * SECOND, now() - 5 * SECOND))
        wait_until(lambda: expired in watch.ever('job="own"'), expired)
        fired = watch.ever('job="own"')
        assert sorted(fired, key=lambda alert: -fired[alert]) == [soon, critical, expired]
        wanted = {(soon, "own"): "suppressed", (critical, "own"): "suppressed"}
        wanted |= {(expired, "own"): "active", (soon, "other"): "active"}
        wait_until(lambda: mutes.states() == wanted, "the loudest mutes the others of its Airflow")
        watch.wait_for_scrapes("own", "other")
        assert watch.interrupted() == []
        own.text = other.text = well()
        wait_until(lambda: watch.alerts() == set(), "all are resolved")
        assert set(watch.ever('job="own"')) == {soon, critical, expired}
        assert set(watch.ever('job="other"')) == {soon}


def test_textfiles_of_two_dags_are_read_and_an_old_one_raises_an_alert(monitors, tmp_path):
    """They explain each metric alike, or one would be dropped; old ones are served for ever."""
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()

    def write(dag_id, name, deadline=HOUR):
        text = render([token(name)], dag_id, deadline, build_info=False)
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
