"""A token leaked: what its finder can no longer do, and what the operator sees."""

import json
import logging
import time

import pytest
from sqlalchemy import insert, select

from flowauth_rotator.server.schema import tokens
from tests.server.scraping import WITHOUT_SUCCESSOR, series

DATABASES = ["SQLite", "PostgreSQL"]
FORKS = "flowauth_renewal_server_forks_total"


@pytest.fixture
def metrics(data_dir, stranger):
    """What a scraper is answered."""

    def metrics():
        token = (data_dir / "metrics.token").read_text().strip()
        answer = stranger.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        return {name: value for (name, _labels), value in series(answer.text).items()}

    return metrics


@pytest.fixture
def line_of_descent(flowbot):
    """Four tokens: a first one, its successor, and two of that one's: a fork."""
    first = flowbot.minted()
    second = flowbot.renew_presented(first["token"], key="a").json
    third = flowbot.renew_presented(second["token"], key="b").json
    fork = flowbot.renew_presented(second["token"], key="c").json
    return first, second, third, fork


def revoked(flowbot, refused, *tokens):
    """Whether each of these tokens is refused in either way of renewing."""
    for token in tokens:
        message = "This token was revoked at 2"
        assert refused(flowbot.renew_presented(token["token"]), 401, "token_id").startswith(message)
        assert refused(flowbot.renew(token["id"]), 401, "token_id").startswith(message)
    return True


def test_a_token_is_revoked_with_all_that_were_renewed_from_it(
    says, flowbot, refused, line_of_descent
):
    first, second, third, fork = line_of_descent
    told = says("revoke-token", second["id"]).splitlines()
    assert told[0] == "Revoked 3 tokens, which can no longer be renewed."
    assert told[1] == (
        "FlowAPI accepts revoked tokens until they expire, here until 2100-01-08 00:00:00 UTC."
    )
    assert revoked(flowbot, refused, second, third, fork)
    assert flowbot.renew_presented(first["token"], key="new").status_code == 200


def test_a_family_is_revoked_by_any_of_its_members(says, flowbot, refused, line_of_descent):
    other = flowbot.minted(name="OTHER")
    told = json.loads(says("revoke-token --family --json", line_of_descent[3]["id"]))
    assert told == {"revoked": 4, "live": 4, "last_expires_at": 4_102_444_800 + 7 * 86400}
    assert revoked(flowbot, refused, *line_of_descent)
    assert flowbot.renew(other["id"]).status_code == 200
    assert json.loads(says("revoke-token --family --json", 1))["revoked"] == 0
    assert says("revoke-token --family", 1).startswith("Nothing to revoke: ")


def test_a_name_is_revoked_for_its_owner_alone(says, flowbot, mallory, refused):
    first, second = flowbot.minted(), flowbot.minted()
    foreign = mallory.minted()
    says("revoke-token --user flowbot --name AIRFLOW --audience TEST_SERVER")
    assert revoked(flowbot, refused, first, second)
    assert mallory.renew(foreign["id"]).status_code == 200


def test_the_answer_to_an_earlier_request_is_not_given_again(
    says, flowbot, refused, line_of_descent
):
    """Neither that of a revoked token, nor a revoked token itself."""
    first, second, third, _fork = line_of_descent
    says("revoke-token", third["id"])
    answer = flowbot.renew_presented(second["token"], key="b")
    message = "The token issued for this Idempotency-Key was revoked; use another key."
    assert refused(answer, 410) == message
    assert answer.headers["Idempotent-Replayed"] == "true"
    says("revoke-token", first["id"])
    refused(flowbot.renew_presented(first["token"], key="a"), 401, "token_id")


def test_a_family_of_any_size_is_revoked(says, flowbot, services, refused):
    """Whoever has a token can make it larger than the largest list in a statement."""
    first = flowbot.minted()
    with services.database.writing() as connection:
        parent = connection.execute(select(tokens)).one()._asdict()
        del parent["id"]
        size = 70_000  # PostgreSQL takes 65,535 parameters
        rows = [
            parent | {"parent_id": 1, "idempotency_key": str(n), "jti": str(n), "ciphertext": None}
            for n in range(size)
        ]
        connection.execute(insert(tokens), rows)
    told = json.loads(says("revoke-token --family --json", size))
    assert told["revoked"] == size + 1
    assert revoked(flowbot, refused, first)


