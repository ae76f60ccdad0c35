"""Audiences, roles, users and grants at the shell."""

import json
import re
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.server.signing import compress_claims

DATABASES = ["SQLite", "PostgreSQL"]
MINT = "mint --user flowbot --audience TEST_SERVER --name AIRFLOW --role viewer"


class TestAudiences:
    def test_the_table(self, says):
        says("add-audience OTHER --max-lifetime-minutes 5")
        says("set-audience OTHER --latest-expiry 2099-01-31T01:00:00+01:00")
        assert says("audiences") == (
            "NAME         ROLES           MAX LIFETIME MINUTES  LATEST EXPIRY (UTC)\n"
            "OTHER        -               5                     2099-01-31 00:00:00\n"
            "TEST_SERVER  runner, viewer  10080                 -\n"
        )

    def test_json(self, says):
        assert json.loads(says("audiences --json")) == [
            {
                "name": "TEST_SERVER",
                "roles": ["runner", "viewer"],
                "max_lifetime_minutes": 10080,
                "latest_expiry": None,
            }
        ]

    def test_a_limit_holds_from_then_on_and_can_be_lifted(self, says, fails):
        says("set-audience TEST_SERVER --max-lifetime-minutes 5")
        assert "'TEST_SERVER' permits 5 minutes" in fails(MINT, "--lifetime-minutes", "6")
        says("set-audience TEST_SERVER --max-lifetime-minutes 6")
        says(MINT, "--lifetime-minutes", "6")
        says("set-audience TEST_SERVER --latest-expiry 2099-01-31T00:00:00Z")
        [audience] = json.loads(says("audiences --json"))
        assert audience["max_lifetime_minutes"] == 6
        assert audience["latest_expiry"] == 4_073_500_800
        says("set-audience TEST_SERVER --no-latest-expiry")
        assert json.loads(says("audiences --json"))[0]["latest_expiry"] is None


