"""The server as it is deployed: `serve`, gunicorn, several workers, a real socket."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo.parts import WAIT_LIMIT, free_port, wait_until

pytestmark = pytest.mark.slow
SERVE = "import sys; from flowauth_rotator.server.commands import serve; serve(sys.argv[1:])"


@pytest.fixture
def free_bind():
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def serving(data_dir, free_bind, tmp_path):
    """`serve` with two workers, up to the line that says it listens."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "--data-dir", data_dir, "--bind", free_bind],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout.readline() == f"Serving {data_dir} on http://{free_bind}\n"
        yield process
        process.terminate()
        process.wait(timeout=WAIT_LIMIT)
        process.stdout.close()


def renew(url, token, key):
    request = urllib.request.Request(
        f"{url}/tokens/renew",
        method="POST",
        headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
    )
    with urllib.request.urlopen(request, timeout=WAIT_LIMIT) as answer:
        return answer.read()


@pytest.mark.usefixtures("serving")
def test_two_workers_replay_one_successor(free_bind, data_dir):
    """Sixteen requests at once with one key: one row, and sixteen times the same answer."""
    services, token = opened_and_minted(data_dir)
    together = threading.Barrier(16)

    def ask(_):
        together.wait()
        return renew(f"http://{free_bind}", token, "one")

    with ThreadPoolExecutor(16) as pool:
        answer, *others = set(pool.map(ask, range(16)))
    rows = list(services.listing.iterate_rows())
    services.database.close()
    assert len(others) == 0
    assert [row.parent_id for row in rows] == [None, rows[0].id]
    assert json.loads(answer)["id"] == rows[1].id


def test_a_graceful_stop_answers_what_was_asked_and_loses_no_row(serving, free_bind, data_dir):
    """Every successor that a client was told of is in the history after SIGTERM under load."""
    services, token = opened_and_minted(data_dir)
    told: list[int] = []

    def ask_until_refused(worker):
        keys = (f"{worker}-{number}" for number in itertools.count())
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            told.extend(json.loads(renew(f"http://{free_bind}", token, key))["id"] for key in keys)

    clients = [threading.Thread(target=ask_until_refused, args=(worker,)) for worker in range(4)]
    for client in clients:
        client.start()
    wait_until(lambda: len(told) >= 20, "twenty renewals", interval=0.05)
    serving.send_signal(signal.SIGTERM)
    assert serving.wait(timeout=WAIT_LIMIT) == 0
    for client in clients:
        client.join()
    kept = {row.id for row in list(services.listing.iterate_rows())}
    services.database.close()
    assert set(told) <= kept


def test_the_log_is_json_with_neither_query_nor_headers_nor_a_second_line(serving, free_bind):
    request = urllib.request.Request(
        f"http://{free_bind}/version?secret=query",
        headers={"User-Agent": "secret-agent", "Referer": "http://secret/"},
    )
    urllib.request.urlopen(request, timeout=WAIT_LIMIT).close()
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(f"http://{free_bind}/a%0Aforged%20line", timeout=WAIT_LIMIT)
    missing.value.close()
    serving.send_signal(signal.SIGTERM)
    log = serving.stdout.read()
    lines = [json.loads(line) for line in log.splitlines()]
    facts = [(line["client"], line["method"], line["path"], line["status"]) for line in lines]
    assert sorted(facts) == [  # two workers write them, each after it has answered
        ("127.0.0.1", "GET", "/...", 404),
        ("127.0.0.1", "GET", "/version", 200),
    ]
    assert "secret" not in log


def test_gunicorn_itself_finds_the_app(data_dir, free_bind, tmp_path, monkeypatch):
    """`gunicorn "flowauth_rotator.server:create_app()"`, as the documentation says."""
    monkeypatch.setenv("FLOWAUTH_ROTATOR_DATA_DIR", str(data_dir))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # where gunicorn puts a socket of its own
    application = "flowauth_rotator.server:create_app()"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--bind", free_bind, application],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stderr:
            if "Booting worker" in line:
                break
        with urllib.request.urlopen(f"http://{free_bind}/version", timeout=WAIT_LIMIT) as answer:
            assert json.loads(answer.read()).keys() == {"version"}
    finally:
        process.terminate()
        assert process.wait(timeout=WAIT_LIMIT) == 0
        process.stderr.close()


def opened_and_minted(data_dir):
    """The history as the operator sees it from outside, and a first token of flowbot's."""
    from flowauth_rotator.server import Services, Settings

    services = Services.open(Settings.load(data_dir))
    owner = services.accounts.get_user("flowbot")
    issued = services.issuer.mint(owner, 1, "AIRFLOW", ["viewer"], 60, now=int(time.time()))
    return services, issued.token
