"""Every error is JSON in one shape, and no input is a 500."""

import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowauth_rotator.server.logs import JsonFormatter

JSON = "application/json"


def test_unknown_paths_and_methods(stranger, refused):
    for path in ("/", "/nope", "//signin", "/tokens/tokens/x", "/tokens/servers/1"):
        refused(stranger.get(path), 404)
    answer = stranger.http.delete("/signin")
    refused(answer, 405)
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b"\xff\xfe", b"[" * 60_000, b'{"a": ' + b"9" * 9999]
)
def test_a_malformed_body_is_a_400_and_no_token(flowbot, refused, body):
    row = flowbot.minted()
    for path in (f"/tokens/tokens/{row['id']}/renew", "/tokens/tokens/1", "/signin"):
        refused(flowbot.post(path, data=body, content_type=JSON), 400)
    headers = {"Authorization": f"Bearer {row['token']}"}
    refused(flowbot.http.post("/tokens/renew", data=body, content_type=JSON, headers=headers), 400)
    assert len(flowbot.rows()) == 1


@pytest.mark.parametrize("body", ["[1]", '"x"', "7", "null", "true", "NaN"])
def test_a_body_that_is_no_object_is_a_400(flowbot, refused, body):
    row = flowbot.minted()
    answer = flowbot.post(f"/tokens/tokens/{row['id']}/renew", data=body, content_type=JSON)
    assert refused(answer, 400) == "The body must be a JSON object."


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_of_another_type_is_a_415(flowbot, refused, content_type):
    path = f"/tokens/tokens/{flowbot.minted()['id']}/renew"
    refused(flowbot.post(path, data='{"lifetime_minutes": 5}', content_type=content_type), 415)
    assert flowbot.post(path, data="", content_type=content_type).status_code == 200


def test_unknown_keys_are_ignored(flowbot):
    row = flowbot.minted()
    assert flowbot.renew(row["id"], {"lifetime_minutes": 5, "other": [1]}).status_code == 200


def test_64_kib_is_the_most_that_is_read(flowbot, refused):
    path = f"/tokens/tokens/{flowbot.minted()['id']}/renew"
    fitting = b'{"x": "' + b"y" * (64 * 1024 - 9) + b'"}'
    assert flowbot.post(path, data=fitting, content_type=JSON).status_code == 200
    refused(flowbot.post(path, data=fitting + b" ", content_type=JSON), 413)


def test_a_failure_of_ours_is_json_too_and_shows_nothing(flowbot, data_dir, refused):
    (data_dir / "history.db").write_bytes(b"no database" * 1000)
    for left in data_dir.glob("history.db-*"):
        left.unlink()
    message = refused(flowbot.get("/tokens/servers"), 500)
    assert message == "Internal server error; see the server's log."
    assert "database" not in message


def test_a_locked_database_is_a_503_and_the_next_request_works(
    data_dir, flowbot, services, refused
):
    from flowauth_rotator.server.database import Database

    row = flowbot.minted()
    impatient = Database.sqlite(data_dir / "history.db", busy_seconds=0.1)
    services.issuer._database = impatient
    with services.database.writing():
        answer = flowbot.renew(row["id"])
        assert refused(answer, 503) == "The database is temporarily unavailable; try again."
        assert answer.headers["Retry-After"] == "1"
        assert flowbot.get("/tokens/servers").status_code == 200
    assert flowbot.renew(row["id"]).status_code == 200
    impatient.close()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "roles", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("username", "password", "name", "roles", "lifetime_minutes"), anything),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=bodies | anything, key=st.none() | st.text(st.characters(max_codepoint=255), max_size=9)
)
def test_no_body_and_no_key_is_a_500(flowbot, body, key):
    headers = {} if key is None else {"Idempotency-Key": key.replace("\r", "").replace("\n", "")}
    for path in ("/tokens/tokens/1/renew", "/tokens/tokens/1", "/tokens/renew"):
        assert flowbot.post(path, json=body, headers=headers).status_code < 500
    assert flowbot.http.post("/signin", json=body).status_code < 500
    flowbot.sign_in()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40))
@pytest.mark.parametrize("header", ["Authorization", "Cookie", "X-CSRF-Token", "Referer", "Host"])
def test_no_header_is_a_500(stranger, header, value):
    for path in ("/tokens/tokens/1/renew", "/tokens/renew"):
        answer = stranger.http.post(path, headers={header: value}, base_url="https://localhost")
        assert answer.status_code < 500
        assert answer.content_type == JSON