class TestRoles:
    def test_the_table_shows_the_first_of_many_scopes(self, says):
        scopes = [word for scope in "fbecad" for word in ("--scope", scope)]
        says("set-role viewer", *scopes)
        header, runner, viewer = [re.split("  +", line) for line in says("roles").splitlines()]
        assert header[:4] == ["NAME", "AUDIENCE", "SCOPES", "USERS"]
        assert header[4:] == ["MAX LIFETIME MINUTES", "LATEST EXPIRY (UTC)"]
        assert runner == ["runner", "TEST_SERVER", "run", "flowbot", "10080", "-"]
        assert viewer[2] == "a, b, c, d and 2 more"

    def test_json_has_all_of_them(self, says):
        says("set-role runner", *[word for scope in "fbecad" for word in ("--scope", scope)])
        says("add-audience OTHER --max-lifetime-minutes 5")
        says("add-role r --audience OTHER --scope s --max-lifetime-minutes 5")
        assert json.loads(says("roles --json --audience TEST_SERVER"))[0] == {
            "name": "runner",
            "audience": "TEST_SERVER",
            "scopes": ["a", "b", "c", "d", "e", "f"],
            "users": ["flowbot"],
            "max_lifetime_minutes": 10080,
            "latest_expiry": None,
        }
        assert len(json.loads(says("roles --json"))) == 3

    def test_a_renewed_token_has_the_scopes_of_today(self, says, flowbot, claims_of):
        row = flowbot.minted(roles=["viewer"])
        says("set-role viewer --scope run")
        renewed = flowbot.renew(row["id"]).json["token"]
        assert claims_of(renewed)["user_claims"] == compress_claims({"viewer": ["run"]})

    def test_the_limit_that_a_token_exceeds_is_named_with_its_holder(self, says, fails):
        says("set-role viewer --max-lifetime-minutes 2h")
        says(MINT, "--lifetime-minutes", "2h")
        assert fails(MINT, "--lifetime-minutes", "3h") == (
            "Error: A lifetime of 180 minutes is too long. Role 'viewer' permits 120 minutes. "
            "Change its limits with: "
            "flowauth-rotator server set-role viewer --audience TEST_SERVER"
        )

    def test_an_expiry_that_no_token_may_pass_is_named_with_its_holder(self, says, fails):
        soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
        says("set-audience TEST_SERVER --latest-expiry", soon.isoformat())
        assert fails(MINT, "--lifetime-minutes", "2h") == (
            "Error: A lifetime of 120 minutes is too long. Audience 'TEST_SERVER' permits 10080 "
            f"minutes, and no expiry after {soon:%Y-%m-%d %H:%M:%S} UTC. Change its limits with: "
            "flowauth-rotator server set-audience TEST_SERVER"
        )

    def test_a_limit_above_that_of_the_audience_is_named_with_the_one_that_applies(self, says):
        sentence = (
            "Role '{}' permits {} minutes, audience 'TEST_SERVER' only {}: "
            "the shorter limit applies to each token.\n"
        )
        role = "--audience TEST_SERVER --scope s --max-lifetime-minutes"
        assert says(f"add-role short {role} 10080") == (
            "Added role 'short' to audience 'TEST_SERVER'.\n"
        )
        assert says(f"add-role long {role} 8d").endswith(sentence.format("long", 11520, 10080))
        assert says("set-role short --max-lifetime-minutes 9d").endswith(
            sentence.format("short", 12960, 10080)
        )
        assert says("set-audience TEST_SERVER --max-lifetime-minutes 12000") == (
            "Changed audience 'TEST_SERVER'.\n" + sentence.format("short", 12960, 12000)
        )

    def test_a_limit_changes_without_the_scopes(self, says):
        says("set-role viewer --max-lifetime-minutes 5")
        [_, viewer] = json.loads(says("roles --json"))
        assert viewer["scopes"] == ["get_available_dates", "get_results"]
        assert viewer["max_lifetime_minutes"] == 5

    def test_a_deleted_one_ends_the_renewal_of_every_token_that_has_it(
        self, says, flowbot, refused
    ):
        """For good: a new role of the same name is another one."""
        row = flowbot.minted()
        assert says("delete-role runner") == "Deleted role 'runner'; 1 user had it.\n"
        gone = "no longer assigned to you: runner"
        assert gone in refused(flowbot.renew(row["id"]), 401)
        assert gone in refused(flowbot.renew_presented(row["token"]), 401)
        says("add-role runner --audience TEST_SERVER --scope run --max-lifetime-minutes 9")
        says("grant flowbot runner")
        assert gone in refused(flowbot.renew(row["id"]), 401)
        assert flowbot.mint().status_code == 200

    def test_a_name_on_two_audiences_needs_the_audience(self, says, fails):
        says("add-audience OTHER --max-lifetime-minutes 5")
        says("add-role viewer --audience OTHER --scope s --max-lifetime-minutes 5")
        for line in ("grant flowbot viewer", "set-role viewer --scope s", "delete-role viewer"):
            assert "several audiences (OTHER, TEST_SERVER)" in fails(line)
        says("grant flowbot viewer --audience OTHER")
        says("set-role viewer --audience OTHER --scope t")
        assert says("users").splitlines()[1] == (
            "flowbot  OTHER: viewer; TEST_SERVER: runner, viewer"
        )
        says("delete-role viewer --audience OTHER")
        assert [role["name"] for role in json.loads(says("roles --json"))] == [
            "runner",
            "viewer",
        ]


class TestUsers:
    def test_the_table_and_json(self, says):
        says("add-user carol")
        assert says("users") == (
            "NAME     ROLES\n"
            "carol    -\n"
            "flowbot  TEST_SERVER: runner, viewer\n"
        )  # fmt: skip
        assert json.loads(says("users --json")) == [
            {"name": "carol", "roles": {}},
            {"name": "flowbot", "roles": {"TEST_SERVER": ["runner", "viewer"]}},
        ]

    def test_a_failed_grant_grants_nothing(self, says, fails):
        says("revoke flowbot viewer")
        fails("grant flowbot viewer nothing")
        assert "does not have role 'viewer' on audience 'TEST_SERVER', only: runner" in fails(MINT)

    def test_a_failed_revocation_revokes_nothing(self, says, fails):
        fails("revoke flowbot viewer nothing")
        says(MINT)

    def test_revoking_what_is_not_held_is_refused(self, says, fails):
        says("revoke flowbot viewer")
        sentence = fails("revoke flowbot viewer")
        assert sentence == (
            "Error: User 'flowbot' does not have role 'viewer'. "
            "List the roles of each user with: flowauth-rotator server users."
        )

    def test_somebody_who_leaves_keeps_nothing(self, says, flowbot, refused):
        """No role, no session, no password; what was issued cannot be renewed."""
        row = flowbot.minted()
        assert says("revoke flowbot --all") == "Revoked from user 'flowbot': runner, viewer.\n"
        says("set-password flowbot")
        refused(flowbot.renew(row["id"]), 401)
        refused(flowbot.renew_presented(row["token"]), 401)
        refused(flowbot.sign_in(), 401)

    def test_revoking_all_of_nothing_changes_nothing(self, says):
        says("revoke flowbot --all")
        sentence = "Revoked from user 'flowbot': no roles.\n"
        assert says("revoke flowbot --all") == sentence


