import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flowauth_rotator.agent import rotation
from flowauth_rotator.agent.rotation import inspect_token
from flowauth_rotator.agent.stores import MemoryStore
from flowauth_rotator.core.clock import ClockReading
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    BudgetExhausted,
    Capped,
    ConflictingWrite,
    ExpiredToken,
    IssuerUnavailable,
    MalformedToken,
    Misconfigured,
    MissingToken,
    Refused,
    Rejected,
    RotatorError,
    ShadowedStore,
    StoreUnavailable,
)
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.report import Outcome, Severity
from flowauth_rotator.core.succession import History, RenewalResponse, Row, idempotency_key
from flowauth_rotator.core.tokens import PublicKey, Token, read_unverified
from proofs.timer import InstantTimer

rotate = partial(rotation.rotate, timer=InstantTimer())

POLICY = RotationPolicy()


class MemoryIssuer:
    """An issuer of this process: `answers` are tokens to answer with, or errors to raise."""

    time = None

    def __init__(self, *answers, rows=()):
        self.answers = list(answers)
        self.history = list(rows)
        self.keys = []

    @property
    def clock(self):
        return ClockReading(self.time, time.monotonic()) if self.time else None

    def rows(self, claims):
        return History(self.history, self.clock)

    def renew(self, token, row, *, key, lifetime_minutes):
        self.keys.append(key)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return RenewalResponse(answer, clock=self.clock)

    def close(self):
        pass


@pytest.fixture
def now():
    """This moment."""
    return datetime.now(timezone.utc)


@pytest.fixture
def due(make_token):
    """A one-hour token, issued 45 minutes ago."""
    return make_token(issued=-2700)


@pytest.fixture
def row_of():
    """A token's row in the history."""

    def make(number, token, name="AIRFLOW"):
        return Row(number, name, "flowbot", "TEST_SERVER", frozenset({"viewer"}), token)

    return make


def test_a_healthy_token_costs_no_request(make_token, now):
    """The report says when the renewal is due, and that is all."""
    store, issuer = MemoryStore(make_token()), MemoryIssuer()
    report = rotate(store, issuer, POLICY, now=now)
    assert (report.outcome, report.renewal_requests, report.severity) == ("healthy", 0, "ok")
    assert report.renew_at > now
    assert report.successor_expires_at is None


def test_a_token_from_the_future_tells_of_a_clock_that_is_behind(make_token, now):
    """Nobody is asked, and somebody should look at the clock."""
    report = rotate(MemoryStore(make_token(issued=3600)), MemoryIssuer(), POLICY, now=now)
    assert (report.outcome, report.severity, report.renewal_requests) == ("healthy", "warning", 0)
    assert "behind the issuer's. The token was issued in the future" in str(report)
    assert (
        rotate(MemoryStore(make_token(issued=60)), MemoryIssuer(), POLICY, now=now).severity == "ok"
    )


def test_a_due_token_is_renewed_verified_swapped_and_reported(due, make_token, now):
    """The successor is in the store, described, and the report tells the overlap."""
    store, successor = MemoryStore(due), make_token()
    report = rotate(store, MemoryIssuer(successor), POLICY, now=now, name="AIRFLOW")
    assert store.token == successor
    assert (report.name, report.outcome, report.renewal_requests) == ("AIRFLOW", "rotated", 1)
    assert report.overlap == pytest.approx(timedelta(minutes=15), abs=timedelta(seconds=2))
    assert store.description.startswith("FlowAPI token AIRFLOW, expires 20")
    assert store.description.endswith("UTC, renewed by flowauth-rotator")


def test_the_operators_description_is_written(due, make_token, now):
    """What the operator says about the Variable stays."""
    store = MemoryStore(due)
    rotate(store, MemoryIssuer(make_token()), POLICY, now=now, description="ask Jo")
    assert store.description == "ask Jo"


