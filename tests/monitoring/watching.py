"""A real Prometheus with the shipped alerts, an Alertmanager, and something to scrape."""

import contextlib
import itertools
import json
import signal
import threading
import urllib.parse
import urllib.request
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from demo.parts import (
    WAIT_LIMIT,
    clean_environment,
    free_port,
    running,
    wait_until,
    wait_until_healthy,
)
from flowauth_rotator.monitoring.export import AlertSettings, export_files

EVER = "[1h]"  # longer than any test


class Watch:
    """A Prometheus on loopback that has the rules as they are exported, with a short window.

    As in the field, the window is ten times the time from one scrape to the next.

    Args:
        monitors: where the programs are.
        folder: an empty folder of its own.
        *jobs: what to scrape, as entries of `scrape_configs`.
        alertmanager: the port of an Alertmanager to tell.
        every: seconds from one scrape to the next.
        server: whether the alerts of the renewal server are among them.
    """

    def __init__(self, monitors, folder, *jobs, alertmanager=None, every=0.5, server=False):
        self._program, self._folder, self._port = monitors.prometheus, folder, free_port()
        self._jobs = [job["job_name"] for job in jobs]
        export_files(folder, AlertSettings(window=timedelta(seconds=10 * every)))
        self._rules = [
            "flowauth_rotator.rules.yml",
            *(["flowauth_renewal_server.rules.yml"] * server),
        ]
        at = [{"targets": [f"127.0.0.1:{alertmanager}"]}] if alertmanager else []
        self._config = {
            "global": {
                "scrape_interval": duration(every),
                "scrape_timeout": duration(every),
                "evaluation_interval": duration(min(every, 1)),
            },
            "scrape_configs": list(jobs),
            "alerting": {"alertmanagers": [{"static_configs": at}]},
        }

    @contextlib.contextmanager
    def running(self):
        """Watch until the block ends.

        All jobs have been scraped once when it begins, and the rules begin with it: Prometheus
        takes five seconds or ten to find its targets, which may be longer than the window.
        """
        command = [
            str(self._program),
            f"--config.file={self._write_config()}",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--rules.alert.resend-delay=1s",  # what fires before the Alertmanager is found
        ]
        log = self._folder / "prometheus.log"
        with running(command, env=clean_environment(), log=log) as process:
            wait_until_healthy(f"http://127.0.0.1:{self._port}/-/ready", process, "Prometheus", log)
            wait_until(lambda: all(map(self.scrapes, self._jobs)), "a scrape of each job")
            self._write_config(rule_files=[f"prometheus/{name}" for name in self._rules])
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: self._get("rules")["groups"], "the rules are loaded")
            yield self

    def ask(self, query):
        """The samples of an instant query, as pairs of labels and value."""
        result = self._get("query", query=query)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def series(self, selector):
        """How many series it ever saw."""
        return len(self.ask(f"last_over_time({selector}{EVER})"))

    def scrapes(self, job):
        """How many scrapes have succeeded."""
        return sum(value for _, value in self.ask(f'sum_over_time(up{{job="{job}"}}{EVER})'))

    def alerts(self):
        """What fires now, by name."""
        return {labels["alertname"] for labels, _ in self.ask('ALERTS{alertstate="firing"}')}

    def ever(self, matcher='alertname!=""'):
        """What fired at any moment: for how many evaluations, by alert."""
        counted = self.ask(f'count_over_time(ALERTS{{alertstate="firing", {matcher}}}{EVER})')
        return {
            name: max(n for labels, n in counted if labels["alertname"] == name)
            for name in {labels["alertname"] for labels, _ in counted}
        }

    def interrupted(self, span="3s"):
        """The alerts of jobs with metrics that did not fire at each of the last evaluations."""
        span = f"[{span}] offset 3s"  # the present evaluation may not be complete
        evaluations = f"count_over_time(flowauth_rotator:agent_expected:latest{span})"
        firing = f'count_over_time(ALERTS{{alertstate="firing"}}{span})'
        found = self.ask(f"{firing} < on (job) group_left () {evaluations}")
        return [(labels["alertname"], labels["job"]) for labels, _ in found]

    def wait_for(self, alert, evaluations=12):
        """Wait until an alert has fired so long that any other would have come by now.

        Args:
            alert: its name.
            evaluations: how often it fires; no alert waits for longer than the window, of ten.
        """
        wait_until(lambda: self.ever().get(alert, 0) >= evaluations, alert)

    def wait_for_scrapes(self, *jobs, more=12):
        """Wait until it has scraped so often again that any alert would have come by now."""
        wanted = {job: self.scrapes(job) + more for job in jobs}
        for job, number in wanted.items():
            wait_until(
                lambda job=job, number=number: self.scrapes(job) >= number, f"scrapes of {job}"
            )

    def _write_config(self, **more):
        path = self._folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(self._config | more))
        return path

    def _get(self, what, **parameters):
        address = f"http://127.0.0.1:{self._port}/api/v1/{what}?"
        address += urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(address, timeout=WAIT_LIMIT) as answer:
            return json.load(answer)["data"]


