"""The wire contract, row by row: FLOWAUTH.md, as the bundled server keeps and repairs it.

It speaks HTTP alone, so it can be asked of another server too. There it needs a user who holds
these roles on the first server of `GET /tokens/servers`, where it leaves some sixty tokens behind;
the rows that need hands on the server stay out.

    ISSUER_USERNAME=flowbot ISSUER_ROLES=runner,viewer ISSUER_PASSWORD=... \
        pytest tests/contract/test_wire.py --issuer-url https://issuer.example

FlowAuth as deployed keeps the rows that do not name it: add `-k "not FlowAuth"`.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import jwt
import pytest

from tests.contract.wire import (
    CSRF_COOKIE,
    CSRF_HEADER,
    Caller,
    Issuer,
    Response,
    Row,
    ask,
    fits,
    refused,
)

HTML = "an HTML page"
TEXT = "text/html"
TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
HTTP_DATE = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
SIGNED_IN = {"logged_in": True, "is_admin": bool, "require_two_factor_setup": bool}
SERVER = {"id": int, "server_name": str}
ROLE = {
    "id": int,
    "name": str,
    "scopes": [int],
    "latest_token_expiry": str | None,
    "longest_token_life_minutes": int,
    "server": int,
    "users": [int],
}
LISTED = {
    "id": int,
    "name": str,
    "token": TOKEN,
    "expires": HTTP_DATE,
    "roles": [{"id": int, "name": str}],
    "server_name": str,
    "username": str,
}
RENEWED = Response(200, {"id": int, "token": TOKEN})
CSRF_ERROR = refused(401, "CSRF error")
NOT_SIGNED_IN = refused(401, re.compile("You are not signed in.*"))
NOT_FOUND = refused(404, re.compile(".+"))
UNKNOWN, HUGE = 2_000_000_000, 10**12

SIGNIN = "POST /signin"
LIST = "GET /tokens/tokens/{server}"
MINT = "POST /tokens/tokens/{server}"
RENEW = "POST /tokens/tokens/{row}/renew"


def limited(minutes):
    """A role of the caller's token permits so many minutes."""
    return lambda server, caller: server.limit("viewer", minutes=minutes)


def revoked(*roles):
    """The caller does not hold these roles any more."""
    return lambda server, caller: [server.revoke(role) for role in roles]


def later(**time):
    """So much time has passed since the caller asked anything."""
    return lambda server, caller: move_clock(server, **time)


def move_clock(server, *, minutes=0, seconds=0):
    server.clock_offset += minutes * 60 + seconds


def deleted(server, caller):
    """A role of the caller's token is no more."""
    server.delete_role("runner")


def forgotten(server, caller):
    """The caller's token is from a time when its roles were not written down."""
    server.forget_roles(caller.row)


def expired(server, caller):
    """The caller's token has expired, its session has not."""
    assert caller.row
    move_clock(server, minutes=6)


def foreign(server, caller):
    """The token is another user's."""
    server.add_user("mallory")
    server.mint("HERS", username="mallory")
    [row] = server.rows("HERS")
    caller.row = row.id


def csrf_token_of_an_hour_ago(server, caller):
    """The session is alive, and its CSRF token is older than an hour."""
    token = caller.http.cookies[CSRF_COOKIE]
    for _ in range(4):
        move_clock(server, minutes=15, seconds=1)
        assert caller.ask("GET /is_signed_in").status_code == 200
    caller.http.headers[CSRF_HEADER] = token


def all_of(*steps):
    """One after the other."""
    return lambda server, caller: [step(server, caller) for step in steps]


