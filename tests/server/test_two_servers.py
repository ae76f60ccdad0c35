"""Two servers on one PostgreSQL, each with its own copy of the keys, are one to whoever asks."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from demo.parts import WAIT_LIMIT, free_port
from flowauth_rotator.server import Services, Settings
from flowauth_rotator.server.maintenance import rotate_signing_key

SERVE = "import sys; from flowauth_rotator.server.commands import serve; serve(sys.argv[1:])"


def start(data_dir, url, log):
    """A server of its own: two workers on a free port; returns its process and its address."""
    bind = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--data-dir", data_dir, "--bind", bind],
        env=os.environ | {"DATABASE_URL": url, "SIGNIN_RATE_LIMIT": "10/day"},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert process.stdout.readline() == f"Serving {data_dir} on http://{bind}\n"
    return process, f"http://{bind}"


@pytest.fixture(scope="module")
def settings(tmp_path_factory, prepared_data_dir, prepared_database, postgresql):
    """The first server's, as its operator at the shell has them."""
    folder = tmp_path_factory.mktemp("two-servers") / "first"
    shutil.copytree(prepared_data_dir, folder, ignore=shutil.ignore_patterns("history.db*"))
    return Settings.load(folder, {"DATABASE_URL": postgresql.create(like=prepared_database)})


@pytest.fixture(scope="module")
def addresses(settings):
    """Where the two servers listen."""
    second = shutil.copytree(settings.data_dir, settings.data_dir.parent / "second")
    url = settings.database_url.render_as_string(hide_password=False)
    with (settings.data_dir.parent / "log").open("w") as log:
        started = [start(folder, url, log) for folder in (settings.data_dir, second)]
        drains = [
            threading.Thread(target=process.stdout.read, daemon=True) for process, _ in started
        ]
        for drain in drains:
            drain.start()
        yield [address for _, address in started]
        for process, _ in started:
            process.terminate()
        for (process, _), drain in zip(started, drains, strict=True):
            assert process.wait(timeout=WAIT_LIMIT) == 0
            drain.join()
            process.stdout.close()


@pytest.fixture
def session(addresses):
    """Flowbot, signed in at the first server."""
    with requests.Session() as session:
        body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        assert session.post(f"{addresses[0]}/signin", json=body).status_code == 200
        yield session


def post(session, url, body, **headers):
    headers = {"X-CSRF-Token": session.cookies["X-CSRF"]} | headers
    return session.post(url, json=body, headers=headers)


def mint(session, address, name):
    body = {"name": name, "roles": [{"name": "viewer"}]}
    return post(session, f"{address}/tokens/tokens/1", body).json()["token"]


def rows(session, address, name):
    listed = session.get(f"{address}/tokens/tokens/1").json()
    return [row for row in listed if row["name"] == name]


def test_whatever_is_begun_at_one_goes_on_at_the_other(addresses, session):
    """Sessions, rows and replays."""
    first, second = addresses
    token = mint(session, second, "A")
    [row] = rows(session, first, "A")
    same = row["token"] == token
    assert same
    renewals = [
        post(session, f"{address}/tokens/tokens/{row['id']}/renew", {}, **{"Idempotency-Key": "k"})
        for address in addresses
    ]
    same = renewals[0].content == renewals[1].content
    assert same
    with requests.Session() as stolen:
        stolen.cookies.update(session.cookies)
        assert session.get(f"{first}/signout").status_code == 200
        assert stolen.get(f"{second}/is_signed_in").status_code == 401


def test_failures_to_sign_in_are_counted_together(addresses):
    body = {"username": "nobody", "password": "wrong"}
    answers = [requests.post(f"{addresses[number % 2]}/signin", json=body) for number in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2


def test_one_key_is_one_successor_whoever_is_asked_however_many_at_once(addresses, session):
    headers = {"Authorization": f"Bearer {mint(session, addresses[0], 'B')}"}
    together = threading.Barrier(16)

    def ask(number):
        together.wait()
        return requests.post(
            f"{addresses[number % 2]}/tokens/renew", headers=headers | {"Idempotency-Key": "one"}
        ).content

    with ThreadPoolExecutor(16) as pool:
        answer, *others = set(pool.map(ask, range(16)))
    assert len(others) == 0
    _, successor = rows(session, addresses[1], "B")
    same = json.loads(answer) == {"id": successor["id"], "token": successor["token"]}
    assert same


def test_a_signing_key_rotated_at_one_is_known_at_the_other(addresses, session, settings):
    """Before the new key has been copied to it."""
    first, second = addresses
    mint(session, second, "C")
    services = Services.open(settings)
    rotate_signing_key(services, "EdDSA", now=int(time.time()))
    services.database.close()
    headers = {"Authorization": f"Bearer {mint(session, first, 'D')}"}
    answer = requests.post(f"{second}/tokens/renew", headers=headers)
    assert answer.status_code == 200
    jwks = [requests.get(f"{address}/.well-known/jwks.json").json() for address in addresses]
    assert jwks[0] == jwks[1]
    assert len(jwks[0]["keys"]) == 2
