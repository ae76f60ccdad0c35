"""The command line for a token in a file, against a real renewal server."""

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import time

import click
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from demo.parts import BIN, clean_environment
from flowauth_rotator.cli.main import main
from flowauth_rotator.cli.options import name_options
from flowauth_rotator.cli.sources import fetch_remote_airflow
from flowauth_rotator.core.errors import StoreUnavailable
from flowauth_rotator.core.report import Severity
from flowauth_rotator.core.tokens import Token, read_unverified
from flowauth_rotator.monitoring.status import StatusDocument

URL, LOGIN = "http://127.0.0.1:9", ("--username", "flowbot")
CHECK_ISSUER = ("check", "--issuer", URL, *LOGIN)
ROTATE = ("rotate", "flowapi.token", "--url", URL, *LOGIN, "--password-stdin")

pytestmark = pytest.mark.holds_secrets("flowapi.token")


@pytest.fixture
def run():
    """Run a command; the result has `exit_code`, `stdout` and `stderr`."""
    return lambda *words, stdin="": CliRunner().invoke(main, list(map(str, words)), input=stdin)


@pytest.fixture
def file(renewal_server, tmp_path):
    """A file with a due token."""
    path = tmp_path / "flowapi.token"
    path.write_text(renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 2700) + "\n")
    return path


def test_plan_shows_when(run, renewal_server, tmp_path):
    """Name, expiry and the time of the renewal, in UTC; no request is made."""
    path = tmp_path / "flowapi.token"
    path.write_text(renewal_server.mint("AIRFLOW"))
    shown = run("plan", path)
    assert shown.exit_code == 0
    head, row = (line.split("\t") for line in shown.stdout.splitlines())
    assert head == ["name", "severity", "left", "renewal due", "details"]
    assert row[1] == "OK"
    assert row[4].startswith("Expires in 59 min ")
    assert f"Renewal is due at {row[3]}." in row[4]
    assert shown.stdout.count(" UTC") == 3
    assert renewal_server.requests == []


def test_plan_prints_the_json_of_a_status(run, renewal_server, tmp_path):
    """The shape of `check --format json`: one token, and no DAGs."""
    path = tmp_path / "flowapi.token"
    minted = renewal_server.mint("AIRFLOW")
    path.write_text(minted)
    document = json.loads(run("plan", path, "--json").stdout)
    [token] = StatusDocument.from_json(document).tokens
    claims = read_unverified(Token(minted))
    assert (document["dags"], document["severity"]) == (None, "ok")
    assert token.expires_at == claims.expires_at
    assert token.issued_at < token.renew_at < token.critical_at < token.expires_at
    assert (token.owner, token.audience) == (renewal_server.username, renewal_server.audience)
    assert token.roles == ("runner", "viewer")
    assert token.fingerprint == claims.digest[:8]
    assert token.name == (claims.token_name or path.name)
    assert token.name_is_known == (claims.token_name is not None)
    assert minted not in json.dumps(document)


def test_plan_warns_of_a_token_from_the_future(run, renewal_server, tmp_path):
    """The clock of this machine is behind."""
    path = tmp_path / "flowapi.token"
    path.write_text(renewal_server.mint("AIRFLOW", issued_at=int(time.time()) + 1000))
    document = json.loads(run("plan", path, "--json").stdout)
    [token] = document["tokens"]
    assert (document["severity"], token["state"]) == ("warning", "healthy")
    assert "correct the clock of this machine" in token["hint"]


def test_plan_takes_another_threshold(run, renewal_server, tmp_path):
    """A fraction or a duration, like the settings of the DAG."""
    path = tmp_path / "flowapi.token"

    def states():
        for share in ("1/3", "0.1", "29m", "1/2", "5h"):
            shown = run("plan", path, "--json", "--renew-before", share)
            yield json.loads(shown.stdout)["tokens"][0]["state"]

    path.write_text(renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 1000))
    assert list(states()) == ["healthy"] * 5
    path.write_text(renewal_server.mint("AIRFLOW", issued_at=int(time.time()) - 1900))
    assert list(states()) == ["healthy", "healthy", "due", "due", "due"]


