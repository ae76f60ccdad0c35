"""Fixtures for every room: one signing key, and a real renewal server on a real socket."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from argon2 import PasswordHasher
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import settings

from tests.secrecy import Secrecy

pytest_plugins = ("tests.external", "tests.selection")

settings.register_profile("here", deadline=None)  # no test asserts a time
settings.load_profile("here")

AUDIENCE = "TEST_SERVER"
USERNAME = "flowbot"
PASSWORD = "correct-horse-battery-staple"
ROLES = ("runner", "viewer")
WEEK_IN_MINUTES = 7 * 24 * 60


def pytest_addoption(parser):
    """Whether tests are searched for secrets, and whom those of the wire contract ask."""
    parser.addoption("--secrecy", action="store_true", help="search what tests leave for secrets")
    parser.addoption("--issuer-url", help="the server that tests/contract/test_wire.py asks")


def pytest_configure(config):
    """Search all that the tests leave behind for parts of tokens and passwords."""
    config.addinivalue_line("markers", "holds_secrets(*names): files under `tmp_path` that do")
    if config.getoption("--secrecy"):
        config.pluginmanager.register(Secrecy())


@pytest.fixture(scope="session", autouse=True)
def clean_environment(tmp_path_factory) -> Iterator[None]:
    """No setting of this machine reaches a test, and an imported Airflow writes into a folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AIRFLOW", "FLOWAUTH"))]:
            patch.delenv(name)
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("imported-airflow")))
        yield


@pytest.fixture(scope="session")
def signing_key() -> rsa.RSAPrivateKey:
    """One RSA key for all tests, since making one costs more than most of them."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def write_certificate(signing_key, tmp_path):
    """Write a certificate that nobody has signed but itself, with its key, and return the file."""

    def write_certificate(host="127.0.0.1", days=1):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        address = x509.IPAddress(ipaddress.ip_address(host))
        now = datetime.now(timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(signing_key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=7))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(signing_key, SHA256())
        )
        path = tmp_path / "certificate.pem"
        key = signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(key + made.public_bytes(Encoding.PEM))
        return path

    return write_certificate


@pytest.fixture
def certificate(write_certificate):
    """The file of a valid certificate for 127.0.0.1, with its key."""
    return write_certificate()


@pytest.fixture(scope="session")
def cheap_hasher() -> PasswordHasher:
    """Argon2 in earnest, with parameters that cost next to nothing."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="session")
def keys_read_once() -> Iterator[None]:
    """Parse each private key once: the checks of an RSA key cost more than most tests."""
    from flowauth_rotator.server.signing import load_key

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowauth_rotator.server.data_dir.load_key", functools.cache(load_key))
        yield


@pytest.fixture(scope="session")
def prepared_data_dir(tmp_path_factory, signing_key, cheap_hasher, keys_read_once) -> Path:
    """What `data_dir` copies: made once, since durable commits are what costs time."""
    from flowauth_rotator.server import Settings

    settings = Settings.load(tmp_path_factory.mktemp("prepared") / "server")
    prepare(settings, signing_key, cheap_hasher)
    return settings.data_dir


def prepare(settings, signing_key: rsa.RSAPrivateKey, hasher: PasswordHasher) -> None:
    """A new server: audience TEST_SERVER, and flowbot, who holds its viewer and its runner."""
    from flowauth_rotator.server import Services
    from flowauth_rotator.server.accounts import Limit

    Services.create(settings, signing_key, now=0)
    services = Services.open(settings, hasher=hasher)
    week = Limit(WEEK_IN_MINUTES)
    services.accounts.add_audience(AUDIENCE, week)
    services.accounts.add_role("viewer", AUDIENCE, ["get_results", "get_available_dates"], week)
    services.accounts.add_role("runner", AUDIENCE, ["run"], week)
    services.accounts.add_user(USERNAME, PASSWORD)
    services.accounts.grant(USERNAME, ROLES)
    services.database.close()


@pytest.fixture(scope="session")
def prepared_database(postgresql, tmp_path_factory, signing_key, cheap_hasher) -> str:
    """What `postgresql_url` copies."""
    from flowauth_rotator.server import Settings

    url = postgresql.create()
    folder = tmp_path_factory.mktemp("prepared") / "server"
    prepare(Settings.load(folder, {"DATABASE_URL": url}), signing_key, cheap_hasher)
    return url


@pytest.fixture
def postgresql_url(postgresql, prepared_database) -> str:
    """A database on PostgreSQL with what is in `data_dir`, whose keys go with it."""
    return postgresql.create(like=prepared_database)


@pytest.fixture
def data_dir(tmp_path: Path, prepared_data_dir: Path) -> Path:
    """A data directory: audience TEST_SERVER, and flowbot, who holds its viewer and its runner."""
    return Path(shutil.copytree(prepared_data_dir, tmp_path / "server"))


