import functools
import gzip
import http.server
import itertools
import json
import logging
import socket
import ssl
import threading
import time
import tracemalloc
import warnings
from contextlib import contextmanager, nullcontext, suppress
from urllib.parse import urlsplit

import pytest
import requests
import responses

from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.http import HttpClient
from flowauth_rotator.agent.issuer_calls import IssuerCalls
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    HistoryTimeout,
    IssuerUnavailable,
    Misconfigured,
    Refused,
    RotatorError,
    Throttled,
)
from flowauth_rotator.core.succession import Row, find_current_row
from flowauth_rotator.core.tokens import Token, read_unverified
from proofs.timer import InstantTimer
from tests.conftest import serving

URL = "https://flowauth.example.org"
RENEW = f"{URL}/tokens/tokens/7/renew"
PAGE = "<!doctype html><title>401 Unauthorized</title>"


@pytest.fixture
def flowauth():
    """An issuer whose answers no real server can be made to give."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mocked:
        mocked.post(
            f"{URL}/signin", json={"logged_in": True}, headers={"Set-Cookie": "X-CSRF=c1; Path=/"}
        )
        mocked.get(f"{URL}/signout", json={"logged_in": False})
        yield mocked


@pytest.fixture
def row(make_token):
    """The row of the token in use."""
    return Row(7, "AIRFLOW", "flowbot", "TEST_SERVER", frozenset({"viewer"}), make_token())


@pytest.fixture
def issuer():
    """FlowAuth, signed in to as flowbot."""
    issuer = SessionIssuer(URL, "flowbot", "secret-password", timeout=5)
    yield issuer
    issuer.close()


@pytest.fixture
def rotation(issuer):
    """What a rotation asks of it, with the pauses that were made and not waited for."""
    return IssuerCalls(issuer, InstantTimer())


def renew(issuer, row):
    return issuer.renew(row.token, row, key="k" * 64, lifetime_minutes=None).token


def calls(flowauth, path=""):
    return [call.request for call in flowauth.calls if path in call.request.url]


def test_a_renewal_carries_what_flowauth_asks_for(flowauth, rotation, row):
    """CSRF header from the cookie, Referer, JSON, and the key; the sign-in comes first."""
    flowauth.post(RENEW, json={"id": 8, "token": "a.b.c"})
    assert renew(rotation, row) == Token("a.b.c")
    [sent] = calls(flowauth, "/renew")
    assert sent.headers["X-CSRF-Token"] == "c1"
    assert sent.headers["Referer"] == f"{URL}/"
    assert sent.headers["Idempotency-Key"] == "k" * 64
    assert sent.headers["Accept-Encoding"] == "identity"
    assert json.loads(sent.body) == {}
    assert rotation.renewal_requests == 1


def test_a_lifetime_is_asked_for_when_one_is_wanted(flowauth, issuer, row):
    """Otherwise the issuer gives its maximum."""
    flowauth.post(RENEW, json={"id": 8, "token": "a.b.c"})
    issuer.renew(row.token, row, key="k", lifetime_minutes=90)
    assert json.loads(calls(flowauth, "/renew")[0].body) == {"lifetime_minutes": 90}


@pytest.mark.parametrize(
    "answer", [{"body": "CSRF error", "content_type": "text/html"}, {"body": PAGE}]
)
def test_a_lost_session_is_signed_in_again_once(flowauth, issuer, row, answer):
    """`CSRF error` and an HTML 401 mean a new sign-in and the same request again."""
    issuer._with_session(lambda: None)
    flowauth.post(RENEW, status=401, **answer)
    flowauth.post(RENEW, json={"id": 8, "token": "a.b.c"})
    assert renew(issuer, row) == Token("a.b.c")
    assert len(calls(flowauth, "/signin")) == 2


def test_a_session_that_is_lost_again_is_no_loop(flowauth, issuer, row):
    """Two sign-ins are the most."""
    issuer._with_session(lambda: None)
    flowauth.post(RENEW, status=401, body=PAGE)
    with pytest.raises(IssuerUnavailable, match="a moment before"):
        renew(issuer, row)
    assert len(calls(flowauth, "/signin")) == 2
    assert len(calls(flowauth, "/renew")) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "You can only renew your own tokens."),
        (401, "Cannot renew: the following roles are no longer assigned to you: runner, viewer"),
        (401, "Token for flowbot cannot be renewed: maximum permitted expiry has already passed."),
        (400, "Requested lifetime exceeds the maximum permitted by the server and original roles"),
        (404, "There is no such token."),
    ],
)
def test_a_refusal_is_asked_once_and_carries_the_rotations_words(
    flowauth, rotation, row, status, message
):
    """A deliberate 4xx ends the matter: one request, no second sign-in."""
    flowauth.post(RENEW, status=status, json={"code": status, "message": message})
    with pytest.raises(Refused) as refusal:
        rotation.retry(lambda: renew(rotation, row))
    assert (refusal.value.issuer_message, refusal.value.status) == (message, status)
    assert not refusal.value.retryable
    assert len(calls(flowauth, "/renew")) == len(calls(flowauth, "/signin")) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"status": 400, "statusText": "Name already exists"}, "Name already exists"),
        ({"code": 400, "message": "one\ntwo\tthree"}, "one two three"),
        ({"message": "a\u202eb\x1b[31m\x00c\u2028d\x9be"}, "ab [31m c d e"),
        ({"statusText": "Düngemittel 東京 🔑"}, "Düngemittel 東京 🔑"),
        ({"code": 400}, "no reason given"),
        ([1], "no reason given"),
        ({"message": "x " * 1000}, ("x " * 150)[:300]),
    ],
)
def test_the_words_of_a_refusal_are_one_short_line(flowauth, issuer, row, body, words):
    """Whatever the issuer says, a log gets a line of it."""
    flowauth.post(RENEW, status=400, json=body)
    with pytest.raises(Refused) as refusal:
        renew(issuer, row)
    assert refusal.value.issuer_message == words


@pytest.mark.parametrize("recited", ["whole", "payload", "cut", "marked", "password"])
def test_a_refusal_that_recites_a_secret_is_not_repeated(flowauth, issuer, row, recited):
    """An issuer that puts a token or a password into its message does not put it into our log."""
    _, payload, signature = row.token.reveal().split(".")
    secret = {
        "whole": row.token.reveal(),
        "payload": payload,
        "cut": payload[20:50],
        "marked": "\u200e".join(payload[start : start + 5] for start in range(0, 50, 5)),
        "password": "secret-password",
    }[recited]
    flowauth.post(RENEW, status=400, json={"message": f"bad '{secret}' for runner_of_many_things"})
    with pytest.raises(Refused) as refusal:
        renew(issuer, row)
    told = str(refusal.value)
    for secret in (payload, signature, "secret-password"):
        pieces = [secret[start : start + 12] for start in range(len(secret) - 11)]
        assert not any(piece in told for piece in pieces)
    # A letter after the secret may be the next one of the token, and is redacted with it.
    assert refusal.value.issuer_message.endswith("runner_of_many_things")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "-7"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
        ({"Retry-After": "315360000"}, 3600),
        ({"Retry-After": "9" * 400}, 3600),
        ({"Retry-After": "nan"}, 0),
        (
            {
                "Retry-After": "Mon, 23 Nov 2026 12:00:20 GMT",
                "Date": "Mon, 23 Nov 2026 12:00:00 GMT",
            },
            20,
        ),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:20 GMT"}, 0),
    ],
)
def test_429_says_how_long_to_wait(flowauth, issuer, row, headers, seconds):
    """Retry-After as seconds and as a date, by the issuer's clock, clamped to an hour."""
    flowauth.post(RENEW, status=429, json={"code": 429, "message": "slowly"}, headers=headers)
    with pytest.raises(Throttled) as throttled:
        renew(issuer, row)
    assert throttled.value.retry_after == seconds
    assert throttled.value.retryable is (seconds <= 30)


