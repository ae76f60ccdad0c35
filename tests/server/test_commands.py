"""The command line as its users meet it."""

import json
import re
import subprocess
import sys

import jwt
import pytest
from click.testing import CliRunner

from flowauth_rotator.server.commands import serve, server

MINT_LINE = "mint --user flowbot --audience TEST_SERVER --name AIRFLOW --role viewer"
MINT = MINT_LINE.split()


@pytest.fixture
def run(data_dir):
    """Run a `server` command on the data directory; the answer is what click's runner gives."""

    def run(*arguments, **kwargs):
        environ = {"FLOWAUTH_ROTATOR_DATA_DIR": str(data_dir)}
        return CliRunner(env=environ).invoke(server, arguments, **kwargs)

    return run


@pytest.fixture
def fails(run):
    """Run a command that must fail with one sentence, no traceback and nothing on stdout."""

    def fails(*arguments, **kwargs):
        result = run(*arguments, **kwargs)
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code != 0
        assert result.stdout == ""
        return result.stderr.splitlines()[-1]

    return fails


def test_an_empty_data_directory_option_is_refused():
    result = CliRunner().invoke(server, ["tokens", "--data-dir", ""])
    assert result.exit_code == 2
    assert result.stderr.endswith("it is empty.\n")


def test_from_nothing_to_a_token(tmp_path):
    """The commands of the README, one after the other, and a token that the public key verifies."""
    directory = ["--data-dir", str(tmp_path / "new")]
    runner = CliRunner()

    def run(line, **kwargs):
        result = runner.invoke(server, [*line.split(), *directory], **kwargs)
        assert result.exit_code == 0, result.output
        return result.stdout

    run("init")
    run(
        "add-audience TEST_SERVER --max-lifetime-minutes 10080 --latest-expiry 2099-01-31T00:00:00Z"
    )
    run("add-role viewer --audience TEST_SERVER --scope b --scope a --max-lifetime-minutes 1440")
    assert "pass phrase" not in run("add-user flowbot --password-stdin", input="pass phrase\n")
    run("grant flowbot viewer")
    token = run(f"{MINT_LINE} --lifetime-minutes 60").removesuffix("\n")
    public_key = run("public-key")
    claims = jwt.decode(token, public_key, algorithms=["RS256"], audience="TEST_SERVER")
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    assert "AIRFLOW" in run("tokens")
    run("revoke flowbot viewer")


def test_init_twice_changes_nothing(data_dir, fails):
    before = {path.name: path.read_bytes() for path in data_dir.iterdir()}
    assert fails("init").endswith("; nothing was changed.")
    assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == before


@pytest.mark.parametrize("command", [["tokens"], ["public-key"], MINT])
def test_without_a_data_directory_it_says_what_to_run(tmp_path, command):
    result = CliRunner().invoke(server, [*command, "--data-dir", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert f"run `flowauth-rotator server init --data-dir {tmp_path}/none`" in result.stderr
    result = CliRunner().invoke(server, command)
    assert result.exit_code == 2
    assert "FLOWAUTH_ROTATOR_DATA_DIR" in result.stderr


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "add-audience TEST_SERVER --max-lifetime-minutes 5",
            "Audience TEST_SERVER exists already",
        ),
        ("add-audience A --max-lifetime-minutes 0", "0 is not in the range"),
        ("add-audience A --max-lifetime-minutes x", "'x' is not a valid integer"),
        ("add-audience A", "Missing option '--max-lifetime-minutes'"),
        ("add-audience A --max-lifetime-minutes 5 --latest-expiry soon", "is not a time like 2027"),
        ("add-audience A --max-lifetime-minutes 5 --latest-expiry 2099-01-31", "no time zone"),
        ("add-audience A --max-lifetime-minutes 5 --latest-expiry 2020-01-31T00:00Z", "has passed"),
        ("add-role r --audience NONE --scope s --max-lifetime-minutes 5", "no audience NONE"),
        ("add-role r --audience TEST_SERVER --max-lifetime-minutes 5", "Missing option '--scope'"),
        (
            "add-role viewer --audience TEST_SERVER --scope s --max-lifetime-minutes 5",
            "Role viewer of TEST_SERVER exists already",
        ),
        ("add-user flowbot", "User flowbot exists already"),
        ("add-user flow\tbot", "Got unexpected extra argument"),
        ("add-user \x07", "printable characters without spaces"),
        ("grant nobody viewer", "There is no user nobody."),
        ("grant flowbot viewer nothing", "There is no role nothing."),
        ("grant flowbot viewer --audience NONE", "There is no audience NONE."),
        ("grant flowbot", "Missing argument 'ROLES...'"),
        ("revoke flowbot nothing", "There is no role nothing."),
        ("tokens --user nobody", "There is no user nobody."),
        ("mint --user x --audience TEST_SERVER --name A --role viewer", "There is no user x."),
        ("mint --user flowbot --audience X --name A --role viewer", "There is no audience X."),
        (
            "mint --user flowbot --audience TEST_SERVER --name A --role x",
            "Role 'x' is not permitted",
        ),
        (f"{MINT_LINE} --lifetime-minutes 10081", "exceeds the maximum permitted"),
    ],
)
def test_bad_input_is_one_clear_sentence(fails, line, sentence):
    assert sentence in fails(*line.split())


