"""Signing in, the session cookie and CSRF, as FlowAuth's clients meet them."""

import pytest
from argon2 import PasswordHasher

from flowauth_rotator.server import create_app

DATABASES = ["SQLite", "PostgreSQL"]
SIGNED_IN = {"is_admin": False, "logged_in": True, "require_two_factor_setup": False}
HTTPS = "https://localhost"


def set_cookies(answer) -> dict[str, str]:
    return {line.split("=", 1)[0]: line for line in answer.headers.getlist("Set-Cookie")}


class TestSignIn:
    def test_the_right_password_signs_in(self, stranger):
        answer = stranger.sign_in()
        assert (answer.status_code, answer.json) == (200, SIGNED_IN)
        assert stranger.get("/is_signed_in").json == SIGNED_IN

    @pytest.mark.parametrize(
        ("username", "password"),
        [
            ("flowbot", "wrong"),
            ("nobody", "correct-horse-battery-staple"),
            ("flowbot", ""),
            ("flowbot", "\ud800"),
            ("\ud800", "x"),
            ("flowbot\x00", "correct-horse-battery-staple"),
            ("x" * 5000, "y" * 5000),
        ],
    )
    def test_wrong_credentials_are_refused_alike(self, stranger, refused, username, password):
        message = refused(stranger.sign_in(username, password), 401)
        assert message == "Incorrect username or password."
        refused(stranger.get("/is_signed_in"), 401)

    @pytest.mark.parametrize("body", [{}, {"username": "flowbot"}, {"password": "x"}])
    def test_both_fields_are_needed(self, stranger, refused, body):
        answer = stranger.http.post("/signin", json=body)
        assert refused(answer, 400) == "Must supply username or password."

    def test_both_fields_are_strings(self, stranger, refused):
        refused(stranger.sign_in(5, "x"), 400, "username")
        refused(stranger.sign_in("flowbot", ["x"]), 400, "password")

    def test_an_unknown_name_costs_as_much_as_a_wrong_password(self, data_dir):
        """Each sign-in computes Argon2 exactly once, so that time tells nobody who exists."""
        computed = []

        class Counting(PasswordHasher):
            def hash(self, *args, **kwargs):
                computed.append("hash")
                return super().hash(*args, **kwargs)

            def verify(self, *args, **kwargs):
                computed.append("verify")
                return super().verify(*args, **kwargs)

        hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
        app = create_app(data_dir, hasher=hasher)
        for username in ("flowbot", "nobody"):
            body = {"username": username, "password": "wrong"}
            assert app.test_client().post("/signin", json=body).status_code == 401
        app.extensions["flowauth_rotator"].database.close()
        assert computed == ["verify", "hash"]

    def test_stronger_parameters_are_taken_up_at_the_next_sign_in(self, data_dir, services):
        from sqlalchemy import select

        from flowauth_rotator.server.schema import users

        stronger = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
        app = create_app(data_dir, hasher=stronger)
        body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        for _ in range(2):
            assert app.test_client().post("/signin", json=body).status_code == 200
        app.extensions["flowauth_rotator"].database.close()
        with services.database.reading() as connection:
            stored = connection.execute(select(users.c.password_hash)).scalar_one()
        assert not stronger.check_needs_rehash(stored)

    def test_a_password_that_is_changed_while_an_old_one_is_checked_stays_changed(
        self, data_dir, services
    ):
        """A stronger hash of the old one must not take its place."""

        class Slow(PasswordHasher):
            def check_needs_rehash(self, hashed):
                services.accounts.set_password("flowbot", "another long password")
                return super().check_needs_rehash(hashed)

        app = create_app(data_dir, hasher=Slow(time_cost=2, memory_cost=16, parallelism=1))
        client = app.test_client()
        old = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        new = {"username": "flowbot", "password": "another long password"}
        client.post("/signin", json=old)
        assert client.get("/is_signed_in").status_code == 401
        assert client.post("/signin", json=old).status_code == 401
        assert client.post("/signin", json=new).status_code == 200
        app.extensions["flowauth_rotator"].database.close()


