"""The OpenAPI document says what the server does, and the server does nothing else."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from io import BytesIO, StringIO

import jsonschema_rs
import pytest
import schemathesis
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from werkzeug.wrappers import Response

pytestmark = pytest.mark.slow

DOCUMENT = json.loads((resources.files("flowauth_rotator.server") / "openapi.json").read_text())
OPERATIONS = [
    (path, method)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method != "parameters"
]
CONFORMANCE = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


def bounded(examples: int) -> settings:
    """So many examples under `make prove`, else a fifth, with one app through all of them."""
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    number = examples if "ALL_EXAMPLES" in os.environ else examples // 5
    return settings(max_examples=number, database=None, suppress_health_check=shared)


class TestDocument:
    def test_it_is_valid_openapi(self):
        assert DOCUMENT["openapi"].startswith("3.1.")
        schemathesis.openapi.from_dict(DOCUMENT).validate()

    def test_its_examples_are_examples_of_what_they_stand_beside(self):
        for schema, example in examples_of(DOCUMENT):
            jsonschema_rs.validate(schema | {"components": DOCUMENT["components"]}, example)

    def test_its_components_are_all_referred_to(self):
        referred = set(re.findall(r'"#/components/([^"]+)"', json.dumps(DOCUMENT)))
        assert referred == {
            f"{kind}/{name}"
            for kind, components in DOCUMENT["components"].items()
            for name in components
            if kind != "securitySchemes"
        }

    def test_it_has_every_route_and_no_other(self, app):
        """HEAD and OPTIONS are Flask's own."""
        routes = {
            (re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule.rule), method.lower())
            for rule in app.url_map.iter_rules()
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }
        assert routes == set(OPERATIONS)

    def test_it_is_served_with_the_servers_version(self, stranger):
        version = stranger.get("/version").json["version"]
        assert stranger.get("/openapi.json").json == DOCUMENT | {
            "info": DOCUMENT["info"] | {"version": version}
        }


def examples_of(node):
    """Every example in a part of the document, beside its schema."""
    if isinstance(node, list):
        for item in node:
            yield from examples_of(item)
    elif isinstance(node, dict):
        if "example" in node:
            yield node["schema"], node["example"]
        examples = node.get("examples", [])
        if isinstance(examples, dict):
            yield from ((node["schema"], example["value"]) for example in examples.values())
        else:
            yield from ((node, example) for example in examples)
        for item in node.values():
            yield from examples_of(item)


