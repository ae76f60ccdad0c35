"""The bundled files for Prometheus, Alertmanager and Grafana, checked with their own tools."""

import itertools
import json
import re
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml

import flowauth_rotator.server.metrics as server_metrics
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.export import FILES
from flowauth_rotator.monitoring.prometheus import render
from flowauth_rotator.monitoring.status import StatusDocument

PROMETHEUS = FILES / "prometheus"
RULES = sorted(PROMETHEUS.glob("*.rules.yml"))
UNIT_TESTS = {
    path: yaml.safe_load(path.read_text()) for path in sorted(PROMETHEUS.glob("*.test.yml"))
}
DASHBOARD = json.loads((FILES / "grafana" / "dashboard.json").read_text())
ALERTS = [
    rule
    for path in RULES
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in ALERTS]
WELL = {Outcome.HEALTHY, Outcome.ROTATED, Outcome.ADOPTED, Outcome.SUPERSEDED}


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def expressions():
    """The queries of the dashboard."""
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def metrics_in(text):
    return set(re.findall(r"flowauth_(?:rotator|renewal_server)_\w+", text))


def test_prometheus_takes_the_rules(monitors):
    code, output = run(monitors.promtool, "check", "rules", *RULES)
    assert code == 0, output
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda it: it.name)
def test_the_alerts_pass_the_unit_tests_that_are_shipped_with_them(path, monitors):
    code, output = run(monitors.promtool, "test", "rules", path)
    assert code == 0, output


MISTAKES = {  # in the rules, by the first words of the unit test that must detect them
    "one of two tokens is not renewed": {
        "< time() + 0.6 *": "< time() + 0.5 *",
        "< time() + 0.3 *": "< time() + 0.35 *",
        "_seconds <= time()\n": "_seconds < time()\n",
    },
    "one of two names has no usable token": {
        "unless flowauth_rotator_token_expiration_timestamp_seconds > 0": "unless on () vector(1)",
        "seconds > 0\n": "seconds\n",
        "for: 2m": "for: 0m",
    },
    "a name that is no longer managed": {
        "last_over_time(flowauth_rotator_token_expected[6h])": "flowauth_rotator_token_expected",
        "> time() - 7 * 3600": "> time() - 70 * 3600",
    },
    "a name that became known": {
        "last_over_time(flowauth_rotator_token_renamed_timestamp_seconds[6h])": (
            "last_over_time(flowauth_rotator_token_renamed_timestamp_seconds[20m])"
        ),
        "> time() - 7 * 3600": "> time() - 5 * 3600",
    },
    "one of two DAGs is gone": {
        "          and ignoring (name, dag_id) flowauth_rotator_last_check_timestamp_seconds\n": "",
    },
    "a target that is gone": {
        "            and on () flowauth_rotator_last_check_timestamp_seconds\n": "",
        "absent(flowauth_rotator_last_check_timestamp_seconds)\n          or (": "(",
    },
    "a restart under another address": {
        "unless on (job, dag_id) flow": "unless on (job, dag_id, instance) flow",
    },
    "a night or a weekend": {
        "check_deadline_timestamp_seconds < time()": "last_check_timestamp_seconds < time() - 600",
    },
    "a success at the third attempt": {
        "and ignoring (outcome) flowauth_rotator_token_renewal_timestamp_seconds <= time()": "",
    },
    "a due renewal that is refused": {
        "healthy|rotated|": "rotated|",
        "for: 3m": "for: 0m",
    },
    "clocks that are more than": {
        "clock_skew_seconds < -300": "clock_skew_seconds < -3000",
    },
    "a rotation with overlap": {
        "clock_skew_seconds > 300": "clock_skew_seconds >= 0",
    },
    "a newer token that was issued": {
        "for: 10m": "for: 0m",
    },
    "a restart and a missed scrape": {
        "for: 5m": "for: 0m",
        "absent(flowauth_renewal_server_renewals_total)": "flowauth_renewal_server_renewals_total",
    },
    "one of two names is not renewed": {
        "== 1": "== 2",
    },
}


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [(name, *mistake) for name, each in MISTAKES.items() for mistake in each.items()],
)
def test_a_shipped_unit_test_notices_a_rule_that_was_broken(name, right, wrong, monitors, tmp_path):
    """After a change of a threshold they show the other effects."""
    folder = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    places = 0
    for path in folder.glob("*.rules.yml"):
        places += path.read_text().count(right)
        path.write_text(path.read_text().replace(right, wrong))
    assert places
    assert run(monitors.promtool, "check", "rules", *folder.glob("*.rules.yml"))[0] == 0
    [alone] = [
        document | {"tests": [test]}
        for document in UNIT_TESTS.values()
        for test in document["tests"]
        if test["name"].startswith(name)
    ]
    (folder / "alone.test.yml").write_text(yaml.safe_dump(alone))
    assert run(monitors.promtool, "test", "rules", folder / "alone.test.yml")[0] == 1