@pytest.mark.parametrize(
    ("given", "claim", "expected"),
    [
        ("GIVEN", None, "GIVEN"),
        ("GIVEN", "GIVEN", "GIVEN"),
        (None, "CLAIM", "CLAIM"),
        (None, None, "token"),
    ],
)
def test_a_token_is_called_by_its_name(make_token, now, given, claim, expected):
    """The name that was given, or the JWT's own, or that of the place."""
    claims = {"token_name": claim} if claim else {}
    found = inspect_token(MemoryStore(make_token(**claims)), POLICY, now=now, name=given)
    assert found.report.name == expected


@pytest.mark.parametrize(("given", "expected"), [(None, "AIRFLOW"), ("GIVEN", "GIVEN")])
def test_the_issuers_name_is_learnt_from_its_row(due, make_token, row_of, now, given, expected):
    """FlowAuth's tokens carry no name; one that an operator has given stays."""
    issuer = MemoryIssuer(make_token(), rows=[row_of(1, due)])
    store = MemoryStore(due)
    report = rotate(store, issuer, POLICY, now=now, name=given)
    assert (report.name, report.name_is_known) == (expected, True)
    assert store.description.startswith(f"FlowAPI token {expected}, expires")


def test_a_failure_after_the_row_was_seen_has_the_issuers_name(due, row_of, now):
    """So that the alert has the name by which the issuer's administrator knows the token."""
    refusal = Refused("It said no.", issuer_message="no", status=400)
    issuer = MemoryIssuer(refusal, rows=[row_of(1, due)])
    with pytest.raises(Refused) as refused:
        rotate(MemoryStore(due), issuer, POLICY, now=now)
    report = refused.value.report(name="token", place="there", checked_at=now)
    assert (report.name, report.name_is_known) == ("AIRFLOW", True)


def test_without_a_row_the_name_stays_unknown(due, make_token, now):
    """The report says so; the name of the place stands in."""
    report = rotate(MemoryStore(due), MemoryIssuer(make_token()), POLICY, now=now)
    assert (report.name, report.name_is_known) == ("token", False)


def test_another_name_than_the_tokens_own_is_an_error(make_token, now):
    """A token of another name in the Variable is not rotated under this one."""
    with pytest.raises(Misconfigured, match="has the name 'OTHER', not 'AIRFLOW'"):
        inspect_token(MemoryStore(make_token(token_name="OTHER")), POLICY, now=now, name="AIRFLOW")


@pytest.mark.parametrize(
    ("token", "error"), [(None, MissingToken), (Token("Bearer x"), MalformedToken)]
)
def test_what_cannot_be_read_costs_no_request(now, token, error):
    """Nothing to renew, nothing asked, nothing written."""
    store, issuer = MemoryStore(token), MemoryIssuer()
    with pytest.raises(error) as failure:
        rotate(store, issuer, POLICY, now=now)
    assert failure.value.severity is Severity.CRITICAL
    assert (issuer.keys, store.token) == ([], token)


def test_a_shadowed_store_is_found_before_anything_is_minted(due, now):
    """A write that nobody would see is not worth a token."""

    class Shadowed(MemoryStore):
        def preflight(self):
            raise ShadowedStore("It is set in the environment.")

    issuer = MemoryIssuer()
    with pytest.raises(ShadowedStore):
        rotate(Shadowed(due), issuer, POLICY, now=now)
    assert issuer.keys == []


def test_a_successor_that_exists_is_adopted(due, make_token, row_of, now):
    """After a crash between renewal and swap the next run takes the token that is there."""
    successor = make_token()
    issuer = MemoryIssuer(rows=[row_of(1, due), row_of(2, successor)])
    store = MemoryStore(due)
    report = rotate(store, issuer, POLICY, now=now)
    assert (report.outcome, report.renewal_requests, store.token) == ("adopted", 0, successor)


def test_an_ambiguous_answer_is_followed_by_a_look(due, make_token, row_of, now):
    """The lost answer's token is found in the history: no second one is asked for."""
    successor = make_token()

    class Losing(MemoryIssuer):
        def renew(self, *args, **kwargs):
            self.history.append(row_of(2, successor))
            return super().renew(*args, **kwargs)

    issuer = Losing(AmbiguousResponse("lost"), rows=[row_of(1, due)])
    report = rotate(MemoryStore(due), issuer, POLICY, now=now)
    assert (report.outcome, report.renewal_requests) == ("adopted", 1)


