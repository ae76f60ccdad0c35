"""/metrics as Prometheus sees it: of a server with three workers, while tokens are renewed."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from demo.parts import (
    BIN,
    WAIT_LIMIT,
    clean_environment,
    free_port,
    running,
    wait_until,
    wait_until_healthy,
)
from flowauth_rotator.server import Services, Settings
from tests.server.scraping import (
    EXPIRY,
    RENEWALS,
    WITHOUT_SUCCESSOR,
    by_name,
    check,
    counters,
    renewals,
    scraped,
    series,
)

pytestmark = pytest.mark.slow
THREADS = 4  # of a worker that serves, beside its own
NAMES = [f"etl {number}" for number in range(4)]


class Serving:
    """A server with three workers, and a client that keeps its tokens alive.

    Attributes:
        expiries: Of each name, the latest expiry that the client was told of.
        renewed: Of each name, how many renewals the client was told of.
    """

    def __init__(self, url, data_dir, process, tokens):
        self.url, self.data_dir = url, data_dir
        self.expiries = {}
        self.renewed = Counter()
        self._process = psutil.Process(process.pid)
        self._tokens = tokens
        self._keys = itertools.count()
        self._minutes = itertools.count(60)

    def workers(self):
        """Once there are three that serve."""
        wait_until(
            lambda: [*map(serves, self._process.children())] == 3 * [True],
            "three workers",
            interval=0.01,
        )
        return self._process.children()

    def renew(self, name):
        """As an agent does it: what is not answered is asked again with the same key."""
        key, minutes = f"key-{next(self._keys)}", next(self._minutes)
        token = self._tokens[name]
        self._tokens[name] = patiently(lambda: self._renewal(token, key, minutes))
        self.renewed[name] += 1
        self.expiries[name] = expiry_of(self._tokens[name])

    def scrape(self):
        """What one worker shows."""
        return series(scraped(self.url, self.data_dir))

    @contextlib.contextmanager
    def alone(self, worker):
        """Stop all the other workers for the length of a block: this one answers."""
        others = [other for other in self.workers() if other.pid != worker.pid]
        try:
            for other in others:
                os.kill(other.pid, signal.SIGSTOP)
                wait_until(
                    lambda other=other: other.status() == psutil.STATUS_STOPPED,
                    "a stop",
                    interval=0.01,
                )
            yield
        finally:
            for other in others:
                os.kill(other.pid, signal.SIGCONT)

    def _renewal(self, token, key, minutes):
        request = urllib.request.Request(
            f"{self.url}/tokens/renew",
            json.dumps({"lifetime_minutes": minutes}).encode(),
            {
                "Authorization": f"Bearer {token}",
                "Idempotency-Key": key,
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=WAIT_LIMIT) as answer:
            return json.load(answer)["token"]


def serves(worker):
    """Whether a worker has the threads that answer requests, and has ended its start."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return worker.num_threads() > THREADS
    return False


def patiently(ask):
    """The answer, asked for again where a worker ended in the midst of it; no error is one."""
    answers = []

    def answered():
        try:
            answers.append(ask())
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, ConnectionError, http.client.HTTPException):
            return False
        return True

    wait_until(answered, "an answer", interval=0.01)
    return answers[0]


def expiry_of(token):
    import jwt

    return jwt.decode(token, options={"verify_signature": False})["exp"]


@pytest.fixture
def serving(data_dir, tmp_path):
    services = Services.open(Settings.load(data_dir))
    owner, now = services.accounts.get_user("flowbot"), int(time.time())
    tokens = {
        name: services.issuer.mint(owner, 1, name, ["viewer"], 50, now=now).token for name in NAMES
    }
    services.database.close()
    bind = f"127.0.0.1:{free_port()}"
    command = [str(BIN / "flowauth-rotator"), "serve", "--bind", bind, "--workers", "3"]
    env = clean_environment(
        FLOWAUTH_ROTATOR_DATA_DIR=str(data_dir), RENEWAL_RATE_LIMIT="1000000/hour"
    )
    with running(command, env=env, log=tmp_path / "log") as process:
        wait_until_healthy(f"http://{bind}/version", process, "The server", tmp_path / "log")
        yield Serving(f"http://{bind}", data_dir, process, tokens)


def test_no_series_is_doubled_or_stale_while_tokens_are_renewed(serving):
    """Each scrape has what was issued before it began, and counters only rise."""
    serving.workers()
    ended, scrapes = threading.Event(), []

    def scrape_until_ended():
        before = {}
        while not ended.is_set():
            known = dict(serving.expiries)
            found = serving.scrape()
            shown = by_name(found, EXPIRY)
            assert shown.keys() == set(NAMES) == by_name(found, WITHOUT_SUCCESSOR).keys()
            assert [name for name, at in known.items() if shown[name] < at] == []
            assert fallen(before, found) == []
            before = counters(found)
            scrapes.append(found)

    def renew(name):
        for _ in range(40):
            serving.renew(name)
        while len(scrapes) < 10 and not any(each.done() for each in scraping):
            serving.renew(name)

    with ThreadPoolExecutor(2 + len(NAMES)) as pool:
        scraping = [pool.submit(scrape_until_ended) for _ in range(2)]
        try:
            list(pool.map(renew, NAMES))
        finally:
            ended.set()
        for each in scraping:
            each.result()
    found = serving.scrape()
    assert renewals(found, "renewed") == serving.renewed.total()
    assert by_name(found, EXPIRY) == serving.expiries


def test_every_worker_tells_the_same(serving):
    """Also of what another one of them has issued, and has counted."""
    for first in serving.workers():
        with serving.alone(first):
            serving.renew(NAMES[0])
        for worker in serving.workers():
            with serving.alone(worker):
                found = serving.scrape()
            assert by_name(found, EXPIRY)[NAMES[0]] == serving.expiries[NAMES[0]]
            assert renewals(found, "renewed") == serving.renewed.total()


def test_counters_do_not_fall_when_a_worker_is_killed(serving):
    """What it had counted stays, and the one in its place counts on."""
    for victim in serving.workers():
        with serving.alone(victim):
            serving.renew(NAMES[0])
        before = counters(serving.scrape())
        os.kill(victim.pid, signal.SIGKILL)
        wait_until(lambda victim=victim: not victim.is_running(), "an end", interval=0.01)
        assert fallen(before, serving.scrape()) == []
        heir = max(serving.workers(), key=lambda worker: worker.create_time())
        with serving.alone(heir):
            serving.renew(NAMES[0])
            found = serving.scrape()
        assert fallen(before, found) == []
        assert renewals(found, "renewed") == serving.renewed.total()


def test_no_scrape_fails_or_falls_back_while_workers_come_and_go_under_load(serving):
    """As after crashes, time and again."""
    ended = threading.Event()

    def renew_until_ended(name):
        while not ended.is_set():
            serving.renew(name)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        renewing = [pool.submit(renew_until_ended, name) for name in NAMES]
        try:
            before = {}
            for _ in range(4):
                os.kill(serving.workers()[0].pid, signal.SIGKILL)
                for _ in range(10):
                    found = patiently(serving.scrape)
                    assert fallen(before, found) == []
                    before = counters(found)
        finally:
            ended.set()
        for each in renewing:
            each.result()


def test_the_names_and_types_are_as_prometheus_likes_them(serving, monitors):
    serving.renew(NAMES[0])
    text = scraped(serving.url, serving.data_dir)
    assert RENEWALS in text
    check(monitors.promtool, text)


def fallen(before, found):
    return [key for key, value in before.items() if found.get(key, -1) < value]
