"""`flowauth-rotator monitoring export` writes complete files and overwrites no edited file."""

import os
import re
import stat
import subprocess
import tarfile
import zipfile

import pytest
import yaml
from click.testing import CliRunner

from demo.parts import BIN, ROOT
from flowauth_rotator.cli.main import main
from flowauth_rotator.monitoring.export import FILES, PURPOSES, read_files

RULES = "prometheus/flowauth_rotator.rules.yml"


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Export into the folder `monitoring`; the result has `exit_code`, `stdout` and `stderr`."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["monitoring", "export", "monitoring", *words])


def written(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_that_is_shipped_is_written(export, tmp_path):
    """Byte by byte, with the runbooks, and nothing beside it."""
    assert export().exit_code == 0
    files = written(tmp_path / "monitoring")
    assert files == read_files()
    for path in FILES.rglob("*"):
        assert path.is_dir() or str(path.relative_to(FILES)) in files
    assert (
        files["runbooks/FlowAuthTokenExpired.md"]
        == (ROOT / "docs" / "runbooks" / "FlowAuthTokenExpired.md").read_bytes()
    )


def test_each_part_is_listed_with_its_purpose(export, tmp_path):
    """A line each; the README has it at greater length."""
    lines = export().stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"monitoring/{top}" for top in PURPOSES]
    readme = (tmp_path / "monitoring" / "README.md").read_text()
    for line, (top, use) in zip(lines, PURPOSES.items(), strict=True):
        assert line.endswith(f"  {use}")
        number = len([path for path in read_files() if path.split("/")[0] == top])
        assert re.search(rf" {number} files?  ", line)
        assert top == "README.md" or f"| `{top}/` |" in readme


def test_a_script_may_be_run_and_a_text_may_be_read(export, tmp_path):
    """By all whom the umask allows."""
    before = os.umask(0o022)
    try:
        export()
    finally:
        os.umask(before)
    for path, content in read_files().items():
        mode = stat.S_IMODE((tmp_path / "monitoring" / path).stat().st_mode)
        assert mode == (0o755 if content.startswith(b"#!") else 0o644)


@pytest.mark.parametrize(
    "url", ["https://wiki.example.org/flowauth", "https://wiki.example.org/flowauth/"]
)
def test_an_address_is_put_before_the_links_of_alerts(export, tmp_path, url):
    """Everywhere outside the pages, also in the unit tests and for Kubernetes; and once."""
    assert export("--runbook-url", url).exit_code == 0
    for path, content in read_files().items():
        exported = (tmp_path / "monitoring" / path).read_bytes()
        if path.endswith(".md"):
            assert exported == content
        else:
            address = b"https://wiki.example.org/flowauth/"
            assert exported.count(b"runbooks/") == exported.count(address + b"runbooks/FlowAuth")
            assert exported.replace(address, b"") == content
    rules = (tmp_path / "monitoring" / RULES).read_text()
    assert (
        "runbook_url: https://wiki.example.org/flowauth/runbooks/FlowAuthTokenExpired.md" in rules
    )


