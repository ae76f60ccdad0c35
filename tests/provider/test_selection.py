"""Which tokens a run reads, as a function of what the last checks found."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.monitoring.status import Event, TokenStatus
from flowauth_rotator.provider.managed_tokens import ManagedToken
from flowauth_rotator.provider.selection import (
    MOST_DUE,
    MOST_READ,
    get_entry,
    select_for_check,
    select_named,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INTERVAL = 15 * MINUTE


class Fleet:
    """Managed tokens and what the checks know of them, without Variables.

    Attributes:
        tokens: the managed tokens.
        known: the status of those that were read, by Variable.
    """

    def __init__(self, count):
        self.tokens = [ManagedToken(f"KEY_{number}") for number in range(count)]
        self.known = {}

    def know(self, token, *, at=NOON - DAY, severity=Severity.OK, due_in=5 * DAY, left=9 * DAY):
        """Record the result of a check of a token."""
        outcome = Outcome.HEALTHY if severity is Severity.OK else Outcome.MISCONFIGURED
        self.known[token.variable] = TokenStatus(
            f"name of {token.variable}",
            token.variable,
            settings=get_entry(token),
            renew_at=NOON + due_in,
            expires_at=NOON + left,
            last_check=Event(at, outcome, severity),
        )

    def select(self, now=NOON):
        return select_for_check(self.tokens, self.known, now, now + INTERVAL)

    def check(self, now=NOON, **facts):
        """Select the tokens of a check, and record that it has read them."""
        selected = self.select(now)
        for token in selected:
            self.know(token, at=now, **facts)
        return selected


@pytest.fixture
def fleet():
    """A thousand tokens that were all read a day ago, one after the other."""
    fleet = Fleet(1000)
    for number, token in enumerate(fleet.tokens):
        fleet.know(token, at=NOON - DAY + number * timedelta(seconds=1))
    return fleet


def test_up_to_a_hundred_tokens_are_all_read():
    fleet = Fleet(MOST_READ)
    assert fleet.check() == fleet.check() == fleet.tokens


def test_a_thousand_new_tokens_are_known_after_ten_checks():
    """A hundred in each, and none twice; then it starts again with the first."""
    fleet = Fleet(1000)
    read = [fleet.check(NOON + number * INTERVAL) for number in range(10)]
    assert {len(each) for each in read} == {MOST_READ}
    assert {token for each in read for token in each} == set(fleet.tokens)
    assert fleet.check(NOON + 10 * INTERVAL) == read[0]


def test_those_that_were_not_read_for_the_longest_time_are_next(fleet):
    assert fleet.select() == fleet.tokens[:MOST_READ]
    fleet.know(fleet.tokens[0], at=NOON)
    assert fleet.select() == fleet.tokens[1 : MOST_READ + 1]


def test_every_token_that_is_due_before_the_next_check_is_read(fleet):
    """However many there are, so that none is renewed later; an expired one waits for its turn."""
    due, later, expired = fleet.tokens[300:450], fleet.tokens[998], fleet.tokens[999]
    for token in due:
        fleet.know(token, at=NOON, due_in=INTERVAL)
    fleet.know(later, at=NOON, due_in=INTERVAL + MINUTE)
    fleet.know(expired, at=NOON, due_in=-2 * HOUR, left=timedelta(0))
    selected = fleet.select()
    assert set(due) < set(selected)
    assert not {later, expired} & set(selected)


def test_a_thousand_that_are_due_at_once_are_read_in_several_checks(fleet):
    """In one, the task would end at its timeout, and so would the next: none would be renewed."""
    for number, token in enumerate(fleet.tokens):
        fleet.know(token, due_in=-HOUR, left=DAY - number * MINUTE)
    selected = fleet.select()
    assert set(selected[:MOST_DUE]) == set(fleet.tokens[-MOST_DUE:])
    assert len(selected) == MOST_DUE
    for token in fleet.tokens[-MOST_DUE:]:
        fleet.know(token, at=NOON, due_in=-HOUR, left=HOUR, severity=Severity.WARNING)
    failed = set(fleet.tokens[-MOST_DUE:])
    assert not failed & set(fleet.select()[:MOST_DUE]), "failed renewals leave room for others"
    for token in fleet.tokens:
        fleet.know(token, due_in=-HOUR, severity=Severity.WARNING)
    read = {token for number in range(4) for token in fleet.check(NOON + number * INTERVAL)}
    assert read == set(fleet.tokens)


def test_what_has_expired_since_it_was_last_read_is_read(fleet):
    """After the DAG was paused for weeks: FlowAuth renews expired tokens, too."""
    later, read = NOON + 30 * DAY, set()
    for number in range(4):
        read |= set(fleet.check(later + number * INTERVAL, left=-DAY))
    assert read == set(fleet.tokens)
    assert len(fleet.select(later + 4 * INTERVAL)) == MOST_READ, "they wait for their turn now"


def test_copies_count_as_variables(fleet):
    """Each of them costs as much: also among the failed, which leave places for the others."""
    copied = [replace(each, also_variables=(f"{each.variable}_2",)) for each in fleet.tokens[:60]]
    fleet.tokens[:60] = copied
    for token in fleet.tokens:
        fleet.know(token)
    assert fleet.select() == fleet.tokens[: MOST_READ // 2]
    for token in copied:
        fleet.know(token, severity=Severity.CRITICAL)
    selected = fleet.select()
    assert set(selected) == {*copied[: MOST_READ // 4], *fleet.tokens[60 : 60 + MOST_READ // 2]}
    fleet.tokens = copied
    assert len(fleet.select()) == MOST_READ // 2


def test_new_tokens_and_changed_settings_come_before_the_others(fleet):
    """A description is not a setting of the renewal."""
    new, changed, described = ManagedToken("NEW"), fleet.tokens[998], fleet.tokens[999]
    fleet.tokens[998] = replace(changed, renew_before=HOUR)
    fleet.tokens[999] = replace(described, description="x")
    fleet.tokens.append(new)
    selected = fleet.select()
    assert {fleet.tokens[998], new} < set(selected)
    assert fleet.tokens[999] not in selected
    fleet.known[described.variable] = replace(fleet.known[described.variable], settings={})
    assert fleet.tokens[999] not in fleet.select(), "its entry was too large for its settings"
    assert len(selected) == MOST_READ


def test_failed_tokens_are_read_again_in_each_check(fleet):
    """So that a correction is seen at once."""
    failed = fleet.tokens[990:]
    for _ in range(3):
        for token in failed:
            fleet.know(token, at=NOON, severity=Severity.CRITICAL)
        assert set(failed) < set(fleet.select())


@pytest.mark.parametrize("problem", [{"severity": Severity.CRITICAL}, {"due_in": -HOUR}])
def test_however_many_fail_or_are_due_the_others_have_their_turn(fleet, problem):
    """Of 1,000 tokens 400 fail for days: a new one is read at once, each other within 12 checks."""
    troubled = set(fleet.tokens[:400])
    for token in troubled:
        fleet.know(token, **problem)
    fleet.tokens.append(ManagedToken("NEW"))
    read = set()
    for number in range(13):
        now = NOON + number * INTERVAL
        selected = fleet.select(now)
        for token in selected:
            fleet.know(token, at=now, **(problem if token in troubled else {}))
        if number == 0:
            assert fleet.tokens[-1] in selected
        read |= set(selected)
    assert set(fleet.tokens) - troubled <= read


def test_named_tokens_alone_are_read_if_all_names_are_known():
    """By Variable, by the name in the settings, or by that of the last check."""
    fleet = Fleet(3)
    first, second, third = fleet.tokens
    fleet.tokens[1] = second = replace(second, name="ETL")
    fleet.know(third)
    select = lambda *names: select_named(fleet.tokens, fleet.known, names)  # noqa: E731
    assert select("KEY_0", "ETL") == [first, second]
    assert select("name of KEY_2") == [third]
    assert select("KEY_0", "unknown") == fleet.tokens
