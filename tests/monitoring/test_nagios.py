"""The output for Nagios with any names and times, and the bundled definitions in a real Nagios."""

import io
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given

from demo.parts import BIN, WAIT_LIMIT, clean_environment, wait_until
from flowauth_rotator.cli.main import main
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring import nagios
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.formatting import to_one_line
from flowauth_rotator.monitoring.service_names import service_name
from flowauth_rotator.monitoring.status import RotationDagStatus, StatusDocument, TokenStatus
from tests.monitoring import grammar, hostile
from tests.monitoring.cores import INSTALLED, STATES, Nagios, adapted, walk

pytestmark = pytest.mark.holds_secrets("password")

NUMBERS = {"remaining", "used", "ok", "warning", "critical", "unknown"}
DEFINITIONS = "nagios/flowauth_rotator.cfg"
NO_OUTPUT = {
    "empty": "",
    "no state": "TOKEN - fine\n",
    "two bars": "TOKEN OK - fine | this | a=1\n",
    "a bar below": "TOKEN OK - fine\nthis | a=1\n",
    "an exponent": "TOKEN OK - fine | used=3.8e-05%;80;90;0;100\n",
    "not a number": "TOKEN OK - fine | used=nan%;80;90;0;100\n",
    "not a unit": "TOKEN OK - fine | used=1d\n",
    "a blank in a name": "TOKEN OK - fine | time left=1\n",
    "no end": "TOKEN OK - fine",
}


@pytest.mark.parametrize("printed", NO_OUTPUT.values(), ids=NO_OUTPUT)
def test_the_grammar_refuses_what_nagios_misreads(printed):
    """Else the tests below would prove nothing."""
    with pytest.raises(AssertionError):
        grammar.plugin(printed)


@given(hostile.assessments)
def test_any_assessment_has_one_status_line(assessment):
    """Of all, of the DAGs, of each token: with the severity, and with metrics of few names."""
    document, now = assessment.document, assessment.now
    assessments = [assessment, assess(document.select([], now), now)]
    assessments += [
        replace(assess(document.select([token.name], now), now), dags=None)
        for token in document.tokens
    ]
    for each in assessments:
        printed = grammar.plugin(nagios.render(each))
        assert printed.state == each.severity.name
        assert set(printed.performance) <= NUMBERS


NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def test_the_long_output_has_the_details_of_each_token():
    """The most severe first."""
    tokens = [
        TokenStatus(
            name,
            variable="ETL",
            dag_id="rotation",
            name_is_known=False,
            issued_at=NOON - 20 * DAY,
            renew_at=NOON + (left - 10) * DAY,
            expires_at=NOON + left * DAY,
        )
        for name, left in (("calm", 10), ("soon", 5), ("calm", 9))
    ]
    dag = RotationDagStatus("rotation", checked_at=NOON)
    assessment = assess(StatusDocument([dag], tokens, issuer_failure="No response."), NOON)
    printed = grammar.plugin(nagios.render(assessment))
    assert printed.text == (
        "2 tokens: 1 ok, 1 warning; agent ok; 'soon': Expires in 5 d (2026-11-30 12:00 UTC); "
        "the tokens at the issuer could not be listed: No response"
    )
    assert printed.performance == {
        "ok": ["1"],
        "warning": ["1"],
        "critical": ["0"],
        "unknown": ["0"],
        "remaining": ["432000s"],
    }
    agent, soon, calm, thresholds = printed.long
    assert agent == "agent OK - rotation: Last check 2026-11-25 12:00 UTC."
    assert soon == (
        "WARNING - 'soon': Expires in 5 d (2026-11-30 12:00 UTC). The next check renews the token. "
        "Stored in Variable ETL. The issuer's name of the token is not known yet; the key of its "
        "Variable is used."
    )
    assert calm.startswith("OK - 'calm': Expires in 9 d")
    assert thresholds.startswith("Thresholds: ")