SESSION = [
    Row(
        "a name and a password sign in, without a CSRF token",
        SIGNIN,
        Response(200, SIGNED_IN),
        sends={"username": "{username}", "password": "{password}"},
        stranger=True,
    ),
    Row(
        "a wrong password is refused",
        SIGNIN,
        refused(401, "Incorrect username or password."),
        sends={"username": "{username}", "password": "not-the-password"},
        stranger=True,
    ),
    Row(
        "an unknown user is refused like a wrong password",
        SIGNIN,
        refused(401, "Incorrect username or password."),
        sends={"username": "nobody-of-this-name", "password": "{password}"},
        stranger=True,
    ),
    Row("whoever is signed in is told so", "GET /is_signed_in", Response(200, SIGNED_IN)),
    Row(
        "whoever is not is told so",
        "GET /is_signed_in",
        NOT_SIGNED_IN,
        stranger=True,
        flowauth=HTML,
    ),
    Row(
        "twenty idle minutes end a session",
        "GET /is_signed_in",
        NOT_SIGNED_IN,
        given=later(minutes=20, seconds=1),
        flowauth=HTML,
    ),
    Row(
        "nineteen do not",
        "GET /is_signed_in",
        Response(200, SIGNED_IN),
        given=later(minutes=19),
    ),
    Row("signing out", "GET /signout", Response(200, {"logged_in": False})),
    Row(
        "only who is signed in signs out",
        "GET /signout",
        NOT_SIGNED_IN,
        stranger=True,
        flowauth=HTML,
    ),
    Row(
        "the version is told to everybody",
        "GET /version",
        Response(200, {"version": str}),
        stranger=True,
    ),
]

READING = [
    Row("the servers where one holds a role", "GET /tokens/servers", Response(200, [SERVER])),
    Row(
        "they are told to nobody else",
        "GET /tokens/servers",
        NOT_SIGNED_IN,
        stranger=True,
        flowauth=HTML,
    ),
    Row(
        "one server has no page of its own",
        "GET /tokens/servers/{server}",
        NOT_FOUND,
        flowauth="500, " + HTML,
    ),
    Row("the roles of a server", "GET /user/roles/server/{server}", Response(200, [ROLE])),
    Row(
        "tokens that have expired are not listed",
        LIST,
        Response(200, []),
        given=expired,
        flowauth="they are",
    ),
    Row(
        "unless they are asked for",
        f"{LIST}?all=true",
        Response(200, [LISTED | {"token": str}]),
        given=expired,
    ),
    *(
        Row(f"there is no server of this path: GET {path}", f"GET {path}", NOT_FOUND, flowauth=HTML)
        for path in [
            f"/user/roles/server/{UNKNOWN}",
            f"/user/roles/server/{HUGE}",
            f"/tokens/tokens/{UNKNOWN}",
            f"/tokens/tokens/{HUGE}",
            "/tokens/tokens/x",
        ]
    ),
    Row(
        "a stranger has no tokens",
        f"GET /tokens/tokens/{UNKNOWN}",
        NOT_SIGNED_IN,
        stranger=True,
        flowauth=HTML,
    ),
]

MINTING = [
    Row(
        "minting answers the token alone",
        MINT,
        Response(200, {"token": TOKEN}, minutes=5),
        sends={"name": "{name}", "roles": [{"name": "{role}"}], "lifetime_minutes": 5},
    ),
    Row(
        "the lifetime may be left out",
        MINT,
        Response(200, {"token": TOKEN}),
        sends={"name": "{name}", "roles": [{"name": "{role}"}]},
    ),
    Row(
        "a role is named once",
        MINT,
        refused(400, re.compile(".+"), "roles"),
        sends={"name": "{name}", "roles": [{"name": "{role}"}, {"name": "{role}"}]},
        flowauth='400, "Name already exists"',
    ),
    *(
        Row(
            f"there is no server {server} to mint for",
            f"POST /tokens/tokens/{server}",
            NOT_FOUND,
            sends={"name": "{name}", "roles": [{"name": "{role}"}]},
            flowauth=HTML,
        )
        for server in (UNKNOWN, HUGE, "x")
    ),
]