def test_short_patience_is_had_at_once(flowauth, rotation, row):
    """A 429 of a few seconds is waited for."""
    flowauth.post(RENEW, status=429, json={}, headers={"Retry-After": "9"})
    flowauth.post(RENEW, json={"id": 8, "token": "a.b.c"})
    assert rotation.retry(lambda: renew(rotation, row)) == Token("a.b.c")
    assert rotation.timer.pauses == [9]


def test_long_patience_is_left_to_the_next_run(flowauth, rotation, row):
    """A 429 of ten minutes holds no worker."""
    flowauth.post(RENEW, status=429, json={}, headers={"Retry-After": "600"})
    with pytest.raises(Throttled):
        rotation.retry(lambda: renew(rotation, row))
    assert rotation.timer.pauses == []


def test_trouble_is_retried_with_pauses_and_an_end(flowauth, rotation, row, caplog):
    """Three attempts with growing pauses, each said in the log; never without a pause."""
    flowauth.post(RENEW, status=503)
    with caplog.at_level(logging.WARNING), pytest.raises(AmbiguousResponse):
        rotation.retry(lambda: renew(rotation, row))
    assert rotation.renewal_requests == 3
    assert 1 <= rotation.timer.pauses[0] <= 2 <= rotation.timer.pauses[1] <= 3
    assert caplog.text.count("responded with 503") == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500, "body": PAGE},
        {"status": 502, "json": {"message": "bad gateway"}},
        {"status": 200, "body": PAGE},
        {"status": 200, "body": '{"token": "a.b'},
        {"status": 200, "json": {"id": 8}},
        {"status": 200, "json": {"token": None}},
        {"status": 200, "json": ["a.b.c"]},
        {"status": 200, "body": "x" * 70_000},
        {"status": 200, "json": {"token": "x" * 70_000}},
        {"body": requests.ReadTimeout()},
        {"body": requests.exceptions.ChunkedEncodingError()},
    ],
    ids=lambda answer: str(answer)[:40],
)
def test_an_unclear_answer_to_a_renewal_is_ambiguous(flowauth, issuer, row, answer):
    """It may have been minted: whoever asks must look first."""
    flowauth.post(RENEW, **answer)
    with pytest.raises(AmbiguousResponse):
        renew(issuer, row)


