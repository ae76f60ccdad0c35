"""The bundled definitions in a real Icinga 2."""

import json
import re

import pytest

from demo.parts import BIN, ROOT, wait_until
from flowauth_rotator.cli.check import check
from flowauth_rotator.monitoring.service_names import service_name
from tests.monitoring.cores import INSTALLED, STATES, Icinga, adapted, walk

pytestmark = pytest.mark.holds_secrets("password")

PAGE = (ROOT / "docs/monitoring.md").read_text()
DEFINITIONS = "icinga2/flowauth_rotator.conf"
SOON = {"check_interval = 5m": "check_interval = 1s", "retry_interval = 1m": "retry_interval = 1s"}


def test_icinga_takes_the_definitions_as_they_are_shipped(monitors, tmp_path):
    """Beside its own library of templates, without a warning."""
    assert Icinga(monitors, tmp_path / "icinga", adapted(DEFINITIONS, {})).find_problems() == []


def test_icinga_says_when_a_definition_is_wrong(monitors, tmp_path):
    """The test above can fail."""
    wrong = adapted(DEFINITIONS, {'check_command = "flowauth_rotator"': 'check_command = "none"'})
    assert "none" in " ".join(Icinga(monitors, tmp_path / "icinga", wrong).find_problems())


def test_every_option_of_the_check_can_be_set():
    """And stands in the table; but for the format and what is for people."""
    rows = re.findall(
        r'"(--[a-z-]+)" = \{\s+(?:value|set_if) = "\$(\w+)\$"', adapted(DEFINITIONS, {})
    )
    listed = re.findall(r"^\| `(flowauth_\w+)` \| `(--[a-z-]+)`", PAGE, re.MULTILINE)
    others = {"--format", "--verbose", "--version"}
    options = {option.opts[0] for option in check.params} - others
    assert {option for option, _ in rows} == options
    assert {(option, variable) for variable, option in listed} == set(rows)


def test_icinga_sees_a_token_through_all_states(monitors, tmp_path, renewal_server, password_file):
    """By its name at the issuer; the agent is not watched where no Airflow is named."""
    variables = {
        "issuer": renewal_server.url,
        "username": renewal_server.username,
        "password_file": str(password_file),
    }
    changes = {
        INSTALLED: BIN / "flowauth-rotator",
        'vars.flowauth_airflow = "https://airflow.example.org"': "\n".join(
            f"vars.flowauth_{name} = {json.dumps(value)}" for name, value in variables.items()
        ),
        'vars.flowauth_scrape_token_file = "/etc/icinga2/flowauth_rotator.token"': "",
        'flowauth_warning = "2d"': "",
        **SOON,
    }
    with Icinga(monitors, tmp_path / "icinga", adapted(DEFINITIONS, changes)).running() as core:
        walk(core, renewal_server)
        assert "FlowAuth_Rotation_Agent" not in core.services()


ALL = """
apply Service "FlowAuth_Tokens" {
  import "flowauth"
  assign where host.vars.flowauth_airflow
}
"""
NAMES = (
    *("wow!", "semi;colon", "$HOME $$address$", "it's", "back\\slash", 'say "hi" `id` & <go>'),
    *("100% | x", "Düngemittel 東京", " ahead", "behind ", "two\nlines", "--agent"),
)


def test_icinga_watches_what_an_airflow_tells(monitors, tmp_path, airflow, scrape_token_file):
    """All that is shipped; a name with any sign is the one that is variables for."""
    services = {service_name(name): name for name in NAMES}
    last = 'vars.flowauth_tokens["a_b_0eab8a0a"] = { flowauth_name = "a|b" }'
    lines = [last]
    for service, name in services.items():
        key = json.dumps(service.removeprefix("FlowAuth_Token_"), ensure_ascii=False)
        written = json.dumps(name.replace("$", "$$"), ensure_ascii=False)
        lines.append(f"vars.flowauth_tokens[{key}] = {{ flowauth_name = {written} }}")
    changes = {
        INSTALLED: BIN / "flowauth-rotator",
        "https://airflow.example.org": airflow.url,
        "/etc/icinga2/flowauth_rotator.token": scrape_token_file,
        'flowauth_warning = "2d"': 'flowauth_warning = "20h"',
        last: "\n".join(lines),
        **SOON,
    }
    airflow.watch(
        {"AIRFLOW": 40, "etl main": 15, "a|b": 5} | dict.fromkeys(NAMES, 5), is_paused=True
    )
    core = Icinga(monitors, tmp_path / "icinga", adapted(DEFINITIONS, changes), ALL)
    assert core.find_problems() == []
    with core.running():
        wait_until(lambda: len(core.services()) == len(NAMES) + 5, "all were checked")
        status = core.services()
    states = {name: STATES[int(service["current_state"])] for name, service in status.items()}
    assert states == {
        "FlowAuth_Token_AIRFLOW": "WARNING",  # healthy, and its DAG is paused
        "FlowAuth_Token_etl main": "WARNING",  # by the threshold of this service
        "FlowAuth_Token_a_b_0eab8a0a": "CRITICAL",
        "FlowAuth_Rotation_Agent": "CRITICAL",
        "FlowAuth_Tokens": "CRITICAL",
        **dict.fromkeys(services, "CRITICAL"),
    }
    assert "AGENT CRITICAL - rotation: Paused" in status["FlowAuth_Rotation_Agent"]["plugin_output"]
    for service in services:  # a name that is not known has no time
        assert "Expires in" in status[service]["plugin_output"]
        assert status[service]["performance_data"].startswith("remaining=")
    summary = f"{len(NAMES) + 3} tokens: 2 warning, {len(NAMES) + 1} critical; agent critical"
    assert summary in status["FlowAuth_Tokens"]["plugin_output"]
