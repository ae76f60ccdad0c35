"""The bundled files for Prometheus, Alertmanager and Grafana, checked with their own tools."""

import functools
import itertools
import json
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest
import yaml

import flowauth_rotator.server.metrics as server_metrics
from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.export import DASHBOARD_PATH, FILES
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
    if "alert" in rule
]
NAMES = [rule["alert"] for rule in ALERTS]
WELL = {Outcome.HEALTHY, Outcome.ROTATED, Outcome.ADOPTED, Outcome.SUPERSEDED}
IDENTITY = "cluster, namespace, job, airflow"  # of an Airflow


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


def fail_scrapes(values):
    """Replace each sixth sample by a stale marker, except where the values change."""
    samples = []
    for part in str(values).split():
        match = re.fullmatch(r"(-?[\d.]+|_)(?:([+-]\d+))?(?:x(\d+))?", part)
        start, step, times = match.groups() if match else (part, None, None)
        if start == "_":
            samples += ["_"] * int(times or 1)
        elif match:
            samples += [float(start) + n * float(step or 0) for n in range(int(times or 0) + 1)]
        else:
            samples.append(part)
    for at in range(5, len(samples) - 1, 6):
        before, value, after = samples[at - 1 : at + 2]
        if all(isinstance(each, float) for each in (before, value, after)):
            samples[at] = "stale" if value - before == after - value else value
    return " ".join(str(each) for each in samples)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda it: it.name)
def test_the_alerts_are_the_same_if_one_scrape_in_six_fails(path, monitors, tmp_path):
    """None comes, goes or waits for longer."""
    folder = shutil.copytree(PROMETHEUS, tmp_path / "prometheus")
    document = yaml.safe_load(path.read_text())
    for series in (each for test in document["tests"] for each in test["input_series"]):
        if not series["series"].startswith("up{"):
            series["values"] = fail_scrapes(series["values"])
    text = yaml.safe_dump(document)
    assert text.count("stale") > 100
    (folder / path.name).write_text(text)
    code, output = run(monitors.promtool, "test", "rules", folder / path.name)
    assert code == 0, output


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda it: it.name)
def test_the_unit_tests_pass_where_a_range_excludes_its_first_moment(path, monitors, tmp_path):
    """As it does from Prometheus 3 on; a millisecond less has the same effect."""
    milliseconds = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
    for each in (path, *RULES):
        text, ranges = re.subn(
            r"\[(\d+)([mhd])\]",
            lambda match: f"[{int(match[1]) * milliseconds[match[2]] - 1}ms]",
            each.read_text(),
        )
        assert ranges
        (tmp_path / each.name).write_text(text)
    code, output = run(monitors.promtool, "test", "rules", tmp_path / path.name)
    assert code == 0, output


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_has_a_shipped_test_with_failed_scrapes(name):
    """In which it fires, and goes on."""
    [document] = [each for path, each in UNIT_TESTS.items() if name in path.read_text()]
    tests = [test for test in document["tests"] if f"{name}.md" in json.dumps(test)]
    values = [str(each["values"]) for test in tests for each in test["input_series"]]
    assert any(re.search(r"stale .*x\d", each) for each in values)


