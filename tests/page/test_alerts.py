"""A real Prometheus, a real Airflow, a real renewal server: who is woken by what."""

import json
import os
import re
import secrets
import signal
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from demo.parts import wait_until
from tests.monitoring.watching import Watch

HERE = Path(__file__).parent
SCRAPE_TOKEN = secrets.token_hex(32)
DAG = """
from datetime import timedelta

from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag(
    [ManagedToken({variable!r})], dag_id={dag_id!r}, schedule=timedelta(seconds=30)
)
"""
WAITING = """
dag.get_task("survey").pool = "nobody"
"""
DAGS = ("well", "paused", "torn", "gone", "stuck")  # what becomes of them


def metrics_token(issuer):
    data_dir = issuer.app.extensions["flowauth_rotator"].settings.data_dir
    return (data_dir / "metrics.token").read_text().strip()


@pytest.fixture(scope="module")
def issuer(start_issuer):
    """A renewal server of its own, since all its names are watched."""
    return start_issuer()


@pytest.fixture(scope="module")
def site(make_site, issuer):
    """Five DAGs with a token each, looked at twice a minute."""
    site = make_site(AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN=SCRAPE_TOKEN)
    stored = {f"{dag_id}_token": issuer.mint(dag_id, lifetime_minutes=1440) for dag_id in DAGS}
    site.home.load("variables", stored)
    site.connect(issuer)
    for dag_id in DAGS:
        site.put_dag(dag_id, DAG.format(variable=f"{dag_id}_token", dag_id=dag_id))
    with site.running():
        wait_until(lambda: checked_dags(site) == set(DAGS), "the DAGs check")
        yield site


