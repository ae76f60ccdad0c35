"""How often one may fail to sign in and how often a name is issued; how long a family lives."""

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import event, select

from demo.parts import WAIT_LIMIT
from flowauth_rotator.server import Settings, SetupError, create_app
from flowauth_rotator.server.password_checks import MAX_WAITING
from flowauth_rotator.server.schema import rate_counters
from flowauth_rotator.server.signing import Signer
from tests.server.conftest import Caller

DATABASES = ["SQLite", "PostgreSQL"]


class TestSignIn:
    """Ten failures a minute for one name at one address, and a hundred for all."""

    def fail(self, caller, times, username="flowbot"):
        for _ in range(times):
            assert caller.sign_in(username, "wrong").status_code == 401

    def test_too_many_failures_and_even_the_right_password_waits(self, stranger, clock, refused):
        self.fail(stranger, 10)
        clock.advance(seconds=20)
        answer = stranger.sign_in()
        assert refused(answer, 429) == "Too many failed attempts to sign in; try again in 40 s."
        assert answer.headers["Retry-After"] == "40"
        clock.advance(seconds=40)
        assert stranger.sign_in().status_code == 200

    def test_a_name_that_was_typed_is_not_stored(self, stranger, services):
        """It may be a password in the wrong field."""
        self.fail(stranger, 1, "hunter2-as-a-name")
        with services.database.reading() as connection:
            keys = connection.execute(select(rate_counters.c.key)).scalars().all()
        assert len(keys) == 2
        assert not any("hunter2" in key for key in keys)

    def test_successes_do_not_count(self, stranger):
        """An agent signs in once for each token that is due."""
        for _ in range(30):
            assert stranger.sign_in().status_code == 200
        self.fail(stranger, 9)
        assert stranger.sign_in().status_code == 200

    def test_another_name_and_another_address_may_go_on(self, app, stranger, mallory):
        self.fail(stranger, 10)
        assert mallory.sign_in("mallory").status_code == 200
        body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        elsewhere = app.test_client()
        answer = elsewhere.post("/signin", json=body, environ_base={"REMOTE_ADDR": "192.0.2.7"})
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        ("one", "other", "is_counted_together"),
        [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one client can have all of a /64
            ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
            ("192.0.2.7", "::ffff:192.0.2.7", True),
            ("192.0.2.7", "192.0.2.8", False),
            ("192.0.2.7:4711", "192.0.2.7:4712", True),  # some proxies give the port too
            ("[2001:db8:1:2::1]:4711", "[2001:db8:1:2::9]", True),
            ("fe80::1%eth0", "fe80::2%eth1", True),
            ("unknown", "_hidden", True),
        ],
    )
    def test_attempts_are_counted_by_network(self, app, one, other, is_counted_together):
        body = {"username": "flowbot", "password": "wrong"}

        def fail(address):
            answer = app.test_client().post(
                "/signin", json=body, environ_base={"REMOTE_ADDR": address}
            )
            return answer.status_code

        assert [fail(one) for _ in range(10)] == [401] * 10
        assert fail(other) == (429 if is_counted_together else 401)

    def test_an_attempt_counts_before_it_is_checked(self, app, data_dir, signing_key, clock):
        """A hundred at once are ten and ninety refusals, however long a check takes."""
        held, checking = threading.Event(), []

        class SlowHasher(PasswordHasher):
            def verify(self, *_args):
                checking.append(1)
                held.wait()
                raise VerifyMismatchError

        apps = [
            create_app(data_dir, signer=Signer(signing_key), hasher=SlowHasher(), clock=clock)
            for _ in range(12)  # processes of one server: each checks one at a time
        ]
        with ThreadPoolExecutor(len(apps)) as pool:
            attempts = [pool.submit(Caller(each).sign_in, password="wrong") for each in apps]
            try:
                done = islice(as_completed(attempts, timeout=WAIT_LIMIT), 2)
                refused = {attempt.result().status_code for attempt in done}
            finally:
                held.set()
            statuses = Counter(attempt.result().status_code for attempt in attempts)
        for each in apps:
            each.extensions["flowauth_rotator"].database.close()
        assert refused == {429}
        assert (statuses, len(checking)) == ({401: 10, 429: 2}, 10)

    def test_of_many_attempts_at_once_a_process_checks_one_and_queues_few(
        self, app, data_dir, signing_key, clock, refused, monkeypatch
    ):
        """The others are refused at once, and not counted as failures."""
        monkeypatch.setenv("SIGNIN_RATE_LIMIT", "1000/minute")
        held, checking, at_once = threading.Event(), threading.Semaphore(1), []

        class SlowHasher(PasswordHasher):
            def verify(self, *_args):
                at_once.append(1 if checking.acquire(blocking=False) else 2)
                held.wait()
                checking.release()
                return True

            def check_needs_rehash(self, _hash):
                return False

        app = create_app(data_dir, signer=Signer(signing_key), hasher=SlowHasher(), clock=clock)
        with ThreadPoolExecutor(12) as pool:
            attempts = [pool.submit(Caller(app).sign_in) for _ in range(12)]
            try:
                done = islice(as_completed(attempts, timeout=WAIT_LIMIT), 12 - 1 - MAX_WAITING)
                answers = [attempt.result() for attempt in done]
            finally:
                held.set()
        for answer in answers:
            assert refused(answer, 503) == "Too many clients sign in at once; try again."
            assert answer.headers["Retry-After"] == "1"
        assert max(at_once) == 1
        assert Counter(each.result().status_code for each in attempts) == {
            200: 1 + MAX_WAITING,
            503: 11 - MAX_WAITING,
        }
        app.extensions["flowauth_rotator"].database.close()

    def test_a_check_has_the_lowest_priority_and_holds_no_transaction(
        self, data_dir, signing_key, clock
    ):
        """A renewal would wait for the transaction of a thread that gets no processor."""
        priorities = {"hash": set(), "transaction": set()}

        def record(what):
            thread = threading.get_native_id()
            priorities[what].add(os.getpriority(os.PRIO_PROCESS, thread))

        class RecordingHasher(PasswordHasher):
            def verify(self, *_args):
                record("hash")
                return True

            def hash(self, *args, **options):
                record("hash")
                return super().hash(*args, **options)

            def check_needs_rehash(self, _hash):
                return True

        app = create_app(
            data_dir, signer=Signer(signing_key), hasher=RecordingHasher(), clock=clock
        )
        database = app.extensions["flowauth_rotator"].database
        event.listen(database.engine, "begin", lambda _connection: record("transaction"))
        for username in ("flowbot", "nobody"):
            Caller(app).sign_in(username)
        database.close()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert priorities == {"hash": {19}, "transaction": {own}}

    def test_one_address_cannot_try_name_after_name(self, stranger, refused):
        for number in range(10):
            self.fail(stranger, 10, f"name{number}")
        refused(stranger.sign_in("name11", "wrong"), 429)

    def test_names_that_nobody_can_have_are_counted_together(self, stranger, refused):
        for number in range(10):
            self.fail(stranger, 1, "x" * (200 + number))
        refused(stranger.sign_in("\x00", "wrong"), 429)


