"""The agent against the real blueprint, over a real socket."""

import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import partial

import jwt
import pytest

from flowauth_rotator.agent import rotation
from flowauth_rotator.agent.bearer import BearerIssuer
from flowauth_rotator.agent.flowauth import SessionIssuer
from flowauth_rotator.agent.stores import FileStore, MemoryStore
from flowauth_rotator.core.errors import (
    AmbiguousResponse,
    Capped,
    ConflictingWrite,
    ExpiredToken,
    Misconfigured,
    Refused,
    RotatorError,
)
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import PublicKey, Token, read_unverified
from proofs.timer import InstantTimer

rotate = partial(rotation.rotate, timer=InstantTimer())

NAME = "AIRFLOW"
POLICY = RotationPolicy()


@pytest.fixture
def due(renewal_server):
    """An hour's token that was minted 45 minutes ago."""
    return Token(renewal_server.mint(NAME, issued_at=int(time.time()) - 2700))


@pytest.fixture(params=["session", "bearer"])
def issuer(request, renewal_server):
    """The server, asked in each of the two ways."""
    with closing(issuer_of(request.param, renewal_server)) as issuer:
        yield issuer


@pytest.fixture
def session(renewal_server):
    """The server, signed in to as flowbot."""
    with closing(issuer_of("session", renewal_server)) as issuer:
        yield issuer


def issuer_of(kind, server):
    if kind == "bearer":
        return BearerIssuer(server.url, timeout=10)
    return SessionIssuer(server.url, server.username, server.password, timeout=10)


def now():
    return datetime.now(timezone.utc)


def renewals(server):
    return [request for request in server.requests if request.endswith("/renew")]


def test_a_healthy_token_asks_nobody_anything(renewal_server, issuer):
    """Not even a sign-in reaches the server."""
    store = MemoryStore(Token(renewal_server.mint(NAME)))
    report = rotate(store, issuer, POLICY, now=now())
    assert (report.outcome, renewal_server.requests) == ("healthy", [])


def test_a_due_token_is_swapped_for_one_with_the_same_name_and_roles(renewal_server, issuer, due):
    """A new row with the same name and roles and a different JWT, and the old row untouched."""
    [before] = renewal_server.rows(NAME)
    store = MemoryStore(due)
    report = rotate(store, issuer, POLICY, now=now())
    old, new = read_unverified(due), read_unverified(store.token)
    assert (report.outcome, report.name) == ("rotated", NAME)
    assert store.token != due
    assert new.roles == old.roles == {"runner", "viewer"}
    assert new.expires_at > old.expires_at
    assert len(renewals(renewal_server)) == 1
    kept, added = renewal_server.rows(NAME)
    assert kept == before
    assert (added.name, added.parent_id) == (NAME, before.id)
    assert {role.name for role in added.roles} == {role.name for role in before.roles}


def test_both_tokens_verify_during_the_overlap(renewal_server, issuer, due):
    """What was in use stays valid until its own expiry: FlowAPI accepts both by the public key."""
    store = MemoryStore(due)
    key = PublicKey(renewal_server.public_key_pem)
    rotate(store, issuer, POLICY, now=now(), public_key=lambda: key)
    for token in (due, store.token):
        claims = jwt.decode(
            token.reveal(),
            renewal_server.public_key_pem,
            algorithms=["RS256"],
            audience=renewal_server.audience,
        )
        assert claims["sub"] == renewal_server.username


def test_a_lifetime_that_is_asked_for_is_granted(renewal_server, issuer, due):
    """Two hours are asked for and two hours are given."""
    store = MemoryStore(due)
    report = rotate(store, issuer, RotationPolicy(lifetime_minutes=120), now=now())
    assert read_unverified(store.token).lifetime == timedelta(hours=2)
    assert report.longest_minutes is None


def test_the_report_says_what_the_issuer_grants_at_most(renewal_server, issuer, due):
    """When it was asked for its maximum, which is that of the role that permits the least."""
    renewal_server.limit("runner", minutes=900)
    report = rotate(MemoryStore(due), issuer, POLICY, now=now())
    assert report.longest_minutes == 900
    assert report.newest_issued_expires_at == report.successor_expires_at