def generated(path: str, method: str):
    """Requests that fit the document and, where there is anything to send, others that do not."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][method]
    fitting = operation.as_strategy(GenerationMode.POSITIVE)
    if not (operation.body or list(operation.iter_parameters())):
        return fitting
    return fitting | operation.as_strategy(GenerationMode.NEGATIVE)


def row_of_a_new_day(flowbot, clock):
    """Sign in and mint, after so much time that no limit on anything is reached."""
    clock.advance(minutes=24 * 60)
    assert flowbot.sign_in().status_code == 200
    return flowbot.minted()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_as_documented(app, flowbot, clock, data_dir, path, method):
    """Asked with good credentials, and about a row that exists as often as not."""
    metrics_token = (data_dir / "metrics.token").read_text().strip()

    @bounded(60)
    @given(case=generated(path, method), is_known=st.booleans())
    def ask(case, is_known):
        row = row_of_a_new_day(flowbot, clock)
        if is_known:
            known = {"server_id": 1, "row_id": row["id"]}
            case.path_parameters.update({name: known[name] for name in case.path_parameters})
        token = metrics_token if path == "/metrics" else row["token"]
        headers = flowbot.csrf() | {"Authorization": f"Bearer {token}"}
        cookies = {"session": flowbot.http.get_cookie("session").value}
        answer = case.call(app=app, headers=headers, cookies=cookies)
        case.validate_response(answer, checks=CONFORMANCE)

    ask()


PATHS = [path.format(server_id=1, row_id=1).encode() for path in DOCUMENT["paths"]]
SEGMENTS = [b"", b".", b"..", b"-1", b"1", b"9" * 30, b"tokens", b"renew", b"%00", b"\xff"]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]
HEADERS = [
    *("ACCEPT", "AUTHORIZATION", "COOKIE", "HOST", "REFERER", "ORIGIN", "RANGE", "EXPECT"),
    *("IDEMPOTENCY-KEY", "X-CSRF-TOKEN", "X-REQUEST-ID", "X-FORWARDED-FOR", "X-FORWARDED-PROTO"),
    *("CONTENT-TYPE", "CONTENT-LENGTH", "CONTENT-ENCODING", "TRANSFER-ENCODING", "IF-NONE-MATCH"),
]
VALUES = [
    *("application/json", "application/json; charset=utf-16", "application/x+json", "text/plain"),
    *("0", "-1", "65537", "9" * 30, "chunked", "gzip", "Bearer x", "Basic x", "session=x", "["),
]
BODIES = [
    *(b"[" * 60_000, b"9" * 65_536, b" " * 65_537, b'{"lifetime_minutes": ' + b"9" * 9999),
    *(b'{"name": "\\ud800", "roles": [{"name": "viewer"}]}', b'{"username": "\\u0000"}'),
]

names = ("username", "password", "name", "roles", "lifetime_minutes", "x")
characters = st.characters(exclude_categories=[])  # surrogates, too
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(characters, max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=3)
    ),
    max_leaves=6,
)
texts = st.fixed_dictionaries({}, optional=dict.fromkeys(names, values)).map(json.dumps)
codecs = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le", "utf-7"])


@st.composite
def requests(draw):
    """A WSGI environment such as a server makes of whatever comes in, right or wrong."""
    segments = st.sampled_from(SEGMENTS) | st.binary(max_size=8)
    path = draw(st.sampled_from(PATHS) | st.lists(segments).map(lambda it: b"/" + b"/".join(it)))
    body = draw(
        st.builds(str.encode, texts, codecs) | st.sampled_from(BODIES) | st.binary(max_size=50)
    )
    raw = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40)
    headers = {"CONTENT-TYPE": "application/json", "CONTENT-LENGTH": str(len(body))}
    headers |= draw(
        st.dictionaries(st.sampled_from(HEADERS), st.sampled_from(VALUES) | raw, max_size=4)
    )
    return {
        "REQUEST_METHOD": draw(
            st.sampled_from(METHODS) | st.text("ABCabc!#$%&'*+-.^_`|~19", min_size=1)
        ),
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": draw(st.just("all=true") | raw),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": draw(st.sampled_from(["http", "https"])),
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": draw(st.booleans()),
        "wsgi.errors": StringIO(),
    } | {variable(name): value for name, value in headers.items()}


def variable(header: str) -> str:
    """The name of a header in WSGI (PEP 3333)."""
    name = header.upper().replace("-", "_")
    return name if name.startswith("CONTENT_") and name != "CONTENT_ENCODING" else f"HTTP_{name}"


@bounded(500)
@given(environ=requests(), has_credentials=st.booleans())
def test_no_request_is_a_server_error(app, flowbot, clock, environ, has_credentials):
    """Whatever the path, method, headers, cookies, body, size and encoding: one shape of errors."""
    row = row_of_a_new_day(flowbot, clock)
    if has_credentials:
        cookies = [flowbot.http.get_cookie(name) for name in ("session", "X-CSRF")]
        environ.setdefault("HTTP_COOKIE", "; ".join(f"{it.key}={it.value}" for it in cookies))
        environ.setdefault("HTTP_X_CSRF_TOKEN", cookies[1].value)
        environ.setdefault("HTTP_AUTHORIZATION", f"Bearer {row['token']}")
    answer = Response.from_app(app, environ, buffered=True)
    is_error = answer.status_code >= 400
    assert answer.status_code < 300 or 400 <= answer.status_code < 500
    assert answer.headers["X-Request-ID"].isprintable()
    assert answer.content_type == "application/json" or not is_error
    if environ["REQUEST_METHOD"] == "HEAD":
        assert answer.data == b""
    elif is_error:
        assert answer.json.keys() <= {"code", "message", "bad_field"}
        assert answer.json["code"] == answer.status_code


def test_a_query_that_is_no_text_is_refused(flowbot, refused):
    raw = {"QUERY_STRING": "all=\xff"}  # as it stands in a request, not percent-encoded
    refused(flowbot.get("/tokens/tokens/1", environ_overrides=raw), 400, "all")


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}


class TestBodyThatDoesNotArriveWhole:
    """Under gunicorn a body ends where gunicorn says so, whatever length was announced."""

    @pytest.fixture
    def renew(self, flowbot, stranger):
        """Renew by token, with the body on its way from gunicorn."""
        token = flowbot.minted()["token"]

        def renew(stream, **environ):
            return stranger.http.post(
                "/tokens/renew",
                input_stream=stream,
                content_type="application/json",
                headers={"Authorization": f"Bearer {token}"},
                environ_overrides={"wsgi.input_terminated": True} | environ,
            )

        return renew

    @pytest.mark.parametrize("arrived", [b"", b"{}", b'{"lifetime_minutes": 5'])
    def test_cut_short_it_renews_nothing(self, renew, flowbot, refused, arrived):
        """Or else it would ask for the longest lifetime that there is."""
        refused(renew(BytesIO(arrived), CONTENT_LENGTH="25"), 400)
        assert len(flowbot.rows()) == 1

    def test_in_malformed_chunks_it_renews_nothing(self, renew, flowbot, refused):
        class Malformed(BytesIO):
            def readinto(self, *_args):
                raise InvalidChunkSize(b"x")

            read = readinto

        refused(renew(Malformed(), **CHUNKED), 400)
        assert len(flowbot.rows()) == 1

    def test_in_chunks_it_is_no_larger_than_others(self, renew, refused):
        fitting = b'{"lifetime_minutes": 5}'.ljust(64 * 1024)
        refused(renew(BytesIO(fitting + b" "), **CHUNKED), 413)
        assert renew(BytesIO(fitting), **CHUNKED).status_code == 200