class TestPasswords:
    @pytest.fixture
    def signs_in(self, stranger):
        return lambda *who: stranger.sign_in(*who).status_code == 200

    def test_one_is_made_and_shown_once(self, says, signs_in):
        shown = says("add-user carol").split()[-1]
        assert len(shown) >= 20
        assert signs_in("carol", shown)

    def test_one_is_read_from_standard_input_to_the_end_of_its_line(self, says, signs_in):
        told = says("add-user carol --password-stdin", input=" pass phräse \r\nmore\n")
        assert told == "Added user 'carol'.\n"
        assert signs_in("carol", " pass phräse ")

    @pytest.mark.parametrize("command", ["add-user carol", "set-password flowbot"])
    @pytest.mark.parametrize("given", ["", "\n", "short\n"])
    def test_a_short_one_is_refused(self, fails, command, given, signs_in):
        sentence = fails(command, "--password-stdin", input=given)
        assert sentence == "Error: The password must have at least 8 characters."
        assert signs_in("flowbot")

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
    def test_one_in_another_encoding_is_refused(self, fails, encoding):
        given = "pass phräse\r\n".encode(encoding)
        sentence = fails("add-user carol --password-stdin", input=given)
        assert sentence.startswith("Error: The input of --password-stdin is not UTF-8 text: it ")
        assert sentence.endswith(". Save it as UTF-8.")

    def test_a_byte_order_mark_is_not_part_of_one(self, says, signs_in):
        """As in the file that the agent reads."""
        says("add-user carol --password-stdin", input="pass phräse\n".encode("utf-8-sig"))
        assert signs_in("carol", "pass phräse")

    def test_another_one_ends_every_session(self, says, flowbot, signs_in, refused):
        """The old password is no good any longer, and neither is what was begun with it."""
        assert flowbot.get("/tokens/servers").status_code == 200
        shown = says("set-password flowbot").split()[-1]
        refused(flowbot.get("/tokens/servers"), 401)
        assert not signs_in("flowbot")
        assert signs_in("flowbot", shown)
        told = says("set-password flowbot --password-stdin", input="another one\n")
        assert (
            told == "Changed the password of user 'flowbot'; all sessions of the user have ended.\n"
        )
        assert signs_in("flowbot", "another one")


class TestTypingErrors:
    """What nothing depends on can be deleted."""

    def test_a_user_without_tokens_is_deleted_with_all_grants(self, says, stranger):
        says("add-user flowbto --password-stdin", input="long enough\n")
        says("grant flowbto viewer")
        assert stranger.sign_in("flowbto", "long enough").status_code == 200
        assert says("delete-user flowbto") == "Deleted user 'flowbto'.\n"
        assert stranger.get("/is_signed_in").status_code == 401
        assert stranger.sign_in("flowbto", "long enough").status_code == 401
        assert [user["name"] for user in json.loads(says("users --json"))] == ["flowbot"]

    def test_a_user_with_tokens_stays(self, says, fails, flowbot):
        flowbot.minted()
        assert fails("delete-user flowbot") == (
            "Error: User 'flowbot' has tokens in the history, which stays. Revoke all roles and "
            "set another password instead; nothing was changed."
        )
        assert flowbot.renew(1).status_code == 200

    def test_an_audience_is_deleted_once_it_has_no_roles(self, says, fails):
        says("add-audience TEST_SEVER --max-lifetime-minutes 5")
        says("add-role r --audience TEST_SEVER --scope s --max-lifetime-minutes 5")
        assert fails("delete-audience TEST_SEVER") == (
            "Error: Audience 'TEST_SEVER' has roles: delete them first; nothing was changed."
        )
        says("delete-role r")
        assert says("delete-audience TEST_SEVER") == "Deleted audience 'TEST_SEVER'.\n"
        assert "TEST_SEVER" not in says("audiences")

    def test_an_audience_with_tokens_stays(self, says, fails, flowbot):
        flowbot.minted()
        says("delete-role viewer")
        says("delete-role runner")
        assert "has tokens in the history" in fails("delete-audience TEST_SERVER")

    @pytest.mark.parametrize("line", ["delete-user nobody", "delete-audience NONE"])
    def test_an_unknown_one_is_named(self, fails, line):
        assert f"{line.split()[1]!r} does not exist. List the " in fails(line)