def test_an_unclear_answer_to_a_question_is_not_ambiguous(flowauth, issuer, make_token):
    """Reading the list changed nothing, whatever came back."""
    flowauth.get(f"{URL}/tokens/servers", status=500)
    with pytest.raises(IssuerUnavailable) as unavailable:
        issuer.rows(read_unverified(make_token()))
    assert not isinstance(unavailable.value, AmbiguousResponse)


def test_a_redirect_is_not_followed(flowauth, issuer, row):
    """No token and no password goes where a redirect points; the sentence names the host."""
    flowauth.post(RENEW, status=302, headers={"Location": "https://elsewhere.example/x?secret=1"})
    with pytest.raises(Misconfigured, match=r"redirects to elsewhere\.example;"):
        renew(issuer, row)
    assert calls(flowauth, "elsewhere") == []


@pytest.mark.parametrize(
    "location", ["https://[bad", "https://u:p@elsewhere.example/", "/there", ""]
)
def test_an_odd_redirect_is_not_followed_either(flowauth, issuer, row, location):
    """Whatever the header holds, it is one sentence, without the credentials in it."""
    flowauth.post(RENEW, status=307, headers={"Location": location})
    with pytest.raises(Misconfigured, match="redirects to") as misconfigured:
        renew(issuer, row)
    assert "u:p" not in str(misconfigured.value)


def test_a_failed_sign_in_is_said_to_be_one(flowauth, rotation, row):
    """A wrong password is asked once, and is told apart from a refused renewal."""
    flowauth.replace(
        "POST",
        f"{URL}/signin",
        status=401,
        json={"code": 401, "message": "Incorrect username or password."},
    )
    with pytest.raises(Refused, match=r"Sign-in of 'flowbot' failed.*Incorrect username"):
        rotation.retry(lambda: renew(rotation, row))
    assert len(calls(flowauth, "/signin")) == 1
    assert rotation.renewal_requests == 0


def test_a_token_of_another_user_is_found_without_a_request(flowauth, issuer, make_token):
    """The sign-in and the token's `sub` must be one person."""
    with pytest.raises(Misconfigured, match="belongs to user 'ada', the sign-in to 'flowbot'"):
        issuer.rows(read_unverified(make_token(sub="ada")))
    assert len(flowauth.calls) == 0


@pytest.mark.parametrize(
    "rows",
    [[{"id": 1}], [{"id": "x", "name": 1}], [1], {"rows": []}, [{"id": 1, "token": 5}]],
)
def test_a_list_of_another_form_is_no_history(flowauth, issuer, make_token, rows):
    """A proxy's or another program's JSON is told apart from a history."""
    flowauth.get(f"{URL}/tokens/servers", json=[{"id": 3, "server_name": "TEST_SERVER"}])
    flowauth.get(f"{URL}/tokens/tokens/3", json=rows)
    with pytest.raises(IssuerUnavailable, match=r"cannot be parsed|list of rows"):
        issuer.rows(read_unverified(make_token()))


@pytest.mark.parametrize("token_name", [None, "n" * 40_000])
def test_the_names_of_a_history_are_bounded(flowauth, issuer, make_token, token_name):
    """Names of any length stay different, and the token of such a row is found and renewed."""
    token = make_token()
    odd = make_token(token_name=token_name) if token_name else token
    history = [
        {
            "id": number,
            "name": "n" * 40_000 + str(number),
            "username": "flowbot",
            "server_name": "TEST_SERVER",
            "roles": [],
            "token": text.reveal(),
            "expires": "Fri, 27 Nov 2026 12:00:00 GMT",
        }
        for number, text in ((1, token), (2, odd))
    ]
    flowauth.get(f"{URL}/tokens/servers", json=[{"id": 3, "server_name": "TEST_SERVER"}])
    flowauth.get(f"{URL}/tokens/tokens/3", json=history)
    rows = issuer.rows(read_unverified(token)).rows
    issued = issuer.issued()
    for names in ([row.name for row in rows], [name for _, name, _ in issued]):
        assert [len(name) for name in names] == [200, 200]
        assert len(set(names)) == 2
    assert find_current_row(read_unverified(token), rows) == rows[0]
    assert (rows[1].claims is None) is bool(token_name)


