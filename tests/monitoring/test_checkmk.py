"""The output for Checkmk with any names and times, and the bundled local check."""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from demo.parts import BIN, WAIT_LIMIT, clean_environment
from flowauth_rotator.core.report import Severity
from flowauth_rotator.monitoring import checkmk
from flowauth_rotator.monitoring.assessment import assess
from flowauth_rotator.monitoring.service_names import service_name
from flowauth_rotator.monitoring.status import (
    Event,
    InvalidStatus,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
)
from tests.monitoring import grammar, hostile
from tests.monitoring.cores import SHIPPED

pytestmark = pytest.mark.holds_secrets("password")

WRAPPER = SHIPPED / "checkmk" / "flowauth_rotator"
AGENT = "FlowAuth_Rotation_Agent"
NO_LINES = {
    "without a state": '"FlowAuth_Token_a" - Fine\n',
    "two blanks": '0  "FlowAuth_Token_a" - Fine\n',
    "a service of two words": "0 FlowAuth_Token_etl main - Fine\n",
    "no text": '2 "FlowAuth_Token_a" used=1\n',
    "text of blanks": '2 "FlowAuth_Token_a" used=1  \n',
    "only details": '2 "FlowAuth_Token_a" - \\nDetails\n',
    "a bar in the text": '0 "FlowAuth_Token_a" - this|that\n',
    "another escape": '0 "FlowAuth_Token_a" - tab\\there\n',
    "not a number": '0 "FlowAuth_Token_a" used=nan;80;90;0;100 Fine\n',
    "an exponent": '0 "FlowAuth_Token_a" used=3.8e-05;80;90;0;100 Fine\n',
    "computed of nothing": 'P "FlowAuth_Token_a" - Fine\n',
    "another line break": '0 "FlowAuth_Token_a" - this\u2028that\n',
    "no end": '0 "FlowAuth_Token_a" - Fine',
    "one service twice": '0 "FlowAuth_Token_a" - Fine\n2 "FlowAuth_Token_a" - Not\n',
}


@pytest.mark.parametrize("printed", NO_LINES.values(), ids=NO_LINES)
def test_the_grammar_refuses_what_checkmk_misreads(printed):
    """Else the tests below would prove nothing."""
    with pytest.raises(AssertionError):
        grammar.checkmk(printed)


@given(hostile.assessments)
def test_each_service_has_a_line(assessment):
    """One for each name, one for the rotation DAGs or the issuer, and no other."""
    lines = grammar.checkmk(checkmk.render(assessment))
    last = checkmk.ISSUER_SERVICE if assessment.dags is None else checkmk.DAGS_SERVICE
    assert set(lines) == {*map(service_name, assessment.by_name), last}
    for token in assessment.tokens:  # of several that share a service the most severe counts
        shown = list(Severity)[lines[service_name(token.token.name)].state]
        assert shown.rank >= token.severity.rank


NOON = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def assess_tokens(*tokens, **facts):
    return assess(
        StatusDocument([RotationDagStatus("rotation", checked_at=NOON)], tokens, **facts), NOON
    )


def test_a_line_has_the_message_and_all_details():
    """The hint, the forecast, the Variable, and that its key stands in for the name."""
    token = TokenStatus(
        "ETL",
        variable="ETL",
        dag_id="rotation",
        name_is_known=False,
        issued_at=NOON - 20 * DAY,
        renew_at=NOON,
        expires_at=NOON + 10 * DAY,
    )
    line = grammar.checkmk(checkmk.render(assess_tokens(token)))["FlowAuth_Token_ETL"]
    assert (line.state, line.text) == (0, "Expires in 10 d (2026-12-05 12:00 UTC)")
    assert line.metrics == {"used": ["66.67", "80", "90", "0", "100"], "remaining": ["864000"]}
    assert line.details == [
        "The next check renews the token.",
        "Stored in Variable ETL.",
        "The issuer's name of the token is not known yet; the key of its Variable is used.",
    ]


