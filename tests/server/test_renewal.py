"""Renewal by a signed-in user: who may have a successor, and for how long."""

import pytest

from flowauth_rotator.server import schema

DATABASES = ["SQLite", "PostgreSQL"]
MISSING = "Cannot renew: the following roles are no longer assigned to you: "


def test_a_renewal_is_a_new_row_with_the_same_name_and_roles_and_another_token(flowbot, claims_of):
    """The first of the upstream tests: everything is kept but the token itself."""
    old = flowbot.minted(lifetime_minutes=60)
    answer = flowbot.renew(old["id"])
    assert answer.status_code == 200
    assert answer.json.keys() == {"id", "token"}
    new = next(row for row in flowbot.rows() if row["id"] == answer.json["id"])
    assert new["id"] != old["id"]
    as_told = new["token"] == answer.json["token"] != old["token"]
    assert as_told
    assert (new["name"], new["roles"]) == (old["name"], old["roles"])
    before, after = claims_of(old["token"]), claims_of(new["token"])
    for kept in ("sub", "aud", "user_claims", "token_name"):
        assert after[kept] == before[kept]
    assert after["jti"] != before["jti"]


def test_another_users_token_is_refused(flowbot, mallory, refused):
    """The second of the upstream tests."""
    row = flowbot.minted()
    message = refused(mallory.renew(row["id"]), 401)
    assert message == "You can only renew your own tokens."
    assert len(flowbot.rows()) == 1


def test_a_revoked_role_is_refused_with_its_name(flowbot, services, refused):
    """The third of the upstream tests; it takes effect at once in an open session."""
    row = flowbot.minted()
    services.accounts.revoke("flowbot", ["runner"])
    assert refused(flowbot.renew(row["id"]), 401) == MISSING + "runner"
    services.accounts.revoke("flowbot", ["viewer"])
    assert refused(flowbot.renew(row["id"]), 401) == MISSING + "runner, viewer"


def test_a_role_granted_again_renews_again(flowbot, services):
    row = flowbot.minted()
    services.accounts.revoke("flowbot", ["runner"])
    services.accounts.grant("flowbot", ["runner"])
    assert flowbot.renew(row["id"]).status_code == 200


def test_a_deleted_role_counts_as_revoked_even_when_its_name_comes_back(
    flowbot, services, limit, refused
):
    """FlowAuth would renew with fewer roles; here the row stays what it was, and is refused."""
    row = flowbot.minted()
    services.accounts.delete_role("runner")
    assert refused(flowbot.renew(row["id"]), 401) == MISSING + "runner"
    services.accounts.add_role("runner", "TEST_SERVER", ["everything"], limit(60))
    services.accounts.grant("flowbot", ["runner"])
    assert refused(flowbot.renew(row["id"]), 401) == MISSING + "runner"
    assert [role["name"] for role in flowbot.rows()[0]["roles"]] == ["runner", "viewer"]


def test_a_row_without_roles_asks_for_a_new_token(flowbot, services, refused):
    row = flowbot.minted()
    with services.database.writing() as connection:
        connection.execute(schema.tokens.update().values(roles=[]))
    assert refused(flowbot.renew(row["id"]), 400, "token_id") == (
        "This token has no roles recorded against it and cannot be renewed; "
        "mint a new token instead."
    )


def test_the_old_row_is_untouched(flowbot):
    old = flowbot.minted()
    flowbot.renew(old["id"])
    same = flowbot.rows()[0] == old
    assert same


def test_every_row_knows_its_parent(flowbot, services):
    first = flowbot.minted()["id"]
    second = flowbot.renew(first).json["id"]
    third = flowbot.renew(second).json["id"]
    fork = flowbot.renew(first).json["id"]
    lineage = {row.id: row.parent_id for row in list(services.listing.iterate_rows())}
    assert lineage == {first: None, second: first, third: second, fork: first}