def test_flowauth_asked_for_bearer_renewal_says_what_is_missing(flowauth, make_token):
    """Without a login FlowAuth cannot be served; the hint says so."""
    flowauth.post(f"{URL}/tokens/renew", status=401, body="CSRF error", content_type="text/html")
    with pytest.raises(Misconfigured, match="is it FlowAuth") as misconfigured:
        BearerIssuer(URL).renew(make_token(), None, key="k", lifetime_minutes=None)
    assert "login" in misconfigured.value.hint


def test_a_netrc_file_does_not_replace_the_token(flowauth, make_token, monkeypatch, tmp_path):
    """Credentials that lie about for other programs are not sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine flowauth.example.org login x password y\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    flowauth.post(f"{URL}/tokens/renew", json={"id": 2, "token": "a.b.c"})
    token = make_token()
    BearerIssuer(URL).renew(token, None, key="k", lifetime_minutes=None)
    kind, _, sent = calls(flowauth)[0].headers["Authorization"].partition(" ")
    assert (kind, Token(sent)) == ("Bearer", token)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "flowauth.example.org",
        "ftp://x",
        "https://",
        "https://x:99999",
        "https://u:p@x",
        "https://x/?a=b",
        "https://x/#y",
        "https://[::1",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    """At once, with an example of a good one, and without repeating what may hold a password."""
    with pytest.raises(Misconfigured) as misconfigured:
        BearerIssuer(url)
    assert "https://flowauth.example.org" in misconfigured.value.hint
    assert "u:p" not in str(misconfigured.value)


@contextmanager
def raw_server(*answers, hang_ups=None):
    """A socket that sends each of the answers, piece by piece, to one request each.

    `hang_ups` gets the answers that the client did not take to their end.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for number, pieces in enumerate(answers, 1):
            connection, _ = listener.accept()
            if number == len(answers):
                listener.close()  # whoever tries the port again learns that at once
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # closed with it unread, all would be reset
                        pass
                except OSError:
                    if hang_ups is not None:
                        hang_ups.append(pieces)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(10)
        listener.close()


FOUND = b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(head, seconds=5):
    yield head + b"Content-Length: 1000\r\n\r\n"
    for _ in range(int(seconds / 0.05)):
        time.sleep(0.05)
        yield b" "


def flood(head):
    yield head + b"\r\n"
    for _ in range(10_000):
        yield b"x" * 65536


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: [b""], "was lost before"),
        (lambda: [OK + b'Content-Length: 50\r\n\r\n{"token": "a.b'], "was lost before"),
        (lambda: [OK + b'Transfer-Encoding: chunked\r\n\r\n20\r\n{"token"'], "was lost before"),
        (lambda: [OK + b"Content-Encoding: gzip\r\n\r\nno gzip"], "Content-Encoding"),
        (lambda: [b"no HTTP at all\r\n\r\n"], "did not respond in HTTP"),
        (lambda: [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200], "did not respond in HTTP"),
        (lambda: drip(OK), "did not respond completely within 2 s"),
        (lambda: flood(OK), "larger than 65,536 bytes"),
    ],
    ids=["closed", "cut", "cut chunk", "false gzip", "no HTTP", "200 headers", "drip", "flood"],
)
def test_a_broken_answer_on_a_real_socket_is_ambiguous(make_token, answer, words):
    """Cut, dripping, endless or senseless: an end within the time-out, and one sentence."""
    with raw_server(answer()) as url:
        issuer = BearerIssuer(url, timeout=2)
        with pytest.raises(AmbiguousResponse, match=words):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()


def drip_head(start):
    yield start
    for _ in range(1200):
        time.sleep(0.05)
        yield b"x"


