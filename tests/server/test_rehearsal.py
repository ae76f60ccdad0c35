"""A renewal with `dry_run`: judged by all rules, and nothing is issued."""

import pytest

from flowauth_rotator.server import schema

DATABASES = ["SQLite", "PostgreSQL"]
DRY = {"dry_run": True}


@pytest.fixture(params=["by session", "by token"])
def rehearse(request, flowbot, stranger):
    """Rehearse the renewal of a row, by either endpoint."""

    def rehearse(row, **body):
        if request.param == "by session":
            return flowbot.renew(row["id"], {**DRY, **body})
        return stranger.renew_presented(row["token"], {**DRY, **body})

    return rehearse


@pytest.fixture
def dump(services):
    """All rows of the history and all counters of limits."""

    def dump():
        with services.database.reading() as connection:
            return [
                sorted(map(str, connection.execute(table.select())))
                for table in (schema.tokens, schema.rate_counters)
            ]

    return dump


def test_nothing_is_issued_and_no_limit_is_used(rehearse, flowbot, dump):
    """However often: the history and the counters are the same before and after."""
    row = flowbot.minted()
    before = dump()
    for _ in range(20):
        answer = rehearse(row)
        assert answer.status_code == 200
    assert dump() == before


def test_the_answer_has_the_name_and_all_limits(rehearse, flowbot, services, limit, clock):
    """Of the roles, and of the server together with the family of the token."""
    row = flowbot.minted()
    services.accounts.set_role("runner", max_lifetime_minutes=90)
    answer = rehearse(row).json
    assert answer.keys() == {"name", "expires", "roles", "server"}
    assert answer["name"] == row["name"]
    assert [role["id"] for role in answer["roles"]] == [role["id"] for role in row["roles"]]
    lifetimes = {role["name"]: role["longest_token_life_minutes"] for role in answer["roles"]}
    assert lifetimes["runner"] == 90
    assert answer["server"]["name"] == "TEST_SERVER"
    assert answer["server"]["latest_token_expiry"].endswith(" GMT")
    renewed = flowbot.renew(row["id"]).json["id"]
    [issued] = [each for each in flowbot.rows() if each["id"] == renewed]
    assert issued["expires"] == answer["expires"]


def test_what_would_be_refused_is_refused_in_the_same_way(rehearse, flowbot, services, refused):
    row = flowbot.minted()
    too_long = rehearse(row, lifetime_minutes=10**6)
    refused(too_long, 400, "lifetime_minutes")
    refused(rehearse(row, lifetime_minutes=0), 400, "lifetime_minutes")
    services.accounts.revoke("flowbot", ["runner"])
    assert refused(rehearse(row), 401).endswith("no longer assigned to you: runner")


def test_a_limit_that_is_reached_is_found(rehearse, flowbot, refused):
    """The renewal would be refused now, too."""
    row = flowbot.minted()
    while flowbot.renew(row["id"]).status_code == 200:
        pass
    refused(rehearse(row), 429)


def test_an_idempotency_key_is_neither_used_nor_replayed(flowbot, stranger):
    """The renewal with that key is as it would have been without."""
    row = flowbot.minted()
    first = flowbot.renew(row["id"], key="key").json
    rehearsed = flowbot.renew(row["id"], DRY, key="key")
    assert "token" not in rehearsed.json
    assert "Idempotent-Replayed" not in rehearsed.headers
    assert stranger.renew_presented(row["token"], DRY, key="other").status_code == 200
    assert flowbot.renew(row["id"], key="key").json == first
    assert len(flowbot.rows()) == 2


def test_another_users_token_and_no_row_are_refused(flowbot, mallory, refused):
    row = flowbot.minted()
    assert refused(mallory.renew(row["id"], DRY), 401) == "You can only renew your own tokens."
    refused(flowbot.renew(0, DRY), 404)


def test_a_stranger_rehearses_nothing(stranger, flowbot, refused):
    flowbot.minted()
    refused(stranger.renew_presented("a.b.c", DRY), 401)


@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_another_value_renews_nothing(flowbot, refused, value):
    """A client that means a rehearsal gets no token by mistake."""
    row = flowbot.minted()
    refused(flowbot.renew(row["id"], {"dry_run": value}), 400, "dry_run")
    assert len(flowbot.rows()) == 1