RENEWAL = [
    Row("without a lifetime it is the maximum", RENEW, RENEWED, sends={}),
    Row("without a body too", RENEW, RENEWED),
    Row("null is no lifetime", RENEW, RENEWED, sends={"lifetime_minutes": None}),
    Row("unknown keys are ignored", RENEW, RENEWED, sends={"colour": "blue"}),
    Row(
        "a lifetime that is asked for is granted",
        RENEW,
        Response(200, RENEWED.body, minutes=2),
        sends={"lifetime_minutes": 2},
    ),
    Row(
        "the maximum is that of the strictest role, as it is now",
        RENEW,
        Response(200, RENEWED.body, minutes=30),
        given=limited(30),
    ),
    Row(
        "one minute less than the maximum is granted",
        RENEW,
        Response(200, RENEWED.body, minutes=29),
        sends={"lifetime_minutes": 29},
        given=limited(30),
    ),
    Row(
        "the very maximum is granted",
        RENEW,
        Response(200, RENEWED.body, minutes=30),
        sends={"lifetime_minutes": 30},
        given=limited(30),
        flowauth="400",
    ),
    Row(
        "one minute more than the maximum is not",
        RENEW,
        refused(
            400,
            "Requested lifetime exceeds the maximum permitted by the server and original roles",
            "lifetime_minutes",
        ),
        sends={"lifetime_minutes": 31},
        given=limited(30),
    ),
    Row(
        "twenty years are too long",
        RENEW,
        refused(400, re.compile("Requested lifetime exceeds .*"), "lifetime_minutes"),
        sends={"lifetime_minutes": 20 * 365 * 24 * 60},
    ),
    Row(
        "a million years are too long",
        RENEW,
        refused(400, re.compile("Requested lifetime exceeds .*"), "lifetime_minutes"),
        sends={"lifetime_minutes": 10**12},
        flowauth="500, " + HTML,
    ),
    *(
        Row(
            f"{json.dumps(odd)} is no lifetime",
            RENEW,
            refused(400, re.compile(".*must be a positive integer"), "lifetime_minutes"),
            sends={"lifetime_minutes": odd},
            flowauth=flowauth,
        )
        for odd, flowauth in [
            (0, None),
            (-5, None),
            (1.5, None),
            ("60", None),
            (False, None),
            ([], None),
            (True, "200, a token of one minute"),
        ]
    ),
    *(
        Row(
            f"the body {text} is malformed",
            RENEW,
            refused(400, re.compile(".+")),
            text=text,
            flowauth=flowauth,
        )
        for text, flowauth in [
            ('{"lifetime_minutes": 5', "200, the maximum"),
            ("nonsense", "200, the maximum"),
            ("[1]", "500, " + HTML),
            ('"x"', "500, " + HTML),
            ("7", "500, " + HTML),
        ]
    ),
    *(
        Row(
            f"a body of {labelled} is not read",
            RENEW,
            refused(415, re.compile(".+")),
            text="lifetime_minutes=5",
            labelled=labelled,
            flowauth="200, the maximum",
        )
        for labelled in ("text/plain", "application/x-www-form-urlencoded")
    ),
]

REFUSALS = [
    *(
        Row(
            f"there is no row {row}",
            f"POST /tokens/tokens/{row}/renew",
            NOT_FOUND,
            sends={},
            flowauth=HTML,
        )
        for row in (UNKNOWN, HUGE, 0, -1, "x", "1.5")
    ),
    Row(
        "another user's token is not renewed",
        RENEW,
        refused(401, "You can only renew your own tokens."),
        given=foreign,
    ),
    Row(
        "a token without roles is not renewed",
        RENEW,
        refused(
            400,
            "This token has no roles recorded against it and cannot be renewed; "
            "mint a new token instead.",
            "token_id",
        ),
        given=forgotten,
    ),
    Row(
        "a revoked role ends renewal, at once",
        RENEW,
        refused(401, "Cannot renew: the following roles are no longer assigned to you: runner"),
        given=revoked("runner"),
    ),
    Row(
        "revoked roles are named by name",
        RENEW,
        refused(
            401, "Cannot renew: the following roles are no longer assigned to you: runner, viewer"
        ),
        given=revoked("viewer", "runner"),
    ),
    Row(
        "a deleted role is a revoked role",
        RENEW,
        refused(401, "Cannot renew: the following roles are no longer assigned to you: runner"),
        given=deleted,
        flowauth="200, fewer roles",
    ),
    Row(
        "a role that permits nothing ends renewal",
        RENEW,
        refused(
            401,
            "Token for flowbot cannot be renewed: maximum permitted expiry has already passed.",
        ),
        given=limited(0),
    ),
    Row(
        "an expired token is not renewed",
        RENEW,
        refused(
            400, re.compile("This token expired at .* UTC and cannot be renewed; .*"), "token_id"
        ),
        given=expired,
        flowauth="200",
    ),
]