class TestSession:
    def test_the_cookie_is_for_http_alone_and_for_this_site(self, stranger):
        attributes = set_cookies(stranger.sign_in())["session"].split("; ")[1:]
        assert "HttpOnly" in attributes
        assert "SameSite=Lax" in attributes
        assert "Secure" not in attributes

    def test_over_https_both_cookies_are_secure(self, stranger):
        cookies = set_cookies(stranger.get("/version", base_url=HTTPS))
        secure = {name: "Secure" in cookie for name, cookie in cookies.items()}
        assert secure == {"session": True, "X-CSRF": True}

    def test_twenty_idle_minutes_end_it_and_each_request_begins_them_anew(
        self, flowbot, clock, refused
    ):
        for _ in range(3):
            clock.advance(minutes=20)
            assert flowbot.get("/is_signed_in").status_code == 200
        clock.advance(minutes=20, seconds=1)
        refused(flowbot.get("/is_signed_in"), 401)

    def test_signing_out_ends_it(self, flowbot, refused):
        assert flowbot.get("/signout").json == {"logged_in": False}
        refused(flowbot.get("/is_signed_in"), 401)
        refused(flowbot.get("/signout"), 401)

    def test_nothing_is_told_to_a_stranger(self, stranger, refused):
        for path in ("/is_signed_in", "/signout", "/tokens/servers", "/tokens/tokens/1"):
            refused(stranger.get(path), 401)
        stranger.get("/version")
        for path in ("/tokens/tokens/1", "/tokens/tokens/1/renew"):
            assert "not signed in" in refused(stranger.post(path), 401)

    def test_another_servers_cookie_is_no_session(self, data_dir, flowbot, refused):
        (data_dir / "session.key").write_text("another secret, as long as it must be")
        other = create_app(data_dir, clock=lambda: 1_800_000_000)
        client = other.test_client()
        client.set_cookie("session", flowbot.http.get_cookie("session").value)
        refused(client.get("/is_signed_in"), 401)
        other.extensions["flowauth_rotator"].database.close()

    def test_signing_out_ends_it_for_whoever_else_has_the_cookie(self, app, flowbot, refused):
        """The cookie itself would be good for another twenty minutes."""
        stolen = app.test_client()
        stolen.set_cookie("session", flowbot.http.get_cookie("session").value)
        assert stolen.get("/is_signed_in").status_code == 200
        flowbot.get("/signout")
        refused(stolen.get("/is_signed_in"), 401)
        assert flowbot.sign_in().status_code == 200
        refused(stolen.get("/is_signed_in"), 401)

    def test_a_copy_of_the_cookie_cannot_be_kept_alive_beyond_the_sign_out(
        self, app, flowbot, mallory, clock, refused
    ):
        """Not by asking what anybody may ask, however long, whoever else signs out."""
        stolen = app.test_client()
        stolen.set_cookie("session", flowbot.http.get_cookie("session").value)
        flowbot.get("/signout")
        for _ in range(5):
            clock.advance(minutes=10)
            assert mallory.get("/is_signed_in").status_code == 200
            stolen.get("/version")
        mallory.get("/signout")
        refused(stolen.get("/is_signed_in"), 401)

    def test_two_sign_outs_at_once_are_one(self, services, clock):
        from flowauth_rotator.server.sessions import Session

        session = Session.signed_in(1, 0)
        for _ in range(2):
            services.accounts.end_session(session, now=clock.now)
        assert services.accounts.find_session_user(session) is None

    def test_other_sessions_of_the_user_go_on(self, app, flowbot):
        elsewhere = app.test_client()
        body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        elsewhere.post("/signin", json=body)
        flowbot.get("/signout")
        assert elsewhere.get("/is_signed_in").status_code == 200

    @pytest.mark.parametrize("text", ["", "x", "WzFd.x", "a.b.c", "\u00e9", "." * 4000])
    def test_a_cookie_that_is_none_of_ours_is_a_stranger(self, app, refused, text):
        client = app.test_client()
        client.set_cookie("session", text)
        refused(client.get("/is_signed_in"), 401)

    def test_a_user_who_is_gone_is_signed_out(self, flowbot, services, refused):
        from flowauth_rotator.server.schema import users

        with services.database.writing() as connection:
            connection.execute(users.delete())
        refused(flowbot.get("/is_signed_in"), 401)


class TestCsrf:
    @pytest.fixture
    def renewal(self, flowbot):
        return f"/tokens/tokens/{flowbot.minted()['id']}/renew"

    def test_every_answer_brings_a_token(self, stranger, flowbot):
        for answer in (stranger.get("/version"), flowbot.get("/tokens/servers")):
            attributes = set_cookies(answer)["X-CSRF"].split("; ")[1:]
            assert "HttpOnly" not in attributes
        names = [*set_cookies(stranger.sign_in(password="wrong"))]
        assert "X-CSRF" in names

    def test_the_token_is_needed(self, flowbot, renewal, refused):
        assert refused(flowbot.http.post(renewal), 401) == "CSRF error"
        assert refused(flowbot.post(renewal, headers={"X-CSRF-Token": "x"}), 401) == "CSRF error"
        assert flowbot.post(renewal).status_code == 200

    def test_the_token_is_bound_to_its_session(self, flowbot, mallory, renewal, refused):
        refused(flowbot.post(renewal, headers=mallory.csrf()), 401)

    def test_the_token_of_before_the_sign_in_is_void(self, stranger, refused):
        """So that nobody can plant a session and its token beforehand."""
        stranger.get("/version")
        planted = stranger.csrf()
        stranger.sign_in()
        refused(stranger.post("/tokens/tokens/1", headers=planted), 401)

    def test_a_token_is_good_for_an_hour(self, flowbot, renewal, clock, refused):
        token = flowbot.csrf()
        for _ in range(4):
            clock.advance(minutes=15)
            flowbot.get("/is_signed_in")
        answer = flowbot.post(renewal, headers=token)
        assert answer.status_code == 200
        clock.advance(seconds=1)
        refused(flowbot.post(renewal, headers=token), 401)

    @pytest.mark.parametrize(
        ("referer", "code"),
        [
            ("https://localhost/", 200),
            ("https://localhost/page?q", 200),
            ("https://LOCALHOST:443/", 200),
            ("https://localhost:444/", 401),
            ("https://localhost:x/", 401),
            (None, 401),
            ("http://localhost/", 401),
            ("https://evil.example/", 401),
            ("https://localhost.evil.example/", 401),
            ("https://[", 401),
        ],
    )
    def test_over_https_the_referer_is_of_this_host(self, stranger, referer, code):
        body = {"username": "flowbot", "password": "correct-horse-battery-staple"}
        stranger.http.post("/signin", json=body, base_url=HTTPS)
        server = stranger.get("/tokens/servers", base_url=HTTPS).json[0]["id"]
        answer = stranger.post(
            f"/tokens/tokens/{server}",
            json={"name": "A", "roles": [{"name": "viewer"}]},
            headers={"Referer": referer} if referer else {},
            base_url=HTTPS,
        )
        assert answer.status_code == code