def test_a_second_request_carries_the_same_key(due, make_token, row_of, now):
    """When nothing is found the renewal is repeated, not made anew."""
    issuer = MemoryIssuer(AmbiguousResponse("lost"), make_token(), rows=[row_of(1, due)])
    report = rotate(MemoryStore(due), issuer, POLICY, now=now)
    assert (report.outcome, report.renewal_requests) == ("rotated", 2)
    assert issuer.keys == [idempotency_key(read_unverified(due), None)] * 2


def test_the_budget_bounds_what_is_minted(due, make_token, row_of, now):
    """Six tokens of a name in the issuer's history of this hour: no seventh is asked for."""
    spent = [row_of(number, make_token(issued=-1800, lifetime=60)) for number in range(2, 8)]
    issuer = MemoryIssuer(rows=[row_of(1, due), *spent])
    with pytest.raises(BudgetExhausted):
        rotate(MemoryStore(due), issuer, POLICY, now=now)
    assert issuer.keys == []


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"sub": "root"}, "`sub`"),
        ({"aud": "PRODUCTION"}, "`aud`"),
        ({"user_claims": {"viewer": [], "admin": []}}, "roles"),
        ({"issued": 3600}, "not valid yet"),
        ({"key": "s" * 32, "algorithm": "HS256"}, "family of algorithms"),
    ],
)
def test_a_wrong_successor_is_not_written(due, make_token, now, claims, words):
    """The token in use stays, and the report says what was wrong with the answer."""
    store = MemoryStore(due)
    with pytest.raises(Rejected, match=words) as rejected:
        rotate(store, MemoryIssuer(make_token(**claims)), POLICY, now=now)
    assert store.token == due
    assert rejected.value.violations


def test_the_same_token_and_no_token_are_not_written(due, now):
    """An issuer that answers with what we have, or with anything, changes nothing."""
    for answer in (due, Token("welcome!"), Token("a.b.c")):
        store = MemoryStore(due)
        with pytest.raises(Rejected):
            rotate(store, MemoryIssuer(answer), POLICY, now=now)
        assert store.token == due


