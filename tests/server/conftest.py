"""The app behind Flask's test client, a clock to move, and callers that speak FlowAuth."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from flowauth_rotator.server import Services, create_app
from flowauth_rotator.server.accounts import Limit
from flowauth_rotator.server.signing import Signer

PASSWORD = "correct-horse-battery-staple"


def pytest_generate_tests(metafunc):
    """Run a module's tests of the app on each of the databases that it names in DATABASES."""
    databases = getattr(metafunc.module, "DATABASES", None)
    if databases and "database" in metafunc.fixturenames:
        slow = {"PostgreSQL": pytest.mark.slow}
        values = [pytest.param(name, marks=slow.get(name, ())) for name in databases]
        metafunc.parametrize("database", values, indirect=True)


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_800_000_000

    def __call__(self) -> int:
        return self.now

    def advance(self, *, minutes: int = 0, seconds: int = 0) -> None:
        self.now += minutes * 60 + seconds


class Caller:
    """A client with its own cookie jar, which sends the CSRF token as FlowAuth's clients do."""

    def __init__(self, app) -> None:
        self.http = app.test_client()

    def sign_in(self, username: str = "flowbot", password: str = PASSWORD):
        return self.http.post("/signin", json={"username": username, "password": password})

    def get(self, path: str, **kwargs):
        return self.http.get(path, **kwargs)

    def post(self, path: str, *, headers: dict[str, str] | None = None, **kwargs):
        return self.http.post(path, headers={**self.csrf(), **(headers or {})}, **kwargs)

    def csrf(self) -> dict[str, str]:
        cookie = self.http.get_cookie("X-CSRF")
        return {"X-CSRF-Token": cookie.value} if cookie else {}

    def server_id(self) -> int:
        return self.get("/tokens/servers").json[0]["id"]

    def mint(self, name: str = "AIRFLOW", roles=("runner", "viewer"), **body):
        named = [{"name": role} for role in roles]
        return self.post(
            f"/tokens/tokens/{self.server_id()}", json={"name": name, "roles": named} | body
        )

    def rows(self) -> list[dict]:
        return self.get(f"/tokens/tokens/{self.server_id()}").json

    def minted(self, **kwargs) -> dict:
        """Mint, and find the new row in the list, as FlowAuth makes everyone do."""
        assert self.mint(**kwargs).status_code == 200
        return self.rows()[-1]

    def renew(self, row_id: int, body: dict | None = None, key: str | None = None):
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.post(f"/tokens/tokens/{row_id}/renew", json=body or {}, headers=headers)

    def renew_presented(self, token: str, body: dict | None = None, key: str | None = None):
        headers = {"Authorization": f"Bearer {token}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.http.post("/tokens/renew", json=body or {}, headers=headers)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(request, monkeypatch) -> None:
    """The database behind `app`: SQLite, or PostgreSQL where a module asks for it in DATABASES."""
    if getattr(request, "param", "SQLite") == "PostgreSQL":
        monkeypatch.setenv("DATABASE_URL", request.getfixturevalue("postgresql_url"))


@pytest.fixture
def app(data_dir, database, signing_key, cheap_hasher, clock) -> Iterator:
    app = create_app(data_dir, signer=Signer(signing_key), hasher=cheap_hasher, clock=clock)
    yield app
    app.extensions["flowauth_rotator"].database.close()


@pytest.fixture
def services(app) -> Services:
    """The operator's hands on the app's own database."""
    return app.extensions["flowauth_rotator"]


@pytest.fixture
def stranger(app) -> Caller:
    """Somebody who has not signed in."""
    return Caller(app)


@pytest.fixture
def flowbot(app) -> Caller:
    """Flowbot, signed in, holding viewer and runner on TEST_SERVER."""
    caller = Caller(app)
    assert caller.sign_in().status_code == 200
    return caller


@pytest.fixture
def mallory(app, services) -> Caller:
    """Another user with the same roles, signed in."""
    services.accounts.add_user("mallory", PASSWORD)
    services.accounts.grant("mallory", ["viewer", "runner"])
    caller = Caller(app)
    assert caller.sign_in("mallory").status_code == 200
    return caller


@pytest.fixture
def refused():
    """Check that an answer is a refusal in the one shape there is, and return its message."""

    def check(answer, code: int, bad_field: str | None = None) -> str:
        assert answer.status_code == code, answer.text
        assert answer.content_type == "application/json"
        body = json.loads(answer.text)
        assert body["code"] == code
        assert body.get("bad_field") == bad_field
        assert body.keys() <= {"code", "message", "bad_field"}
        return body["message"]

    return check


@pytest.fixture
def claims_of(signing_key):
    """The claims of a token, verified with the public key alone; times are the test's own."""
    import jwt

    def read(token: str) -> dict:
        return jwt.decode(
            token,
            signing_key.public_key(),
            algorithms=["RS256"],
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_aud": False,
            },
        )

    return read


@pytest.fixture
def limit():
    """Make a limit: minutes, and perhaps a latest expiry in epoch seconds."""
    return Limit