def continue_for_ever(pause):
    for _ in range(2_000_000):
        time.sleep(pause)
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: drip_head(b"HT"),
        lambda: drip_head(OK + b"X-Name: "),
        lambda: continue_for_ever(0.05),
        lambda: continue_for_ever(0),
        lambda: itertools.chain([OK + b"\r\n{"], drip_head(b" ")),  # a body without a length
        lambda: itertools.chain([OK + b"Connection: close\r\n\r\n{"], drip_head(b" ")),
        lambda: itertools.chain([OK.replace(b"1.1", b"1.0") + b"\r\n{"], drip_head(b" ")),
    ],
    ids=["status line", "header", "continue", "continue at full speed", "body", "closing", "1.0"],
)
def test_one_deadline_ends_a_whole_exchange(make_token, answer):
    """A byte now and then is no progress, and an interim response is no response.

    The agent hangs up; the server would go on.
    """
    hang_ups = []
    with raw_server(answer(), hang_ups=hang_ups) as url:
        issuer = BearerIssuer(url, timeout=1)
        with pytest.raises(AmbiguousResponse, match="did not respond completely within 1 s"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
    assert len(hang_ups) == 1


def be_silent():
    time.sleep(3)
    yield b""


@pytest.mark.parametrize(
    "answer",
    [lambda: drip_head(b"\x16\x03\x03\x40\x00\x02"), be_silent],
    ids=["slow", "silent"],
)
def test_the_deadline_ends_a_handshake(make_token, answer):
    """Nothing was sent by then, so nothing was minted."""
    hang_ups = []
    with raw_server(answer(), hang_ups=hang_ups) as url:
        issuer = BearerIssuer(url.replace("http:", "https:"), timeout=1)
        with pytest.raises(IssuerUnavailable, match="was not complete within 1 s") as unavailable:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        assert not isinstance(unavailable.value, AmbiguousResponse)
        issuer.close()


@contextmanager
def nginx(certificate):
    """A port of https that breaks off after the handshake, and says so to plain http."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    if connection.recv(1, socket.MSG_PEEK) == b"\x16":
                        with context.wrap_socket(connection, server_side=True) as secured:
                            secured.recv(65536)
                    else:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", context
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def test_a_port_of_https_is_not_called_plain_http(make_token, certificate):
    """Though it answers plain http with 400, as nginx does: the advice would send secrets in clear.

    A lost response stays ambiguous.
    """
    with nginx(certificate) as (url, context):
        issuer = BearerIssuer(url, verify=str(certificate), timeout=5)
        with pytest.raises(AmbiguousResponse, match="was lost before"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")  # the key is one of RSA
        issuer = BearerIssuer(url, verify=str(certificate), timeout=5)
        with pytest.raises(IssuerUnavailable, match="the TLS handshake failed"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()


def test_an_interim_response_is_not_taken_for_that_of_the_next_request(make_token):
    """The response that follows it would be."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    late = OK + b'Content-Length: 17\r\n\r\n{"token":"a.b.c"}'
    version = OK + b'Content-Length: 17\r\n\r\n{"version":"1.0"}'
    with raw_server([early, late], [version]) as url:
        issuer = BearerIssuer(url, timeout=5)
        with pytest.raises(AmbiguousResponse, match="sent the interim response 103"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        assert issuer.version() == "1.0"
        issuer.close()


@pytest.mark.parametrize(("cookie", "password"), [("SRV=e", "pw"), ("SRV=x", "error")])
def test_what_is_redacted_changes_no_decision(flowauth, row, cookie, password):
    """As a cookie of a balancer, or a password, that occurs in the words of a refusal."""
    flowauth.replace(
        "POST",
        f"{URL}/signin",
        json={"logged_in": True},
        headers={"Set-Cookie": f"{cookie}; Path=/"},
    )
    flowauth.post(RENEW, status=401, body="CSRF error")
    with pytest.raises(Misconfigured, match="sees another scheme or host"):
        renew(SessionIssuer(URL, "flowbot", password), row)


@pytest.mark.parametrize("is_https", [True, False])
def test_a_port_that_answers_in_the_other_scheme_is_named(tls_url, make_token, is_https):
    """The error says what to write, and in which setting."""
    answer = b"HTTP/1.0 404 Not Found\r\n\r\n"
    with raw_server([answer], [answer]) as url:
        wrong = url.replace("http:", "https:") if is_https else tls_url.replace("https:", "http:")
        issuer = BearerIssuer(Address.parse(wrong, "the host of connection c"))
        with pytest.raises(Misconfigured) as misconfigured:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
        if not is_https:
            for _ in range(2):
                socket.create_connection(urlsplit(url).netloc.split(":")).close()
    kind, scheme = ("plain http", "http://") if is_https else ("https", "https://")
    assert f"answers in {kind}." in misconfigured.value.message
    assert misconfigured.value.hint == f"Write {scheme} in the host of connection c."


def test_an_assumed_scheme_is_said(make_token):
    """Whoever left it out learns what is assumed, and where to write it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = Address.build("127.0.0.1", port, setting="the host of connection c")
    with pytest.raises(IssuerUnavailable, match="cannot be reached") as unavailable:
        BearerIssuer(address).renew(make_token(), None, key="k", lifetime_minutes=None)
    assert "The host of connection c has no scheme, and https is assumed." in str(unavailable.value)


REFUSING = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"


@pytest.mark.parametrize(
    ("proxy", "error", "words"),
    [
        (
            "http://proxy corp:8080",
            Misconfigured,
            "'http://proxy corp:8080' .* is not a valid",
        ),
        ("http://u:canary@127.0.0.1:{dead}", IssuerUnavailable, "The proxy .*cannot be reached"),
        ("127.0.0.1:{dead}", IssuerUnavailable, "The proxy .*'127.*cannot be reached"),
        ("socks5://u:canary@127.0.0.1:{dead}", Misconfigured, "SOCKS, which is not installed"),
        ("http://u:canary@127.0.0.1:{live}", IssuerUnavailable, "refused the conn.* with 407"),
    ],
    ids=["invalid", "dead", "without a scheme", "SOCKS", "refusing"],
)
def test_a_proxy_at_fault_is_named_with_its_variable(make_token, monkeypatch, proxy, error, words):
    """And neither the issuer nor its address is blamed; credentials are not shown."""
    monkeypatch.setenv("NO_PROXY", "")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    with raw_server([REFUSING]) as live:
        proxy = proxy.format(dead=dead, live=urlsplit(live).port)
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(error, match=words) as fault:
            BearerIssuer(URL).renew(make_token(), None, key="k", lifetime_minutes=None)
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", urlsplit(live).port)) as last,
        ):
            last.sendall(b"x")
    assert "HTTPS_PROXY" in fault.value.message
    assert "HTTPS_PROXY" in fault.value.hint
    assert "canary" not in str(fault.value)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_the_variable_that_has_the_proxy_is_named(make_token, monkeypatch, variable):
    """Also if others have the same proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(IssuerUnavailable, match=f"of the environment variable {variable} cannot"):
        BearerIssuer(URL).renew(make_token(), None, key="k", lifetime_minutes=None)


def test_a_proxy_that_wants_credentials_is_named_for_plain_http(make_token, monkeypatch):
    """It is not the issuer that refuses."""
    with raw_server([REFUSING]) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        issuer = BearerIssuer("http://flowauth.example.org")
        with pytest.raises(IssuerUnavailable, match=r"The proxy .* refused the connection .* 407"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()


def test_a_proxy_that_does_not_respond_has_sent_nothing(make_token, monkeypatch):
    """Nothing was minted."""
    with raw_server(be_silent()) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        issuer = BearerIssuer(URL, timeout=1)
        with pytest.raises(IssuerUnavailable, match=r"through the proxy .* within 1 s") as late:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
    assert not isinstance(late.value, AmbiguousResponse)
    assert "check https_proxy and the proxy" in late.value.hint


def test_a_fault_that_is_not_the_proxys_is_not_called_one(monkeypatch):
    """As a header that cannot be sent."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client = HttpClient("http://flowauth.example.org")
    with pytest.raises(IssuerUnavailable, match=r"an unexpected \w+Error") as failure:
        client.send("GET", "/", headers={"Authorization": "Bearer \u20ac"})
    client.close()
    assert "proxy" not in str(failure.value)


@pytest.mark.parametrize(
    ("days", "host", "words"),
    [(-1, "127.0.0.1", "has expired"), (1, "127.0.0.9", "is for another host")],
)
def test_what_is_wrong_with_a_certificate_is_named(
    write_certificate, make_token, days, host, words
):
    """To trust it would not help."""
    path = write_certificate(host=host, days=days)
    with nginx(path) as (url, _):
        issuer = BearerIssuer(url, verify=str(path), timeout=5)
        with pytest.raises(Misconfigured, match=f"The certificate of {url} {words}") as fault:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
    assert "`verify`" not in fault.value.hint


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("path", ["/nonexistent.pem", __file__, f"/{'x' * 300}"])
def test_certificates_that_the_environment_lacks_are_named(
    tls_url, make_token, monkeypatch, name, path
):
    """The variable is named, not the issuer."""
    for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, path)
    with pytest.raises(Misconfigured, match=f"variable {name} contains '{path[:100]}'"):
        BearerIssuer(tls_url).renew(make_token(), None, key="k", lifetime_minutes=None)


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "body": PAGE},
        {"status": 405, "body": PAGE},
        {"status": 404, "json": {"detail": "Not Found"}},
        {"status": 403, "json": {"error": "forbidden"}},
        {"status": 422, "json": {"message": "no such form"}},
        {"status": 400, "body": "Bad Request"},
    ],
    ids=str,
)
def test_a_wrong_address_is_not_taken_for_wrong_credentials(flowauth, issuer, row, answer):
    """Only a refusal in FlowAuth's form is about login and password."""
    flowauth.replace("POST", f"{URL}/signin", **answer)
    with pytest.raises(Misconfigured, match="not as FlowAuth does") as misconfigured:
        renew(issuer, row)
    assert "host, port and path in" in misconfigured.value.hint
    assert "password" not in str(misconfigured.value)


def test_a_history_that_is_late_is_not_requested_again_at_once(flowauth, rotation, make_token):
    """FlowAuth goes on with a list that nobody waits for; the error has the number to raise."""
    flowauth.get(f"{URL}/tokens/servers", json=[{"id": 3, "server_name": "TEST_SERVER"}])
    claims = read_unverified(make_token())
    for answer, words in (
        ({"body": requests.ReadTimeout()}, "within 20 s"),
        ({"status": 504}, "responded with 504"),
    ):
        flowauth.upsert("GET", f"{URL}/tokens/tokens/3", **answer)
        flowauth.calls.reset()
        with pytest.raises(HistoryTimeout, match=f"history of user 'flowbot' .*{words}") as late:
            rotation.retry(lambda: rotation.rows(claims))
        assert len(calls(flowauth, "/tokens/tokens/3")) == 1
        assert "Raise `timeout`: the history may take 4 times as long, now 20 s" in late.value.hint
        assert late.value.retryable
    assert rotation.timer.pauses == []


def test_a_server_that_is_not_listed_may_not_exist(flowauth, issuer, make_token):
    """The hint names both possibilities, and the servers that the user sees."""
    servers = [{"id": 3, "server_name": "GHANA"}, {"id": 4, "server_name": "HAITI"}]
    flowauth.get(f"{URL}/tokens/servers", json=servers)
    with pytest.raises(Refused, match="or there is no such server") as refused:
        issuer.rows(read_unverified(make_token()))
    assert "The servers of the user are GHANA, HAITI" in refused.value.hint


def test_a_cap_that_has_passed_is_raised_by_an_administrator(flowauth, issuer, row):
    """Minting is refused by the same check, so that a new token is no help."""
    message = "Token for flowbot cannot be renewed: maximum permitted expiry has already passed."
    flowauth.post(RENEW, status=401, json={"code": 401, "message": message})
    with pytest.raises(Refused) as refused:
        renew(issuer, row)
    assert refused.value.hint.startswith("Ask an administrator of the issuer to raise")
    assert "a new token is refused, too" in refused.value.hint


@pytest.mark.parametrize("body", [flood, drip])
def test_the_body_of_a_redirect_is_not_waited_for(make_token, body):
    """A redirect is known by its head: no endless body holds the agent."""
    with raw_server(body(FOUND)) as url:
        issuer = BearerIssuer(url, timeout=2)
        with pytest.raises(Misconfigured, match=r"redirects to elsewhere\.example;"):
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()


class Tls(http.server.BaseHTTPRequestHandler):
    """Answers any renewal, to those who trust its certificate."""

    def do_POST(self):
        body = b'{"id": 2, "token": "a.b.c"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        pass


@pytest.fixture
def tls_url(certificate):
    """A real https server with that certificate."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with serving(server):
        yield f"https://127.0.0.1:{server.server_port}"


def test_a_certificate_that_nobody_vouches_for_gets_no_token(
    tls_url, certificate, make_token, monkeypatch
):
    """It is a setting, which the hint names; the file that is named is what is trusted."""
    token = make_token()
    with pytest.raises(Misconfigured, match="could not be verified") as misconfigured:
        BearerIssuer(tls_url).renew(token, None, key="k", lifetime_minutes=None)
    assert "`verify`" in misconfigured.value.hint
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    for verify in (str(certificate), False):
        issuer = BearerIssuer(tls_url, verify=verify)
        with warnings.catch_warnings(action="ignore") if not verify else nullcontext():
            renewed = issuer.renew(token, None, key="k", lifetime_minutes=None).token
        assert renewed == Token("a.b.c")
        issuer.close()


def test_other_trouble_with_tls_may_pass(make_token):
    """A handshake that breaks is no matter of certificates, and nothing was sent."""
    with raw_server([b"no TLS\r\n"], [b"no TLS\r\n"]) as url:
        issuer = BearerIssuer(url.replace("http:", "https:"))
        with pytest.raises(IssuerUnavailable, match="cannot be reached") as unavailable:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        assert not isinstance(unavailable.value, AmbiguousResponse)
        issuer.close()


@pytest.mark.parametrize(
    ("options", "word"),
    [({"timeout": timeout}, "`timeout`") for timeout in (0, -1, True, float("nan"), 1e12, "9")]
    + [
        ({"verify": verify}, "`verify`")
        for verify in ("", "/no/such/file.pem", __file__, "x" * 300)
    ],
)
def test_a_setting_out_of_range_is_named(options, word):
    """An empty `verify` does not switch verification off, and no time-out is endless."""
    with pytest.raises(Misconfigured, match=word):
        BearerIssuer(URL, **options)


@functools.cache
def pack(times):
    """50 MB of spaces in a gzip, in a gzip, and so on: twice makes it less than a kilobyte."""
    content = b" " * 50_000_000
    for _ in range(times):
        content = gzip.compress(content)
    return content


@pytest.mark.parametrize(
    ("encoding", "times"),
    [
        ("gzip", 1),
        ("gzip, gzip", 2),
        ("gzip\r\nContent-Encoding: gzip", 2),
        (", ".join(["gzip"] * 10_000), 2),  # a header of 60 kB
        ("br", 1),
        ("identity, gzip", 1),
    ],
    ids=["one", "two", "two headers", "ten thousand", "brotli", "identity first"],
)
def test_an_encoded_body_is_refused_and_not_decoded(make_token, encoding, times):
    """No bomb goes off, whatever urllib3 does about it: that of an Airflow 2.10 does nothing."""
    bomb = pack(times)
    head = f"Content-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    with raw_server([OK + head.encode(), bomb]) as url:
        issuer = BearerIssuer(url, timeout=5)
        tracemalloc.start()
        with pytest.raises(AmbiguousResponse, match="Content-Encoding") as refused:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        issuer.close()
    assert "compression" in refused.value.hint
    assert peak < 5_000_000


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_that_is_said_not_to_be_encoded_is_read(make_token, encoding):
    """`identity` is a name for no encoding."""
    head = OK + f"Content-Encoding: {encoding}\r\n\r\n".encode()
    with raw_server([head, b'{"id": 8, "token": "a.b.c"}']) as url:
        issuer = BearerIssuer(url, timeout=5)
        renewal = issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
    assert renewal.token == Token("a.b.c")


def test_nobody_listening_is_not_ambiguous(make_token):
    """Nothing was sent, so nothing was minted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    issuer = BearerIssuer(f"http://127.0.0.1:{port}")
    with pytest.raises(IssuerUnavailable, match="cannot be reached") as unavailable:
        issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
    assert not isinstance(unavailable.value, AmbiguousResponse)


@pytest.mark.parametrize(
    "answer",
    [
        {"body": requests.ConnectionError("boom")},
        {"status": 500},
        {"status": 401, "json": {"message": "no"}},
        {"json": {}},
        {"body": PAGE},
    ],
)
@pytest.mark.parametrize("path", [RENEW, f"{URL}/signin"])
def test_no_error_shows_the_password_or_the_token(flowauth, rotation, row, caplog, path, answer):
    """Nothing that is raised or logged, at any level, has a secret in it, or a way to one."""
    import traceback

    flowauth.replace("POST", f"{URL}/signin", json={"logged_in": True})
    flowauth.post(RENEW, json={"token": "a.b.c"})
    flowauth.replace("POST", path, **answer)
    caplog.set_level(logging.DEBUG)
    failure = None
    try:
        rotation.retry(lambda: renew(rotation, row))
    except RotatorError as error:
        failure = error
    assert failure or path != RENEW
    told = caplog.text + "".join(traceback.format_exception(failure)) if failure else caplog.text
    assert "secret-password" not in told
    shown = row.token.reveal()[-12:] in told
    assert not shown
    assert all(isinstance(error, RotatorError) for error in contexts(failure))


def contexts(error):
    """The error and all that it was raised in the course of, hidden or not."""
    while error is not None:
        yield error
        error = error.__context__


def test_half_a_date_is_no_clock(make_token):
    """An answer cut in the middle of its date does not put the issuer's clock back by an hour."""
    with raw_server([b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 20:4"]) as url:
        issuer = BearerIssuer(url, timeout=2)
        with pytest.raises(AmbiguousResponse) as cut:
            issuer.renew(make_token(), None, key="k", lifetime_minutes=None)
        issuer.close()
    assert cut.value.clock is None


def test_half_a_cookie_is_forgotten(row):
    """An answer cut in a cookie leaves those of the answers before it."""

    def answer(cookie, body):
        head = OK + b"Set-Cookie: X-CSRF=" + cookie + b"\r\nConnection: close\r\n"
        return [head + b"Content-Length: %d\r\n\r\n" % len(body) + body]

    cut = [OK + b"Set-Cookie: X-CSRF=two; Pa"]
    new = b'{"id": 2, "token": "%s"}' % row.token.reveal().encode()
    with raw_server(answer(b"one; Path=/", b"{}"), cut, answer(b"two; Path=/", new)) as url:
        issuer = SessionIssuer(url, "flowbot", "secret-password", timeout=2)
        with pytest.raises(AmbiguousResponse):
            renew(issuer, row)
        assert renew(issuer, row) == row.token
        issuer._http.close()


def test_a_broken_head_is_not_logged(make_token, caplog):
    """What follows the head without a blank line may be a token, and urllib3 would quote it."""
    caplog.set_level(logging.DEBUG)
    token = make_token()
    with raw_server([OK + b"token %s\r\n\r\n" % token.reveal().encode()]) as url:
        issuer = BearerIssuer(url, timeout=2)
        with pytest.raises(AmbiguousResponse):
            issuer.renew(token, None, key="k", lifetime_minutes=None)
        issuer.close()
    assert "Failed to parse the headers" in caplog.text
    assert not any(token.reveal()[at : at + 12] in caplog.text for at in range(40, 200))