def test_a_failed_grant_grants_nothing(run, fails):
    run("revoke", "flowbot", "viewer")
    fails("grant", "flowbot", "viewer", "nothing")
    assert "is not permitted" in fails(*MINT)


def test_revoking_what_is_not_held_is_refused(run, fails):
    run("revoke", "flowbot", "viewer")
    assert fails("revoke", "flowbot", "viewer") == "Error: User flowbot does not hold role viewer."


def test_a_role_name_on_two_audiences_needs_the_audience(run, fails):
    run("add-audience", "OTHER", "--max-lifetime-minutes", "5")
    run("add-role", "viewer", "--audience", "OTHER", "--scope", "s", "--max-lifetime-minutes", "5")
    assert "several audiences (OTHER, TEST_SERVER)" in fails("grant", "flowbot", "viewer")
    assert run("grant", "flowbot", "viewer", "--audience", "OTHER").exit_code == 0


class TestPasswords:
    def test_one_is_made_and_shown_once(self, run, parts):
        shown = run("add-user", "carol").stdout.split()[-1]
        assert len(shown) >= 20
        assert parts.accounts.sign_in("carol", shown).username == "carol"

    def test_one_is_read_from_standard_input_to_the_end_of_its_line(self, run, parts):
        run("add-user", "carol", "--password-stdin", input=" pass phrase \r\nmore\n")
        assert parts.accounts.sign_in("carol", " pass phrase ").username == "carol"

    @pytest.mark.parametrize("given", ["", "\n", "short\n"])
    def test_a_short_one_is_refused(self, fails, given):
        sentence = fails("add-user", "carol", "--password-stdin", input=given)
        assert sentence == "Error: A password needs at least 8 characters."


class TestTokens:
    def test_the_table(self, run, flowbot):
        flowbot.renew(flowbot.minted(lifetime_minutes=60)["id"], {"lifetime_minutes": 90})
        header, *lines = run("tokens").stdout.splitlines()
        cells = [re.split("  +", line) for line in (header, *lines)]
        assert cells[0][:6] == ["ID", "PARENT", "NAME", "USER", "AUDIENCE", "ROLES"]
        assert cells[0][6:] == ["ISSUED (UTC)", "EXPIRES (UTC)", "STATE"]
        assert cells[1][:6] == ["1", "-", "AIRFLOW", "flowbot", "TEST_SERVER", "runner, viewer"]
        assert cells[1][6:] == ["2027-01-15 08:00:00", "2027-01-15 09:00:00", "live"]
        assert cells[2][:2] == ["2", "1"]
        assert {line.index("live") for line in lines} == {header.index("STATE")}

    def test_json(self, run, flowbot):
        token = flowbot.minted(lifetime_minutes=60)["token"]
        result = run("tokens", "--json", "--user", "flowbot")
        assert json.loads(result.stdout) == [
            {
                "id": 1,
                "parent": None,
                "name": "AIRFLOW",
                "user": "flowbot",
                "audience": "TEST_SERVER",
                "roles": ["runner", "viewer"],
                "issued_at": 1_800_000_000,
                "expires_at": 1_800_003_600,
                "state": "live",
            }
        ]
        assert token[-20:] not in result.stdout

    def test_an_expired_token_says_so(self, run, parts):
        owner = parts.accounts.named_user("flowbot")
        parts.issuing.mint(owner, 1, "OLD", ["viewer"], 5, now=1_700_000_000)
        assert run("tokens").stdout.splitlines()[1].endswith("expired")

    def test_none_yet(self, run):
        assert run("tokens").stdout == "No tokens yet.\n"
        assert run("tokens", "--json").stdout == "[]\n"


def test_every_command_has_help_with_an_example():
    commands = {f"server {name}": command for name, command in server.commands.items()}
    for line, command in ({"serve": serve} | commands).items():
        result = CliRunner().invoke(command, ["--help"])
        assert result.exit_code == 0
        assert f"    flowauth-rotator {line}" in result.stdout
        assert "--data-dir DIR" in result.stdout


@pytest.mark.parametrize("bind", ["", "9091", "localhost", "localhost:", "h:0", "h:65536", "a b:1"])
def test_a_bad_address_is_refused(data_dir, bind):
    result = CliRunner().invoke(serve, ["--data-dir", str(data_dir), "--bind", bind])
    assert result.exit_code == 2
    assert "is not HOST:PORT, like 127.0.0.1:9091." in result.stderr


def test_an_address_in_use_is_refused(renewal_server, data_dir):
    bind = renewal_server.url.removeprefix("http://")
    result = CliRunner().invoke(serve, ["--data-dir", str(data_dir), "--bind", bind])
    assert result.exit_code == 1
    assert result.stderr == f"Error: Cannot listen on {bind}: Address already in use.\n"


def test_mint_prints_the_token_alone_from_a_real_shell(data_dir):
    """As a process of its own: stdout is one line, stderr is empty."""
    code = "import sys; from flowauth_rotator.server.commands import server; server(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *MINT, "--data-dir", data_dir],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.count(".") == 2