class RenewalServer:
    """A bundled renewal server on a loopback port, and the operator's hands on it.

    Attributes:
        url: Its base address, without a slash at the end.
        app: The Flask app.
        signer: What signs its tokens.
        public_key_pem: What verifies its tokens.
        username: Who may sign in: flowbot, who holds the roles viewer and runner.
        password: Flowbot's password.
        audience: The name of the one audience, TEST_SERVER.
        requests: Every request so far, in order, as "POST /signin".
        clock_offset: Seconds by which the server's clock is ahead of the machine's.
        date_offset: Seconds by which its `Date` header is ahead of its clock.
    """

    username = USERNAME
    password = PASSWORD
    audience = AUDIENCE

    def __init__(self, data_dir: Path, signer, hasher: PasswordHasher) -> None:
        from flowauth_rotator.server import create_app

        self.requests: list[str] = []
        self.clock_offset = self.date_offset = 0
        self._held_path: str | None = None
        self._released = threading.Event()
        self.signer = signer
        self.public_key_pem = signer.public_pem
        self.app = create_app(data_dir, signer=signer, hasher=hasher, clock=self.now)
        self.app.wsgi_app = self._recording(self.app.wsgi_app)
        self._services = self.app.extensions["flowauth_rotator"]
        self._http = self._listen()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Answer what has been asked, then give back the port and the database."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._services.database.close()

    def mint(
        self,
        name: str = "AIRFLOW_FLOWAPI_TOKEN",
        roles: Sequence[str] = ROLES,
        lifetime_minutes: int | None = 60,
        *,
        issued_at: int | None = None,
        username: str = USERNAME,
    ) -> str:
        """A first token, by default flowbot's; one issued in the past may be due already."""
        issued = self._services.issuer.mint(
            self._services.accounts.get_user(username),
            self._services.accounts.get_audience(self.audience).id,
            name,
            roles,
            lifetime_minutes,
            now=self.now() if issued_at is None else issued_at,
        )
        return issued.token

    def rows(self, name: str | None = None) -> list:
        """The rows of the history, of one name or all, oldest first."""
        return [row for row in self._services.listing.iterate_rows() if name in (None, row.name)]

    def add_role(self, name: str, *, max_lifetime_minutes: int, scopes: Sequence[str] = ("run",)):
        """Add a role of TEST_SERVER and grant it to flowbot."""
        from flowauth_rotator.server.accounts import Limit

        self._services.accounts.add_role(name, self.audience, scopes, Limit(max_lifetime_minutes))
        self.grant(name)

    def add_user(self, username: str, password: str = PASSWORD, roles: Sequence[str] = ROLES):
        """Add somebody else, holding these roles."""
        self._services.accounts.add_user(username, password)
        self._services.accounts.grant(username, roles)

    def grant(self, role: str) -> None:
        """Give flowbot a role."""
        self._services.accounts.grant(self.username, [role])

    def revoke(self, role: str) -> None:
        """Take a role from flowbot."""
        self._services.accounts.revoke(self.username, [role])

    def delete_role(self, role: str) -> None:
        """Delete a role."""
        self._services.accounts.delete_role(role)

    def forget_roles(self, row_id: int) -> None:
        """Make a row one of which no roles are recorded, as FlowAuth's old ones are."""
        from flowauth_rotator.server.schema import tokens

        with self._services.database.writing() as connection:
            connection.execute(tokens.update().where(tokens.c.id == row_id).values(roles=[]))

    def omit_names(self) -> None:
        """Mint tokens without their names from now on, as FlowAuth does."""
        issuer = self._services.issuer
        build_claims = issuer._build_claims

        def build(plan, jti):
            claims = build_claims(plan, jti)
            del claims["token_name"]
            return claims

        issuer._build_claims = build

    def limit(self, role: str, *, minutes: int) -> None:
        """Let tokens with a role live for so many minutes at most."""
        self._services.accounts.set_role(role, max_lifetime_minutes=minutes)

    def limit_server(self, *, minutes: int) -> None:
        """Let all tokens live for so many minutes at most."""
        self._services.accounts.set_audience(AUDIENCE, max_lifetime_minutes=minutes)

    @contextmanager
    def holding(self, path: str) -> Iterator[None]:
        """Hold the responses to requests for this path until the end of the block."""
        self._released.clear()
        self._held_path = path
        try:
            yield
        finally:
            self._held_path = None
            self._released.set()

    def now(self) -> int:
        """Seconds since the epoch by the server's clock."""
        return int(time.time()) + self.clock_offset

    def _recording(self, wsgi_app):
        def record(environ, start_response):
            self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            if environ["PATH_INFO"] == self._held_path:
                self._released.wait()
            return wsgi_app(environ, start_response)

        return record

    def _listen(self):
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Handler(WSGIRequestHandler):
            def log_request(self, *_args) -> None:
                """Say nothing: the test looks at `requests`."""

            def date_time_string(self, _timestamp=None) -> str:
                return formatdate(server.now() + server.date_offset, usegmt=True)

        server = self
        return make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=Handler)


@pytest.fixture
def start_renewal_server(data_dir: Path, cheap_hasher) -> Iterator[Callable[..., RenewalServer]]:
    """Start a real renewal server that signs with this signer."""
    started = []

    def start(signer) -> RenewalServer:
        server = RenewalServer(data_dir, signer, cheap_hasher)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def renewal_server(start_renewal_server, signing_key) -> RenewalServer:
    """A real renewal server on a free loopback port; see `RenewalServer` for what it offers."""
    from flowauth_rotator.server.signing import Signer

    return start_renewal_server(Signer(signing_key))


@pytest.fixture
def flowapi(renewal_server):
    """An API that knows nothing but the issuer's public key, and tells whom it has recognised."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self):
            token = self.headers["Authorization"].removeprefix("Bearer ")
            claims = jwt.decode(
                token,
                renewal_server.public_key_pem,
                algorithms=["RS256"],
                audience=renewal_server.audience,
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"path": self.path, "user": claims["sub"]}).encode())

        def log_message(self, *_args):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Serve in a thread until the block ends, however it ends."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def flowauth(signing_key):
    """FlowAuth on a socket, as far as a client can tell, with its address."""
    from proofs.flowauth import FlowAuth, serve

    model = FlowAuth(
        time.time,
        lambda claims: jwt.encode(claims, signing_key, algorithm="RS256"),
        roles={"viewer": ["get_results"]},
    )
    with serve(model.answer) as model.url:
        yield model