class TestIssuing:
    """Sixty tokens of one name an hour, whoever asks."""

    def test_a_name_is_issued_so_often_and_no_more(self, flowbot, clock, refused):
        row = flowbot.minted()
        for number in range(59):
            assert flowbot.renew(row["id"], key=str(number)).status_code == 200
        clock.advance(minutes=15)
        answer = flowbot.renew(row["id"])
        assert refused(answer, 429) == (
            "Too many tokens of this name were issued; try again in 2700 s."
        )
        assert answer.headers["Retry-After"] == "2700"
        refused(flowbot.renew_presented(row["token"]), 429)
        refused(flowbot.mint(), 429)
        assert flowbot.renew(row["id"], key="7").headers["Idempotent-Replayed"] == "true"
        assert flowbot.mint(name="OTHER").status_code == 200
        for _ in range(3):
            clock.advance(minutes=15)
            flowbot.get("/is_signed_in")
        assert flowbot.renew(row["id"]).status_code == 200

    def test_a_user_mints_so_many_names_and_no_more(self, flowbot, mallory, services, refused):
        """Each is a series of the metrics; the operator's own are not limited."""
        for number in range(60):
            assert flowbot.mint(name=f"N{number}").status_code == 200
        message = refused(flowbot.mint(name="N60"), 429)
        assert message.startswith("Too many first tokens of this user were issued; try again in ")
        assert mallory.mint(name="N60").status_code == 200
        owner = services.accounts.get_user("flowbot")
        services.issuer.mint(owner, 1, "N60", ["viewer"], 5, now=1_800_000_000)
        assert flowbot.renew(1).status_code == 200

    def test_what_is_refused_for_another_reason_does_not_count(self, flowbot):
        row = flowbot.minted()
        for _ in range(70):
            assert flowbot.renew(row["id"], {"lifetime_minutes": 0}).status_code == 400
        assert flowbot.renew(row["id"]).status_code == 200


