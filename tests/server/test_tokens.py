"""Minting and listing, and what a token says."""

import base64
import gzip
import json
import uuid

import jwt
import pytest

from flowauth_rotator.core.tokens import Token
from flowauth_rotator.server import create_app
from flowauth_rotator.server.maintenance import prune

DATABASES = ["SQLite", "PostgreSQL"]
USER_CLAIMS = {"runner": ["run"], "viewer": ["get_available_dates", "get_results"]}


class TestToken:
    """The JWT as FlowAPI and other verifiers read it."""

    def test_claims(self, flowbot, claims_of, clock):
        claims = claims_of(flowbot.mint(lifetime_minutes=60).json["token"])
        assert uuid.UUID(claims.pop("jti")).version == 4
        packed = claims.pop("user_claims")
        assert claims == {
            "iat": clock.now,
            "nbf": clock.now,
            "exp": clock.now + 3600,
            "sub": "flowbot",
            "aud": "TEST_SERVER",
            "token_name": "AIRFLOW",
        }
        assert json.loads(gzip.decompress(base64.b64decode(packed))) == USER_CLAIMS

    def test_header(self, flowbot):
        """`kid` is the key's RFC 7638 thumbprint: 32 bytes in base64url."""
        header = jwt.get_unverified_header(flowbot.mint().json["token"])
        assert header.keys() == {"alg", "typ", "kid"}
        assert (header["alg"], header["typ"], len(header["kid"])) == ("RS256", "JWT", 43)

    def test_user_claims_come_in_lines_of_76_characters(self, flowbot, services, limit, claims_of):
        scopes = [uuid.UUID(int=number * 7**40 % 2**128).hex for number in range(40)]
        services.accounts.add_role("many", "TEST_SERVER", scopes, limit(60))
        services.accounts.grant("flowbot", ["many"])
        first, second = (claims_of(flowbot.mint(roles=["many"]).json["token"]) for _ in range(2))
        *full, last, rest = first["user_claims"].split("\n")
        assert full
        assert {len(line) for line in full} == {76}
        assert 0 < len(last) <= 76
        assert rest == ""
        assert first["user_claims"] == second["user_claims"]
        time_of_packing = base64.b64decode(first["user_claims"])[4:8]
        assert time_of_packing == bytes(4)