MISTAKES = {  # in the rules, by the first words of the unit test that must detect them
    "one of two tokens is not renewed": {
        "< time() + 0.6 *": "< time() + 0.5 *",
        "< time() + 0.3 *": "< time() + 0.35 *",
        "_seconds:latest <= time()\n": "_seconds:latest < time()\n",
        "last_over_time(flowauth_rotator_token_expiration_timestamp_seconds[10m])": (
            "flowauth_rotator_token_expiration_timestamp_seconds"
        ),
    },
    "one of two names has no usable token": {
        "last_over_time(flowauth_rotator_token_readable[10m])": "flowauth_rotator_token_readable",
        "          and flowauth_rotator:token_readable:latest == 1\n": "",
    },
    "a token was altered": {
        "last_over_time(flowauth_rotator_token_signature_valid[10m])": (
            "flowauth_rotator_token_signature_valid"
        ),
        "token_signature_valid:latest == 0": "token_signature_valid:latest < 2",
    },
    "a Variable that is no longer managed": {
        "last_over_time(flowauth_rotator_token_info[6h])": "flowauth_rotator_token_info",
        "last_over_time(flowauth_rotator_token_info[10m])": "flowauth_rotator_token_info",
    },
    "a name that became known": {
        "airflow, variable)": "airflow, variable, name)",
    },
    "a token that becomes unreadable": {
        "airflow, variable)": "airflow, variable, name)",
    },
    "of two Airflows with equal names": {
        "by (cluster, namespace, job, airflow": "by (airflow",
        " and on (cluster, namespace, job, airflow) flowauth_rotator:agent_expected:latest\n": "\n",
        "last_over_time(flowauth_rotator_agent_expected[7d])": (
            "last_over_time(flowauth_rotator_agent_expected[6h])"
        ),
    },
    "two Airflows in one job": {
        "job, airflow": "job",
    },
    "one of two targets of a job is down": {
        "(max_over_time(up[10m])) == 0": "(max_over_time(up[10m])) == 2",
    },
    "an Airflow that is gone": {
        "last_over_time(flowauth_rotator_agent_expected[10m])": (
            "last_over_time(flowauth_rotator_agent_expected[5m])"
        ),
    },
    "Prometheus has never seen an Airflow": {
        "            or absent_over_time(flowauth_rotator_agent_expected[7d])\n": "",
        "          and on () group(last_over_time(up[5m] offset 5m))\n": "",
    },
    "a restart under another address": {
        "job, airflow": "job, airflow, instance",
        "          and on () group(last_over_time(up[5m] offset 5m))\n": "",
    },
    "a night or a weekend": {
        "check_deadline_timestamp_seconds:latest < time()": (
            "last_check_timestamp_seconds:latest < time() - 600"
        ),
    },
    "a due renewal that fails": {
        "          topk by (cluster": "          topk by (outcome, cluster",
        "group_left ()\n": "group_left () 0 *\n",
    },
    "clocks that are more than": {
        "clock_skew_seconds:latest < -300": "clock_skew_seconds:latest < -3000",
    },
    "a rotation with overlap": {
        "clock_skew_seconds:latest > 300": "clock_skew_seconds:latest >= 0",
        "last_over_time(flowauth_rotator_agent_expected[10m])": "flowauth_rotator_agent_expected",
    },
    "a newer token that was issued": {
        "          unless flowauth_rotator:issued_deadline_timestamp_seconds:latest > time()\n": "",
    },
    "a DAG without a completed check": {
        "expected:latest offset 10m": "expected:latest offset 1m",
        "agent_misconfigured[10m]": "agent_misconfigured[10s]",
    },
    "a restart and failed scrapes": {
        "last_over_time(flowauth_renewal_server_renewals_total[10m])": (
            "flowauth_renewal_server_renewals_total"
        ),
        "[7d]": "[6h]",
    },
    "one of two names is not renewed": {
        "== 1": "== 2",
    },
    "a token is renewed by two clients": {
        "increase(flowauth": "last_over_time(flowauth",
        "[6h]": "[1m]",
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
    """Severity, problem, time in UTC and runbook; and no fixed time that it waits for."""
    assert rule["labels"]["severity"] in ("warning", "critical")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"runbooks/{rule['alert']}.md"
    assert "humanizeTimestamp" not in annotations["description"]
    assert annotations["description"].count("toTime") == annotations["description"].count(" UTC")
    if "$labels.name" in annotations["summary"]:
        assert "'{{ $labels.name }}'" in annotations["summary"]
    assert "for" not in rule


# Functions of a window: a failed scrape leaves the values before it.
WINDOWED = ("last_over_time(", "absent_over_time(", "max_over_time(", "increase(")


def test_no_rule_reads_a_series_that_a_failed_scrape_ends():
    """Each reads the last values of a window, or what another rule made of them."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                read = re.findall(r"(\w+\()?\b(flowauth_\w+_\w+(?!\w*:)|up\b)", rule["expr"])
                unsafe = [metric for function, metric in read if function not in WINDOWED]
                assert unsafe == [], rule


def test_what_identifies_an_airflow_is_in_every_rule_inhibition_and_panel():
    """Two Airflows may have DAGs and tokens of the same names."""
    rules = [path.read_text() for path in RULES]
    inhibition = yaml.safe_load((FILES / "alertmanager" / "inhibition.yml").read_text())
    for expr in (*rules, *expressions()):
        for labels in re.findall(r"\b(?:by|on|without|ignoring) ?\(([^)]*)\)", expr):
            assert labels.startswith(IDENTITY) or labels == ""
    for expr in expressions():
        assert re.search(r"\bby \(", expr), expr
    equal = [rule["equal"] for rule in inhibition["inhibit_rules"]]
    for labels in (*equal, inhibition["route"]["group_by"]):
        assert ", ".join(labels).startswith(IDENTITY)


def test_the_dashboard_knows_which_outcomes_are_failures():
    """All outcomes that need action."""
    [words] = set(re.findall(r'outcome!~"([a-z|_]+)"', "".join(expressions())))
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
    filled = {"$name": ".*", "$job": ".*", "$__rate_interval": "5m"}
    used = [
        functools.reduce(lambda expr, each: expr.replace(*each), filled.items(), expr)
        for expr in expressions()
    ]
    assert used
    assert not [expr for expr in used if "$" in expr]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(used)]
    path = tmp_path / "dashboard.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, output = run(monitors.promtool, "check", "rules", path)
    assert code == 0, output


def test_the_dashboard_can_be_imported_anywhere():
    """It has no id, a uid that alerts link to, and panels for the data source chosen above them."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == DASHBOARD_PATH.removeprefix("/d/")
    kinds = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "job": "query", "name": "query"}
    used = set(re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD)))
    assert used == {"${datasource}", DASHBOARD["uid"]}
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
