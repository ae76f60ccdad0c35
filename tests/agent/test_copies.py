"""Copies of a token in further stores."""

from datetime import datetime, timezone

import pytest

from flowauth_rotator.agent.copies import has_copies
from flowauth_rotator.agent.rehearsal import rehearse
from flowauth_rotator.agent.rotation import rotate
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.errors import ConflictingWrite, ShadowedStore, StoreUnavailable
from flowauth_rotator.core.limits import Outlook
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


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("The copy is away."), KeyError("a bug of the store")], ids=str
)
def test_an_outage_of_a_copy_does_not_stop_the_rotation(make_token, due, failure):
    """However long it lasts; the next run completes the copy, without a request."""
    fresh = make_token()
    store, copy = MemoryStore(due), FailingStore(due, failure)
    report = run(store, [copy], MemoryIssuer(fresh))
    assert (report.outcome, report.severity) == ("rotated", "warning")
    assert (store.token, copy.token) == (fresh, due)
    assert run(store, [copy], MemoryIssuer()).severity == "ok"
    assert copy.token == fresh


def test_an_outage_of_a_copy_is_retried_while_the_token_is_not_due(make_token):
    """By Airflow, before the next check; the other copies are completed at once."""
    token = make_token()
    lost = FailingStore(None, StoreUnavailable("The copy is away."))
    copies = [lost, MemoryStore()]
    with pytest.raises(StoreUnavailable) as failure:
        run(MemoryStore(token), copies, MemoryIssuer())
    assert failure.value.severity == "warning"
    assert failure.value.details.expires_at
    assert copies[1].token == token


@pytest.mark.parametrize("error", [StoreUnavailable("away"), KeyError("a bug of the store")])
def test_a_copy_that_cannot_be_read_is_not_complete(make_token, error):
    """A rotation finds out why, and no error of a copy keeps a check from reading the token."""

    class Unreadable(MemoryStore):
        def read(self):
            raise error

    token = make_token()
    assert not has_copies([MemoryStore(token), Unreadable()], token)
    assert has_copies([MemoryStore(token)], token)


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
    assert ("Store that token" if value == "later" else "Remove the value") in report.hint
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


def test_copies_of_a_token_that_is_not_due_may_fail_it(make_token):
    """Which names each, and keeps the dates of the token."""
    token = make_token()
    copies = [
        MemoryStore(Token("a password"), name="COPY_TOKEN"),
        FailingStore(None, ShadowedStore("The copy is shadowed.")),
        MemoryStore(),
    ]
    with pytest.raises(ConflictingWrite) as failure:
        run(MemoryStore(token), copies, MemoryIssuer())
    error = failure.value
    assert "contains something else" in error.message
    assert "The copy is shadowed." in error.message
    assert "take COPY_TOKEN out" in error.hint
    assert (error.severity, error.details.fingerprint) == ("warning", token.fingerprint)
    assert copies[2].token == token


class RehearsedIssuer(MemoryIssuer):
    """An issuer without anything to check."""

    def rehearse(self, token, claims):
        return Outlook()


class HollowStore(MemoryStore):
    """A store whose preflight needs a value, as those of Variables and secrets do."""

    def preflight(self):
        self.read()


def test_a_rehearsal_judges_copies_as_the_rotation_does(make_token):
    """One that is empty is filled then; a foreign value would be reported."""
    token, now = make_token(), datetime.now(timezone.utc)

    def run_rehearsal(copy):
        copies = [copy]
        return rehearse(
            MemoryStore(token), RehearsedIssuer(), RotationPolicy(), now=now, copies=copies
        )

    assert run_rehearsal(HollowStore()).outcome == "healthy"
    assert run_rehearsal(HollowStore(make_token(issued=-60))).outcome == "healthy"
    with pytest.raises(ConflictingWrite) as failure:
        run_rehearsal(HollowStore(make_token(sub="somebody"), name="COPY_TOKEN"))
    assert "COPY_TOKEN" in failure.value.hint