def test_the_report_says_what_was_issued_and_not_put_to_use(renewal_server, issuer, due):
    """Here since somebody else stored another token meanwhile."""
    by_hand = Token(renewal_server.mint("BY_HAND", lifetime_minutes=5))
    store = MemoryStore(due)
    seen = []

    def paste(token):
        seen.append(token)
        if len(seen) == 2:
            store.token = by_hand

    with pytest.raises(ConflictingWrite) as raised:
        rotate(store, issuer, POLICY, now=now(), on_token=paste)
    newest = raised.value.details.newest_issued_expires_at
    assert newest > read_unverified(by_hand).expires_at


def test_a_lifetime_beyond_the_maximum_is_refused(renewal_server, issuer, due):
    """The issuer's words say so, and the token in use stays."""
    store = MemoryStore(due)
    with pytest.raises(Refused, match="exceeds the maximum"):
        rotate(store, issuer, RotationPolicy(lifetime_minutes=10_000_000), now=now())
    assert store.token == due
    assert len(renewals(renewal_server)) == 1


def test_a_revoked_role_is_refused_by_its_name(renewal_server, issuer, due):
    """One request, the role's name in the report, and the token in use stays."""
    renewal_server.revoke("runner")
    store = MemoryStore(due)
    with pytest.raises(Refused, match="no longer assigned to you: runner") as refusal:
        rotate(store, issuer, POLICY, now=now())
    assert (refusal.value.status, refusal.value.retryable) == (401, False)
    assert (len(renewals(renewal_server)), store.token) == (1, due)


def test_another_users_token_is_not_renewed(renewal_server, session):
    """Signed in as flowbot, ada's token is found out before a request is made."""
    renewal_server.add_user("ada")
    token = renewal_server.mint(NAME, issued_at=int(time.time()) - 2700, username="ada")
    with pytest.raises(Misconfigured, match="belongs to user 'ada'"):
        rotate(MemoryStore(Token(token)), session, POLICY, now=now())
    assert renewal_server.requests == []


def test_another_users_row_is_refused_by_the_server(renewal_server, session, due):
    """Whoever asks for somebody else's row is told 401, in FlowAuth's words."""
    renewal_server.add_user("ada")
    renewal_server.mint("HERS", username="ada")
    own, hers = (row for name in (NAME, "HERS") for row in renewal_server.rows(name))
    [row] = session.rows(read_unverified(due)).rows
    assert row.id == own.id
    foreign = type(row)(hers.id, row.name, row.owner, row.audience, row.roles, row.token)
    with pytest.raises(Refused, match=r"You can only renew your own tokens\.") as refusal:
        session.renew(due, foreign, key="k", lifetime_minutes=None)
    assert refusal.value.status == 401


def test_a_successor_whose_swap_was_lost_is_not_minted_again(renewal_server, issuer, due):
    """After a crash between renewal and swap, the next run ends with the very same token."""
    first, second = MemoryStore(due), MemoryStore(due)
    rotate(first, issuer, POLICY, now=now())
    report = rotate(second, issuer, POLICY, now=now())
    assert second.token == first.token
    assert report.outcome in ("adopted", "rotated")
    assert len(renewal_server.rows(NAME)) == 2


class LosesAnswers(SessionIssuer):
    """A sign-in whose renewals reach the server, and whose answers never come back."""

    def renew(self, *args, **kwargs):
        super().renew(*args, **kwargs)
        raise AmbiguousResponse("lost on the way")


def test_a_lost_answer_is_found_again(renewal_server, due):
    """The server minted, the answer never came: the look finds the row, nobody mints another."""
    server, store = renewal_server, MemoryStore(due)
    issuer = LosesAnswers(server.url, server.username, server.password)
    with closing(issuer):
        report = rotate(store, issuer, POLICY, now=now())
    assert (report.outcome, len(server.rows(NAME))) == ("adopted", 2)