def test_what_is_revoked_is_listed_for_the_operator_and_not_offered_to_its_owner(
    says, flowbot, line_of_descent
):
    says("revoke-token", line_of_descent[2]["id"])
    assert [row["id"] for row in flowbot.rows()] == [1, 2, 4]
    states = {row["id"]: row["state"] for row in json.loads(says("tokens --all --json"))}
    assert states == {1: "live", 2: "live", 3: "revoked", 4: "live"}
    assert [row["id"] for row in json.loads(says("tokens --json"))] == [1, 2, 4]


def test_what_has_expired_since_it_was_revoked_is_listed_as_revoked(says, flowbot, clock):
    clock.now = int(time.time()) - 60
    flowbot.sign_in()
    for name in ("REVOKED", "EXPIRED"):
        flowbot.mint(name=name, lifetime_minutes=1)
    says("revoke-token 1")
    states = {row["name"]: row["state"] for row in json.loads(says("tokens --all --json"))}
    assert states == {"REVOKED": "revoked", "EXPIRED": "expired"}


def test_a_name_without_a_renewable_token_has_no_series(says, flowbot, metrics):
    flowbot.minted()
    assert WITHOUT_SUCCESSOR in metrics()
    says("revoke-token --user flowbot --name AIRFLOW")
    assert WITHOUT_SUCCESSOR not in metrics()


def test_a_new_token_of_the_name_is_not_revoked(says, flowbot):
    flowbot.minted()
    says("revoke-token --user flowbot --name AIRFLOW")
    new = flowbot.minted()
    assert flowbot.renew_presented(new["token"]).status_code == 200


def test_two_holders_of_a_token_are_counted_and_logged(flowbot, metrics, caplog):
    """A token that has a successor is renewed with another key; the same key is no fork."""

    def forks():
        return [each.facts for each in caplog.records if each.getMessage() == "token_forked"]

    first = flowbot.minted()
    with caplog.at_level(logging.WARNING, "flowauth_rotator"):
        for key in ("one", "one"):
            flowbot.renew_presented(first["token"], key=key)
        assert (metrics()[FORKS], forks()) == (0, [])
        flowbot.renew_presented(first["token"], key="two")
        flowbot.renew(first["id"])
    assert (metrics()[FORKS], len(forks())) == (2, 2)
    facts = forks()[0]
    assert facts | {"expires_at": 0} == {
        "token_name": "AIRFLOW",
        "row": 3,
        "expires_at": 0,
        "client": "127.0.0.1",
    }


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "revoke-token 99",
            "There is no token with id 99. List the tokens with: ",
        ),
        ("revoke-token --user flowbot --name NONE", "User 'flowbot' has no token named 'NONE'. "),
        (
            "revoke-token --user flowbot --name NONE --audience TEST_SERVER",
            "User 'flowbot' has no token named 'NONE' on audience 'TEST_SERVER'. ",
        ),
        ("revoke-token", "Name tokens by ID, with or without --family; or by --user and --name."),
        ("revoke-token 1 --user flowbot", "Name tokens by ID"),
        ("revoke-token --name AIRFLOW", "Name tokens by ID"),
        ("revoke-token --user nobody --name AIRFLOW", "User 'nobody' does not exist."),
    ],
)
def test_a_token_that_is_not_there_is_one_sentence(fails, line, sentence):
    assert sentence in fails(line)


class TestBearerRenewalTurnedOff:
    @pytest.fixture
    def database(self, database, monkeypatch):
        monkeypatch.setenv("BEARER_RENEWAL", "off")

    def test_only_a_signed_in_owner_renews(self, flowbot, refused):
        row = flowbot.minted()
        message = refused(flowbot.renew_presented(row["token"]), 401)
        assert message == ("This server does not renew a token that is presented: sign in instead.")
        assert flowbot.renew(row["id"]).status_code == 200