@given(hostile.assessments)
def test_the_status_line_has_the_reason_of_its_severity(assessment):
    """That of a token, of the DAGs or of the issuer, whichever is as severe."""
    document, now = assessment.document, assessment.now
    one = [token.name for token in document.tokens][:1]
    for each in (
        assessment,
        assess(document.select([], now), now),
        replace(assess(document.select(one, now), now), dags=None),
    ):
        verdicts = [token.verdict for token in each.by_severity[:1]]
        verdicts += [each.dags_verdict] if each.dags_verdict else []
        reasons = [verdict.message for verdict in verdicts if verdict.severity is each.severity]
        if each.issuer_failure and each.severity is Severity.UNKNOWN:
            reasons.append(each.issuer_failure)
        printed = grammar.plugin(nagios.render(each))
        if reasons and each.severity is not Severity.OK:
            assert any(to_one_line(reason) in printed.text for reason in reasons)


@given(hostile.texts)
def test_a_check_that_failed_makes_one_status_line(sentence):
    """With the severity UNKNOWN."""
    assert grammar.plugin(nagios.render_failure(f"So: {sentence}")).state == "UNKNOWN"


def check(*words, **run):
    """The command in a process of its own: its exit code and what it printed."""
    done = subprocess.run(
        [BIN / "flowauth-rotator", "check", *words],
        **{"env": clean_environment(), "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
        | {"timeout": WAIT_LIMIT, "check": False}
        | run,
    )
    return done.returncode, (done.stdout or b"").decode()


def check_here(capfd, *words):
    """The command in this process: its exit code and what it printed."""
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, words)])
    return ended.value.code, capfd.readouterr().out


UNREACHABLE = ("--issuer", "http://127.0.0.1:1", "--username", "nobody", "--password-file", "-")
ELSEWHERE = ("--airflow", "http://127.0.0.1:1")
USAGE_ERRORS = {
    "an unknown option": (("--nmae", "a"), "No such option '--nmae'"),
    "an invalid value": (("--warning", "soon"), "'soon' is neither a fraction"),
    "a missing file": (
        (*ELSEWHERE, "--scrape-token-file", "/none"),
        "'/none': No such file",
    ),
    "no scrape token": (ELSEWHERE, "needs --scrape-token-file"),
    "no password": (UNREACHABLE[:2], "--issuer needs --username and --password-file"),
    "no response": (UNREACHABLE, "http://127.0.0.1:1 cannot be reached"),
}