class TestMint:
    def test_it_answers_the_token_alone(self, flowbot):
        answer = flowbot.mint()
        assert answer.status_code == 200
        same = answer.json == {"token": flowbot.rows()[0]["token"]}
        assert same

    def test_without_a_lifetime_it_is_the_maximum(self, flowbot, claims_of):
        claims = claims_of(flowbot.mint().json["token"])
        assert claims["exp"] - claims["iat"] == 7 * 24 * 3600

    def test_more_than_the_maximum_is_refused(self, flowbot, refused):
        refused(flowbot.mint(lifetime_minutes=7 * 24 * 60 + 1), 400, "lifetime_minutes")

    def test_a_role_that_is_not_held_is_refused(self, flowbot, services, limit, refused):
        services.accounts.add_role("admin", "TEST_SERVER", ["all"], limit(60))
        for role in ("admin", "nonsense", "\ud800"):
            message = refused(flowbot.mint(roles=["viewer", role]), 401, "roles")
            assert message == f"Role '{role}' is not permitted for the current user"

    def test_a_role_of_another_audience_is_refused(self, flowbot, services, limit, refused):
        """FlowAuth looks roles up by name across servers and mints what can never be renewed."""
        services.accounts.add_audience("A_OTHER", limit(60))
        services.accounts.add_role("viewer", "A_OTHER", ["x"], limit(60))
        services.accounts.grant("flowbot", ["viewer"], "A_OTHER")
        refused(flowbot.mint(roles=["runner"]), 401, "roles")
        assert flowbot.mint(roles=["viewer"]).status_code == 200

    @pytest.mark.parametrize(
        ("body", "bad_field"),
        [
            ({}, "name"),
            ({"name": "A"}, "roles"),
            ({"name": None, "roles": [{"name": "viewer"}]}, "name"),
            ({"name": 5, "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "", "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "  ", "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "x" * 201, "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "a\nb", "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "a\ud800", "roles": [{"name": "viewer"}]}, "name"),
            ({"name": "A", "roles": []}, "roles"),
            ({"name": "A", "roles": None}, "roles"),
            ({"name": "A", "roles": "viewer"}, "roles"),
            ({"name": "A", "roles": ["viewer"]}, "roles"),
            ({"name": "A", "roles": [{"name": 1}]}, "roles"),
            ({"name": "A", "roles": [{}]}, "roles"),
            ({"name": "A", "roles": [{"name": "viewer"}, {"name": "viewer"}]}, "roles"),
        ],
    )
    def test_an_odd_body_is_refused(self, flowbot, refused, body, bad_field):
        server = flowbot.server_id()
        refused(flowbot.post(f"/tokens/tokens/{server}", json=body), 400, bad_field)
        assert flowbot.rows() == []

    def test_an_unknown_server_is_not_found(self, flowbot, refused):
        body = {"name": "A", "roles": [{"name": "viewer"}]}
        refused(flowbot.post("/tokens/tokens/99", json=body), 404)


class TestList:
    def test_a_row_has_flowauths_fields(self, flowbot):
        token = Token(flowbot.mint(lifetime_minutes=5).json["token"])
        [row] = flowbot.rows()
        roles = row["roles"]
        assert [role["name"] for role in roles] == ["runner", "viewer"]
        assert all(isinstance(role["id"], int) for role in roles)
        row["token"] = Token(row["token"])
        assert row == {
            "expires": "Fri, 15 Jan 2027 08:05:00 GMT",
            "id": 1,
            "name": "AIRFLOW",
            "roles": roles,
            "server_name": "TEST_SERVER",
            "token": token,
            "username": "flowbot",
        }

    @pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/New_York"])
    def test_expires_is_utc_wherever_the_server_stands(self, flowbot, zone, monkeypatch):
        import time

        flowbot.mint(lifetime_minutes=5)
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        try:
            assert flowbot.rows()[0]["expires"] == "Fri, 15 Jan 2027 08:05:00 GMT"
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_everybody_sees_their_own_rows_alone(self, flowbot, mallory):
        flowbot.mint()
        mallory.mint(name="HERS")
        assert [row["name"] for row in flowbot.rows()] == ["AIRFLOW"]
        assert [row["name"] for row in mallory.rows()] == ["HERS"]
        assert [row["name"] for row in flowbot.get("/tokens/tokens/1?all=true").json] == ["AIRFLOW"]

    def test_expired_rows_are_listed_only_when_asked_for(self, flowbot, clock):
        flowbot.mint(name="OLD", lifetime_minutes=5)
        flowbot.mint(name="NEW", lifetime_minutes=6)
        clock.advance(minutes=5)
        assert [row["name"] for row in flowbot.rows()] == ["NEW"]
        everything = flowbot.get("/tokens/tokens/1?all=true").json
        assert [row["name"] for row in everything] == ["OLD", "NEW"]
        same = everything[1:] == flowbot.get("/tokens/tokens/1?all=false").json == flowbot.rows()
        assert same

    def test_the_full_list_has_every_row_however_many(self, flowbot, monkeypatch):
        """It is read some at a time."""
        monkeypatch.setattr("flowauth_rotator.server.listing.BATCH", 3)
        assert flowbot.get("/tokens/tokens/1?all=true").json == []
        for count in range(1, 8):
            flowbot.mint(name=f"N{count}")
            same = flowbot.get("/tokens/tokens/1?all=true").json == flowbot.rows()
            assert same

    def test_all_is_true_or_false(self, flowbot, refused):
        refused(flowbot.get("/tokens/tokens/1?all=1"), 400, "all")

    def test_servers_are_those_where_a_role_is_held_by_name(self, flowbot, services, limit):
        for audience in ("Z", "A", "NONE_HELD"):
            services.accounts.add_audience(audience, limit(60))
            services.accounts.add_role(f"role_{audience}", audience, ["x"], limit(60))
        services.accounts.grant("flowbot", ["role_Z", "role_A"])
        names = [server["server_name"] for server in flowbot.get("/tokens/servers").json]
        assert names == ["A", "TEST_SERVER", "Z"]

    def test_an_unknown_server_is_not_found(self, flowbot, refused):
        refused(flowbot.get("/tokens/tokens/99"), 404)


def test_the_version_is_told_to_everybody(stranger):
    answer = stranger.get("/version")
    assert answer.status_code == 200
    assert answer.json.keys() == {"version"}
    assert isinstance(answer.json["version"], str)


def test_no_answer_may_be_cached(flowbot, stranger):
    token = flowbot.minted()["token"]
    for answer in (flowbot.get("/tokens/tokens/1"), stranger.renew_presented(token)):
        assert answer.headers["Cache-Control"] == "no-store"


class TestUserClaims:
    """Packed as FlowAuth packs them, or plain where USER_CLAIMS says so."""

    @pytest.fixture
    def settings(self, monkeypatch):
        monkeypatch.setenv("USER_CLAIMS", "plain")

    def test_plain_by_choice(self, settings, flowbot, claims_of):
        assert claims_of(flowbot.minted()["token"])["user_claims"] == USER_CLAIMS


class TestPruning:
    """Of a token that has expired the row stays, and the text goes."""

    def test_the_text_goes_and_the_row_stays(self, flowbot, services, clock):
        flowbot.mint(name="OLD", lifetime_minutes=5)
        flowbot.mint(name="NEW", lifetime_minutes=6)
        clock.advance(minutes=5)
        assert prune(services, now=clock.now) == 1
        assert prune(services, now=clock.now) == 0
        old, new = flowbot.get("/tokens/tokens/1?all=true").json
        assert (old["name"], old["token"]) == ("OLD", "")
        assert old["roles"] == new["roles"]
        same = [new] == flowbot.rows()
        assert same
        assert [row.ciphertext is None for row in list(services.listing.iterate_rows())] == [
            True,
            False,
        ]

    def test_some_at_a_time_however_many(self, flowbot, services, clock, monkeypatch):
        monkeypatch.setattr("flowauth_rotator.server.history.BATCH", 2)
        for number in range(5):
            flowbot.mint(name=f"N{number}", lifetime_minutes=5)
        clock.advance(minutes=5)
        seen = []
        assert prune(services, now=clock.now, progress=lambda *done: seen.append(done)) == 5
        assert seen == [(2, 5), (4, 5), (5, 5)]

    def test_a_start_prunes(self, flowbot, services, clock, data_dir, cheap_hasher):
        flowbot.mint(lifetime_minutes=5)
        clock.advance(minutes=5)
        app = create_app(data_dir, hasher=cheap_hasher, clock=clock)
        app.extensions["flowauth_rotator"].database.close()
        assert [row.ciphertext for row in list(services.listing.iterate_rows())] == [None]

    @pytest.mark.parametrize("pruned", [True, False])
    def test_a_replay_of_what_has_gone_is_a_refusal(
        self, flowbot, services, clock, refused, pruned
    ):
        """The parent is alive, its short-lived successor is not, nor what is left of its text."""
        row = flowbot.minted(lifetime_minutes=60)
        flowbot.renew(row["id"], {"lifetime_minutes": 5}, key="k")
        clock.advance(minutes=5)
        if pruned:
            prune(services, now=clock.now)
        message = refused(flowbot.renew(row["id"], {"lifetime_minutes": 5}, key="k"), 410)
        assert message == (
            "The token issued for this Idempotency-Key has expired; use another key."
        )