@pytest.mark.parametrize("rule", ALERTS, ids=NAMES)
def test_each_alert_says_what_a_person_needs(rule):
    """Severity, problem, time in UTC and runbook; and it fires within ten minutes."""
    assert rule["labels"]["severity"] in ("warning", "critical")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"runbooks/{rule['alert']}.md"
    assert "humanizeTimestamp" not in annotations["description"]
    assert annotations["description"].count("toTime") == annotations["description"].count(" UTC")
    if "$labels.name" in annotations["summary"]:
        assert "'{{ $labels.name }}'" in annotations["summary"]
    minutes = re.fullmatch(r"(\d+)m", rule.get("for", "0m"))[1]
    assert timedelta(minutes=int(minutes)) <= timedelta(minutes=10)


def test_the_rules_know_which_outcomes_are_failures():
    """All outcomes that need action."""
    [words] = set(
        re.findall(r'outcome!~"([a-z|_]+)"', RULES[1].read_text() + "".join(expressions()))
    )
    assert set(words.split("|")) == WELL


def test_every_metric_that_is_asked_for_exists():
    """In the rules, their tests and the dashboard."""
    used = metrics_in("".join(expressions()))
    for path in PROMETHEUS.glob("*.yml"):
        used |= metrics_in(re.sub(r"\w+\.(rules|test)\.yml|name: .*", "", path.read_text()))
    text = render(assess(StatusDocument(), datetime.now(timezone.utc))).decode()
    known = metrics_in(text + Path(server_metrics.__file__).read_text())
    known |= {f"{name}{suffix}" for name in known for suffix in ("_total", "_bucket")}
    assert used <= known


def test_alertmanager_takes_the_example(monitors):
    code, output = run(monitors.amtool, "check-config", FILES / "alertmanager" / "inhibition.yml")
    assert code == 0, output


def test_the_example_mutes_only_alerts_that_exist():
    text = (FILES / "alertmanager" / "inhibition.yml").read_text()
    named = set(re.findall(r"FlowAuth\w+", text))
    assert named <= set(NAMES)


def test_prometheus_takes_what_the_dashboard_asks(monitors, tmp_path):
    """With its variables filled in."""
    used = [expr.replace("$name", ".*").replace("$__rate_interval", "5m") for expr in expressions()]
    assert used
    assert not [expr for expr in used if "$" in expr]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(used)]
    path = tmp_path / "dashboard.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, output = run(monitors.promtool, "check", "rules", path)
    assert code == 0, output


def test_the_dashboard_can_be_imported_anywhere():
    """It has no id, and its panels ask the data source that is chosen above them."""
    assert DASHBOARD["id"] is None
    assert "uid" not in DASHBOARD
    kinds = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "name": "query"}
    assert set(re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD))) == {"${datasource}"}
    for panel in DASHBOARD["panels"]:
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(refs)) == len(refs)
        assert panel["type"] == "row" or refs
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_panel_lies_on_another():
    """In 24 columns."""
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for at in places:
        assert at["x"] + at["w"] <= 24
    for one, other in itertools.combinations(places, 2):
        apart = any(
            first[at] + first[size] <= second[at]
            for first, second in ((one, other), (other, one))
            for at, size in (("x", "w"), ("y", "h"))
        )
        assert apart, f"{one} and {other}"