def promtool_test(monitors, tests):
    done = subprocess.run([monitors.promtool, "test", "rules", *tests], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def read_rules(folder, kind="prometheus"):
    """All rules, and the groups that have them, by file."""
    documents = {
        path.name: yaml.safe_load(path.read_text()) for path in (folder / kind).glob("*.rules.yml")
    }
    groups = {
        name: document.get("spec", document)["groups"] for name, document in documents.items()
    }
    return [rule for each in groups.values() for group in each for rule in group["rules"]], groups


def test_the_unit_tests_pass_with_other_addresses_and_severities(export, monitors, tmp_path):
    """They expect the labels and links that the rules have."""
    urls = ("--runbook-url", "https://wiki.example.org/flowauth")
    urls += ("--grafana-url", "https://grafana.example.org/")
    done = export(*urls, "--severity", "warning=ticket", "--severity", "critical=no")
    assert done.exit_code == 0
    folder = tmp_path / "monitoring"
    alerts = [rule for rule in read_rules(folder)[0] if "alert" in rule]
    assert {rule["labels"]["severity"] for rule in alerts} == {"ticket", "no"}
    links = {rule["annotations"]["dashboard_url"] for rule in alerts}
    assert links == {"https://grafana.example.org/d/flowauth-rotator"}
    promtool_test(monitors, sorted((folder / "prometheus").glob("*.test.yml")))
    code = subprocess.run([monitors.amtool, "check-config", folder / "alertmanager/inhibition.yml"])
    assert code.returncode == 0
    text = (folder / "alertmanager/inhibition.yml").read_text()
    assert "'severity = \"ticket\"'" in text


@pytest.mark.parametrize(
    "options", [(), ("--window", "5m", "--job", "north", "--severity", "warning=ticket")], ids=len
)
def test_the_rules_for_kubernetes_are_those_for_prometheus(export, tmp_path, options):
    """As manifests of the Prometheus Operator, with each option applied."""
    assert export(*options).exit_code == 0
    folder = tmp_path / "monitoring"
    assert read_rules(folder, "kubernetes") == read_rules(folder)
    names = set()
    for path in (folder / "kubernetes").iterdir():
        manifest = yaml.safe_load(path.read_text())
        assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
        assert manifest["kind"] == "PrometheusRule"
        assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
        names.add(manifest["metadata"]["name"])
    assert names == {"flowauth-rotator", "flowauth-renewal-server"}


def test_another_window_is_in_every_rule_and_panel(export, monitors, tmp_path):
    """Its half, too; the bundled unit tests, which expect ten minutes, are left out."""
    assert export("--window", "5m").exit_code == 0
    folder = tmp_path / "monitoring"
    texts = [path.read_text() for path in (folder / "prometheus").iterdir()]
    texts.append((folder / "grafana" / "dashboard.json").read_text())
    ranges = set(re.findall(r"\[(\w+)\]|offset (\w+)", "".join(texts)))
    assert {each or offset for each, offset in ranges} == {"5m", "150s", "6h", "7d", "24h"}
    assert not list(folder.rglob("*.test.yml"))
    rules = (folder / "prometheus").glob("*.rules.yml")
    subprocess.run([monitors.promtool, "check", "rules", *rules], check=True)


DEAD_AIRFLOW = """
rule_files: [flowauth_rotator.rules.yml]
evaluation_interval: 1h
tests:
  - interval: 5m
    input_series: # north is down from the third hour on, and so'u.th was never up
      - series: up{job="north"}
        values: 1x36 0x3000
      - series: flowauth_rotator_agent_expected{dag_id="rotation", job="north"}
        values: 1x36 stale
      - series: up{job="east"}
        values: 1x3036
      - series: flowauth_rotator_agent_expected{dag_id="rotation", job="east"}
        values: 1x3036
      - series: flowauth_rotator_last_check_timestamp_seconds{dag_id="rotation", job="east"}
        values: 1x3036
"""


@pytest.mark.parametrize(
    ("options", "after_a_day", "after_eight_days"),
    [
        ((), {"north"}, set()),
        (("--job", "north", "--job", "east", "--job", "so'u.th"), *[{"north", "so'u.th"}] * 2),
    ],
    ids=["seen", "named"],
)
def test_an_airflow_that_is_named_is_absent_for_as_long_as_it_is(
    export, monitors, tmp_path, options, after_a_day, after_eight_days
):
    """Also if Prometheus has never seen it; one that is not named is forgotten after seven days."""
    assert export(*options).exit_code == 0
    document = yaml.safe_load(DEAD_AIRFLOW)
    [test] = document["tests"]
    for time, jobs in (("24h", after_a_day), ("164h", after_a_day), ("192h", after_eight_days)):
        text = 'count by (job) (ALERTS{alertname="FlowAuthRotationAgentAbsent"})'
        samples = [{"labels": f'{{job="{job}"}}', "value": 1} for job in jobs]
        test.setdefault("promql_expr_test", []).append(
            {"expr": text, "eval_time": time, "exp_samples": samples}
        )
    path = tmp_path / "monitoring" / "prometheus" / "dead.yml"
    path.write_text(yaml.safe_dump(document))
    promtool_test(monitors, [path])


@pytest.mark.parametrize("option", ["--runbook-url", "--grafana-url"])
@pytest.mark.parametrize(
    "url", ["wiki.example.org", "https://a b", "https://x/{{ $labels }}", 'https://x/"', "ftp://x/"]
)
def test_an_invalid_url_is_refused(export, tmp_path, option, url):
    """It would break the files, or be a template to Prometheus."""
    done = export(option, url)
    assert done.exit_code == 1
    assert f"{option} {url!r} is not a valid address" in done.stderr
    assert not (tmp_path / "monitoring").exists()


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--window", "ten", "'ten' is not a duration like 30m, 8h or 2d."),
        ("--window", "1s", "--window 1s is not between 2s and 1h"),
        ("--window", "2h", "--window 120m is not between 2s and 1h"),
        ("--job", "", "--job '' is empty"),
        ("--job", 'a"}', "or contains a quote, a backslash"),
        ("--job", "a\nb", "or a character that cannot be printed"),
        ("--severity", "warning", "--severity warning= is not valid"),
        ("--severity", "info=page", "write warning=VALUE or critical=VALUE"),
        ("--severity", "warning={{ x }}", "a value of letters, digits, _ and -"),
    ],
)
def test_an_invalid_setting_of_the_alerts_is_refused(export, tmp_path, option, value, problem):
    """It would break the rules."""
    done = export(option, value)
    assert done.exit_code in (1, 2)
    assert problem in done.stderr
    assert not (tmp_path / "monitoring").exists()


