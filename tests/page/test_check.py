"""`flowauth-rotator check` and `plan`, here and elsewhere, whatever befalls the DAG."""

import json
import os
import pty
import re
import subprocess

import pytest

from demo.parts import BIN, clean_environment, wait_until
from flowauth_rotator.core.text import format_count
from tests.monitoring import grammar

DAG = "checked"
CODE = f"""
from flowauth_rotator.provider import ManagedToken, rotation_dag  # Airflow

dag = rotation_dag([ManagedToken("CHECKED_TOKEN")], dag_id="{DAG}")
"""


@pytest.fixture(scope="module", autouse=True)
def token(site, issuer):
    """The token `etl main` of a day, in an Airflow that has nothing to do."""
    minted = issuer.mint("etl main", lifetime_minutes=1440)
    site.home.load("variables", {"CHECKED_TOKEN": minted})
    site.put_dag(DAG, CODE)
    site.wait_for_checks(DAG)


@pytest.fixture
def here(site):
    """Call the command where Airflow runs; exit code and output.

    On a busy machine the import of Airflow may take longer than `check` waits by default.
    """

    def here(command, *words, env=None):
        patience = ["--timeout", "600"] if command == "check" else []
        done = subprocess.run(
            [site.home.binaries / "flowauth-rotator", command, *patience, *words],
            env=env or site.home.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    return here


@pytest.fixture
def elsewhere(site, scrape_token):
    """Call the command where there is no Airflow to import, with a scrape token."""

    def elsewhere(*words, token=scrape_token):
        done = subprocess.run(
            [BIN / "flowauth-rotator", *words, "--airflow", site.url, "--scrape-token-file", "-"],
            env=clean_environment(),
            input=f"{token}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return elsewhere


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_all_is_well(request, site, where):
    """In each format, with the exit code that it demands, and nothing else on standard output."""
    call = request.getfixturevalue(where)
    number = len(site.tokens())
    code, text = call("check")
    assert code == 0, text
    assert text.startswith(
        f"TOKENS OK - {format_count(number, 'token')}: {number} ok; agent ok | ok={number} "
    )
    code, text = call("check", "--name", "etl main")
    assert code == 0
    assert text.startswith("TOKEN OK - 'etl main': Expires in ")
    code, text = call("check", "--format", "checkmk")
    assert code == 0
    states = {service: line.state for service, line in grammar.checkmk(text).items()}
    assert states.keys() >= {"FlowAuth_Token_etl main", "FlowAuth_Rotation_Agent"}
    assert set(states.values()) == {0}
    code, text = call("check", "--format", "json")
    assert (code, json.loads(text)["severity"]) == (0, "ok")
    code, text = call("check", "--format", "prometheus")
    assert code == 0
    assert 'flowauth_rotator_token_expected{name="etl main"} 1.0\n' in text


def test_both_sources_and_thresholds_of_ones_own(here, issuer, tmp_path):
    """A token in use that is as new as the issuer's newest; days instead of fractions."""
    password = tmp_path / "password"
    password.write_text(f"{issuer.password}\n")
    asked = ["--issuer", issuer.url, "--username", issuer.username]
    asked += ["--password-file", str(password), "--airflow", "here", "--name", "etl main"]
    assert here("check", *asked)[0] == 0
    code, text = here("check", *asked, "--warning", "2d", "--critical", "1h")
    assert code == 1
    assert text.splitlines()[-1] == "Thresholds: warning below 2 d, critical below 1 h."
    issuer.mint("etl main", lifetime_minutes=2880)
    code, text = here("check", *asked, "--format", "json")
    [token] = json.loads(text)["tokens"]
    assert token["newest_issued_expires_at"] > token["expires_at"]


def test_a_name_that_nobody_keeps_alive_is_critical(here):
    """It is printed all the same."""
    code, text = here("check", "--format", "checkmk", "--name", "etl main", "--name", "gone")
    states = {service: line.state for service, line in grammar.checkmk(text).items()}
    assert (code, states["FlowAuth_Token_gone"], states["FlowAuth_Token_etl main"]) == (0, 2, 0)
    assert here("check", "--name", "gone")[0] == 2


def test_who_has_not_the_scrape_token_knows_nothing(elsewhere):
    """UNKNOWN, and CRITICAL for the agent where Checkmk asks; the token is in neither."""
    code, text = elsewhere("check", token="another-" + "z" * 24)
    assert code == 3
    assert text.startswith("TOKENS UNKNOWN - ")
    assert "scrape token" in text
    code, lines = elsewhere("check", "--format", "checkmk", token="another-" + "z" * 24)
    assert (code, grammar.checkmk(lines)["FlowAuth_Rotation_Agent"].state) == (0, 2)
    assert "zzz" not in text + lines


def test_an_airflow_that_cannot_be_read_is_unknown(here, site, tmp_path):
    """Its settings are wrong; the password of its database is not quoted."""
    database = f"sqlite:///{tmp_path}/nowhere/canary-password.db"
    env = {**site.home.env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database}
    code, text = here("check", env=env)
    assert code == 3
    assert text.startswith("TOKENS UNKNOWN - ")
    assert "canary" not in text


def test_the_plan_shows_when_it_will_renew(here, elsewhere):
    """In a pipe a line a token, with tabs; with --json what `check` prints."""
    for call in (here, elsewhere):
        code, text = call("plan")
        assert code == 0
        head, *rows, agent = (line.split("\t") for line in text.splitlines())
        assert head == ["name", "severity", "left", "renewal due", "details"]
        [row] = [row for row in rows if row[0] == "etl main"]
        assert row[1] == "OK"
        assert "renew" in row[4]
        assert agent[:2] == ["rotation DAGs", "OK"]

    tokens = json.loads(here("plan", "--json")[1])["tokens"]
    [token] = [token for token in tokens if token["name"] == "etl main"]
    interval = 900  # of the default schedule
    assert token["renew_at"] <= token["renewal_check_at"] < token["renew_at"] + interval


def test_the_plan_is_a_picture_in_a_terminal(site):
    """With a bar, and the same sentence."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [site.home.binaries / "flowauth-rotator", "plan"],
        env={**site.home.env, "COLUMNS": "200", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal is closed on the other side
                break
            text += part
    assert process.returncode == 0
    shown = text.decode()
    assert "│" in shown
    assert "█" in shown or "·" in shown
    assert "etl main" in shown
    assert re.search(r"the check at .* renews\s+it\.|renews\s+the\s+token\.", shown)


def agent_of(call):
    """The first line of `check --agent`, whose exit code fits it."""
    code, text = call("check", "--agent")
    assert code == (0 if text.startswith("AGENT OK") else 2)
    return text.splitlines()[0]


def wait_for_condition(call, condition):
    """Wait until Airflow has noticed a change of the DAG."""

    def is_noticed():
        dags = json.loads(call("check", "--format", "json")[1])["dags"]
        [dag] = [dag for dag in dags if dag["dag_id"] == DAG]
        return dag["condition"] == condition

    wait_until(is_noticed, f"{DAG} is {condition}")


def test_a_dag_that_cannot_run_is_critical_at_once(site, here, elsewhere):
    """Paused, without its file, with a broken import: each is named, and resolves when repaired."""
    site.pause(DAG)
    assert f"{DAG}: Paused" in agent_of(here)
    assert "AGENT CRITICAL" in agent_of(elsewhere)
    _, text = here("check", "--name", "etl main")
    assert "The token is not being renewed" in text
    site.pause(DAG, paused=False)
    assert agent_of(here).startswith("AGENT OK")
    (site.dags / f"{DAG}.py").unlink()
    wait_for_condition(elsewhere, "missing")
    assert f"{DAG}: Missing" in agent_of(elsewhere)
    site.put_dag(DAG, CODE)
    wait_for_condition(elsewhere, "ok")
    assert agent_of(elsewhere).startswith("AGENT OK")
    site.put_dag(DAG, "import airflow.nothing_of_this_name  # dag")
    wait_for_condition(elsewhere, "broken")
    assert f"{DAG}: Broken" in agent_of(elsewhere)
    site.put_dag(DAG, CODE)
    wait_for_condition(elsewhere, "ok")
    assert agent_of(elsewhere).startswith("AGENT OK")