def test_a_signature_is_verified_when_the_key_is_known(due, make_token, signing_key, now):
    """A token of another key is rejected, one of the issuer's is swapped in."""
    pem = signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = make_token(key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    store, genuine = MemoryStore(due), make_token()
    with pytest.raises(Rejected, match="signature"):
        rotate(
            store,
            MemoryIssuer(forged),
            POLICY,
            now=now,
            public_key=partial(PublicKey, pem.decode()),
        )
    assert store.token == due
    rotate(
        store, MemoryIssuer(genuine), POLICY, now=now, public_key=partial(PublicKey, pem.decode())
    )
    assert store.token == genuine


def test_a_public_key_that_is_none_is_found_before_anything_is_minted(due, make_token, now):
    """A wrong setting costs no token."""
    issuer = MemoryIssuer(make_token())
    with pytest.raises(Misconfigured, match="public key"):
        rotate(MemoryStore(due), issuer, POLICY, now=now, public_key=partial(PublicKey, "no key"))
    assert issuer.keys == []


@pytest.mark.parametrize("lifetime", [60, 899])
def test_a_token_that_lives_no_longer_is_not_swapped_in(due, make_token, now, lifetime):
    """A capped issuer never makes things worse."""
    store = MemoryStore(due)
    with pytest.raises(Capped, match="too little"):
        rotate(store, MemoryIssuer(make_token(lifetime=lifetime)), POLICY, now=now)
    assert store.token == due


def test_a_token_that_lives_hardly_longer_is_swapped_in_and_named(due, make_token, now):
    """Better than nothing, once, and a person is told."""
    store, successor = MemoryStore(due), make_token(lifetime=960)
    report = rotate(store, MemoryIssuer(successor), POLICY, now=now)
    assert store.token == successor
    assert (report.outcome, report.severity) == ("capped", "warning")
    assert "administrator" in report.hint


@pytest.mark.parametrize(
    ("issued", "severity"), [(-2700, "warning"), (-3300, "critical"), (-3700, "critical")]
)
def test_a_failure_is_as_severe_as_time_is_short(make_token, now, issued, severity):
    """A warning while the token is merely due, critical from a tenth of its lifetime on."""
    issuer = MemoryIssuer(*[IssuerUnavailable("down")] * 3)
    with pytest.raises(IssuerUnavailable) as failure:
        rotate(MemoryStore(make_token(issued=issued)), issuer, POLICY, now=now)
    assert failure.value.severity == severity


class TaskEnded(BaseException):
    """What ends a task from outside, as Airflow's timeout does."""


@pytest.mark.parametrize(("issued", "severity"), [(-2700, "warning"), (-3500, "critical")])
@pytest.mark.parametrize("place", ["issuer", "on_token"])
def test_what_ends_a_task_leaves_as_it_is_with_what_was_known(
    make_token, now, issued, severity, place
):
    """Severity and token, as of any other failure."""
    token = make_token(issued=issued, token_name="NIGHTLY")
    end = TaskEnded()

    def stop(*_, **options):
        raise end

    issuer, options = MemoryIssuer(), {"on_token": stop}
    if place == "issuer":
        issuer.rows, options = stop, {}
    with pytest.raises(TaskEnded) as ended:
        rotate(MemoryStore(token), issuer, POLICY, now=now, **options)
    assert ended.value is end
    assert (end.severity, end.details.name) == (severity, "NIGHTLY")
    assert end.details.fingerprint == token.fingerprint


def test_a_failure_to_mask_a_token_is_as_severe_as_any(due, now):
    """It is of another library, and happens before a request."""

    def fail(token):
        raise ValueError

    with pytest.raises(RotatorError) as failed:
        rotate(MemoryStore(due), MemoryIssuer(), POLICY, now=now, on_token=fail)
    assert failed.value.severity == Severity.WARNING
    assert failed.value.details.fingerprint == due.fingerprint


def test_an_expired_token_is_renewed_where_the_issuer_does(make_token, now):
    """A sign-in may bring it back to life."""
    store, successor = MemoryStore(make_token(issued=-7200)), make_token()
    report = rotate(store, MemoryIssuer(successor), POLICY, now=now)
    assert (report.outcome, report.overlap, store.token) == ("rotated", timedelta(0), successor)


def test_an_expired_token_that_is_refused_is_said_to_be_expired(make_token, now):
    """One request, then the hint to mint anew, with the issuer's words."""
    issuer = MemoryIssuer(Refused("It said no.", issuer_message="no", status=400))
    with pytest.raises(ExpiredToken, match=r"It said no\. Mint a new token"):
        rotate(MemoryStore(make_token(issued=-7200)), issuer, POLICY, now=now)
    refusal = Refused(
        "Sign-in failed.", issuer_message="", status=401, hint="Correct the password."
    )
    with pytest.raises(ExpiredToken, match=r"Sign-in failed\. Correct the password\."):
        rotate(MemoryStore(make_token(issued=-7200)), MemoryIssuer(refusal), POLICY, now=now)


class Meddled(MemoryStore):
    """A store in which somebody else writes just before our n-th read."""

    def __init__(self, token, value, *, before_read):
        super().__init__(token)
        self.value, self.reads_left = value, before_read

    def read(self):
        self.reads_left -= 1
        if self.reads_left == 0:
            self.token = self.value
        return super().read()


@pytest.mark.parametrize("before_read", [2, 3], ids=["before our write", "after our write"])
def test_an_operators_fresh_paste_wins(due, make_token, now, before_read):
    """A good token that somebody stored meanwhile stays, and the report says so."""
    paste = make_token(lifetime=7200)
    store = Meddled(due, paste, before_read=before_read)
    report = rotate(store, MemoryIssuer(make_token()), POLICY, now=now)
    assert (report.outcome, report.severity, store.token) == ("superseded", "ok", paste)


@pytest.mark.parametrize("before_read", [2, 3], ids=["before our write", "after our write"])
@pytest.mark.parametrize("value", [None, Token("garbage")])
def test_a_foreign_value_is_left_alone_and_reported(due, make_token, now, before_read, value):
    """What is no better than before is a conflict, and still not overwritten."""
    store = Meddled(due, value, before_read=before_read)
    with pytest.raises(ConflictingWrite):
        rotate(store, MemoryIssuer(make_token()), POLICY, now=now)
    assert store.token == value


def test_an_older_token_in_the_place_is_a_conflict(due, make_token, now):
    """Somebody restored a token that expires sooner: not taken for a good one."""
    store = Meddled(due, make_token(issued=-3000), before_read=2)
    with pytest.raises(ConflictingWrite, match="not later than"):
        rotate(store, MemoryIssuer(make_token()), POLICY, now=now)


class Failing(MemoryStore):
    """A store whose writes raise, written or not."""

    def __init__(self, token, *, written):
        super().__init__(token)
        self.written = written

    def write(self, token, description):
        if self.written:
            super().write(token, description)
        raise StoreUnavailable("The answer was lost.")


def test_a_write_that_raised_may_have_been_written(due, make_token, now):
    """It is read back before anything else: the rotation succeeded."""
    successor = make_token()
    store = Failing(due, written=True)
    assert rotate(store, MemoryIssuer(successor), POLICY, now=now).outcome is Outcome.ROTATED
    assert store.token == successor


def test_a_write_that_failed_is_retryable_and_loses_nothing(due, make_token, row_of, now):
    """The old token is still in use, and the next run adopts the successor."""
    successor = make_token()
    issuer = MemoryIssuer(successor, rows=[row_of(1, due)])
    with pytest.raises(StoreUnavailable) as failure:
        rotate(Failing(due, written=False), issuer, POLICY, now=now)
    assert failure.value.retryable
    issuer.history.append(row_of(2, successor))
    store = MemoryStore(due)
    assert rotate(store, issuer, POLICY, now=now).outcome is Outcome.ADOPTED
    assert store.token == successor


def test_a_write_that_is_accepted_and_not_seen_is_shadowed(due, make_token, now):
    """Only a read-back proves a write."""

    class Hidden(MemoryStore):
        def write(self, token, description):
            pass

    with pytest.raises(ShadowedStore, match="returns the old token"):
        rotate(Hidden(due), MemoryIssuer(make_token()), POLICY, now=now)


def test_no_error_chains_what_holds_a_secret(due, make_token, now):
    """Whatever a failure was raised in the course of tells no more than itself."""
    for answer in (due, Token("x"), Token("a.b.c"), make_token(sub="x")):
        with pytest.raises(RotatorError) as failure:
            rotate(MemoryStore(due), MemoryIssuer(answer), POLICY, now=now)
        assert failure.value.__cause__ is None
        assert failure.value.__context__ is None


def test_a_failure_tells_what_was_known_of_the_token(make_token, now):
    """Its name, its expiry and the requests that were made are in the report."""
    due = make_token(issued=-2700, token_name="NIGHTLY")
    issuer = MemoryIssuer(Refused("It said no.", issuer_message="no", status=400))
    with pytest.raises(Refused) as refused:
        rotate(MemoryStore(due), issuer, POLICY, now=now)
    report = refused.value.report(name="Variable", place="there", checked_at=now)
    assert (report.name, report.outcome, report.severity) == ("NIGHTLY", "refused", "warning")
    assert report.predecessor_expires_at == read_unverified(due).expires_at
    assert report.renewal_requests == 1


def test_every_token_that_is_handled_is_told_first(due, make_token, row_of, now):
    """Who masks secrets learns of the old token and of each that may succeed it."""
    adopted, renewed = make_token(), make_token()
    for issuer in (
        MemoryIssuer(rows=[row_of(1, due), row_of(2, adopted)]),
        MemoryIssuer(renewed),
        MemoryIssuer(make_token(sub="root")),
    ):
        told = []
        store = MemoryStore(due)
        with suppress(Rejected):
            rotate(store, issuer, POLICY, now=now, on_token=told.append)
        assert told[0] == due
        assert len(told) == 2
        assert store.token in told


def test_a_sibling_signed_by_another_key_is_passed_over(due, make_token, row_of, signing_key, now):
    """It is not adopted, and it does not keep the issuer from being asked."""
    pem = signing_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forged = make_token(key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    genuine = make_token()
    issuer = MemoryIssuer(genuine, rows=[row_of(1, due), row_of(2, forged)])
    late = now + timedelta(minutes=8)  # the time left has halved since the token became due
    store = MemoryStore(due)
    rotate(store, issuer, POLICY, now=late, public_key=partial(PublicKey, pem.decode()))
    assert store.token == genuine


def test_a_capped_successor_that_exists_is_not_asked_for_again(due, make_token, row_of, now):
    """One that lives hardly longer is taken from the history, whatever became of its swap."""
    capped = make_token(lifetime=960)
    issuer = MemoryIssuer(rows=[row_of(1, due), row_of(2, capped)])
    store = MemoryStore(due)
    report = rotate(store, issuer, POLICY, now=now)
    assert (report.outcome, report.renewal_requests, store.token) == ("capped", 0, capped)


def test_tokens_minted_by_hand_are_no_answers(make_token, row_of, now):
    """However many short-lived ones an operator made before: the renewal is asked for at once."""
    due = make_token(issued=-2700)
    by_hand = [row_of(n, make_token(issued=-2600 + n, lifetime=300)) for n in range(2, 6)]
    store, successor = MemoryStore(due), make_token()
    issuer = MemoryIssuer(successor, rows=[row_of(1, due), *by_hand])
    report = rotate(store, issuer, POLICY, now=now)
    assert (report.outcome, store.token) == ("rotated", successor)


def test_an_issuer_that_ignores_the_key_mints_once_a_run(due, make_token, row_of, now):
    """However useless its answers and however late it is."""
    late = now + timedelta(minutes=14)
    old = {"issued": -7200, "lifetime": 7260}
    issuer = MemoryIssuer(*[make_token(**old) for _ in range(9)], rows=[row_of(1, due)])
    with pytest.raises(Capped):
        rotate(MemoryStore(due), issuer, POLICY, now=late)
    assert len(issuer.keys) == 1


@pytest.mark.parametrize("trouble", ["refused", "down"])
def test_a_better_token_in_hand_is_not_thrown_away(due, make_token, row_of, now, trouble):
    """A capped successor that exists is swapped in when asking for more fails."""
    error = {
        "refused": Refused("No.", issuer_message="no", status=401),
        "down": IssuerUnavailable("It is down."),
    }[trouble]
    capped = make_token(lifetime=960)
    late = now + timedelta(minutes=8)  # time to ask anew
    issuer = MemoryIssuer(*[error] * 3, rows=[row_of(1, due), row_of(2, capped)])
    store = MemoryStore(due)
    assert rotate(store, issuer, POLICY, now=late).outcome is Outcome.CAPPED
    assert store.token == capped


class SlowIssuer(MemoryIssuer):
    """An issuer that answers late, by its own clock."""

    def renew(self, *args, **options):
        self.time = self.moment
        return super().renew(*args, **options)


def test_a_slow_rotation_takes_no_successor_for_one_of_the_future(make_token, due, now):
    """Minted three minutes after the beginning, when at last it was answered: good."""
    issuer = SlowIssuer(make_token(issued=180))
    issuer.moment = now + timedelta(seconds=181)
    report = rotate(MemoryStore(due), issuer, POLICY, now=now)
    assert (report.outcome, report.clock_skew) == ("rotated", 181)


def test_a_row_that_nobody_can_read_counts_as_an_answer(make_token, due, row_of, now):
    """What the issuer spoilt since the renewal was due is not asked for again at once."""
    issuer = MemoryIssuer(make_token(), rows=[row_of(1, due), row_of(2, Token("spoilt"))])
    with pytest.raises(Rejected, match="cannot be decoded"):
        rotate(MemoryStore(due), issuer, POLICY, now=now)
    assert issuer.keys == []
    later = now + timedelta(minutes=8)  # the time left has halved
    assert rotate(MemoryStore(due), issuer, POLICY, now=later).outcome == "rotated"


@pytest.fixture
def fresh(make_token):
    """A one-hour token, issued ten minutes ago, that is not due for half an hour."""
    return make_token(issued=-600)


def test_a_renewal_that_is_forced_need_not_be_due(fresh, make_token, now):
    """The successor may expire hardly later, and the report says by how much."""
    store, successor = MemoryStore(fresh), make_token(lifetime=3001)
    report = rotate(store, MemoryIssuer(successor), POLICY, now=now, force=now)
    assert (report.outcome, report.severity, store.token) == ("rotated", "ok", successor)
    assert "later." in report.message


def test_a_forced_renewal_asks_with_the_same_key(fresh, make_token, now):
    """Whoever forces it at the same time is answered with the same successor."""
    issuers = MemoryIssuer(make_token()), MemoryIssuer(make_token())
    for issuer in issuers:
        rotate(MemoryStore(fresh), issuer, POLICY, now=now, force=now)
    assert issuers[0].keys == issuers[1].keys == [idempotency_key(read_unverified(fresh), None)]


def test_what_was_made_since_a_renewal_was_forced_is_the_answer(fresh, make_token, now):
    """A second try of the same run, or a second click, renews nothing more."""
    store, issuer = MemoryStore(fresh), MemoryIssuer(make_token(issued=2))
    rotate(store, issuer, POLICY, now=now, force=now)
    report = rotate(store, MemoryIssuer(), POLICY, now=now, force=now)
    assert (report.outcome, report.renewal_requests) == ("healthy", 0)
    assert report.message.startswith(
        "It was issued after this renewal was requested. Renewal is due"
    )


def test_a_successor_of_a_forced_renewal_that_was_lost_is_adopted(fresh, make_token, row_of, now):
    """Also where it expires hardly later: a crash before the swap costs no second one."""
    successor = make_token(lifetime=3001)
    issuer = MemoryIssuer(rows=[row_of(1, fresh), row_of(2, successor)])
    store = MemoryStore(fresh)
    report = rotate(store, issuer, POLICY, now=now, force=now)
    assert (report.outcome, report.renewal_requests, store.token) == ("adopted", 0, successor)


def test_an_older_sibling_is_no_answer_to_a_forced_renewal(make_token, row_of, now):
    """One that expires hardly later and was there before is what nobody asked for."""
    fresh, sibling = make_token(issued=-1200), make_token(issued=-1190)
    issuer = MemoryIssuer(make_token(), rows=[row_of(1, fresh), row_of(2, sibling)])
    report = rotate(MemoryStore(fresh), issuer, POLICY, now=now, force=now)
    assert (report.outcome, report.renewal_requests) == ("rotated", 1)


def test_a_forced_renewal_that_gains_nothing_is_told_once(fresh, make_token, row_of, now):
    """The issuer's latest expiry stands in the way: one request, and the token in use stays."""
    store = MemoryStore(fresh)
    issuer = MemoryIssuer(make_token(lifetime=3000), rows=[row_of(1, fresh)])
    with pytest.raises(Capped, match="grants too little") as capped:
        rotate(store, issuer, POLICY, now=now, force=now)
    assert (len(issuer.keys), store.token) == (1, fresh)
    assert (capped.value.severity, capped.value.retryable) == (Severity.WARNING, False)


def test_a_forced_renewal_keeps_to_the_budget(fresh, make_token, row_of, now):
    """However often somebody asks for it."""
    spent = [row_of(number, make_token(issued=-700, lifetime=60)) for number in range(2, 8)]
    issuer = MemoryIssuer(rows=[row_of(1, fresh), *spent])
    with pytest.raises(BudgetExhausted):
        rotate(MemoryStore(fresh), issuer, POLICY, now=now, force=now)
    assert issuer.keys == []


def test_a_forced_renewal_does_not_ask_the_clocks(make_token, now):
    """They decide what is due, and that is not the question."""
    old = make_token(issued=-2700)
    issuer = MemoryIssuer(make_token())
    issuer.time = now - timedelta(minutes=30)
    assert rotate(MemoryStore(old), issuer, POLICY, now=now).outcome == "healthy"
    issuer = MemoryIssuer(make_token())
    issuer.time = now - timedelta(minutes=30)
    assert rotate(MemoryStore(old), issuer, POLICY, now=now, force=now).outcome == "rotated"
