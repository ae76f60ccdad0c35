"""`flowauth-rotator check` with a remote Airflow, an issuer, or both."""

import json
import socket
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from demo.parts import BIN, clean_environment
from flowauth_rotator.cli.main import main
from flowauth_rotator.cli.sources import list_issued_tokens
from flowauth_rotator.core.policy import RotationPolicy
from flowauth_rotator.core.tokens import Token, read_unverified
from flowauth_rotator.monitoring.status import StatusDocument
from tests.monitoring import grammar

pytestmark = pytest.mark.holds_secrets("password")

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture
def check(capfd):
    """Call the command; exit code and output."""

    def check(*words):
        with pytest.raises(SystemExit) as ended:
            main(["check", *map(str, words)])
        return ended.value.code, capfd.readouterr().out

    return check


@pytest.fixture
def from_airflow(airflow, scrape_token_file):
    return ("--airflow", airflow.url, "--scrape-token-file", scrape_token_file)


@pytest.fixture
def from_issuer(renewal_server, password_file):
    account = ("--username", renewal_server.username, "--password-file", password_file)
    return ("--issuer", renewal_server.url, *account)


@pytest.mark.parametrize(
    ("hours_left", "options", "code"),
    [
        (40, (), 0),
        (40, ("--warning", "50h", "--critical", "30h"), 1),
        (40, ("--warning", "50h", "--critical", "45h"), 2),
        (11, (), 1),
        (5, (), 2),
    ],
)
def test_the_thresholds_are_applied_here(check, airflow, from_airflow, hours_left, options, code):
    """The remote Airflow prints its own severities, which do not count."""
    airflow.watch({"etl main": hours_left})
    assert check(*from_airflow, "--name", "etl main", *options)[0] == code


@pytest.mark.parametrize("words", [("-V",), ("--version",), ("-h",), ("--help",)])
def test_help_and_version_are_not_ok(check, words):
    """The convention of plugins: a service that runs them by mistake is UNKNOWN."""
    code, text = check(*words)
    assert (code, text.strip() != "") == (3, True)


def test_the_short_options_of_plugins_are_those_with_names(check, airflow, from_airflow):
    airflow.watch({"etl main": 40})
    long = ("--warning", "50h", "--critical", "45h", "--timeout", "30")
    short = ("-w", "50h", "-c", "45h", "-t", "30")
    assert check(*from_airflow, *long)[0] == check(*from_airflow, *short)[0] == 2