def test_an_expired_token_cannot_renew_itself(renewal_server):
    """That is for the server to say, which has the clock that counts, and it is asked once."""
    token = renewal_server.mint(NAME, issued_at=int(time.time()) - 7200)
    with (
        closing(issuer_of("bearer", renewal_server)) as bearer,
        pytest.raises(ExpiredToken, match=r"presented token has expired\. Mint a new token"),
    ):
        rotate(MemoryStore(Token(token)), bearer, POLICY, now=now())
    assert renewal_server.requests == ["POST /tokens/renew"]


def test_an_expired_token_needs_a_person(renewal_server, session):
    """It is looked for once among what can be renewed; then somebody is told to mint a new one."""
    token = renewal_server.mint(NAME, issued_at=int(time.time()) - 7200)
    with pytest.raises(ExpiredToken, match="Mint a new token"):
        rotate(MemoryStore(Token(token)), session, POLICY, now=now())


def test_a_wrong_password_is_said_once(renewal_server, due):
    """No second guess, no renewal, and no password in the sentence."""
    issuer = SessionIssuer(renewal_server.url, renewal_server.username, "wrong-password")
    with closing(issuer), pytest.raises(Refused, match="Sign-in of 'flowbot' failed") as refusal:
        rotate(MemoryStore(due), issuer, POLICY, now=now())
    assert "wrong-password" not in str(refusal.value)
    assert renewal_server.requests == ["POST /signin"]


def test_the_session_is_left_signed_out(renewal_server, due):
    """A rotation leaves no session behind."""
    with closing(issuer_of("session", renewal_server)) as issuer:
        rotate(MemoryStore(due), issuer, POLICY, now=now())
    assert renewal_server.requests == [
        "POST /signin",
        "GET /tokens/servers",
        "GET /tokens/tokens/1",
        "POST /tokens/tokens/1/renew",
        "GET /signout",
    ]


@pytest.mark.holds_secrets("flowapi.token")
def test_a_token_in_a_file_is_rotated_too(renewal_server, issuer, due, tmp_path):
    """The same rotation, another store."""
    path = tmp_path / "flowapi.token"
    path.write_text(due.reveal())
    assert rotate(FileStore(path), issuer, POLICY, now=now()).outcome == "rotated"
    assert read_unverified(FileStore(path).read()).expires_at > read_unverified(due).expires_at


def looked_after(server, issuer, *, hours, meanwhile):
    """Check every five minutes for so many hours; the tokens in use, the outcomes, by the hour."""
    began = server.now()
    store = MemoryStore(Token(server.mint(NAME, lifetime_minutes=24 * 60)))
    history = []
    for check in range(hours * 12):
        meanwhile(check / 12)
        server.clock_offset += 300
        moment = datetime.fromtimestamp(server.now(), timezone.utc)
        try:
            outcome = str(rotate(store, issuer, POLICY, now=moment).outcome)
        except RotatorError as error:
            outcome = str(error.outcome)
        expires_at = read_unverified(store.token).expires_at
        history.append(((server.now() - began) / 3600, outcome, expires_at > moment))
    return history


def test_a_cap_that_is_lifted_in_time_costs_nothing(renewal_server):
    """Capped at first, asked anew with the time left halved, and then a full day again."""
    minutes = {0: 60, 17: 24 * 60}

    def limit(hour):
        if hour in minutes:
            renewal_server.limit("runner", minutes=minutes[hour])

    with closing(issuer_of("bearer", renewal_server)) as issuer:
        history = looked_after(renewal_server, issuer, hours=26, meanwhile=limit)
    assert all(works for _, _, works in history)
    [rotated] = [hour for hour, outcome, _ in history if outcome == "rotated"]
    assert 20 <= rotated <= 20.2
    assert {outcome for hour, outcome, _ in history if 16.1 < hour < 20} == {"capped"}
    assert len(renewal_server.rows(NAME)) == 3


