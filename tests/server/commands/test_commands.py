"""The command line as a whole: from nothing to a token, its help, and what goes wrong."""

import sqlite3
from contextlib import closing

import jwt
import pytest
from click.testing import CliRunner

from flowauth_rotator.server.commands import serve, server

MINT = "mint --user flowbot --audience TEST_SERVER --name AIRFLOW --role viewer"


def unknown(kind, name):
    """The message for an unknown name, with the command that lists the known ones."""
    names = f"{kind.lower()}s"
    return (
        f"{kind} {name!r} does not exist. List the {names} with: flowauth-rotator server {names}."
    )


def test_from_nothing_to_a_token(tmp_path):
    """The commands of the README, one after the other, and a token that the public key verifies."""
    directory = ["--data-dir", str(tmp_path / "new")]
    runner = CliRunner()

    def run(line, **kwargs):
        result = runner.invoke(server, [*line.split(), *directory], **kwargs)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    run("init")
    run(
        "add-audience TEST_SERVER --max-lifetime-minutes 10080 --latest-expiry 2099-01-31T00:00:00Z"
    )
    run("add-role viewer --audience TEST_SERVER --scope b --scope a --max-lifetime-minutes 1440")
    assert "pass phrase" not in run("add-user flowbot --password-stdin", input="pass phrase\n")
    run("grant flowbot viewer")
    token = run(f"{MINT} --lifetime-minutes 60").removesuffix("\n")
    public_key = run("public-key")
    claims = jwt.decode(token, public_key, algorithms=["RS256"], audience="TEST_SERVER")
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    assert "AIRFLOW" in run("tokens")
    run("revoke flowbot viewer")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "add-audience TEST_SERVER --max-lifetime-minutes 5",
            "nothing was changed. Change it with: flowauth-rotator server set-audience.",
        ),
        ("add-audience A --max-lifetime-minutes 0", "'0' is not a whole number of minutes from 1"),
        (
            "add-audience A --max-lifetime-minutes x",
            "'x' is not a number of minutes like 1440, or a duration like 12h or 7d.",
        ),
        (f"{MINT} --lifetime-minutes 90s", "'90s' is not a whole number of minutes from 1"),
        (f"{MINT} --lifetime-minutes 999w", "is not a whole number of minutes from 1 to 5270400"),
        (f"{MINT} --lifetime-minutes 1.5", "'1.5' is not a number of minutes like 1440"),
        ("add-audience A", "Missing option '--max-lifetime-minutes'"),
        ("add-audience A --max-lifetime-minutes 5 --latest-expiry soon", "is not a time like 2027"),
        ("add-audience A --max-lifetime-minutes 5 --latest-expiry 2099-01-31", "no time zone"),
        (
            "add-audience A --max-lifetime-minutes 5 --latest-expiry 2020-01-31T00:00Z",
            "is in the past",
        ),
        (
            "set-audience NONE --max-lifetime-minutes 5",
            unknown("Audience", "NONE"),
        ),
        (
            "set-audience TEST_SERVER",
            "Nothing to change: use --max-lifetime-minutes, --latest-expiry or --no-latest-expiry.",
        ),
        (
            "set-audience TEST_SERVER --no-latest-expiry --latest-expiry 2099-01-31T00:00Z",
            "are mutually exclusive",
        ),
        (
            "add-role r --audience NONE --scope s --max-lifetime-minutes 5",
            "Audience 'NONE' does not exist.",
        ),
        ("add-role r --audience TEST_SERVER --max-lifetime-minutes 5", "Missing option '--scope'"),
        (
            "add-role viewer --audience TEST_SERVER --scope s --max-lifetime-minutes 5",
            "Role 'viewer' of audience 'TEST_SERVER' already exists",
        ),
        (
            "set-role viewer",
            "Nothing to change: use --scope, --max-lifetime-minutes, --latest-expiry or ",
        ),
        (
            "set-role nothing --scope s",
            unknown("Role", "nothing"),
        ),
        (
            "delete-role nothing",
            unknown("Role", "nothing"),
        ),
        (
            "delete-role viewer --audience NONE",
            unknown("Audience", "NONE"),
        ),
        (
            "roles --audience NONE",
            unknown("Audience", "NONE"),
        ),
        ("add-user flowbot", "User 'flowbot' already exists; nothing was changed."),
        ("add-user flow\tbot", "Got unexpected extra argument"),
        ("add-user \x07", "printable characters without spaces"),
        (
            "set-password nobody",
            unknown("User", "nobody"),
        ),
        (
            "grant nobody viewer",
            unknown("User", "nobody"),
        ),
        (
            "grant flowbot viewer nothing",
            unknown("Role", "nothing"),
        ),
        (
            "grant flowbot viewer --audience NONE",
            unknown("Audience", "NONE"),
        ),
        ("grant flowbot", "Missing argument 'ROLES...'"),
        (
            "revoke flowbot nothing",
            unknown("Role", "nothing"),
        ),
        (
            "revoke nobody --all",
            unknown("User", "nobody"),
        ),
        ("revoke flowbot", "Name the roles to revoke, or use --all without any other option."),
        (
            "revoke flowbot viewer --all",
            "Name the roles to revoke, or use --all without any other option.",
        ),
        (
            "tokens --user nobody",
            unknown("User", "nobody"),
        ),
        (
            "mint --user x --audience TEST_SERVER --name A --role viewer",
            unknown("User", "x"),
        ),
        (
            "mint --user flowbot --audience X --name A --role viewer",
            unknown("Audience", "X"),
        ),
        (
            "mint --user flowbot --audience TEST_SERVER --name A --role x",
            "User 'flowbot' does not have role 'x' on audience 'TEST_SERVER', only: runner, viewer",
        ),
        (
            "mint --user flowbot --audience TEST_SERVER --name A --role x",
            "Grant it with: flowauth-rotator server grant flowbot x --audience TEST_SERVER",
        ),
        (
            f"{MINT} --lifetime-minutes 8d",
            "A lifetime of 11520 minutes is too long. Audience 'TEST_SERVER' permits 10080 minutes",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(fails, line, sentence):
    assert sentence in fails(line)


class TestHelp:
    def test_every_command_takes_the_data_directory(self):
        for command in (serve, *server.commands.values()):
            result = CliRunner().invoke(command, ["--help"])
            assert result.exit_code == 0
            assert "--data-dir DIR" in result.stdout

    def test_the_group_shows_every_command_whole_under_a_heading(self):
        shown = CliRunner().invoke(server, ["--help"]).stdout
        for name, command in server.commands.items():
            first_sentence = command.help.split("\n")[0]
            assert any(
                line.split(maxsplit=1) == [name, first_sentence] for line in shown.splitlines()
            )
        headings = [line for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
        assert headings[1:] == [
            "Data directory:",
            "Audiences and roles:",
            "Users:",
            "Tokens:",
            "Keys:",
        ]

    @pytest.mark.parametrize("option", ["--password", "--token", "--key", "--secret"])
    def test_nothing_secret_is_taken_from_the_command_line(self, option):
        for command in server.commands.values():
            assert not [names for names in command.params if option in names.opts]


class TestWhatGoesWrong:
    def test_an_empty_data_directory_option_is_refused(self):
        result = CliRunner().invoke(server, ["tokens", "--data-dir", ""])
        assert result.exit_code == 2
        assert result.stderr.endswith("the path is empty.\n")

    @pytest.mark.parametrize("line", ["tokens", "public-key", "backup file", "upgrade", MINT])
    def test_without_a_data_directory_it_says_what_to_run(self, tmp_path, line):
        result = CliRunner().invoke(server, [*line.split(), "--data-dir", str(tmp_path / "none")])
        assert result.exit_code == 1
        assert f"run `flowauth-rotator server init --data-dir {tmp_path}/none`" in result.stderr
        result = CliRunner().invoke(server, line.split())
        assert result.exit_code == 2
        assert "Missing option '--data-dir'" in result.stderr  # with the variable since click 8.2

    def test_a_setting_that_cannot_be_understood_is_named(self, fails, monkeypatch):
        monkeypatch.setenv("MAX_FAMILY_AGE", "soon")
        assert fails("tokens") == (
            "Error: MAX_FAMILY_AGE='soon' is not a duration like 30m, 12h or 400d."
        )

    def test_a_broken_database_is_named(self, fails, data_dir):
        (data_dir / "history.db").write_bytes(b"nonsense" * 1000)
        assert "history.db is unusable (file is not a database)" in fails("tokens")

    def test_a_postgresql_that_is_not_there_is_named_without_its_password(self, fails, monkeypatch):
        monkeypatch.setenv("DATABASE_URL", "postgresql://flow:secret@127.0.0.1:1/flow")
        sentence = fails("tokens")
        assert "postgresql://flow:***@127.0.0.1:1/flow is unusable" in sentence
        assert "secret" not in sentence

    @pytest.mark.slow
    def test_a_writer_who_does_not_end_is_waited_for_and_then_named(self, fails, data_dir):
        with closing(sqlite3.connect(data_dir / "history.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            sentence = fails("revoke flowbot viewer")
        assert (
            sentence == "Error: The database is unusable (another writer did not finish in time)."
        )

    @pytest.mark.parametrize(
        "bind", ["", "9091", "localhost", "localhost:", "h:0", "h:65536", "a b:1"]
    )
    def test_a_bad_address_is_refused(self, data_dir, bind):
        result = CliRunner().invoke(serve, ["--data-dir", str(data_dir), "--bind", bind])
        assert result.exit_code == 2
        assert "is not HOST:PORT, like 127.0.0.1:9091." in result.stderr

    def test_an_address_in_use_is_refused(self, renewal_server, data_dir):
        bind = renewal_server.url.removeprefix("http://")
        result = CliRunner().invoke(serve, ["--data-dir", str(data_dir), "--bind", bind])
        assert result.exit_code == 1
        assert result.stderr == (
            f"Error: Cannot listen on {bind}: Address already in use. Stop the program that uses "
            "it, or choose another port with --bind HOST:PORT.\n"
        )

    def test_an_address_of_another_machine_is_refused(self, data_dir):
        result = CliRunner().invoke(
            serve, ["--data-dir", str(data_dir), "--bind", "192.0.2.1:9091"]
        )
        assert result.exit_code == 1
        assert result.stderr.endswith(
            "192.0.2.1 is not an address of this machine: choose one with --bind HOST:PORT.\n"
        )

    @pytest.mark.parametrize("line", ["tokens", "init"])
    @pytest.mark.parametrize("scheme", ["mysql", "sqlite"])
    def test_another_database_is_named_without_its_password(self, fails, monkeypatch, scheme, line):
        monkeypatch.setenv("DATABASE_URL", f"{scheme}://flow:secret@db.example/flow")
        assert fails(line) == (
            f"Error: DATABASE_URL is a {scheme} URL, but only PostgreSQL is supported: set a URL "
            "like postgresql://user:password@host/database, or unset it to use SQLite in the data "
            "directory."
        )

    @pytest.mark.parametrize("line", ["tokens", "upgrade", "init"])
    def test_a_file_is_not_a_data_directory(self, tmp_path, line):
        (tmp_path / "file").touch()
        for place in ("file", "file/below"):
            result = CliRunner().invoke(server, [line, "--data-dir", str(tmp_path / place)])
            assert result.exit_code == 1
            assert "is a file" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