def checked_dags(site):
    """The DAGs that have checked their tokens."""
    request = urllib.request.Request(
        f"{site.url}/flowauth-rotator/api/check",
        headers={"Authorization": f"Bearer {SCRAPE_TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        dags = json.load(response)["dags"]
    return {dag["dag_id"] for dag in dags if dag["checked_at"]}


@pytest.fixture(scope="module")
def sources(site, issuer):
    """What Prometheus scrapes, with the path and the scrape token of each."""
    return {
        "airflow": (site.url, "/flowauth-rotator/metrics", SCRAPE_TOKEN),
        "server": (issuer.url, "/metrics", metrics_token(issuer)),
    }


@pytest.fixture(scope="module")
def watch(monitors, sources, tmp_path_factory):
    """A Prometheus that scrapes both."""
    jobs = [
        {
            "job_name": name,
            "metrics_path": path,
            "authorization": {"credentials": token},
            "static_configs": [{"targets": [urlsplit(url).netloc]}],
        }
        for name, (url, path, token) in sources.items()
    ]
    watch = Watch(monitors, tmp_path_factory.mktemp("watch") / "watch", *jobs, every=2, server=True)
    with watch.running():
        for name in sources:
            watch.wait_for_scrapes(name, more=1)
        yield watch


def stop(part):
    """Stop one of Airflow's processes, which this one has started, with its children."""
    started = {child: " ".join(child.cmdline()) for child in psutil.Process().children()}
    [found] = [it for it, line in started.items() if re.search(rf"airflow {part}\b", line)]
    os.killpg(found.pid, signal.SIGTERM)
    found.wait(60)


def is_there(site):
    """Whether the plugin is: it tells a stranger to sign in, and Airflow knows no such page."""
    answer = site.call(None, "GET", "flowauth-rotator/metrics")
    assert answer.status_code in (401, 404) or "html" in answer.headers["Content-Type"]
    return answer.status_code == 401


def checks_of(site, dag_id):
    """All completed checks of a DAG."""
    return site.ask(f"SELECT run_id FROM dag_run WHERE state = 'success' AND dag_id = '{dag_id}'")


def between_checks(site, *dag_ids):
    """Wait until one has just ended: a DAG that is stopped within a run is waited for longer."""
    theirs = ", ".join(f"'{dag_id}'" for dag_id in dag_ids)
    active = "SELECT run_id FROM dag_run WHERE state IN ('queued', 'running')"
    active += f" AND dag_id IN ({theirs})"
    wait_until(lambda: site.ask(active) != [], "a check begins")
    wait_until(lambda: site.ask(active) == [], "it ends")


def stalled(watch):
    """The DAGs of which Prometheus says that they do not check."""
    firing = watch.ask('ALERTS{alertname="FlowAuthRotationAgentStalled", alertstate="firing"}')
    return {labels["dag_id"] for labels, _ in firing}


@pytest.mark.parametrize("name", ["airflow", "server"])
def test_promtool_finds_nothing_wrong_with_the_metrics(monitors, sources, name):
    url, path, token = sources[name]
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    checked = subprocess.run(
        [monitors.promtool, "check", "metrics"], input=text, capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_nobody_is_woken_by_a_rotation(site, watch, issuer):
    """Old and new token overlap, both scraped; the series of the name stay the same."""
    selector = '{__name__=~"flowauth_[a-z_]+", __name__!~".*_duration_.*", name="well"}'
    watch.wait_for_scrapes("airflow")
    series, old = watch.series(selector), site.variable("well_token")
    assert site.ask_to_renew("admin", "well_token").status_code == 202
    wait_until(lambda: site.variable("well_token") != old, "the rotation")
    newest = issuer.rows("well")[-1].expires_at

    def told(metric):
        return [value for _, value in watch.ask(f'{metric}{{name="well"}}')]

    for metric in (
        "flowauth_rotator_token_expiration_timestamp_seconds",
        "flowauth_rotator_issued_expiration_timestamp_seconds",
        "flowauth_renewal_server_token_expiration_timestamp_seconds",
    ):
        wait_until(lambda metric=metric: told(metric) == [newest], metric)
    wait_until(lambda: sum(told("flowauth_rotator_rotations_total")) == 1, "it is counted")
    watch.wait_for_scrapes("airflow")
    new = {"flowauth_rotator_last_success_timestamp_seconds"}
    new |= {  # known since the rotation
        f"flowauth_rotator_issued_{each}_timestamp_seconds" for each in ("expiration", "deadline")
    }
    assert watch.series(selector) == series + len(new)
    assert watch.ever() == {}


def test_what_keeps_a_dag_from_checking_is_told_and_nothing_else(site, watch):
    """Paused, broken, gone, without a worker, at last no scheduler: after two missed checks."""
    assert site.home.airflow("pools", "set", "nobody", "0", "has no slots") == 0
    between_checks(site, *DAGS)
    site.pause("paused")
    site.put_dag("torn", "import airflow.nothing_of_this_name  # dag")
    (site.dags / "gone.py").unlink()
    site.put_dag("stuck", DAG.format(variable="stuck_token", dag_id="stuck") + WAITING)
    checks = len(checks_of(site, "well"))
    wait_until(lambda: len(checks_of(site, "well")) > checks + 2, "the other one goes on")
    between_checks(site, "well")
    assert watch.ever() == {}
    stop("scheduler")
    first = set(DAGS) - {"well"}
    wait_until(lambda: stalled(watch) >= first, "the first are told")
    assert stalled(watch) == first
    wait_until(lambda: stalled(watch) == set(DAGS), "the scheduler is told")
    watch.wait_for_scrapes("airflow")
    assert set(watch.ever()) == {"FlowAuthRotationAgentStalled"}


def test_a_plugin_that_was_uninstalled_is_an_absent_agent_and_nothing_else(site, watch):
    """Airflow answers, and knows nothing of it."""
    before = set(watch.ever())
    assert is_there(site)
    stop("webserver" if site.two else "api[-_]server")
    site.home.env |= {
        "PYTHONPATH": os.pathsep.join(
            [str(HERE / "uninstalled"), site.home.env.get("PYTHONPATH", "")]
        ),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(site.seen),
    }
    with site.home.running(urlsplit(site.url).port):
        assert not is_there(site)
        watch.wait_for("FlowAuthRotationAgentAbsent")
        assert watch.alerts() == {"FlowAuthRotationAgentAbsent"}
    assert set(watch.ever()) == before | {"FlowAuthRotationAgentAbsent"}


def test_a_name_that_nobody_renews_is_told_by_the_server(watch, issuer):
    """With the last of its tokens in the last tenth of its lifetime, whoever else watches."""
    issued_at = issuer.now() - 57 * 60
    issuer.mint("forsaken", lifetime_minutes=60, issued_at=issued_at)
    watch.wait_for("FlowAuthRenewalServerNameWithoutSuccessor")
    firing = watch.ask('ALERTS{alertstate="firing", job="server"}')
    assert [labels["name"] for labels, _ in firing] == ["forsaken"]


def test_a_token_that_two_clients_renew_is_told_by_the_server(watch, issuer):
    """Each sends a request of its own for the same token."""
    watch.wait_for_scrapes("server")
    token = issuer.mint("shared", lifetime_minutes=60)
    for _ in range(2):
        request = urllib.request.Request(
            f"{issuer.url}/tokens/renew",
            data=b"{}",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=60).close()
    watch.wait_for("FlowAuthRenewalServerTokenForked")