@pytest.mark.parametrize(("words", "sentence"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_what_cannot_be_known_is_unknown(capfd, monkeypatch, words, sentence):
    """A wrong call, too: the 2 of other commands would say that a token is in danger."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret")))
    code, printed = check_here(capfd, *words)
    assert (code, sentence in printed) == (3, True)
    assert grammar.plugin(printed).state == "UNKNOWN"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--agent",), "--agent needs --airflow"),
        (
            ("--warning", "0.1", "--critical", "0.5"),
            "--warning (0.1 of the renewal window) is smaller than --critical",
        ),
    ],
    ids=["no Airflow", "levels that cross"],
)
def test_what_an_issuer_cannot_say_is_unknown(
    capfd, renewal_server, password_file, words, sentence
):
    """It is not OK."""
    options = ("--issuer", renewal_server.url, "--username", renewal_server.username)
    code, printed = check_here(capfd, *options, "--password-file", password_file, *words)
    assert (code, sentence in printed) == (3, True)


@pytest.mark.parametrize("end", ["RuntimeError('sunk')", "SystemExit(0)", "KeyboardInterrupt"])
def test_a_crash_is_unknown(tmp_path, end):
    """Python's 1 would be a warning, and a library that ends the process with 0 would be OK."""
    (tmp_path / "requests.py").write_text(f"raise {end}\n")
    with (tmp_path / "log").open("wb") as log:
        env = clean_environment(PYTHONPATH=str(tmp_path))
        code, printed = check(*UNREACHABLE, "-v", env=env, stderr=log)
    assert code == 3
    assert str(tmp_path / "requests.py") in (tmp_path / "log").read_text()
    assert grammar.plugin(printed).state == "UNKNOWN"
    assert "sunk" not in printed  # the text of an error that nobody foresaw may hold a secret


@pytest.mark.parametrize("words", [UNREACHABLE, ("--nmae",), ("--format", "checkmk", *UNREACHABLE)])
@pytest.mark.parametrize("output", ["closed", "full"])
@pytest.mark.slow
def test_what_cannot_be_printed_is_never_ok(words, output):
    """No output with 0 would be OK."""
    if output == "full":
        with Path("/dev/full").open("wb") as full:
            assert check(*words, stdout=full)[0] == 3
    else:
        shut = f'exec "{BIN}/flowauth-rotator" check "$@" >&-'
        done = subprocess.run(
            ["sh", "-c", shut, "sh", *words], env=clean_environment(), input=b"", check=False
        )
        assert done.returncode == 3


def test_nagios_takes_the_definitions_as_they_are_shipped(monitors, tmp_path):
    """Beside the templates that come with Debian's Nagios, without a warning."""
    assert Nagios(monitors, tmp_path / "nagios", adapted(DEFINITIONS, {})).find_problems() == []


def test_nagios_says_when_a_definition_is_wrong(monitors, tmp_path):
    """The test above can fail."""
    wrong = adapted(DEFINITIONS, {"check_flowauth_token!AIRFLOW": "check_flowauth_tokn!AIRFLOW"})
    assert "check_flowauth_tokn" in " ".join(
        Nagios(monitors, tmp_path / "nagios", wrong).find_problems()
    )


def test_nagios_sees_a_token_through_all_states(monitors, tmp_path, renewal_server, password_file):
    """By its name at the issuer."""
    changes = {
        INSTALLED: BIN / "flowauth-rotator",
        "https://flowauth.example.org": renewal_server.url,
        "/etc/nagios4/flowauth_rotator.password": password_file,
        "https://airflow.example.org": "http://127.0.0.1:1",  # there is none
        "check_flowauth_token!etl main": "check_flowauth_issued!etl main",
        "check_interval          5": "check_interval          1",
    }
    with Nagios(monitors, tmp_path / "nagios", adapted(DEFINITIONS, changes)).running() as core:
        walk(core, renewal_server)


WRITTEN = {  # names as they are, and as the definitions tell to write them
    "wow!": r"wow\!",
    "semi;colon": r"semi\;colon",
    "$HOME $USER1$": "$$HOME $$USER1$$",
    "it's": r"it'\''s",
    "back\\slash": "back\\slash",
    'say "hi" `id` & <go> | 100% ~ (x) * ?': 'say "hi" `id` & <go> | 100% ~ (x) * ?',
    "Düngemittel 東京": "Düngemittel 東京",
    " ahead": " ahead",
    "--agent": "--agent",
}


def test_nagios_watches_what_an_airflow_tells(monitors, tmp_path, airflow, scrape_token_file):
    """All that is shipped; a name with any sign is the one that is options for."""
    changes = {
        INSTALLED: BIN / "flowauth-rotator",
        "https://airflow.example.org": airflow.url,
        "/etc/nagios4/flowauth_rotator.token": scrape_token_file,
    }
    services = {"FlowAuth_Tokens": "check_flowauth_tokens"} | {
        service_name(name): f"check_flowauth_token!{written}" for name, written in WRITTEN.items()
    }
    more = [
        f"define service {{\nuse flowauth\nhost_name airflow\n"
        f"service_description {service}\ncheck_command {command}\n}}\n"
        for service, command in services.items()
    ]
    airflow.watch({"AIRFLOW": 40, "etl main": 10} | dict.fromkeys(WRITTEN, 5), is_paused=True)
    core = Nagios(monitors, tmp_path / "nagios", adapted(DEFINITIONS, changes), *more)
    assert core.find_problems() == []
    with core.running():
        wait_until(lambda: len(core.services()) == len(WRITTEN) + 4, "all were checked")
        status = core.services()
    states = {name: STATES[int(service["current_state"])] for name, service in status.items()}
    assert states == {
        "FlowAuth_Token_AIRFLOW": "WARNING",  # healthy, and its DAG is paused
        "FlowAuth_Token_etl main": "WARNING",
        "FlowAuth_Rotation_Agent": "CRITICAL",
        **dict.fromkeys(services, "CRITICAL"),
    }
    assert "AGENT CRITICAL - rotation: Paused" in status["FlowAuth_Rotation_Agent"]["plugin_output"]
    assert "Unpause to resume" in status["FlowAuth_Rotation_Agent"]["long_plugin_output"]
    for service in services.keys() - {"FlowAuth_Tokens"}:  # a name that is not known has no time
        assert "Expires in" in status[service]["plugin_output"]
        assert status[service]["performance_data"].startswith("remaining=")
    assert f"{len(WRITTEN) + 2} tokens: 2 warning, " in status["FlowAuth_Tokens"]["plugin_output"]