class TestLog:
    """One line a request, with who and what, and never a secret."""

    @pytest.fixture
    def lines(self, caplog):
        """Each line, as a machine reads it."""
        caplog.set_level(logging.DEBUG)
        formatter = JsonFormatter()

        def read():
            ours = (
                formatter.format(record)
                for record in caplog.records
                if record.name.startswith("flowauth_rotator")
            )
            return [json.loads(line) for line in ours]

        return read

    def test_a_renewal_is_one_line(self, flowbot, lines):
        row = flowbot.minted(lifetime_minutes=10)
        before = len(lines())
        answer = flowbot.renew(row["id"], {"lifetime_minutes": 1})
        [line] = lines()[before:]
        assert {key: line[key] for key in line.keys() - {"time", "ms"}} == {
            "level": "info",
            "event": "renewed",
            "request_id": answer.headers["X-Request-ID"],
            "method": "POST",
            "path": "/tokens/tokens/1/renew",
            "status": 200,
            "client": "127.0.0.1",
            "actor": "flowbot",
            "token_name": "AIRFLOW",
            "row": 2,
            "expires_at": 1_800_000_060,
        }

    def test_a_refusal_is_one_line_whatever_was_sent(self, stranger, lines):
        stranger.sign_in("a\nb", "x")
        stranger.sign_in("flowbot", "x")
        unknown, known = lines()
        assert (unknown["event"], unknown["status"], unknown["actor"]) == ("refused", 401, None)
        assert (known["event"], known["status"], known["actor"]) == ("refused", 401, "flowbot")
        assert unknown["reason"] == known["reason"] == "Incorrect username or password."

    def test_what_no_route_answers_is_one_line_too(self, stranger, lines):
        answer = stranger.get("/a%0Aforged?secret=query")
        [line] = lines()
        assert (line["event"], line["status"], line["path"]) == ("failed", 404, "/...")
        assert line["request_id"] == answer.headers["X-Request-ID"]

    def test_a_request_is_named_as_the_proxy_in_front_named_it(self, stranger, lines):
        taken_over = ["0f1e2d3c4b5a69788796a5b4c3d2e1f0", "3f2b8c1e-6d1a-4a39-9f63-0f0c5a7d3b11"]
        others = ['x" forged', "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "hunter2-hunter2", "1", "a" * 65]
        for header in (*taken_over, *others):
            stranger.get("/version", headers={"X-Request-ID": header})
        request_ids = [line["request_id"] for line in lines()]
        assert request_ids[:2] == taken_over
        assert {len(request_id) for request_id in request_ids[2:]} == {32}
        assert not set(request_ids) & set(others)

    @pytest.mark.parametrize("secret", ["hunter2", "correct-horse-battery", "12345678901"])
    def test_a_secret_in_the_wrong_place_is_not_in_it(self, flowbot, stranger, lines, secret):
        """Typed as a name, as a part of a path, as a role, as a method, or as an address."""
        stranger.sign_in(secret, "x")
        for path in (f"/{secret}", f"/tokens/renew/{secret}", f"/tokens/{secret}/renew"):
            stranger.get(path)
        stranger.http.open("/version", method=secret.upper(), headers={"X-Request-ID": secret})
        for address in (secret, f"fe80::1%{secret}", f"192.0.2.7:{secret}"):
            stranger.get("/nope", environ_base={"REMOTE_ADDR": address})
        flowbot.mint(roles=[secret])
        assert secret not in json.dumps(lines()).lower()
        assert [line["path"] for line in lines()][-8:-5] == [
            "/tokens/renew/...",
            "/tokens/.../renew",
            "/version",
        ]

    def test_health_checks_are_not_logged(self, stranger, lines):
        for path in ("/healthz", "/readyz"):
            assert stranger.get(path).status_code == 200
        assert lines() == []

    def test_no_secret_is_in_it(self, flowbot, stranger, lines, data_dir, caplog):
        """Whole or in part: tokens, passwords, cookies, also where they do not belong."""
        row = flowbot.minted()
        token = row["token"]
        successors = [flowbot.renew(row["id"], key="k").json["token"] for _ in range(2)]
        stranger.renew_presented(token)
        stranger.renew_presented(token[:-8] + "AAAAAAAA")
        stranger.sign_in(token, token)
        flowbot.mint(roles=[token])
        cookies = [flowbot.http.get_cookie(name).value for name in ("session", "X-CSRF")]
        (data_dir / "history.db").write_bytes(b"no database" * 1000)
        flowbot.renew(row["id"])
        log = json.dumps(lines()) + caplog.text
        for secret in (token, *successors):
            for part in secret.split(".")[1:]:
                windows = {part[start : start + 12] for start in range(len(part) - 11)}
                assert not [window for window in windows if window in log]
        assert not [secret for secret in ("correct-horse", *cookies) if secret in log]