class TestFamilyAge:
    """A token's descendants end with it: after so long, somebody must mint anew."""

    @pytest.fixture
    def settings(self, monkeypatch):
        monkeypatch.setenv("MAX_FAMILY_AGE", "2d")

    def test_a_renewal_ends_with_the_family_and_then_there_is_none(
        self, settings, flowbot, clock, claims_of, refused
    ):
        began = clock.now
        row = flowbot.minted(lifetime_minutes=24 * 60)
        clock.advance(minutes=23 * 60)
        flowbot.sign_in()
        renewed = flowbot.renew(row["id"]).json
        assert claims_of(renewed["token"])["exp"] == began + 2 * 24 * 60 * 60
        clock.advance(minutes=24 * 60)
        asked_too_much = flowbot.renew_presented(renewed["token"], {"lifetime_minutes": 61})
        refused(asked_too_much, 400, "lifetime_minutes")
        last = flowbot.renew_presented(renewed["token"]).json
        clock.advance(minutes=60, seconds=-1)
        answer = flowbot.renew_presented(last["token"])
        assert answer.status_code == 200
        clock.advance(seconds=1)
        refused(flowbot.renew_presented(last["token"]), 401)

    def test_the_refusal_says_since_when(self, settings, flowbot, clock, monkeypatch, refused):
        """A token minted before the setting was made shorter outlives its family."""
        row = flowbot.minted(lifetime_minutes=7 * 24 * 60)
        clock.advance(minutes=2 * 24 * 60)
        flowbot.sign_in()
        assert refused(flowbot.renew(row["id"]), 401, "token_id") == (
            "Token for flowbot cannot be renewed: its first ancestor was issued at "
            "2027-01-15 08:00:00 UTC; mint a new token instead."
        )


class TestExpiredGrace:
    """With RENEW_EXPIRED_GRACE its owner can still renew an expired row for a while."""

    @pytest.fixture
    def settings(self, monkeypatch):
        monkeypatch.setenv("RENEW_EXPIRED_GRACE", "30m")

    def test_the_owner_can_and_the_token_itself_cannot(self, settings, flowbot, clock, refused):
        row = flowbot.minted(lifetime_minutes=5)
        for _ in range(2):
            clock.advance(minutes=17)
            flowbot.get("/is_signed_in")
        assert [listed["id"] for listed in flowbot.rows()] == [row["id"]]
        refused(flowbot.renew_presented(row["token"]), 401)
        assert flowbot.renew(row["id"]).status_code == 200
        clock.advance(minutes=1)
        refused(flowbot.renew(row["id"]), 400, "token_id")
        assert [listed["id"] for listed in flowbot.rows()] == [row["id"] + 1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAX_FAMILY_AGE", "400"),
        ("MAX_FAMILY_AGE", "-1d"),
        ("RENEW_EXPIRED_GRACE", "1 day"),
        ("SIGNIN_RATE_LIMIT", "often"),
        ("RENEWAL_RATE_LIMIT", "10"),
        ("RENEWAL_RATE_LIMIT", "10/minute;100/hour"),
        ("RENEWAL_RATE_LIMIT", "0/minute"),
        ("RENEWAL_RATE_LIMIT", "10/week"),
        ("USER_CLAIMS", "zip"),
        ("TRUSTED_PROXIES", "yes"),
    ],
)
def test_a_setting_that_is_none_is_named(tmp_path, variable, value):
    with pytest.raises(SetupError, match=f"{variable}={value!r} is n"):
        Settings.load(tmp_path, {variable: value})


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://me:secret@host/db",
        "postgresql:/",
        "://",
        "postgresql://me:secret@host:port/db",
    ],
)
def test_a_database_url_that_is_none_is_named_and_not_repeated(tmp_path, url):
    with pytest.raises(SetupError, match=r"DATABASE_URL is .*a URL like") as caught:
        Settings.load(tmp_path, {"DATABASE_URL": url})
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_settings_shown_show_no_password(tmp_path):
    settings = Settings.load(tmp_path, {"DATABASE_URL": "postgresql://me:secret@host/db"})
    assert "secret" not in repr(settings) + settings.database_name