def test_an_expired_row_is_refused_with_the_moment_of_its_expiry(flowbot, clock, refused):
    row = flowbot.minted(lifetime_minutes=5)
    clock.advance(minutes=5, seconds=-1)
    assert flowbot.renew(row["id"]).status_code == 200
    clock.advance(seconds=1)
    assert refused(flowbot.renew(row["id"]), 400, "token_id") == (
        "This token expired at 2027-01-15 08:05:00 UTC and cannot be renewed; "
        "mint a new token instead."
    )


def test_scopes_are_those_that_the_role_has_now(flowbot, services, claims_of):
    row = flowbot.minted()
    services.accounts.set_role("runner", scopes=["walk"])
    renewed = flowbot.renew(row["id"]).json["token"]
    assert claims_of(renewed)["user_claims"] != claims_of(row["token"])["user_claims"]


class TestLifetime:
    """min(server, every role), and what was asked for if it is no more than that."""

    def lifetime(self, claims):
        return (claims["exp"] - claims["iat"]) / 60

    @pytest.fixture
    def short(self, services, limit):
        """A role whose tokens live two hours at most."""
        services.accounts.add_role("short", "TEST_SERVER", ["run"], limit(120))
        services.accounts.grant("flowbot", ["short"])
        return "short"

    @pytest.mark.parametrize(("asked", "granted"), [({}, 120), ({"lifetime_minutes": None}, 120)])
    def test_nothing_asked_is_the_maximum(self, flowbot, short, claims_of, asked, granted):
        row = flowbot.minted(roles=["viewer", short], lifetime_minutes=1)
        token = flowbot.renew(row["id"], asked).json["token"]
        lifetime = self.lifetime(claims_of(token))
        assert lifetime == granted

    @pytest.mark.parametrize("minutes", [1, 119, 120])
    def test_a_lifetime_up_to_the_very_maximum_is_granted(self, flowbot, short, claims_of, minutes):
        row = flowbot.minted(roles=["viewer", short])
        token = flowbot.renew(row["id"], {"lifetime_minutes": minutes}).json["token"]
        lifetime = self.lifetime(claims_of(token))
        assert lifetime == minutes

    @pytest.mark.parametrize("minutes", [121, 10**12, 10**400])
    def test_more_than_the_maximum_is_refused(self, flowbot, short, refused, minutes):
        row = flowbot.minted(roles=["viewer", short])
        answer = flowbot.renew(row["id"], {"lifetime_minutes": minutes})
        assert refused(answer, 400, "lifetime_minutes") == (
            "Requested lifetime exceeds the maximum permitted by the server and original roles"
        )

    @pytest.mark.parametrize("odd", [0, -5, 1.5, 60.0, "60", True, False, [], {}])
    def test_anything_but_a_positive_integer_is_refused(self, flowbot, refused, odd):
        row = flowbot.minted()
        answer = flowbot.renew(row["id"], {"lifetime_minutes": odd})
        assert "must be a positive integer" in refused(answer, 400, "lifetime_minutes")
        assert len(flowbot.rows()) == 1

    def test_a_latest_expiry_cuts_the_maximum_and_then_ends_it(
        self, flowbot, services, limit, clock, claims_of, refused
    ):
        latest = clock.now + 600
        services.accounts.add_role("ending", "TEST_SERVER", ["run"], limit(1440, latest))
        services.accounts.grant("flowbot", ["ending"])
        lasting, ending = flowbot.minted(), flowbot.minted(roles=["ending"])
        assert claims_of(flowbot.renew(ending["id"]).json["token"])["exp"] == latest
        services.accounts.set_audience("TEST_SERVER", latest_expiry=latest)
        clock.advance(seconds=600)
        assert refused(flowbot.renew(lasting["id"]), 401) == (
            "Token for flowbot cannot be renewed: maximum permitted expiry has already passed."
        )