def test_rotate_renews_with_the_token_itself(run, renewal_server, file):
    """Without a username the token is its own credential; the report shows the overlap."""
    before = file.read_text()
    shown = run("rotate", file, "--url", renewal_server.url)
    assert shown.exit_code == 0, shown.output
    assert "rotated. The successor expires at" in shown.stdout
    assert "old token until" in shown.stdout
    same = file.read_text() == before
    assert not same
    assert renewal_server.requests == ["POST /tokens/renew"]


def test_rotate_renews_with_a_sign_in(run, renewal_server, file, tmp_path):
    """The password comes by standard input; the public key verifies; the lifetime is requested."""
    key = tmp_path / "key.pem"
    key.write_text(renewal_server.public_key_pem)
    shown = run(
        *("rotate", file, "--url", renewal_server.url, "--username", renewal_server.username),
        *("--password-stdin", "--public-key", key, "--lifetime-minutes", 90, "--json"),
        stdin=renewal_server.password + "\n",
    )
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert (document["outcome"], document["renewal_requests"]) == ("rotated", 1)
    claims = read_unverified(Token(file.read_text().strip()))
    assert claims.lifetime.total_seconds() == 90 * 60


def test_a_dry_run_prints_each_step_and_mints_nothing(run, renewal_server, file):
    """It signs in, finds the token, and says when the renewal is due."""
    before, rows = file.read_text(), renewal_server.rows()
    login = ("--username", renewal_server.username, "--password-stdin")
    rotate = ("rotate", file, "--url", renewal_server.url, *login, "--dry-run")
    shown = run(*rotate, stdin=renewal_server.password)
    assert shown.exit_code == 0, shown.output
    steps = [line for line in shown.stdout.splitlines() if line.startswith("ok: ")]
    assert steps[0].startswith("ok: Renewal has been due since ")
    assert "ok: The issuer accepts a renewal of AIRFLOW." in steps
    assert "will work." in shown.stdout
    same = file.read_text() == before
    assert (same, renewal_server.rows()) == (True, rows)


def test_a_dry_run_that_fails_says_what_the_renewal_would_say(run, renewal_server, file):
    """After the steps that succeeded."""
    login = ("--username", renewal_server.username, "--password-stdin")
    rotate = ("rotate", file, "--url", renewal_server.url, *login, "--dry-run")
    shown = run(*rotate, stdin="wrong")
    assert shown.exit_code == 1
    assert shown.stdout.count("ok: ") == 2
    assert "Sign-in of 'flowbot' failed" in shown.stderr


def test_a_healthy_token_is_left_alone(run, renewal_server, tmp_path):
    """Exit code 0, no request."""
    path = tmp_path / "flowapi.token"
    path.write_text(renewal_server.mint("AIRFLOW"))
    shown = run("rotate", path, "--url", renewal_server.url)
    assert (shown.exit_code, renewal_server.requests) == (0, [])
    assert "healthy" in shown.stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["plan", "nowhere"], 1, "The file nowhere does not exist."),
        (["plan", "f", "--renew-before", "soon"], 2, "neither a fraction like 1/3 nor a duration"),
        (["plan", "f", "--renew-before", "0.9"], 1, "--renew-before is 0.9 of the lifetime."),
        (["rotate", "f"], 2, "Missing option '--url'"),
        (["rotate", "f", "--url", "flowauth"], 1, "does not begin with http"),
        (["rotate", "f", "--url", "http://x", "--password-stdin"], 2, "needs --username"),
        (["rotate", "f", "--url", "http://x", "--username", "u"], 2, "needs --password-stdin"),
        (
            ["rotate", "f", "--url", "http://x", "--lifetime-minutes", "0"],
            1,
            "--lifetime-minutes is 0.",
        ),
        (["rotate", "f", "--url", "http://x", "--public-key", "none"], 2, "No such file"),
        (["rotat"], 2, "No such command 'rotat'"),
    ],
)
def test_bad_input_gets_one_sentence(run, words, code, sentence):
    """What is wrong and what to do, a non-zero exit, and no traceback."""
    shown = run(*words)
    assert shown.exit_code == code
    assert sentence in shown.stderr
    assert "Traceback" not in shown.output


def test_an_error_names_what_the_command_line_has():
    """The connection has `verify`; a command has --ca-file."""
    assert name_options("Set `verify`. `renew_before` is 0.9. `x`") == (
        "Set --ca-file. --renew-before is 0.9. `x`"
    )
    assert name_options("`password`", input_option="--password-file") == "--password-file"