def duration(seconds):
    """Write a duration as Prometheus reads it."""
    return f"{round(seconds * 1000)}ms"


class Exporter:
    """An HTTP server with the metrics of a test.

    Attributes:
        name: of the job that scrapes it.
        text: the metrics, or a function that returns them; None for an error.
        is_unsteady: whether one request in six is answered with an error.
    """

    def __init__(self, name, text, *, is_unsteady=False):
        self.name, self.text, self._port, exporter = name, text, free_port(), self
        self.is_unsteady, self._numbers = is_unsteady, itertools.count(1)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                text = exporter.text() if callable(exporter.text) else exporter.text
                if exporter.is_unsteady and next(exporter._numbers) % 6 == 0:
                    text = None
                self.send_response(500 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text or b"")

            def log_message(self, *_args):
                """Log nothing."""

        self._handler = Handler

    @property
    def target(self):
        """Its address."""
        return f"127.0.0.1:{self._port}"

    def job_with(self, *others):
        """How to scrape it, and others as further targets of the same job."""
        targets = [each.target for each in (self, *others)]
        return {"job_name": self.name, "static_configs": [{"targets": targets}]}

    @contextlib.contextmanager
    def running(self):
        """Answer until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextlib.contextmanager
def node_exporter(monitors, folder, textfiles):
    """A node_exporter that reads these textfiles and nothing else; the answer is its port."""
    port = free_port()
    command = [
        str(monitors.node_exporter),
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={textfiles}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "node_exporter.log"
    with running(command, env=clean_environment(), log=log) as process:
        wait_until_healthy(f"http://127.0.0.1:{port}/metrics", process, "node_exporter", log)
        yield port


class Alertmanager:
    """An Alertmanager on loopback with the example's configuration."""

    def __init__(self, monitors, folder):
        self.port, self._monitors, self._folder = free_port(), monitors, folder
        export_files(folder)

    @contextlib.contextmanager
    def running(self):
        """Take alerts until the block ends."""
        # Debian's looks for its templates at a fixed path: show it that folder as it is unpacked.
        see = f'mount --bind {self._monitors.root}/usr/share /usr/share && exec "$@"'
        command = [
            *("unshare", "--map-root-user", "--mount", "sh", "-c", see, "sh"),
            str(self._monitors.alertmanager),
            f"--config.file={self._folder}/alertmanager/inhibition.yml",
            f"--storage.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        log = self._folder / "alertmanager.log"
        with running(command, env=clean_environment(), log=log) as process:
            wait_until_healthy(f"http://127.0.0.1:{self.port}/-/ready", process, "It", log)
            yield self

    def states(self):
        """Return the state of each alert, by name and job: active (to be sent) or suppressed."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v2/alerts", timeout=WAIT_LIMIT
        ) as answer:
            return {
                (alert["labels"]["alertname"], alert["labels"]["job"]): alert["status"]["state"]
                for alert in json.load(answer)
            }
