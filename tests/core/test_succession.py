from dataclasses import replace
from datetime import timedelta

import jwt
import pytest

from flowauth_rotator.core.errors import BudgetExhausted
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.succession import (
    LAST_RETRY_GENERATION,
    Row,
    check_budget,
    choose_successor,
    evaluate_candidate,
    find_successors,
    find_violations,
    idempotency_key,
    retry_generation,
)
from flowauth_rotator.core.tokens import Token, read_unverified

DAY = timedelta(days=1)


@pytest.fixture
def predecessor(make_claims, noon):
    """A one-day token, due at `noon`."""
    return make_claims(issued_at=noon - DAY * 0.7)


@pytest.fixture
def successor(make_claims, noon):
    """A one-day token as the issuer should answer at `noon`."""
    return make_claims(issued_at=noon, digest="1" * 64)


@pytest.fixture
def make_row(signing_key, noon):
    """A row of the issuer's history with a real token."""

    def make(
        number,
        *,
        issued=0.0,
        lifetime=24.0,
        owner="flowbot",
        name="AIRFLOW",
        audience="TEST_SERVER",
        roles=("viewer",),
        carried=None,
    ):
        iat = int((noon + timedelta(hours=issued)).timestamp())
        claims = {
            "iat": iat,
            "nbf": iat,
            "exp": iat + int(lifetime * 3600),
            "jti": str(number),
            "sub": owner,
            "aud": audience,
            "user_claims": {role: ["run"] for role in carried or roles},
        }
        token = Token(jwt.encode(claims, signing_key, algorithm="RS256"))
        return Row(number, name, owner, audience, frozenset(roles), token)

    return make


def clauses(predecessor, successor, now, **policy):
    return [o.text for o in find_violations(predecessor, successor, RotationPolicy(**policy), now)]


def test_a_good_successor_meets_no_objection(predecessor, successor, noon):
    """Same user, audience and roles, and a full lifetime: nothing speaks against it."""
    assert clauses(predecessor, successor, noon) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "0" * 64}, "same token"),
        ({"algorithm": "HS256"}, "family of algorithms"),
        ({"algorithm": "none"}, "family of algorithms"),
        ({"subject": "root"}, "`sub`"),
        ({"subject": None}, "`sub`"),
        ({"audience": "PRODUCTION"}, "`aud`"),
        ({"issuer": "elsewhere"}, "`iss`"),
        ({"roles": frozenset({"runner"})}, "roles"),
        ({"roles": frozenset({"runner", "viewer", "admin"})}, "roles"),
        ({"roles": frozenset()}, "roles"),
        ({"token_name": "OTHER"}, "token name"),
    ],
)
def test_each_change_of_the_claims_is_an_objection(predecessor, successor, noon, change, words):
    """Nothing but the times may change from one token to the next."""
    found = find_violations(predecessor, replace(successor, **change), RotationPolicy(), noon)
    assert [words in objection.text for objection in found] == [True]
    assert not found[0].capped


@pytest.mark.parametrize("claim", ["issued_at", "not_before"])
def test_a_token_from_the_future_is_refused_beyond_the_leeway(predecessor, successor, noon, claim):
    """An issuer's clock may be a minute ahead, and no more."""
    for seconds, objected in ((60, False), (61, True)):
        ahead = replace(successor, **{claim: noon + timedelta(seconds=seconds)})
        assert bool(clauses(predecessor, ahead, noon)) is objected


def test_a_successor_must_gain_a_worthwhile_time(predecessor, successor, noon):
    """By default it expires at least a tenth of the lifetime later than the token in use."""
    least = predecessor.expires_at + DAY / 10
    assert clauses(predecessor, replace(successor, expires_at=least), noon) == []
    short = replace(successor, expires_at=least - timedelta(seconds=1))
    found = find_violations(predecessor, short, RotationPolicy(), noon)
    assert [objection.capped for objection in found] == [True]


def test_a_successor_that_would_be_due_at_once_is_capped(predecessor, noon, make_claims):
    """A token whose `iat` was set back so that it is due already gains nothing."""
    old = make_claims(issued_at=noon - DAY * 5, lifetime=DAY * 6, digest="1" * 64)
    found = find_violations(predecessor, old, RotationPolicy(), noon)
    assert found
    assert all(objection.capped for objection in found)