@pytest.mark.parametrize(("output_format", "code"), [("nagios", 3), ("checkmk", 0)])
def test_a_check_ends_at_its_timeout(check, scrape_token_file, output_format, code):
    """With what the monitoring system would not say, which kills a check that takes too long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = ("--airflow", url, "--scrape-token-file", scrape_token_file, "-t", "1")
        actual, text = check(*options, "--format", output_format)
    assert (actual, "The check did not end within 1 s." in text) == (code, True)


def test_a_certificate_is_trusted_if_its_file_is_named(check, airflow, from_airflow, certificate):
    """Without, the message names the option."""
    airflow.watch({"etl main": 40})
    airflow.use_tls(certificate)
    options = ("--airflow", airflow.url, *from_airflow[2:])
    code, text = check(*options)
    assert (code, "could not be verified. Set --ca-file to" in text) == (3, True)
    assert check(*options, "--ca-file", certificate)[0] == 0
    code, text = check(*options, "--ca-file", __file__)
    assert (code, f"--ca-file is '{__file__}', which is not" in text) == (3, True)


def test_verbose_logs_requests_without_secrets(airflow, from_airflow):
    """On standard error: standard output is for the monitoring system."""
    airflow.watch({"etl main": 40})
    done = run(*from_airflow, "-v")
    assert done.stdout.startswith("TOKENS OK")
    assert '"GET /flowauth-rotator/api/check HTTP/1.1" 200' in done.stderr
    assert airflow.scrape_token not in done.stderr


@pytest.mark.parametrize("home", [None, "nowhere", "empty"])
def test_without_settings_of_airflow_nothing_is_written(tmp_path, home):
    """An import of Airflow would write its configuration and a database into the home folder."""
    (tmp_path / "empty").mkdir()
    settings = {"HOME": str(tmp_path)} | ({"AIRFLOW_HOME": str(tmp_path / home)} if home else {})
    done = run(**settings)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "TOKENS UNKNOWN - This environment has no settings of Airflow: AIRFLOW_HOME is "
        + (f"{tmp_path / home}, and" if home else "not set, and")
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def run(*words, **settings):
    """Call the command in a process of its own."""
    return subprocess.run(
        [BIN / "flowauth-rotator", "check", *map(str, words)],
        env=clean_environment(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_formats_agree(check, airflow, from_airflow):
    """One message and one severity everywhere; JSON lists all tokens."""
    airflow.watch({"etl main": 11})
    message = "Expires in 10 h 59 min ("
    code, text = check(*from_airflow, "--name", "etl main")
    assert (code, text.startswith(f"TOKEN WARNING - 'etl main': {message}")) == (1, True)
    _, lines = check(*from_airflow, "--format", "checkmk")
    line = grammar.checkmk(lines)["FlowAuth_Token_etl main"]
    assert (line.state, line.text.startswith(message)) == (1, True)
    _, text = check(*from_airflow, "--format", "json")
    [token] = json.loads(text)["tokens"]
    assert (token["severity"], token["message"].startswith(message)) == ("warning", True)
    code, text = check(*from_airflow, "--format", "prometheus")
    assert (code, 'token_severity{name="etl main"} 1.0' in text) == (0, True)


def test_a_former_name_raises_no_alert(check, airflow, from_airflow):
    """A service that was defined by the key of the Variable goes on with the same token."""
    airflow.watch({"etl main": 40})
    [token] = airflow.document.tokens
    renamed = replace(token, former_name="ETL", renamed_at=datetime.now(timezone.utc))
    airflow.document = replace(airflow.document, tokens=[renamed])
    code, text = check(*from_airflow, "--name", "ETL")
    assert (code, "'etl main'" in text, "its name was 'ETL'" in text) == (0, True, True)
    assert check(*from_airflow, "--name", "gone")[0] == 2


@pytest.mark.parametrize("words", [(), ("--agent",)])
def test_an_airflow_that_manages_no_tokens_is_a_warning(check, airflow, from_airflow, words):
    """The list may have been emptied by mistake: nothing would be watched, and all be OK."""
    airflow.watch({})
    airflow.document = replace(
        airflow.document, dags=[replace(airflow.document.dags[0], token_count=0)]
    )
    code, text = check(*from_airflow, *words)
    assert (code, "AGENT WARNING - rotation: No tokens are managed" in text) == (1, True)


@pytest.mark.parametrize(
    ("age", "hours_left", "code", "clause"),
    [
        (4 * MINUTE, 40, 0, ""),
        (-4 * MINUTE, 40, 0, ""),
        (
            72 * HOUR + 30 * MINUTE,
            40,
            3,
            "TOKEN UNKNOWN - 'etl main': Airflow's response was made 3 d ago (",
        ),
        (-90 * MINUTE, 40, 3, "TOKEN UNKNOWN - 'etl main': Airflow's response was made 1 h "),
        (72 * HOUR + 30 * MINUTE, 5, 2, "; Airflow's response was made 3 d ago ("),
    ],
)
def test_an_old_response_is_not_believed(
    check, airflow, from_airflow, age, hours_left, code, clause
):
    """A cache between would keep a token OK that has been lost since. What is worse stays."""
    airflow.watch({"etl main": hours_left})
    airflow.read_clock = lambda: datetime.now(timezone.utc) - age
    actual, text = check(*from_airflow, "--name", "etl main")
    assert (actual, clause in text.splitlines()[0]) == (code, True)
    assert ("Look for a cache" in text) == bool(clause)
    _, lines = check(*from_airflow, "--format", "checkmk")
    assert {line.state for line in grammar.checkmk(lines).values()} == (
        {code} if code != 2 else {2, 3}
    )
    _, text = check(*from_airflow, "--format", "prometheus")
    assert f'token_severity{{name="etl main"}} {code}.0' in text


def test_a_response_of_another_version_is_unknown(check, airflow, from_airflow, monkeypatch):
    airflow.watch({})
    monkeypatch.setattr("flowauth_rotator.monitoring.status.VERSION", 2)
    document = airflow.document.to_json()
    monkeypatch.undo()
    monkeypatch.setattr("tests.monitoring.conftest.json_output.render", lambda _: document)
    code, text = check(*from_airflow)
    assert (code, "not a status of version 3" in text) == (3, True)


def test_an_issued_token_that_is_not_in_use_is_a_warning(
    check, airflow, from_airflow, from_issuer, renewal_server
):
    """After an hour, if the interval of the checks is unknown."""
    airflow.watch({"etl main": 40})
    both = (*from_airflow, *from_issuer, "--name", "etl main")
    assert check(*both)[0] == 0
    issued_at = int(time.time()) - 2 * 3600
    renewal_server.mint("etl main", lifetime_minutes=100 * 60, issued_at=issued_at)
    code, text = check(*both)
    assert (code, "is not in use" in text) == (1, True)


def test_an_issuer_that_fails_hides_no_token(check, airflow, from_airflow, from_issuer):
    """The severity is UNKNOWN, unless a token is worse."""
    airflow.watch({"etl main": 40})
    wrong = ("--username", "nobody")
    code, text = check(*from_airflow, *from_issuer, *wrong)
    assert code == 3
    first = text.splitlines()[0]
    assert first.startswith(
        "TOKENS UNKNOWN - 1 token: 1 ok; agent ok; the tokens at the issuer could not be listed: "
    )
    code, text = check(*from_airflow, *from_issuer, *wrong, "--name", "etl main")
    assert code == 3
    assert text.startswith("TOKEN UNKNOWN - the tokens at the issuer could not be listed: ")
    _, text = check(*from_airflow, *from_issuer, *wrong, "--format", "json")
    document = json.loads(text)
    assert (document["severity"], document["tokens"][0]["severity"]) == ("unknown", "ok")
    assert document["issuer_failure"]
    airflow.watch({"etl main": 5})
    assert check(*from_airflow, *from_issuer, *wrong)[0] == 2
    assert check(*from_issuer, *wrong)[0] == 3


def test_the_list_of_an_issuer_has_the_newest_token_of_each_name(renewal_server):
    """With all that its claims say; without what expired more than 30 days ago."""
    now = datetime.now(timezone.utc)
    seconds = int(now.timestamp())
    renewal_server.mint("etl main", lifetime_minutes=60)
    newest = renewal_server.mint("etl main", lifetime_minutes=120)
    renewal_server.mint("abandoned", lifetime_minutes=60, issued_at=seconds - 31 * 86400)
    renewal_server.mint("expired", lifetime_minutes=60, issued_at=seconds - 29 * 86400)
    account = (renewal_server.url, renewal_server.username, renewal_server.password)
    document = list_issued_tokens(*account, RotationPolicy(renew_before=HOUR / 2), now)
    claims = read_unverified(Token(newest))
    tokens = {token.name: token for token in document.tokens}
    assert set(tokens) == {"etl main", "expired"}
    token = tokens["etl main"]
    assert (token.issued_at, token.expires_at) == (claims.issued_at, claims.expires_at)
    assert token.renew_at == claims.expires_at - HOUR / 2
    assert token.renew_at < token.critical_at < token.expires_at
    assert (token.owner, token.audience) == (claims.subject, claims.audience)
    assert token.fingerprint == Token(newest).fingerprint
    assert (document.dags, document.issuer) == (None, renewal_server.url)
    assert newest not in json.dumps(document.to_json())
    assert StatusDocument.from_json(document.to_json()).tokens
