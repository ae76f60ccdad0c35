"""The commands of the runbooks, run in a deployment that has what each runbook is about."""

import json
import re
import secrets
import shutil
import subprocess
import textwrap
import time

import pytest

from demo.parts import BIN, ROOT, AirflowHome, wait_until
from flowauth_rotator.server.signing import Signer
from tests.conftest import RenewalServer
from tests.e2e.deployment import Deployment

RUNBOOKS = ROOT / "docs" / "runbooks"
DAG = "flowauth_token_rotation"
LIST = "flowauth_rotator_tokens"
SCRAPE_TOKEN = secrets.token_hex(32)
MINUTE, HOUR, DAY = 60, 3600, 86400
NAMES = {  # of the token that a runbook calls "etl main"; others are about T1
    "FlowAuthTokenExpiringSoon": "T1",
    "FlowAuthTokenExpiryCritical": "T2",
    "FlowAuthTokenExpired": "T3",
    "FlowAuthTokenNotDeployed": "T4",
    "FlowAuthTokenSignatureInvalid": "T5",
    "FlowAuthTokenMissing": "T6",
    "FlowAuthTokenRehearsalFailing": "T7",
}
# They change what the others are about, in this order.
LAST = (
    "FlowAuthRotationMisconfigured",
    "FlowAuthRotationAgentStalled",
    "FlowAuthRenewalServerNameWithoutSuccessor",
    "FlowAuthRenewalServerTokenForked",
)
PAGES = sorted(
    (path.stem for path in RUNBOOKS.glob("*.md")),
    key=lambda page: (LAST.index(page) if page in LAST else -1, page),
)
END = "-- end of a command --"
VARYING = (  # in a sample, with the pattern of all that may stand there
    (r"\.\.\.", ".*"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?"),
    (r"\d+ (d|h|min|s)\b( \d+ (h|min|s)\b)?", r"\d+ (?:d|h|min|s)\b(?: \d+ (?:h|min|s)\b)?"),
    (r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d", r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d", r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d"),
    (r"-?\d[\d.]*", r"-?\d[\d.]*"),
)


def read_commands(page, *, two):
    """Return the commands of a runbook for one generation, each with the lines of its sample."""
    text = (RUNBOOKS / f"{page}.md").read_text()
    commands = []
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        for line in textwrap.dedent(block).splitlines():
            if not line.startswith("$ "):
                commands[-1][1].append(line)
            elif ("# Airflow 3" if two else "# Airflow 2") not in line:
                commands.append((line.removeprefix("$ "), []))
    return commands


def build_pattern(sample):
    """Return the pattern of the lines that are like this one."""
    for number, (varying, _) in enumerate(VARYING):
        sample = re.sub(varying, f"\0{chr(0xE000 + number)}", sample)
    pattern = re.escape(sample)
    for number, (_, pattern_of_it) in enumerate(VARYING):
        pattern = pattern.replace(re.escape(f"\0{chr(0xE000 + number)}"), pattern_of_it)
    return re.compile(pattern.replace(r"\ ", r"\s+") + r"\s*")


def find_missing(samples, output):
    """Return the first line of a sample that the output does not have, in the order of both."""
    lines = iter(output.splitlines())
    for sample in samples:
        pattern = build_pattern(sample)
        if not any(pattern.fullmatch(line) for line in lines):
            return sample
    return None


@pytest.fixture(scope="module")
def issuer(tmp_path_factory, prepared_data_dir, signing_key, cheap_hasher):
    """A renewal server whose data directory the commands of its operator use."""
    data_dir = shutil.copytree(prepared_data_dir, tmp_path_factory.mktemp("issuer") / "server")
    server = RenewalServer(data_dir, Signer(signing_key), cheap_hasher)
    server.data_dir = data_dir
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory, airflow_binaries, issuer):
    """An Airflow with all its processes, which has checked a token of each kind."""
    home = AirflowHome(tmp_path_factory.mktemp("runbooks"), airflow_binaries)
    deployment = Deployment(
        home,
        ROOT / "dags",
        AIRFLOW__FLOWAUTH_ROTATOR__SCRAPE_TOKEN=SCRAPE_TOKEN,
        FLOWAUTH_ROTATOR_DATA_DIR="",
    )
    deployment.two = home.version().startswith("2.")
    if deployment.two:
        del home.env["AIRFLOW__CORE__EXECUTOR"]  # SQLite has one task at a time
    now = int(time.time())
    issuer.add_role("lost", max_lifetime_minutes=1440)
    text, _, signature = issuer.mint("T5", lifetime_minutes=1440).rpartition(".")
    tokens = {
        "T1": issuer.mint("T1", ["lost"], 1440, issued_at=now - 20 * HOUR),
        "T2": issuer.mint("T2", ["lost"], 1440, issued_at=now - 23 * HOUR),
        "T3": issuer.mint("T3", lifetime_minutes=60, issued_at=now - 2 * DAY),
        "T4": issuer.mint("T4", lifetime_minutes=720, issued_at=now - 60 * MINUTE),
        "T5": f"{text}.{signature[:9]}{'A' if signature[9] != 'A' else 'B'}{signature[10:]}",
    }
    issuer.mint("T4", lifetime_minutes=1440, issued_at=now - 40 * MINUTE)
    issuer.add_role("short", max_lifetime_minutes=1440)
    tokens["T7"] = issuer.mint("T7", ["short"], 1440)
    issuer.limit("short", minutes=60)
    issuer.revoke("lost")
    deployment.listed = [{"variable": f"{name}_TOKEN", "name": name} for name in [*tokens, "T6"]]
    variables = {f"{name}_TOKEN": token for name, token in tokens.items()}
    home.load("variables", variables | {LIST: json.dumps(deployment.listed)})
    extra = json.dumps({"public_key": issuer.public_key_pem})
    connection = {"host": issuer.url, "login": issuer.username, "password": issuer.password}
    connection |= {"conn_type": "flowauth", "extra": extra}
    home.load("connections", {"flowauth_default": connection})
    with deployment.running() as url:
        deployment.url = url
        ended = "SELECT 1 FROM dag_run WHERE end_date IS NOT NULL"
        wait_until(lambda: deployment.ask(ended), "the first check")
        yield deployment
    deployment.close()


def bring_about(page, deployment, issuer):
    """Bring about what a runbook is about, if the deployment does not have it yet."""
    home = deployment.home
    if page == "FlowAuthRotationMisconfigured":
        listed = [*deployment.listed, {"variabel": "REPORTS_TOKEN"}]
        home.load("variables", {LIST: json.dumps(listed)})
        home.airflow("dags", "test", DAG)
    if page == "FlowAuthRotationAgentStalled":
        home.airflow("dags", "pause", DAG, *([] if deployment.two else ["--yes"]))
    if page == "FlowAuthRenewalServerNameWithoutSuccessor":
        issuer.revoke("short")


@pytest.fixture(scope="module")
def outputs():
    """What each command has printed: a runbook that repeats one does not run it again."""
    return {}


@pytest.mark.parametrize("page", PAGES)
def test_its_commands_print_what_it_says(page, deployment, issuer, outputs, tmp_path):
    """In the words of the samples; only names, times and numbers differ."""
    bring_about(page, deployment, issuer)
    if page in LAST:
        outputs.clear()
    (tmp_path / "password.txt").write_text(issuer.password)
    (tmp_path / "scrape-header.txt").write_text(f"Authorization: Bearer {SCRAPE_TOKEN}")
    name = NAMES.get(page, "T1")
    commands = {
        substitute(command, name, deployment, issuer): samples
        for command, samples in read_commands(page, two=deployment.two)
    }
    new = [each for each in commands if each not in outputs or each.startswith("export ")]
    script = "".join(f"{command}\necho\necho {END}\n" for command in new)
    done = subprocess.run(
        ["bash"],
        input=script,
        env=deployment.home.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    printed = done.stdout.split(f"{END}\n")
    assert len(printed) == len(new) + 1, done.stderr
    outputs.update(zip(new, printed, strict=False))
    for command, samples in commands.items():
        output = outputs[command].replace(f"{name}_TOKEN", "ETL_TOKEN").replace(name, "etl main")
        missing = find_missing(samples, output)
        assert missing is None, f"$ {command}\n{output}\n{done.stderr}"
        assert "Usage" not in output


def substitute(command, name, deployment, issuer):
    """Return a command with the names and places of the deployment."""
    for ours, theirs in {
        "flowauth-rotator server": f"{BIN}/flowauth-rotator server",  # an environment of its own
        "etl main": name,
        "https://flowauth.example.org": issuer.url,
        "https://airflow.example.org": deployment.url,
        "http://127.0.0.1:9091": issuer.url,
        "/var/lib/flowauth-rotator": str(issuer.data_dir),
    }.items():
        command = command.replace(ours, theirs)
    return command