def test_a_second_export_changes_nothing(export, tmp_path):
    """So that a watcher of these files sees no change."""
    export()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert export().exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_edited_file_is_kept(export, tmp_path):
    """Nothing at all is written, and the sentence names the file; --force writes all anew."""
    export()
    rules = tmp_path / "monitoring" / RULES
    rules.write_text(rules.read_text().replace("0.6", "0.5"))
    (tmp_path / "monitoring" / "README.md").unlink()
    changed = written(tmp_path / "monitoring")
    done = export()
    assert done.exit_code == 1
    assert done.stderr.startswith(
        f"Error: Files in monitoring differ from the files to be written: {RULES}. "
    )
    assert "Nothing was written; use --force to overwrite them." in done.stderr
    assert written(tmp_path / "monitoring") == changed
    assert export("--force").exit_code == 0
    assert written(tmp_path / "monitoring") == read_files()


def test_what_is_not_ours_is_left_alone(export, tmp_path):
    """A folder may hold other rules, too."""
    own = tmp_path / "monitoring" / "prometheus" / "ours.rules.yml"
    own.parent.mkdir(parents=True)
    own.write_text("groups: []\n")
    assert export("--force").exit_code == 0
    assert own.read_text() == "groups: []\n"


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(export, tmp_path):
    """A sentence with its path, no traceback, no draft."""
    (tmp_path / "monitoring" / RULES).mkdir(parents=True)
    done = export("--force")
    assert done.exit_code == 1
    assert done.stderr == f"Error: monitoring/{RULES} cannot be written: Is a directory.\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_target_that_is_a_file_is_an_error(export, tmp_path):
    (tmp_path / "monitoring").write_text("mine")
    done = export()
    assert done.exit_code == 2
    assert "Directory 'monitoring' is a file." in done.stderr
    assert (tmp_path / "monitoring").read_text() == "mine"


@pytest.mark.slow
def test_whatever_is_built_holds_all_of_it(tmp_path):
    """A wheel from the repository, a source distribution, and a wheel made from that one."""

    def build(target, source):
        command = [BIN / "python", "-m", "hatchling", "build", "--target", target]
        folder = tmp_path / f"{target}-of-{source.name}"
        subprocess.run(
            [*command, "--directory", folder], cwd=source, check=True, capture_output=True
        )
        [built] = folder.iterdir()
        return built

    sdist = build("sdist", ROOT)
    with tarfile.open(sdist) as archive:
        # Python has the filter since 3.10.12 and 3.11.4, and later warns without it.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "unpacked")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    prefix = str(FILES.relative_to(ROOT)) + "/"
    for source in (ROOT, unpacked):
        with zipfile.ZipFile(build("wheel", source)) as wheel:
            files = {
                name.removeprefix(prefix): wheel.read(name)
                for name in wheel.namelist()
                if name.startswith(prefix)
            }
        assert files == {
            path: content for path, content in read_files().items() if "kubernetes/" not in path
        }