def test_the_key_depends_on_the_predecessor_and_what_is_asked(predecessor, successor):
    """Any agent, after any crash, asks for the same renewal; another token is another renewal."""
    again = replace(predecessor, subject="somebody", roles=frozenset())
    assert idempotency_key(predecessor, None) == idempotency_key(again, None)
    assert idempotency_key(predecessor, None) != idempotency_key(successor, None)
    assert idempotency_key(predecessor, None) != idempotency_key(predecessor, 60)
    assert predecessor.digest not in idempotency_key(predecessor, None)


def chosen(rows, noon):
    predecessor = read_unverified(rows[0].token)
    policy = RotationPolicy()
    candidates = {
        row.id: evaluate_candidate(predecessor, row.token, policy, noon, adopted=True)
        for row in find_successors(predecessor, rows)
    }
    candidate = choose_successor(predecessor, candidates.values(), noon)
    return next((number for number, one in candidates.items() if one is candidate), None)


def test_a_live_successor_is_adopted(make_row, noon):
    """A token that was minted but never swapped in is found again."""
    assert chosen([make_row(1, issued=-17), make_row(2)], noon) == 2


def test_of_several_the_one_that_lives_longest_is_adopted_then_the_oldest(make_row, noon):
    """Rivals who see the same rows, in any order, agree."""
    rows = [make_row(1, issued=-17), make_row(2), make_row(3, issued=-1), make_row(4)]
    assert chosen(rows, noon) == 2
    assert chosen([rows[0], *reversed(rows[1:])], noon) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "root"},
        {"audience": "PRODUCTION"},
        {"name": "OTHER"},
        {"roles": ("viewer", "admin")},
        {"roles": ("viewer",), "carried": ("admin",)},
        {"lifetime": 1.0},
        {"issued": 1.0},
        {"issued": -20.0, "lifetime": 48.0},
    ],
    ids=["owner", "audience", "name", "roles", "roles in the JWT", "short", "future", "older"],
)
def test_no_other_row_is_adopted(make_row, noon, other):
    """Another owner, audience, name or role set, a short life, an earlier issue: not ours."""
    assert chosen([make_row(1, issued=-17), make_row(2, **other)], noon) is None


def test_a_token_that_lives_hardly_longer_is_better_than_none(make_row, noon):
    """One without objections comes first; a capped one that outlives ours is the last resort."""
    own, capped, good = make_row(1, issued=-17), make_row(2, lifetime=8.0), make_row(3)
    assert chosen([own, capped], noon) == 2
    assert chosen([own, capped, good], noon) == 3


def test_a_useless_answer_is_asked_anew_each_time_the_time_left_has_halved(predecessor, noon):
    """Eight hours before the expiry once, then at four, two, one ... and after it by the hour."""
    policy = RotationPolicy()
    found = [
        retry_generation(predecessor, policy, predecessor.expires_at - timedelta(hours=hours))
        for hours in (20, 8, 5, 4, 3, 2, 1, 0.5, 0.001, 0, -0.9, -1, -30)
    ]
    last = LAST_RETRY_GENERATION
    assert found == [0, 0, 0, 1, 1, 2, 3, 4, last, last, last, last + 1, last + 30]
    keys = {idempotency_key(predecessor, None, number) for number in found}
    assert len(keys) == len(set(found))


def test_without_a_row_of_the_token_itself_nothing_is_adopted(make_row, noon):
    """A history that does not know the token in use knows no successor of it."""
    predecessor = read_unverified(make_row(1, issued=-17).token)
    assert find_successors(predecessor, [make_row(2)]) == []


def test_a_row_without_a_readable_token_is_passed_over(make_row, noon):
    """FlowAuth in demo mode keeps a sentence in the place of a token."""
    sentence = replace(make_row(2), token=Token("This token is not shown in demo mode"))
    assert chosen([make_row(1, issued=-17), sentence, make_row(3)], noon) == 3


@pytest.mark.parametrize(("hours", "most", "word"), [(0.1, 6, "an hour"), (3.0, 24, "a day")])
def test_a_name_is_not_minted_without_end(make_row, noon, hours, most, word):
    """Six mints of a name an hour and 24 a day are the most, whoever asked for them."""
    rows = [make_row(number, issued=-hours) for number in range(most - 1)]
    others = [make_row(99, name="OTHER", issued=-hours)]
    check_budget("AIRFLOW", rows + others, noon)
    with pytest.raises(
        BudgetExhausted, match=f"{most} tokens with the name 'AIRFLOW' within {word}"
    ):
        check_budget("AIRFLOW", [*rows, make_row(98, issued=-hours)], noon)
    check_budget("AIRFLOW", [*rows, make_row(98, issued=-hours)], noon + DAY)
