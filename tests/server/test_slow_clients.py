"""Clients that send slowly, badly or nothing, at the server as it is deployed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from demo.parts import WAIT_LIMIT, free_port, running, wait_until
from flowauth_rotator.server import http_server
from flowauth_rotator.server.http_server import MAX_CONNECTIONS, MAX_HEADER, HttpServer
from tests.server.scraping import renewals, scraped, series
from tests.server.test_gunicorn import SERVE, opened_and_minted, renew

pytestmark = pytest.mark.slow
WORKERS = 2
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# What a client has sent when it stops: of each kind more than the server has threads.
POST = b"POST /signin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UNFINISHED = {
    "nothing": b"",
    "one byte": b"G",
    "headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "a body": POST + b"Content-Length: 100\r\n\r\n{",
    "a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
}


class Served:
    """`serve` with two workers."""

    def __init__(self, data_dir: Path, port: int, log: Path, process: subprocess.Popen) -> None:
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self.process = process

    def send(self, data: bytes) -> socket.socket:
        """Open a connection and send something."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_LIMIT)
        connection.sendall(data)
        return connection

    def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        """Send something, and return the status, the head and the body of the response."""
        answer = b""
        with closing(self.send(data)) as connection, suppress(ConnectionResetError):
            while part := connection.recv(65536):  # reset if the server has not read all
                answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body

    def events(self, event: str) -> list[dict]:
        """The lines of the log of this event."""
        lines = (line for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def is_connected(self, client: socket.socket) -> bool:
        """Whether a worker has the connection of a client."""
        connections = (each for worker in self.workers() for each in worker.net_connections("tcp"))
        return client.getsockname() in {each.raddr for each in connections}

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def serving(data_dir: Path, folder: Path, code: str = SERVE) -> Iterator[Served]:
    """Serve until the block ends, with the log and temporary files in a folder."""
    port, log, temporary = free_port(), folder / "log", folder / "tmp"
    temporary.mkdir(parents=True)
    command = [sys.executable, "-c", code, "--data-dir", data_dir]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
    env = os.environ | {"TMPDIR": str(temporary), "TRUSTED_PROXIES": "1"}
    with running(command, env=env, log=log) as process:
        served = Served(data_dir, port, log, process)
        wait_until(lambda: f" on {served.url}\n" in log.read_text(), "it serves")
        yield served


@pytest.fixture
def served(data_dir, tmp_path) -> Iterator[Served]:
    with serving(data_dir, tmp_path) as served:
        yield served


@pytest.fixture
def token(data_dir) -> str:
    services, token = opened_and_minted(data_dir)
    services.database.close()
    return token


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished_requests_hold_up_nobody(served, token, sent):
    """Sixty at once, ten times the threads of both workers: renewals and health go on."""
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(closing(served.send(sent)))
        for number in range(10):
            assert served.ask(HEALTH)[0] == 200
            assert b'"token"' in renew(served.url, token, str(number))


def test_more_connections_than_a_server_keeps_push_out_those_that_wait_longest(served, token):
    """However many clients send nothing, another one is answered, and the log says so."""
    with ExitStack() as stack:
        for _ in range(WORKERS * MAX_CONNECTIONS + 100):
            stack.enter_context(closing(served.send(UNFINISHED["headers"])))
        for number in range(10):
            assert b'"token"' in renew(served.url, token, str(number))
        wait_until(lambda: served.events("requests_incomplete") != [], "a line in the log")
    lines = served.events("requests_incomplete")
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert len(lines) < sum(line["number"] for line in lines)  # not one for each


def test_connections_leave_files_for_everything_else(data_dir, token, tmp_path):
    """Where a process may open few files, it keeps fewer connections."""
    limit = 128
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    with serving(data_dir, tmp_path, f"{code}; {SERVE}") as served, ExitStack() as stack:
        for _ in range(2 * WORKERS * limit):
            stack.enter_context(closing(served.send(UNFINISHED["headers"])))
        for number in range(10):
            assert b'"token"' in renew(served.url, token, str(number))
        assert all(worker.num_fds() < limit / 2 for worker in served.workers())


def test_a_client_that_never_finishes_is_cut_off_in_the_end(served):
    """Also one that reads none of its responses, which are more than the sockets hold."""
    requests = 500
    with ExitStack() as stack:
        connections = [
            stack.enter_context(closing(served.send(sent))) for sent in UNFINISHED.values()
        ]
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        reader = stack.enter_context(closing(served.send(request * requests)))
        for connection in connections:
            assert connection.recv(1) == b""
        wait_until(lambda: not served.is_connected(reader), "it is cut off")
        received = b""
        with suppress(ConnectionResetError):
            while part := reader.recv(1 << 20):
                received += part
        assert 0 < received.count(b"HTTP/1.1 200 OK") < requests
    wait_until(lambda: served.events("requests_incomplete") != [], "a line in the log")


def test_a_client_that_stops_reading_a_long_response_frees_its_thread(monkeypatch):
    """The thread waits for room, once more is written than a connection may buffer."""
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 1)
    has_ended = threading.Event()

    def respond():
        try:
            for _ in range(64):
                yield b"x" * 2**20
        finally:
            has_ended.set()

    def app(_environ, start_response):
        start_response("200 OK", [])
        return respond()

    def serve_until_it_has_ended():
        server.serve_for(seconds=0.1)
        return has_ended.is_set()

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        server = HttpServer(app, listening)
        with closing(socket.create_connection(listening.getsockname())) as client:
            client.sendall(HEALTH)
            wait_until(serve_until_it_has_ended, "the response is given up", interval=0)
            server.stop(on_wait=lambda: None)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MAX_HEADER + b"\r\n\r\n", 431),
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 65538\r\n\r\n", 413),
        (POST + b"Connection: close\r\nContent-Length: 65537\r\n\r\n" + b" " * 65537, 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET http://[hunter2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused_in_the_format_of_all_refusals(served, sent, status):
    answer = served.ask(sent)
    assert answer[0] == status
    assert b"Content-Type: application/json" in answer[1]
    body = json.loads(answer[2])
    assert (body.keys(), body["code"]) == ({"code", "message"}, status)
    assert b"waitress" not in answer[1] + answer[2]
    [line] = served.events("refused")
    assert line["reason"] == body["message"]
    assert "hunter2" not in served.log.read_text()


def test_a_bearer_token_of_many_roles_fits_into_the_headers(served):
    sent = b"POST /tokens/renew HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "
    assert served.ask(sent + b"x" * (MAX_HEADER - 200) + b"\r\n\r\n")[0] == 401


@pytest.mark.parametrize(("addresses", "refusal"), [(100, 401), (1, 429)])
def test_a_flood_of_sign_ins_stops_no_renewal(served, token, addresses, refusal):
    """A hundred clients at once, from as many addresses or from one: some wait, some are 503."""
    body = json.dumps({"username": "nobody", "password": "wrong"}).encode()
    statuses: Counter[int] = Counter()
    enough = threading.Event()

    def sign_in(number: int) -> None:
        address = f"X-Forwarded-For: 192.0.2.{number % addresses}\r\n".encode()
        head = POST + address + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        while not enough.is_set():
            status, answer_head, _ = served.ask(head + body)
            statuses[status] += 1
            assert (status == 503) == (b"Retry-After: 1" in answer_head)

    with ThreadPoolExecutor(100) as pool:
        attempts = [pool.submit(sign_in, number) for number in range(100)]
        try:
            for number in range(20):
                assert b'"token"' in renew(served.url, token, str(number))
            wait_until(lambda: statuses[503] > 0 and statuses[refusal] > 0, "both responses")
        finally:
            enough.set()
        for attempt in attempts:
            attempt.result()
    assert statuses.keys() <= {401, 429, 503}


def test_sign_ins_that_wait_leave_connections_for_everything_else(served, token):
    """Of more sign-ins than a server keeps connections, most are cut off."""
    body = json.dumps({"username": "nobody", "password": "wrong"}).encode()
    sign_in = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as stack:
        connections = [
            stack.enter_context(closing(served.send(sign_in)))
            for _ in range(2 * WORKERS * MAX_CONNECTIONS + 100)
        ]
        for number in range(10):
            assert b'"token"' in renew(served.url, token, str(number))
        answers = []
        for connection in connections:
            with suppress(ConnectionResetError):
                answers.append(connection.recv(100).decode().split(" ")[1:2])
    assert [] in answers
    assert {status for [status] in filter(None, answers)} <= {"401", "429", "503"}


def test_no_file_is_needed_to_count(served, token):
    """Nothing in shared memory can be emptied, filled or cut; with TMPDIR gone, it goes on."""
    assert b'"token"' in renew(served.url, token, "one")
    for worker in served.workers():
        mapped = [region.path for region in worker.memory_maps() if "/dev/shm" in region.path]
        assert mapped == []
    [temporary] = served.log.parent.glob("tmp")
    assert list(temporary.iterdir()) == []
    for number, worker in enumerate(served.workers()):
        worker.kill()
        assert b'"token"' in renew(served.url, token, f"after {number}")
    assert renewals(series(scraped(served.url, served.data_dir)), "renewed") == 1 + WORKERS
    assert served.process.poll() is None


def test_each_route_is_counted_by_its_name(app):
    from flowauth_rotator.server.counters import VIEWS

    endpoints = {rule.endpoint.rpartition(".")[2] for rule in app.url_map.iter_rules()}
    assert endpoints == set(VIEWS) - {""}


def test_more_series_than_there_is_room_for_are_not_counted_and_nothing_fails():
    from flowauth_rotator.server.counters import Counters

    counters = Counters()
    for status in range(100, 500):
        counters.count_request("renew", status, 0.1)
        counters.count_event("renewed")
    assert counters.sum_event("renewed") == 400
    assert len(counters.sum_requests()) == 256


def test_a_worker_without_a_slot_counts_nothing_and_shows_the_others_counts():
    from flowauth_rotator.server.counters import Counters

    counters = Counters(slots=2)
    for slot, seconds in ((0, 0.1), (1, 99.0), (None, 0.1)):
        counters.use_slot(slot)
        counters.count_request("renew", 200, seconds)
        counters.count_event("renewed")
    assert counters.sum_event("renewed") == 2
    [histogram] = counters.sum_requests().values()
    assert (sum(histogram.buckets), histogram.buckets[-1], histogram.sum) == (2, 1, 99.1)


def test_a_second_server_on_the_same_directory_is_named(served, tmp_path):
    """Until the first one has ended, also by `kill -9`, which its workers outlive for a moment."""
    warning = f"Warning: another server already serves {served.data_dir}. Stop one of them"
    with serving(served.data_dir, tmp_path / "second") as second:
        assert warning in second.log.read_text()
        assert warning not in served.log.read_text()
        for server in (second, served):
            server.process.kill()
            server.process.wait()
        with serving(served.data_dir, tmp_path / "third") as third:
            assert warning not in third.log.read_text()


def test_a_start_as_another_user_than_the_owner_is_named(data_dir, tmp_path):
    """As when root starts it by hand: what it creates would be unusable for the service."""
    code = f"import os; uid = os.geteuid(); os.geteuid = lambda: uid + 1; {SERVE}"
    with serving(data_dir, tmp_path, code) as server:
        warning = f"Warning: {data_dir} belongs to another user than this process"
        assert warning in server.log.read_text()