CSRF = [
    Row("a CSRF token is needed", RENEW, CSRF_ERROR, headers={CSRF_HEADER: None}, flowauth=TEXT),
    Row("a right one", RENEW, CSRF_ERROR, headers={CSRF_HEADER: "x"}, flowauth=TEXT),
    Row("minting needs it too", MINT, CSRF_ERROR, headers={CSRF_HEADER: None}, flowauth=TEXT),
    Row(
        "it is good for an hour",
        RENEW,
        CSRF_ERROR,
        given=csrf_token_of_an_hour_ago,
        flowauth=TEXT,
    ),
    Row(
        "it ends with its session",
        RENEW,
        CSRF_ERROR,
        given=later(minutes=20, seconds=1),
        flowauth=TEXT,
    ),
]

ORDER = [
    Row(
        "CSRF comes before everything",
        f"POST /tokens/tokens/{UNKNOWN}/renew",
        CSRF_ERROR,
        text="nonsense",
        stranger=True,
        flowauth=TEXT,
    ),
    Row(
        "the row's existence before the body's",
        f"POST /tokens/tokens/{UNKNOWN}/renew",
        NOT_FOUND,
        sends={"lifetime_minutes": 0},
        flowauth=HTML,
    ),
    Row(
        "the owner before the roles",
        RENEW,
        refused(401, "You can only renew your own tokens."),
        given=all_of(foreign, forgotten),
    ),
    Row(
        "the roles before the maximum",
        RENEW,
        refused(401, re.compile("Cannot renew: the following roles .*: runner")),
        given=all_of(revoked("runner"), limited(0)),
    ),
    Row(
        "whether anything is permitted before how much is asked for",
        RENEW,
        refused(401, re.compile("Token for .* cannot be renewed: .*")),
        sends={"lifetime_minutes": 20 * 365 * 24 * 60},
        given=limited(0),
    ),
]

CONTRACT = [*SESSION, *READING, *MINTING, *RENEWAL, *REFUSALS, *CSRF, *ORDER]


def pytest_generate_tests(metafunc):
    """One test a row; at another server those alone that need no hands on it."""
    if "row" in metafunc.fixturenames:
        elsewhere = metafunc.config.getoption("issuer_url")
        rows = [row for row in CONTRACT if not (elsewhere and row.given)]
        metafunc.parametrize("row", rows, ids=str)


@pytest.fixture
def issuer(request) -> Issuer:
    """The server of `--issuer-url`, or else the bundled one on a socket."""
    url = request.config.getoption("issuer_url")
    if url:
        username, password, roles = (
            os.environ[f"ISSUER_{name}"] for name in ("USERNAME", "PASSWORD", "ROLES")
        )
        return Issuer(url.rstrip("/"), username, password, tuple(roles.split(",")))
    server = request.getfixturevalue("renewal_server")
    return Issuer(server.url, server.username, server.password, ("runner", "viewer"))


@pytest.fixture
def connect(issuer):
    """Another client, who has not signed in."""
    callers = []

    def connect() -> Caller:
        callers.append(Caller(issuer))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.http.close()


@pytest.fixture
def caller(connect) -> Caller:
    """A client who has signed in."""
    caller = connect()
    assert caller.sign_in().status_code == 200
    return caller


def test_contract(row, caller, connect, request):
    """What a row asks is answered as it says, in JSON, whatever it is."""
    asker = connect() if row.stranger else caller
    if "{row}" in row.request:
        asker.row = caller.row
    if row.given:
        row.given(request.getfixturevalue("renewal_server"), asker)
    answer = ask(row, asker)
    assert (answer.status_code, answer.headers["Content-Type"]) == (
        row.answer.status,
        "application/json",
    )
    as_stated = fits(row.answer.body, answer.json())
    assert as_stated, f"another body than {row.answer.body}"
    if row.answer.minutes:
        minutes = lifetime(answer.json()["token"])
        assert minutes == row.answer.minutes