class TestIdempotencyKey:
    """The same key is the same successor, whoever asks and however often."""

    def test_the_same_key_replays_the_same_answer(self, flowbot, clock):
        row = flowbot.minted(lifetime_minutes=60)
        first = flowbot.renew(row["id"], key="one")
        clock.advance(minutes=19)
        again = flowbot.renew(row["id"], key="one")
        same = again.data == first.data
        assert same
        assert len(flowbot.rows()) == 2
        replayed = [answer.headers.get("Idempotent-Replayed") for answer in (first, again)]
        assert replayed == [None, "true"]

    def test_another_key_or_none_is_another_successor(self, flowbot):
        row = flowbot.minted()
        ids = [flowbot.renew(row["id"], key=key).json["id"] for key in ("one", "two", None, None)]
        assert len(set(ids)) == 4

    def test_the_same_key_on_another_row_is_another_successor(self, flowbot):
        first, second = flowbot.minted(), flowbot.minted()
        ids = {flowbot.renew(row["id"], key="one").json["id"] for row in (first, second)}
        assert len(ids) == 2

    def test_the_same_key_with_another_lifetime_is_refused(self, flowbot, refused):
        row = flowbot.minted()
        flowbot.renew(row["id"], {"lifetime_minutes": 30}, key="one")
        for other in ({}, {"lifetime_minutes": 31}):
            refused(flowbot.renew(row["id"], other, key="one"), 422, "lifetime_minutes")
        assert flowbot.renew(row["id"], {"lifetime_minutes": 30}, key="one").status_code == 200

    def test_a_replay_is_refused_like_a_renewal(self, flowbot, mallory, services, clock, refused):
        """What may not be renewed any more is not handed out again either."""
        row = flowbot.minted(lifetime_minutes=10)
        flowbot.renew(row["id"], key="one")
        refused(mallory.renew(row["id"], key="one"), 401)
        services.accounts.revoke("flowbot", ["viewer"])
        assert refused(flowbot.renew(row["id"], key="one"), 401) == MISSING + "viewer"
        services.accounts.grant("flowbot", ["viewer"])
        clock.advance(minutes=10)
        refused(flowbot.renew(row["id"], key="one"), 400, "token_id")

    @pytest.mark.parametrize("key", ["", "x" * 201, "caf\xe9", "a\tb"])
    def test_an_odd_key_is_refused(self, flowbot, refused, key):
        row = flowbot.minted()
        assert "printable ASCII" in refused(flowbot.renew(row["id"], key=key), 400)

    def test_both_kinds_of_renewal_share_the_key(self, flowbot):
        row = flowbot.minted()
        by_session = flowbot.renew(row["id"], key="one")
        by_token = flowbot.renew_presented(row["token"], key="one")
        same = by_token.data == by_session.data
        assert same


def test_a_role_revoked_while_the_successor_is_signed_is_still_a_refusal(
    flowbot, services, signing_key, data_dir, refused
):
    """Nothing is committed that was permitted only before it was signed."""
    from flowauth_rotator.server import create_app
    from flowauth_rotator.server.signing import Signer

    class RevokingSigner(Signer):
        def sign(self, claims):
            services.accounts.revoke("flowbot", ["runner"])
            return super().sign(claims)

    row = flowbot.minted()
    slow = create_app(data_dir, signer=RevokingSigner(signing_key), clock=lambda: 1_800_000_000)
    answer = slow.test_client().post(
        "/tokens/renew", headers={"Authorization": f"Bearer {row['token']}"}
    )
    slow.extensions["flowauth_rotator"].database.close()
    assert refused(answer, 401) == MISSING + "runner"
    assert len(list(services.listing.iterate_rows())) == 1


@pytest.mark.parametrize("row_id", ["2", "0", "-1", "x", "1.0", "2147483648", "9" * 40])
def test_an_unknown_row_is_not_found(flowbot, refused, row_id):
    flowbot.minted()
    refused(flowbot.renew(row_id), 404)
