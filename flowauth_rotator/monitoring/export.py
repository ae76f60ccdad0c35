"""Export the bundled files for monitoring systems: rules, checks, a dashboard, runbooks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from textwrap import indent

from flowauth_rotator.atomic_file import replace_file

FILES = Path(__file__).parent / "files"
PURPOSES = {  # of each top-level file and folder, in the order in which they are listed
    "README.md": "overview of the folders",
    "prometheus": "alert rules: list the *.rules.yml in rule_files of prometheus.yml",
    "kubernetes": "the same rules as PrometheusRule, for the Prometheus Operator",
    "alertmanager": "example: copy its inhibit_rules into your configuration",
    "grafana": "dashboard: import it under Dashboards, New, Import",
    "checkmk": "local check: copy it into the agent's folder for local checks",
    "nagios": "commands and services: list the file as cfg_file in nagios.cfg",
    "icinga2": "CheckCommand and services: copy them into conf.d",
    "runbooks": "a page for each alert: publish them where operators on call find them",
}
WINDOW = timedelta(minutes=10)  # in the bundled files
LONGEST_WINDOW = timedelta(hours=1)
SEVERITIES = ("warning", "critical")
DASHBOARD_PATH = "/d/flowauth-rotator"  # the `uid` of the bundled dashboard
URL = re.compile(r"https?://[^\s\"'`<>{}|\\^]+")
RUNBOOK = re.compile(r"(?<![\w./-])(?=runbooks/\w+\.md)")
RUNBOOK_ANNOTATION = re.compile(r"^( +)runbook_url: .*\n", re.MULTILINE)
SEVERITY = re.compile(r'(severity(?:: | ?= ?"))(warning|critical)\b')
SEVERITY_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
ANY_AIRFLOW = "absent_over_time(flowauth_rotator_agent_expected[7d])"


class ExportError(Exception):
    """Nothing was written; the message says why, and what to do."""


@dataclass(frozen=True)
class AlertSettings:
    """What sites change in the alerts: all of it is here, and each rule follows.

    Attributes:
        runbook_url: the address to put before `runbooks/` in the links of alerts.
        grafana_url: the address of the Grafana that has the dashboard; without it, alerts do not
            link to the dashboard.
        window: how long an Airflow or a renewal server may be silent.
        jobs: the Prometheus jobs of all Airflows; without them, AgentAbsent is about those that
            were seen within seven days.
        severities: other values of the label `severity`, by the bundled value.
    """

    runbook_url: str = ""
    grafana_url: str = ""
    window: timedelta = WINDOW
    jobs: Sequence[str] = ()
    severities: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, url in (
            ("--runbook-url", self.runbook_url),
            ("--grafana-url", self.grafana_url),
        ):
            if url and not URL.fullmatch(url):
                raise ExportError(
                    f"{option} {url!r} is not a valid address: use one that begins with https:// "
                    "or http:// and contains no blanks, quotes or braces."
                )
        if not timedelta(seconds=2) <= self.window <= LONGEST_WINDOW:
            raise ExportError(
                f"--window {_format_seconds(self.window)} is not between 2s and 1h: use about ten "
                "times the scrape interval, such as 10m."
            )
        for job in self.jobs:
            if not job or not job.isprintable() or set(job) & set('"\\'):
                raise ExportError(
                    f"--job {job!r} is empty, or contains a quote, a backslash or a character that "
                    "cannot be printed: use the job_name of scrape_configs."
                )
        for bundled, value in self.severities.items():
            if bundled not in SEVERITIES or not SEVERITY_VALUE.fullmatch(value):
                raise ExportError(
                    f"--severity {bundled}={value} is not valid: write warning=VALUE or "
                    "critical=VALUE, with a value of letters, digits, _ and -."
                )

    @property
    def has_other_times(self) -> bool:
        """Whether alerts fire at other times than the bundled unit tests expect."""
        return self.window != WINDOW or bool(self.jobs)

    def apply(self, path: str, text: str) -> str:
        """Return the text of a bundled file with these settings."""
        if self.runbook_url:
            text = RUNBOOK.sub(lambda _: f"{self.runbook_url.rstrip('/')}/", text)
        if self.grafana_url and path.startswith("prometheus/"):
            url = f"{self.grafana_url.rstrip('/')}{DASHBOARD_PATH}"
            text = RUNBOOK_ANNOTATION.sub(
                lambda match: f"{match[0]}{match[1]}dashboard_url: {url}\n", text
            )
        if path.startswith(("prometheus/", "alertmanager/")):
            text = SEVERITY.sub(lambda match: match[1] + self._get_severity(match), text)
        if self.has_other_times and path.startswith(("prometheus/", "grafana/")):
            text = self._apply_times(text)
        return text

    def _get_severity(self, match: re.Match[str]) -> str:
        value = self.severities.get(match[2], match[2])
        is_yaml_text = match[1].endswith(": ") and match[2] in self.severities
        return f'"{value}"' if is_yaml_text else value

    def _apply_times(self, text: str) -> str:
        windows = {"10m": self.window, "5m": self.window / 2}
        text = re.sub(r"\b(10m|5m)\b", lambda match: _format_seconds(windows[match[1]]), text)
        named = [
            ANY_AIRFLOW.replace("[7d]", f'{{job="{job}"}}[7d]') for job in dict.fromkeys(self.jobs)
        ]
        return text.replace(ANY_AIRFLOW, "\n            or ".join(named) or ANY_AIRFLOW)


def read_files(settings: AlertSettings | None = None) -> dict[str, bytes]:
    """Return the contents of all files, by path: the bundled ones, and rules for Kubernetes."""
    settings = settings or AlertSettings()
    files = dict(_walk_files(FILES))
    for path, content in files.items():
        if not path.endswith(".md"):
            files[path] = settings.apply(path, content.decode()).encode()
    files |= {
        f"kubernetes/{Path(path).name}": _build_manifest(path, content.decode()).encode()
        for path, content in files.items()
        if path.endswith(".rules.yml")
    }
    if settings.has_other_times:
        files = {path: content for path, content in files.items() if ".test." not in path}
    return dict(sorted(files.items()))


def export_files(
    folder: Path, settings: AlertSettings | None = None, *, force: bool = False
) -> dict[str, int]:
    """Write all files into a folder, each atomically.

    Args:
        folder: the target; it is created if it does not exist.
        settings: what this site changes in the alerts.
        force: whether to overwrite files that differ.

    Returns:
        The number of files by top-level file or folder.

    Raises:
        ExportError: an existing file differs.
        OSError: a file could not be written; those written before it are complete.
    """
    contents = {folder / path: content for path, content in read_files(settings).items()}
    existing = {path: path.read_bytes() for path in contents if path.exists()}
    different = [path for path, content in existing.items() if content != contents[path]]
    if different and not force:
        paths = ", ".join(str(path.relative_to(folder)) for path in different)
        raise ExportError(
            f"Files in {folder} differ from the files to be written: {paths}. They were edited, or "
            "were exported by another version or with other options. Nothing was written; "
            "use --force to overwrite them."
        )
    for path, content in contents.items():
        if existing.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
    tops = [path.relative_to(folder).parts[0] for path in contents]
    return {top: tops.count(top) for top in sorted(set(tops), key=list(PURPOSES).index)}


def _walk_files(folder: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for path in folder.iterdir():
        if path.is_file():
            yield prefix + path.name, path.read_bytes()
        elif path.name != "__pycache__":  # installers may compile a script
            yield from _walk_files(path, f"{prefix}{path.name}/")


def _build_manifest(path: str, rules: str) -> str:
    """Return a file of rules as a PrometheusRule, which has the same groups."""
    name = Path(path).name.removesuffix(".rules.yml").replace("_", "-")
    comments, groups = rules.split("\ngroups:\n")
    return (
        f"{comments}\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        f"  name: {name}\n"
        "  # labels: those that the ruleSelector of your Prometheus asks for\n"
        "spec:\n"
        "  groups:\n"
    ) + indent(groups, "  ")


def _format_seconds(duration: timedelta) -> str:
    """Return a duration as Prometheus reads it."""
    seconds = duration.total_seconds()
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def _replace(path: Path, content: bytes) -> None:
    """Replace a file; a script is executable."""
    mode = 0o777 if content.startswith(b"#!") else 0o666
    replace_file(path, content, mode, apply_umask=True)