def test_credentials_are_those_of_the_command(run, flowauth, tmp_path, capfd):
    """FlowAuth wants some, and refuses wrong ones; each command has options of its own."""
    file = tmp_path / "flowapi.token"
    file.write_text(flowauth.mint("NAME", ["viewer"], 60, issued_at=time.time() - 2700))
    (tmp_path / "wrong").write_text("wrong")
    rotate = ("rotate", file, "--url", flowauth.url)
    assert "Add --username and --password-stdin of the token's owner." in run(*rotate).stderr
    refused = run(*rotate, "--username", flowauth.username, "--password-stdin", stdin="wrong\n")
    assert "Correct --username and --password-stdin." in refused.stderr
    run(
        *("check", "--issuer", flowauth.url, "--username", flowauth.username),
        *("--password-file", tmp_path / "wrong"),
    )
    assert "Correct --username and --password-file." in capfd.readouterr().out
    credentials = run("rotate", file, "--url", "https://u:canary@gw.example")
    assert "which belong in --username and --password-stdin" in credentials.stderr
    assert "canary" not in credentials.output


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--airflow", "u:canary@gw"),
        ("check", "--airflow", "https://u:canary@gw"),
        ("check", "--airflow", "https://u:canary@gw", "--scrape-token-file", "secret"),
        ("plan", "--airflow", "https//u:canary@gw"),
        (*CHECK_ISSUER[:2], "u:canary://gw", *LOGIN, "--password-file", "secret"),
    ],
)
def test_credentials_in_an_address_are_not_shown(run, tmp_path, monkeypatch, capfd, words):
    """The output of a check goes to a monitoring system."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("secret")
    shown = run(*words)
    assert shown.exit_code
    assert "canary" not in f"{shown.output}{''.join(capfd.readouterr())}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_public_key_in_another_encoding_is_named_as_such(run, file, renewal_server, encoding):
    """Its text looks right in an editor."""
    key = file.with_name("key.pem")
    key.write_text(renewal_server.public_key_pem, encoding=encoding)
    shown = run("rotate", file, "--url", renewal_server.url, "--public-key", key)
    assert "public key is not UTF-8. Save it as UTF-8." in shown.stderr


def test_an_address_is_named_by_its_option(run, tmp_path, capfd):
    """Also that of an Airflow, which is not an issuer."""
    (tmp_path / "secret").write_text("secret")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for url, words in (
            (f"http://127.0.0.1:{unused.getsockname()[1]}", "the address in {}"),
            ("http://flow auth", "{} contains a blank at position 12"),
            ("http://gw:0", "{} has the port 0"),
        ):
            run("check", "--airflow", url, "--scrape-token-file", tmp_path / "secret")
            shown = capfd.readouterr().out
            assert words.format("--airflow") in shown
            assert "issuer" not in shown
            assert "the same version" not in shown
            run("check", "--issuer", url, *LOGIN, "--password-file", tmp_path / "secret")
            assert words.format("--issuer") in capfd.readouterr().out


def test_an_airflow_out_of_reach_is_not_one_of_another_version(run, tmp_path, monkeypatch, capfd):
    """A dead proxy, and an Airflow that does not respond in time, have hints of their own."""
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreUnavailable) as late:
            fetch_remote_airflow(url, "secret", timeout=0.2)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        run("check", "--airflow", url, "--scrape-token-file", tmp_path / "secret")
    assert "did not respond completely within 0.2 s" in late.value.message
    assert late.value.hint == "Check that Airflow runs and is not overloaded."
    assert "or add Airflow's host to NO_PROXY" in capfd.readouterr().out


def test_rotate_reaches_what_a_connection_reaches(run, file, tmp_path):
    """Its errors name options that it has, for certificates, timeouts and two-factor secrets."""
    secret = tmp_path / "totp"
    secret.write_bytes(b"\xef\xbb\xbfAAA\n")
    rotate = ("rotate", file, "--url", "https://127.0.0.1:9")
    login = ("--username", "flowbot", "--password-stdin")
    shown = run(*rotate, *login, "--totp-secret-file", secret, stdin="password\n")
    assert "--totp-secret-file has 3 characters" in shown.stderr
    shown = run(*rotate, "--timeout", "0")
    assert "--timeout is 0" in shown.stderr
    shown = run(*rotate, "--ca-file", secret)
    assert "--ca-file is" in shown.stderr
    shown = run(*rotate, "--totp-secret-file", secret)
    assert "--totp-secret-file needs --username" in shown.stderr
    assert "`" not in run("rotate", file, "--url", "http://x y").stderr


SECRETS = [  # the words before the option with the secret, the option and its value
    (CHECK_ISSUER, "--password-file", "secret"),
    ((*CHECK_ISSUER, "--password-file", "password"), "--totp-secret-file", "secret"),
    (("check", "--airflow", URL), "--scrape-token-file", "secret"),
    (("plan", "--airflow", URL), "--scrape-token-file", "secret"),
    (ROTATE, "--totp-secret-file", "secret"),
    (ROTATE[:-1], "--password-stdin"),
]
UNREADABLE = {
    "": "has an empty first line",
    "\r\nsecond": "has an empty first line",
    "utf-8-sig": "has an empty first line",
    "utf-16": "is not UTF-8 text: it begins with a UTF-16 byte order mark. Save it as UTF-8.",
    "utf-16-be": "is not UTF-8 text: it contains null bytes, as UTF-16 does. Save it as UTF-8.",
    "latin-1": "is not UTF-8 text: it has a character in another encoding, such as latin-1.",
}


@pytest.mark.parametrize("command", SECRETS)
@pytest.mark.parametrize("content", UNREADABLE)
def test_a_secret_that_cannot_be_read_is_not_sent(
    run, tmp_path, monkeypatch, capfd, command, content
):
    """A wrong password would be refused, and too many lock the account."""
    text = "" if content == "utf-8-sig" else "pässwörtchen\r\n"
    data = text.encode(content) if content[:1].isalpha() else content.encode()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("pw")
    (tmp_path / "secret").write_bytes(data)
    words, option, *value = command
    shown = run(*words, option, *value, stdin=data)
    shown = f"{shown.output}{''.join(capfd.readouterr())}"  # `check` writes past the runner
    assert f"The input of {option} {UNREADABLE[content]}" in " ".join(shown.split())
    assert "Traceback" not in shown


def test_a_refusal_is_one_sentence_in_the_issuers_words(run, renewal_server, file):
    """The file stays as it was."""
    before = file.read_text()
    renewal_server.revoke("viewer")
    shown = run("rotate", file, "--url", renewal_server.url)
    assert shown.exit_code == 1
    assert "no longer assigned to you: viewer" in shown.stderr
    same = file.read_text() == before
    assert same


def test_a_failure_is_json_too_with_json(run, renewal_server, file):
    """The report on standard output, the message on standard error, the exit code of a failure."""
    renewal_server.revoke("viewer")
    refused = run("rotate", file, "--url", renewal_server.url, "--json")
    report = json.loads(refused.stdout)
    assert (report["outcome"], report["renewal_requests"]) == ("refused", 1)
    assert report["name"] == "AIRFLOW"
    assert refused.exit_code == 1
    assert "Error: " in refused.stderr


@pytest.mark.parametrize(
    ("content", "options", "outcome"),
    [
        (None, (), "missing"),
        ("not a token", (), "malformed"),
        ("x", ("--renew-before", "0.9"), "misconfigured"),
    ],
)
def test_plan_prints_a_status_if_the_token_cannot_be_read(run, tmp_path, content, options, outcome):
    """A critical token with the error; the message is on standard error, too."""
    path = tmp_path / "flowapi.token"
    if content:
        path.write_text(content)
    shown = run("plan", path, "--json", *options)
    document = json.loads(shown.stdout)
    [token] = StatusDocument.from_json(document).tokens
    assert (token.name, token.name_is_known) == (path.name, False)
    assert (token.read_error.outcome, token.read_error.severity) == (outcome, Severity.CRITICAL)
    assert document["severity"] == "critical"
    assert shown.exit_code == 1
    assert "Error: " in shown.stderr


def test_no_help_names_a_function_as_the_value_of_an_option():
    """Click shows the name of the function that parses a value, unless it has another."""
    commands = [main]
    for group in commands:
        context = click.Context(group)
        children = [group.get_command(context, each) for each in group.list_commands(context)]
        commands += [child for child in children if isinstance(child, click.Group)]
        for child in children:
            for option in child.params:
                if isinstance(option.type, click.types.FuncParamType):
                    assert isinstance(option, click.Argument) or option.metavar, option


def test_help_lists_every_command(run):
    listing = run("--help").stdout
    for command in main.list_commands(click.Context(main)):
        assert f"\n  {command} " in listing


def test_init_dag_writes_the_file_of_the_dag_once(run, tmp_path):
    """A folder is created; a file that somebody has changed stays."""
    path = tmp_path / "airflow" / "dags" / "flowauth_token_rotation.py"
    written = run("init-dag", path.parent)
    assert (written.exit_code, written.stdout.split()[:2]) == (0, ["Wrote", f"{path}."])
    assert "dag = rotation_dag()" in path.read_text()
    path.write_text("mine")
    again = run("init-dag", path.parent)
    assert (again.exit_code, path.read_text()) == (0, "mine")
    assert again.stdout == f"{path} exists already; nothing was changed.\n"


def test_init_dag_says_where_it_cannot_write(run, tmp_path):
    (tmp_path / "file").touch()
    refused = run("init-dag", tmp_path / "file" / "dags")
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: {tmp_path / 'file' / 'dags'}")
    assert "cannot be written: Not a directory." in refused.stderr


def run_in_terminal(*words, columns=80, **settings):
    """Run a command in a terminal of this width; returns the exit code and the output."""
    main_end, terminal_end = os.openpty()
    width = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, width)
    env = clean_environment(TERM="xterm", **settings)
    command = [BIN / "flowauth-rotator", *words]
    with subprocess.Popen(command, env=env, stdout=terminal_end, stderr=terminal_end) as process:
        os.close(terminal_end)
        output = b""
        with contextlib.suppress(OSError):  # of a terminal that nobody writes to any more
            while data := os.read(main_end, 4096):
                output += data
        os.close(main_end)
        return process.wait(), output


def plan_in_terminal(path, columns=80, encoding="utf-8", errors="strict"):
    """Run `plan` in a terminal of this width and encoding; returns its lines."""
    encoding_setting = {"PYTHONIOENCODING": f"{encoding}:{errors}"}
    code, output = run_in_terminal("plan", path, columns=columns, NO_COLOR="1", **encoding_setting)
    assert code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", output.decode(encoding)).splitlines()


@pytest.mark.parametrize("words", [["chekc"], ["server", "chekc"], ["plan", "no-file"]])
def test_an_error_is_red_in_a_terminal(words):
    """Unless NO_COLOR is set; in a pipe it is plain."""
    code, output = run_in_terminal(*words)
    red = b"\x1b[31mError:\x1b[0m"
    assert red in output
    assert (code, output.replace(red, b"Error:")) == run_in_terminal(*words, NO_COLOR="1")
    command = [BIN / "flowauth-rotator", *words]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"Error:"), b"\x1b" in done.stderr) == (
        code,
        1,
        False,
    )


def test_a_terminal_shows_what_a_command_waits_for(file, renewal_server):
    """The text is gone at the end, and a pipe never has it."""
    _, output = run_in_terminal("rotate", file, "--url", renewal_server.url)
    text, erase_line = "Renewing the token if it is due ...", "\x1b[2K"
    shown = output.decode()
    assert text in shown
    assert erase_line in shown[shown.rindex(text) :]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "name", ["AIRFLOW", "Düngemittel 東京", "a name of more than ten characters"]
)
@pytest.mark.parametrize("columns", [80, 120])
def test_plan_fits_into_any_terminal(renewal_server, tmp_path, name, encoding, columns):
    """No traceback for a character that it cannot show; bars and dates stay on the line."""
    path = tmp_path / "flowapi.token"
    path.write_text(renewal_server.mint(name))
    lines = plan_in_terminal(path, columns, encoding)
    [head] = [line for line in lines if "severity" in line]
    [row] = [line for line in lines if "OK" in line]
    assert max(map(cell_len, lines)) <= columns
    for title, value in (("severity", "OK"), ("left", "59 min"), ("renewal due", "20")):
        assert cell_len(row[: row.index(value)]) == cell_len(head[: head.index(title)])


def test_an_airflow_that_cannot_be_imported_is_one_sentence(tmp_path):
    """A setting of Airflow may run a command, and that may fail."""
    settings = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_CMD": "false"}
    command = "from flowauth_rotator.cli.main import main; main(['plan'])"
    done = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Airflow cannot be imported in this environment" in done.stderr
    assert "Traceback" not in done.stderr
