"""FlowAuth behind a proxy that speaks https for it, and what its CSRF check makes of that."""

import http.client
import ssl
import time
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.address import Address
from flowauth_rotator.core.errors import Misconfigured
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import Token
from proofs.flowauth import page, serve
from tests.conftest import serving


@contextmanager
def proxy(upstream, changes, certificate=None):
    """A proxy on loopback that sends each request on with these headers; in TLS if it has a key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            changed = {name: value.format(**self.headers) for name, value in changes.items()}
            with closing(http.client.HTTPConnection(urlsplit(upstream).netloc)) as connection:
                connection.request(self.command, self.path, body, {**self.headers, **changed})
                response = connection.getresponse()
                content = response.read()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name that the base class calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"


CASES = {  # what a proxy sets, whether it speaks https, and whether renewals work
    "nothing in between is told": ({}, False, True),
    "https and the host are passed on": ({"X-Forwarded-Proto": "https"}, True, True),
    "the host is rewritten": ({"X-Forwarded-Proto": "https", "Host": "flowauth:80"}, True, False),
    "the port is lost": ({"X-Forwarded-Proto": "https", "Host": "127.0.0.1"}, True, False),
    "http is said to be https": ({"X-Forwarded-Proto": "https"}, False, False),
    "the scheme is not passed on": ({"Host": "flowauth:80"}, True, True),  # no Referer is needed
}


@pytest.mark.parametrize(("changes", "is_https", "works"), CASES.values(), ids=CASES)
def test_a_csrf_refusal_after_a_sign_in_is_a_wrong_address(
    flowauth, certificate, changes, is_https, works
):
    """The renewal and the test of the connection say so alike, with what to correct."""
    predecessor = flowauth.mint("NAME", ["viewer"], 60, issued_at=time.time() - 3000)
    store = MemoryStore(Token(predecessor))
    with (
        proxy(flowauth.url, changes, certificate if is_https else None) as url,
        closing(
            SessionIssuer(
                url, flowauth.username, flowauth.password, verify=str(certificate), timeout=10
            )
        ) as issuer,
    ):
        if works:
            assert "for TEST_SERVER" in issuer.test_connection()
            rotate(store, issuer, RotationPolicy(), now=datetime.now(timezone.utc), name="NAME")
            assert store.token != Token(predecessor)
            return
        with pytest.raises(Misconfigured) as tested:
            issuer.test_connection()
        with pytest.raises(Misconfigured) as rotated:
            rotate(store, issuer, RotationPolicy(), now=datetime.now(timezone.utc), name="NAME")
    assert str(tested.value) == str(rotated.value)
    assert tested.value.message.startswith(f"{url} refused the request with 'CSRF error'.")
    assert "X-Forwarded-Proto" in tested.value.hint
    assert len(flowauth.rows) == 1


def test_a_flowauth_that_cannot_renew_is_found_by_the_test(flowauth):
    """An old one, or one behind a proxy that passes only some paths on."""

    def answer(method, path, headers, body):
        is_renewal = path.endswith("/renew")
        return page(404) if is_renewal else flowauth.answer(method, path, headers, body)

    login = flowauth.username, flowauth.password
    with (
        serve(answer) as url,
        closing(SessionIssuer(url, *login)) as issuer,
        pytest.raises(Misconfigured, match="has no endpoint to renew tokens") as tested,
    ):
        issuer.test_connection()
    assert "too old to renew tokens" in tested.value.hint


FOREIGN_PAGES = {
    "for all paths": lambda: (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>"),
    "of a sign-in": lambda: (401, {"Content-Type": "text/html"}, b"<html>Sign in</html>"),
    "elsewhere": lambda: (302, {"Location": "/home"}, b""),
    "of a fault": lambda: (500, {}, b""),
    "of a refusal": lambda: page(403),
}


@pytest.mark.parametrize("foreign_page", FOREIGN_PAGES.values(), ids=FOREIGN_PAGES)
def test_a_foreign_page_for_other_methods_does_not_fail_the_test(flowauth, foreign_page):
    """Renewals are POSTs, and work; the sign-in is not repeated, which would cost a code."""
    sign_ins = []

    def answer(method, path, headers, body):
        if path == "/signin":
            sign_ins.append(path)
        if method == "GET" and path.endswith("/renew"):
            return foreign_page()
        return flowauth.answer(method, path, headers, body)

    with (
        serve(answer) as url,
        closing(SessionIssuer(url, flowauth.username, flowauth.password)) as issuer,
    ):
        assert "signed in as" in issuer.test_connection()
    assert len(sign_ins) == 1


def test_the_test_of_the_bundled_server_finds_its_endpoint(renewal_server):
    """Its refusals are in JSON, and not as Flask makes them."""
    login = renewal_server.username, renewal_server.password
    with closing(SessionIssuer(renewal_server.url, *login)) as issuer:
        assert "signed in as" in issuer.test_connection()


def test_the_name_of_a_server_may_be_long(flowauth):
    """It is compared as it is, and shown without what looks like a secret."""
    flowauth.audience = "flowapi-of-the-ministry-of-health-production-01"
    predecessor = flowauth.mint("NAME", ["viewer"], 60, issued_at=time.time() - 3000)
    store, now = MemoryStore(Token(predecessor)), datetime.now(timezone.utc)
    with closing(SessionIssuer(flowauth.url, flowauth.username, flowauth.password)) as issuer:
        rotate(store, issuer, RotationPolicy(), now=now, name="NAME")
    assert store.token != Token(predecessor)


@pytest.mark.parametrize("port", [443, None])
def test_a_default_port_is_not_part_of_the_referer(port):
    """FlowAuth compares the Referer with a host that has no default port."""
    issuer = SessionIssuer(Address.build("https://FlowAuth.example.org", port), "flowbot", "pw")
    assert issuer._csrf()["Referer"] == "https://flowauth.example.org/"


def test_the_referer_names_the_host_as_the_request_does():
    """In ASCII: FlowAuth compares it with the header Host."""
    issuer = SessionIssuer("https://bücher.example", "flowbot", "pw")
    assert issuer._csrf()["Referer"] == "https://xn--bcher-kva.example/"