def test_checkmk_computes_the_state_while_the_levels_alone_decide_it():
    """It draws levels only then. A failure, or a number at the edge of a level, has a digit."""
    failure = Event(NOON, "refused", Severity.CRITICAL, fingerprint="0123abcd")
    facts = {"issued_at": NOON - 20 * DAY, "renew_at": NOON, "expires_at": NOON + 10 * DAY}
    tokens = [
        TokenStatus("healthy", **facts),
        TokenStatus("refused", fingerprint="0123abcd", last_check=failure, **facts),
        TokenStatus("soon", **{**facts, "expires_at": NOON + 2 * DAY, "renew_at": NOON - 8 * DAY}),
        TokenStatus("edge", issued_at=NOON - 24 * DAY + SECOND, expires_at=NOON + 6 * DAY + SECOND),
    ]
    tokens[-1] = replace(tokens[-1], renew_at=tokens[-1].expires_at - 10 * DAY)
    lines = grammar.checkmk(checkmk.render(assess_tokens(*tokens)))
    assert {
        name: (lines[f"FlowAuth_Token_{name}"].state, lines[f"FlowAuth_Token_{name}"].is_computed)
        for name in ("healthy", "refused", "soon", "edge")
    } == {"healthy": (0, True), "refused": (2, False), "soon": (2, True), "edge": (0, False)}


def test_names_that_share_a_service_are_a_warning_that_names_them():
    """A name may have been chosen to equal the service name of another token."""
    tokens = [TokenStatus("a|b"), TokenStatus("a_b_0eab8a0a")]
    lines = grammar.checkmk(checkmk.render(assess_tokens(*tokens)))
    assert set(lines) == {"FlowAuth_Token_a_b_0eab8a0a", AGENT}
    assert lines[AGENT].state == 1
    assert "a_b_0eab8a0a is shared by" in lines[AGENT].details[-1]


def test_an_issuer_that_failed_is_named_beside_the_dags():
    """UNKNOWN, since the rotation DAGs are fine."""
    [line] = grammar.checkmk(checkmk.render(assess_tokens(issuer_failure="No response."))).values()
    assert line.state == 3
    assert line.text.endswith("the tokens at the issuer could not be listed: No response")


@given(hostile.texts, st.lists(hostile.texts, max_size=3, unique=True))
@example("", [])
def test_a_check_that_failed_makes_lines_too(sentence, names):
    """CRITICAL for the rotation DAGs, and UNKNOWN for each requested name."""
    lines = grammar.checkmk(checkmk.render_failure(sentence, names))
    assert {service: line.state for service, line in lines.items()} == {
        **{service_name(name): 3 for name in names},
        AGENT: 2,
    }


numbers = st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**30, -(10**30), -1, 0])


@given(hostile.documents, st.lists(numbers | st.floats() | st.integers(), min_size=1), st.data())
def test_a_number_that_is_not_a_time_is_rejected(document, values, data):
    """The response of a remote Airflow may contain NaN, which no comparison orders."""
    document = json.loads(json.dumps(document.to_json()))
    for value in values:
        if places := list(_times(document)):
            where, key = data.draw(st.sampled_from(places))
            where[key] = value
    try:
        read = StatusDocument.from_json(document)
    except InvalidStatus:
        return
    grammar.checkmk(checkmk.render(assess(read, NOON)))


def _times(document):
    """Yield each place of a time in the JSON of a document."""
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        if isinstance(value, (dict, list)):
            yield from _times(value)
        elif str(key).endswith("_at") or key in ("interval", "grace_period"):
            yield document, key


@pytest.fixture
def local_check(tmp_path):
    """Run the bundled script like Checkmk's agent, with settings; returns its lines by service."""

    def run(settings, shell="sh", **environment):
        folder = tmp_path / "check_mk"
        folder.mkdir(exist_ok=True)
        if settings is not None:
            (folder / "flowauth_rotator.cfg").write_text(settings)
        done = subprocess.run(
            [shell, WRAPPER],
            env=clean_environment(MK_CONFDIR=str(folder), LC_ALL="C", **environment),
            stdout=subprocess.PIPE,
            timeout=WAIT_LIMIT,
            check=False,
        )
        assert done.returncode == 0, "Checkmk's agent would drop all lines"
        return grammar.checkmk(done.stdout.decode())

    return run