def test_what_is_listed_of_a_token(caller):
    """Its own token, whole; `expires` is the JWT's own `exp` (FlowAuth: off by its time zone)."""
    row = caller.mint()
    as_stated = fits(LISTED, row)
    assert as_stated
    assert (row["name"], row["username"]) == (caller.name, caller.username)
    assert sorted(role["name"] for role in row["roles"]) == sorted(caller.issuer.roles)
    assert row["server_name"] == claims(row["token"])["aud"]
    assert parsedate_to_datetime(row["expires"]).timestamp() == claims(row["token"])["exp"]


def test_the_jwt(caller):
    """What FlowAPI and other verifiers read."""
    row = caller.mint()
    header, said = jwt.get_unverified_header(row["token"]), claims(row["token"])
    assert header["typ"] == "JWT"
    assert said["sub"] == caller.username
    assert said["iat"] == said["nbf"]
    assert said["exp"] - said["iat"] == 300
    assert said.keys() >= {"jti", "aud"}
    assert scopes(said["user_claims"]).keys() == set(caller.issuer.roles)


def test_a_renewal_is_a_new_row_of_the_same_name_and_roles(caller):
    """And the row that was renewed is what it was, its token too."""
    old = caller.mint()
    answer = caller.ask(f"POST /tokens/tokens/{old['id']}/renew", json={}).json()
    rows = {row["id"]: row for row in caller.rows()}
    new = rows[answer["id"]]
    untouched = rows[old["id"]] == old
    assert untouched
    assert new["id"] != old["id"]
    as_told = new["token"] == answer["token"] != old["token"]
    assert as_told
    assert (new["name"], new["roles"]) == (old["name"], old["roles"])


def test_a_row_renews_any_number_of_times_at_once_too(caller, connect):
    """Four clients of one user, four successors; each has a session of its own."""
    row = caller.row

    def renew(client):
        client.sign_in()
        return client.ask(f"POST /tokens/tokens/{row}/renew", json={}).json()["id"]

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(renew, [connect() for _ in range(4)]))
    assert len({row, *ids}) == 5


def test_the_servers_are_sorted_by_name(caller):
    names = [server["server_name"] for server in caller.ask("GET /tokens/servers").json()]
    assert names == sorted(names)


def test_every_answer_brings_a_csrf_token_and_older_ones_stay_good(caller):
    """Also the answer to a stranger."""
    row = caller.row
    older = caller.http.cookies[CSRF_COOKIE]
    names = caller.ask("GET /version").cookies.keys()
    assert CSRF_COOKIE in names
    answer = caller.ask(f"POST /tokens/tokens/{row}/renew", headers={CSRF_HEADER: older})
    assert answer.status_code == 200


def test_signing_in_sets_the_two_cookies(connect):
    """Scripts read the one that they must send back, and not the session."""
    cookies = connect().sign_in().cookies
    hidden = {cookie.name: cookie.has_nonstandard_attr("HttpOnly") for cookie in cookies}
    assert hidden == {"session": True, CSRF_COOKIE: False}


def test_signing_out_ends_the_session_at_the_server_unlike_flowauth(caller):
    """Whoever has kept its cookie has nothing."""
    kept = caller.http.cookies.copy()
    caller.ask("GET /signout")
    caller.http.cookies = kept
    assert caller.ask("GET /is_signed_in").status_code == 401


def claims(token: str) -> dict:
    return jwt.decode(token, options={"verify_signature": False})


def scopes(user_claims: dict | str) -> dict:
    """Scopes by role, from either form of the claim: as it is, or JSON, gzip, base64."""
    if isinstance(user_claims, dict):
        return user_claims
    return json.loads(gzip.decompress(base64.b64decode(user_claims)))


def lifetime(token: str) -> float:
    """In minutes."""
    said = claims(token)
    return (said["exp"] - said["iat"]) / 60