def test_a_cap_that_stays_leaves_no_gap(renewal_server):
    """An hour at a time is all there is: the token in use is valid all along, with few requests."""

    def limit(hour):
        if hour == 0:
            renewal_server.limit("runner", minutes=60)

    with closing(issuer_of("bearer", renewal_server)) as issuer:
        history = looked_after(renewal_server, issuer, hours=26, meanwhile=limit)
    assert all(works for _, _, works in history)
    before_expiry = [row for row in renewal_server.rows(NAME) if row.parent_id in (None, 1)]
    assert len(before_expiry) <= 6


@pytest.mark.parametrize("kind", ["session", "bearer"])
def test_a_corrected_lifetime_is_asked_for_at_once(renewal_server, due, kind):
    """A setting of ten minutes by mistake gives nothing of use, and holds nothing up."""
    store = MemoryStore(due)
    with closing(issuer_of(kind, renewal_server)) as issuer:
        with pytest.raises(Capped, match="too little"):
            rotate(store, issuer, RotationPolicy(lifetime_minutes=10), now=now())
        late = now() + timedelta(minutes=8)  # the time left has halved
        renewal_server.clock_offset = 480
        report = rotate(store, issuer, RotationPolicy(lifetime_minutes=60), now=late)
    assert report.outcome == "rotated"
    assert len(renewal_server.rows(NAME)) == 3


@pytest.mark.parametrize("kind", ["session", "bearer"])
@pytest.mark.parametrize("skew", [-120, 0, 30])
def test_a_run_mints_at_most_once_whatever_the_clocks_say(renewal_server, due, kind, skew):
    """Late, capped, with a server whose clock is off: one new row a run."""
    renewal_server.limit("runner", minutes=1)
    renewal_server.clock_offset = 600 + skew
    with closing(issuer_of(kind, renewal_server)) as issuer:
        for run in range(1, 4):
            with pytest.raises(Capped):
                rotate(MemoryStore(due), issuer, POLICY, now=now() + timedelta(minutes=10))
            assert len(renewal_server.rows(NAME)) <= 1 + run


@pytest.mark.parametrize("wrong", [timedelta(hours=1), timedelta(days=40)], ids=str)
def test_a_clock_that_is_ahead_mints_nothing(renewal_server, session, wrong):
    """Due by the clock here, healthy by the issuer's: said aloud, at every check."""
    store = MemoryStore(Token(renewal_server.mint(NAME)))
    for _ in range(3):
        report = rotate(store, session, POLICY, now=now() + wrong)
        assert (report.outcome, report.severity) == ("healthy", "critical")
        assert report.clock_skew == pytest.approx(-wrong.total_seconds(), abs=30)
        assert "ahead of the issuer's. The token was not renewed: correct the wrong clock" in str(
            report
        )
    assert len(renewal_server.rows(NAME)) == 1


@pytest.mark.parametrize("wrong", [timedelta(hours=1), timedelta(days=40)], ids=str)
def test_a_clock_that_is_ahead_of_a_tokens_own_renewals_mints_once(renewal_server, wrong):
    """Without a sign-in the clock is learnt from the renewal's answer, which is then not used."""
    store = MemoryStore(Token(renewal_server.mint(NAME)))
    before = store.token
    with closing(issuer_of("bearer", renewal_server)) as bearer:
        for _ in range(3):
            report = rotate(store, bearer, POLICY, now=now() + wrong)
            assert (report.outcome, report.severity) == ("healthy", "critical")
            assert "ahead of the issuer's" in report.clock_warning
    assert store.token == before
    assert len(renewal_server.rows(NAME)) == 2


@pytest.mark.parametrize("kind", ["session", "bearer"])
def test_a_token_that_has_expired_by_a_wrong_clock_alone_is_renewed(renewal_server, due, kind):
    """A day ahead here: by the issuer's clock there is time, and what it grants is good."""
    with closing(issuer_of(kind, renewal_server)) as issuer:
        report = rotate(MemoryStore(due), issuer, POLICY, now=now() + timedelta(days=1))
    assert report.outcome == "rotated"
    assert "The clock here is " in str(report)


