"""The blueprint in somebody else's app, which it neither needs anything of nor disturbs."""

import pytest
from flask import Flask, session

from flowauth_rotator.server import create_blueprint


@pytest.fixture
def host(data_dir):
    """An app with sessions, errors and a front page of its own."""
    app = Flask("host")
    app.secret_key = "the host's own"
    app.register_blueprint(create_blueprint(data_dir), url_prefix="/flowauth")

    @app.route("/")
    def front():
        session["user_id"] = 1
        return "front page"

    yield app
    app.extensions["flowauth_rotator"].database.close()


def test_the_whole_recipe_works_below_its_prefix(host):
    """Sign in, find the server, mint, find the row, renew."""
    client = host.test_client()
    credentials = {"username": "flowbot", "password": "correct-horse-battery-staple"}
    assert client.post("/flowauth/signin", json=credentials).status_code == 200
    [server] = client.get("/flowauth/tokens/servers").json
    csrf = {"X-CSRF-Token": client.get_cookie("X-CSRF", path="/flowauth").value}
    path = f"/flowauth/tokens/tokens/{server['id']}"
    minted = client.post(path, json={"name": "A", "roles": [{"name": "viewer"}]}, headers=csrf)
    [row] = client.get(path).json
    same = row["token"] == minted.json["token"]
    assert same
    renewed = client.post(f"/flowauth/tokens/tokens/{row['id']}/renew", headers=csrf)
    assert renewed.json["id"] == row["id"] + 1


def test_a_session_of_the_host_is_none_of_ours_nor_the_other_way_round(host):
    client = host.test_client()
    assert client.get("/").text == "front page"
    assert client.get("/flowauth/is_signed_in").status_code == 401
    credentials = {"username": "flowbot", "password": "correct-horse-battery-staple"}
    client.post("/flowauth/signin", json=credentials)
    cookies = [client.get_cookie("session", path=path) for path in ("/", "/flowauth")]
    values = {cookie.value for cookie in cookies}
    assert len(values) == 2
    assert client.get("/flowauth/is_signed_in").status_code == 200


def test_the_hosts_errors_stay_its_own(host):
    client = host.test_client()
    assert client.get("/nope").content_type.startswith("text/html")
    assert client.get("/flowauth/is_signed_in").content_type == "application/json"


def test_a_hook_of_the_host_that_answers_first_has_its_way(host):
    """A login gate, say, or a notice of maintenance."""
    host.before_request(lambda: ("closed", 503))
    answer = host.test_client().get("/flowauth/is_signed_in")
    assert (answer.status_code, answer.text) == (503, "closed")


def test_what_the_host_keeps_in_g_is_neither_read_nor_changed(host):
    from flask import g

    seen = []

    @host.before_request
    def keep():
        g.session = g.event = g.now = "the host's"

    host.after_request(lambda answer: seen.append((g.session, g.event, g.now)) or answer)
    assert host.test_client().post("/flowauth/tokens/renew").status_code == 401
    assert seen == [("the host's",) * 3]


def test_the_limit_of_a_body_is_ours_alone(host):
    @host.post("/upload")
    def upload():
        from flask import request

        return str(len(request.get_data()))

    client = host.test_client()
    body = b"x" * (65 * 1024)
    assert client.post("/upload", data=body).text == str(len(body))
    answer = client.post("/flowauth/signin", data=body, content_type="application/json")
    assert answer.status_code == 413
