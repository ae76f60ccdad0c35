"""Copies of a token in further stores."""

from datetime import datetime, timezone

import pytest

from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import ShadowedStore, StoreUnavailable
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import Token
from tests.agent.test_rotation import MemoryIssuer


class Crash(BaseException):
    """The end of the process."""


class FailingStore(MemoryStore):
    """A store that fails when it is written, as often as there are failures."""

    def __init__(self, token=None, *failures, name="copy"):
        super().__init__(token, name=name)
        self.failures = list(failures)

    def write(self, token, description):
        if self.failures:
            raise self.failures.pop(0)
        super().write(token, description)


def run(store, copies, issuer):
    now = datetime.now(timezone.utc)
    return rotate(store, issuer, RotationPolicy(), now=now, copies=copies)


@pytest.fixture
def due(make_token):
    return make_token(issued=-3000)


@pytest.mark.parametrize("crashing", range(4))
def test_the_next_run_completes_copies_with_one_mint(make_token, due, crashing):
    """After a crash at the first, second or third copy, or at the token itself."""
    fresh = make_token()
    stores = [FailingStore(due) for _ in range(4)]
    stores[crashing].failures = [Crash()]
    store, copies = stores[3], stores[:3]
    issuer = MemoryIssuer(fresh, fresh)  # the second request has the same key: a replay
    with pytest.raises(Crash):
        run(store, copies, issuer)
    assert store.token == due
    assert run(store, copies, issuer).outcome == "rotated"
    assert {each.token for each in stores} == {fresh}
    assert len(set(issuer.keys)) == 1


def test_an_outage_of_a_copy_is_retried_before_the_token_is_swapped(make_token, due):
    """The next attempt completes it with the same successor."""
    fresh = make_token()
    store, copy = MemoryStore(due), FailingStore(due, StoreUnavailable("The copy is away."))
    issuer = MemoryIssuer(fresh, fresh)
    with pytest.raises(StoreUnavailable) as failure:
        run(store, [copy], issuer)
    assert (store.token, failure.value.severity) == (due, "warning")
    run(store, [copy], issuer)
    assert store.token == copy.token == fresh


@pytest.mark.parametrize("value", ["text", "other owner", "later"])
def test_a_foreign_value_of_a_copy_stays_and_is_reported(make_token, due, value):
    """The token is renewed nevertheless."""
    foreign = {
        "text": Token("a password"),
        "other owner": make_token(issued=-3000, sub="somebody"),
        "later": make_token(lifetime=7200),
    }[value]
    store, copy = MemoryStore(due), MemoryStore(foreign, name="COPY_TOKEN")
    report = run(store, [copy], MemoryIssuer(make_token()))
    assert (report.outcome, report.severity) == ("rotated", "warning")
    assert "take COPY_TOKEN out of `also_variables`" in report.hint
    assert copy.token == foreign
    assert store.token != due


def test_a_copy_that_cannot_be_written_does_not_stop_the_rotation(make_token, due):
    """Its error is the hint of the report."""
    store, copy = MemoryStore(due), FailingStore(due, ShadowedStore("The copy is shadowed."))
    report = run(store, [copy], MemoryIssuer(make_token()))
    assert (report.outcome, report.severity) == ("rotated", "warning")
    assert "The copy is shadowed." in report.hint


def test_a_copy_whose_write_has_no_effect_is_reported(make_token, due):
    """It still returns the old token."""

    class Shadowed(MemoryStore):
        def write(self, token, description):
            pass

    report = run(MemoryStore(due), [Shadowed(due)], MemoryIssuer(make_token()))
    assert "succeeded, but reading it returns another value" in report.hint


def test_copies_of_a_token_that_is_not_due_are_completed(make_token):
    """One that is missing and one with an earlier token get it, without a request."""
    token = make_token()
    copies = [MemoryStore(), MemoryStore(make_token(issued=-60)), MemoryStore(token)]
    report = run(MemoryStore(token), copies, MemoryIssuer())
    assert (report.outcome, report.severity) == ("healthy", "ok")
    assert {copy.token for copy in copies} == {token}