@pytest.mark.parametrize("kind", ["session", "bearer"])
def test_a_clock_that_is_behind_is_told_of(renewal_server, kind):
    """Expired, by the issuer's clock, which is the one that counts; and by how much ours is off."""
    token = Token(renewal_server.mint(NAME, issued_at=int(time.time()) - 7200))
    with (
        closing(issuer_of(kind, renewal_server)) as issuer,
        pytest.raises(ExpiredToken) as expired,
    ):
        rotate(MemoryStore(token), issuer, POLICY, now=now() - timedelta(minutes=75))
    assert expired.value.severity == "critical"
    assert "behind the issuer's" in expired.value.details.clock_warning


def test_an_answer_from_before_the_token_was_made_is_no_clock(renewal_server, session, due):
    """A proxy that dates its answers to 1970 does not keep a token from being renewed."""
    renewal_server.date_offset = -1_700_000_000
    report = rotate(MemoryStore(due), session, POLICY, now=now())
    assert report.outcome == "rotated"


def test_a_granted_lifetime_that_has_passed_is_asked_for_anew(renewal_server):
    """The key's answer has expired, the token has not: the next key, as soon as that is due."""
    with closing(issuer_of("bearer", renewal_server)) as bearer:
        store = MemoryStore(Token(renewal_server.mint(NAME, issued_at=renewal_server.now() - 2700)))
        renewal_server.limit("runner", minutes=1)
        with pytest.raises(Capped):
            rotate(store, bearer, POLICY, now=now())
        renewal_server.limit("runner", minutes=60)
        renewal_server.clock_offset = 120
        with pytest.raises(Capped, match="has expired already"):
            rotate(store, bearer, POLICY, now=now() + timedelta(minutes=2))
        renewal_server.clock_offset = 480
        report = rotate(store, bearer, POLICY, now=now() + timedelta(minutes=8))
    assert report.outcome == "rotated"


@pytest.mark.parametrize("kind", ["session", "bearer"])
@pytest.mark.parametrize("days", [-3, 10, 400])
def test_a_date_that_is_wrong_mints_no_storm(renewal_server, kind, days):
    """Our clock and the stamps are right, a proxy's `Date` is not: few mints, and never quiet."""
    renewal_server.date_offset = days * 86400
    week = 7 * 24 * 60
    old = renewal_server.now() - 6 * 86400
    store = MemoryStore(Token(renewal_server.mint(NAME, lifetime_minutes=week, issued_at=old)))
    with closing(issuer_of(kind, renewal_server)) as issuer:
        for _ in range(20):
            report = rotate(store, issuer, POLICY, now=now())
            assert report.outcome in ("rotated", "healthy")
            assert report.clock_warning or report.renewal_requests == 0
            assert report.failed is (days < 0)
    assert len(renewal_server.rows(NAME)) <= 2


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_date_beyond_reason_is_not_believed(renewal_server, session, due, monkeypatch, date):
    """It ends no rotation, in no other error than those of a rotation."""
    monkeypatch.setattr("tests.conftest.formatdate", lambda *_args, **_named: date)
    assert rotate(MemoryStore(due), session, POLICY, now=now()).outcome == "rotated"


def test_tokens_that_are_minted_by_hand_hold_nothing_up_for_good(renewal_server, session, due):
    """Of no use, with the same name and roles, since it was due: the next epoch is ours."""
    for _ in range(5):
        renewal_server.mint(NAME, lifetime_minutes=5)
    with pytest.raises(Capped):
        rotate(MemoryStore(due), session, POLICY, now=now())
    renewal_server.clock_offset = 480  # the time left has halved
    later = now() + timedelta(minutes=8)
    assert rotate(MemoryStore(due), session, POLICY, now=later).outcome == "rotated"


def test_a_fresh_paste_is_no_conflict_by_a_wrong_clock(renewal_server, session, due):
    """Stored by somebody while we asked; expired by our clock alone, which is a day ahead."""
    fresh = Token(renewal_server.mint(NAME, lifetime_minutes=120))

    class Pasted(MemoryStore):
        def preflight(self):
            self.token = fresh

    report = rotate(Pasted(due), session, POLICY, now=now() + timedelta(days=1))
    assert report.outcome == "superseded"