def command(program):
    """Settings that replace the command by a Python program."""
    return "set -- " + shlex.join([sys.executable, "-c", program]) + "\n"


HALF = """import os, sys
os.write(1, b'0 "FlowAuth_Token_a" - Fi')
"""
HANGING = """set -- sh -c 'printf %s "0 \\"FlowAuth_Token_a\\" - Fi"; exec sleep 1000'
"""
TROUBLE = {
    "missing": (
        "set -- /opt/nothing/flowauth-rotator check\n",
        "does not exist or is not executable",
    ),
    "not to be run": (f"set -- {WRAPPER.parent} check\n", "does not exist or is not executable"),
    "crashing": (command(HALF + "raise RuntimeError"), "ended with exit code 1"),
    "crashing after a line": (
        command(HALF + "print('ne', flush=True); sys.exit(3)"),
        "ended with exit code 3",
    ),
    "killed": (command(HALF + "os.kill(os.getpid(), 9)"), "was killed"),
    "hanging": (f"TIMEOUT=1\n{HANGING}", "within 1 s"),
    "silent": (command(""), "printed no complete line"),
    "stopping within a line": (command(HALF), "printed no complete line"),
    "printing something else": (command("print('Hello')"), "printed no complete line"),
}


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(("settings", "problem"), TROUBLE.values(), ids=TROUBLE)
def test_a_command_in_trouble_is_one_critical_line(local_check, settings, problem, shell):
    """And never a half one, nor silence, which would leave the services as they were."""
    lines = local_check(settings, shell)
    assert [(line.state, line.service) for line in lines.values()] == [(2, AGENT)]
    assert problem in lines[AGENT].text
    assert "by hand" in " ".join(lines[AGENT].details)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("settings", ["set -- 'no end\n", "exit 1\n", "set -e\nfalse\n"])
def test_an_error_in_the_settings_is_one_critical_line(local_check, settings, shell):
    """A shell ends at once where a quote does not."""
    lines = local_check(settings, shell)
    assert [(line.state, line.service) for line in lines.values()] == [(2, AGENT)]
    assert "an error in" in lines[AGENT].text


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_others_print_beside_it_is_left_out(local_check, shell):
    """A plugin of Airflow that prints is not a service."""
    output = '[INFO] Loaded.\\n1 "FlowAuth_Token_a" - Soon\\n0 Other - x\\n'
    lines = local_check(command(f"print('{output}')"), shell)
    assert list(lines) == ["FlowAuth_Token_a"]


def test_it_prints_the_states_of_tokens(local_check, renewal_server, password_file):
    """With the command that is installed in an environment of its own, and the issuer asked."""
    for name, hours_left in (("etl main", 168), ("soon", 25), ("a|b", 10)):
        issued_at = int(time.time()) - (168 - hours_left) * 3600
        renewal_server.mint(name, lifetime_minutes=168 * 60, issued_at=issued_at)
    words = [BIN / "flowauth-rotator", "check", "--issuer", renewal_server.url]
    words += ["--username", renewal_server.username, "--password-file", password_file]
    settings = f"set -- {shlex.join(map(str, words))}\n"
    lines = local_check(settings)
    assert {service: line.state for service, line in lines.items()} == {
        "FlowAuth_Token_etl main": 0,
        "FlowAuth_Token_soon": 1,
        "FlowAuth_Token_a_b_0eab8a0a": 2,
        "FlowAuth_Issuer": 0,
    }
    assert lines["FlowAuth_Token_soon"].text.startswith("Expires in 1 d (")
    assert lines["FlowAuth_Token_soon"].metrics["used"][1:] == ["80", "90", "0", "100"]
    settings += "set -- \"$@\" --name 'etl main' --name gone\n"
    named = local_check(settings)
    assert {service: line.state for service, line in named.items()} == {
        "FlowAuth_Token_etl main": 0,
        "FlowAuth_Token_gone": 2,
        "FlowAuth_Issuer": 0,
    }
    renewal_server.stop()
    gone = local_check(settings)
    assert {service: line.state for service, line in gone.items()} == {
        "FlowAuth_Token_etl main": 3,
        "FlowAuth_Token_gone": 3,
        "FlowAuth_Issuer": 2,
    }
