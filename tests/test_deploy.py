"""What is in deploy/: its settings and commands exist, and the server needs no rights to run."""

import json
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

from demo.parts import WAIT_LIMIT, free_port
from flowauth_rotator.cli.main import main
from flowauth_rotator.server.serving import Gunicorn
from flowauth_rotator.server.settings import DATA_DIR_VARIABLE, VARIABLES, Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROGRAM = Path(sys.executable).with_name("flowauth-rotator")


def text(name):
    """A file, each command or instruction on one line."""
    return re.sub(r" *\\\n#? *", " ", (DEPLOY / name).read_text())


def unit(name):
    """The settings of a systemd unit: what each name is given, in order."""
    settings = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text(name), re.MULTILINE):
        settings.setdefault(key, []).append(value)
    return settings


def instructions(name):
    """What the container file gives to an instruction, each time."""
    return re.findall(rf"^{name} (.*)$", text("Containerfile"), re.MULTILINE)


def commands():
    """The words of every call of `flowauth-rotator` in the folder."""
    call = re.compile(r"(?<![\w.@-])flowauth-rotator (?!flowauth-rotator )([a-z][^`\n]*)")
    found = {words for path in DEPLOY.iterdir() for words in call.findall(text(path.name))}
    return [*map(shlex.split, sorted(found)), *map(json.loads, instructions("CMD"))]


def test_the_settings_file_shows_every_setting_with_its_default():
    """No other one, none switched on, and each value is one that the server understands."""
    lines = [line for line in text("flowauth-rotator.env").splitlines() if line[:2].strip("# ")]
    shown = dict(re.fullmatch(r"#([A-Z_]+)=(\S+)", line).groups() for line in lines)
    assert len(lines) == len(shown)
    assert set(shown) == {DATA_DIR_VARIABLE, *VARIABLES}
    Settings.load(None, shown)
    for name, (field, _) in VARIABLES.items():
        if getattr(Settings, field) is None:
            del shown[name]
    assert Settings.load(None, shown) == Settings(Path(shown[DATA_DIR_VARIABLE]))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_can_be_called(words, monkeypatch):
    """Click takes its words and options; nothing is run."""
    monkeypatch.setenv(DATA_DIR_VARIABLE, unit("flowauth-rotator.service")["StateDirectory"][0])
    command, context = main, click.Context(main)
    while isinstance(command, click.Group) and words != ["--help"]:
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"there is no {name}"
    if words != ["--help"]:
        assert command.make_context(name, words).command is command


def test_the_commands_are_found_in_the_files():
    """The test before this one has something to look at."""
    found = {" ".join(words[:2]) for words in commands()}
    assert {f"server {name}" for name in ("init", "prune", "upgrade", "backup")} <= found
    assert {"serve --bind", "server --help"} <= found


def test_both_services_run_the_same_program_in_the_same_sandbox():
    """They differ in how they start and end alone."""
    serving, pruning = unit("flowauth-rotator.service"), unit("flowauth-rotator-prune.service")
    programs = {shlex.split(of["ExecStart"][0])[0] for of in (serving, pruning)}
    assert programs == {"/opt/flowauth-rotator/bin/flowauth-rotator"}
    differing = {key for key in serving | pruning if serving.get(key) != pruning.get(key)}
    own = {"Description", "Type", "ExecStart", "WantedBy"}
    assert differing == own | {"Restart", "RestartSec", "KillMode", "TimeoutStopSec"}


def test_a_stop_waits_for_the_requests_at_hand(tmp_path, monkeypatch):
    """Neither systemd nor the container engine kills before gunicorn has given up waiting."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    patience = Gunicorn(lambda: None, "127.0.0.1:1", 1, lambda: None).cfg.graceful_timeout
    [service] = unit("flowauth-rotator.service")["TimeoutStopSec"]
    [container] = re.findall(r"--stop-timeout (\d+)", text("Containerfile"))
    assert min(int(service.removesuffix("s")), int(container)) > patience


def test_the_container_file_fits_the_project_and_itself():
    """What it copies is there, one port and one user all through, and no secret in a layer."""
    copied = [shlex.split(files)[:-1] for files in instructions("COPY") if "--from" not in files]
    assert all((ROOT / name).exists() for names in copied for name in names)
    [check], [bind] = instructions("HEALTHCHECK"), instructions("CMD")
    assert instructions("EXPOSE") == re.findall(r"127\.0\.0\.1:(\d+)/healthz", check) == ["9091"]
    assert json.loads(bind) == ["serve", "--bind", "0.0.0.0:9091"]
    [user] = re.findall(r"useradd --uid (\d+)", text("Containerfile"))
    assert instructions("USER") == [f"{user}:{user}"]
    [volume] = instructions("VOLUME")
    assert instructions("ENV") == [
        f"PATH=/opt/flowauth-rotator/bin:$PATH {DATA_DIR_VARIABLE}={volume}"
    ]


def test_the_container_builds_its_wheel_from_what_it_copies(tmp_path):
    """Links included, and of files that `.dockerignore` lets through."""
    ignored, *kept = (ROOT / ".dockerignore").read_text().splitlines()[1:]
    assert ignored == "*"
    for files in instructions("COPY"):
        *names, target = shlex.split(files)
        for name in names if "--from" not in files else ():
            assert any(fnmatch(name.rstrip("/"), pattern[1:]) for pattern in kept)
            command = ["cp", "--archive", "--parents", name, tmp_path]
            subprocess.run(command, cwd=ROOT, check=True)
            assert target in ("./", name)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    runbooks = "flowauth_rotator/monitoring/files/runbooks/"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(runbooks)}
    assert packed == {runbooks + page.name for page in (ROOT / "docs/runbooks").iterdir()}


def test_the_container_takes_every_version_of_the_lock():
    """The container file's own line turns the lock into what pip takes as constraints."""
    [line] = re.findall(r"sed -n .*? > pins\.txt", text("Containerfile"))
    pins = subprocess.check_output(["sh", "-c", line.partition(" > ")[0]], cwd=ROOT, text=True)
    lock = (ROOT / "locks" / "airflow-3.txt").read_text()
    entries = [line for line in lock.splitlines() if line[:1].isalnum()]
    assert pins.splitlines() == [entry.rstrip(" \\") for entry in entries]


WITHOUT_RIGHTS = """
import ctypes, os, sys
prctl = ctypes.CDLL(None).prctl
prctl(47, 4, 0, 0, 0)  # no ambient capability
prctl(28, 1, 0, 0, 0)  # root is a user like others: it has no rights that it is not given
prctl(38, 1, 0, 0, 0)  # and none are given from here on
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def told():
    """A socket like the one on which systemd waits to be told that a service has started."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # Linux makes a name
        listening.settimeout(WAIT_LIMIT)
        yield listening


@pytest.fixture
def environment(data_dir, tmp_path, told):
    """What the container or systemd sets, and folders of which only the temporary is writable."""
    (tmp_path / "home").mkdir(mode=0o555)
    (tmp_path / "tmp").mkdir()
    return {
        DATA_DIR_VARIABLE: str(data_dir),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "NOTIFY_SOCKET": "@" + told.getsockname()[1:].decode(),
        "http_proxy": "http://127.0.0.1:1",  # container engines hand the machine's proxy on
    }


@pytest.mark.slow
def test_the_containers_command_runs_without_rights(environment, told):
    """It starts, says so, renews, is healthy and stops, and leaves no file behind."""
    bind = f"127.0.0.1:{free_port()}"
    [serve], [check] = map(json.loads, instructions("CMD")), instructions("HEALTHCHECK")
    code = json.loads(check.partition(" CMD ")[2])[-1].replace("127.0.0.1:9091", bind)
    code = code.replace("timeout=4", f"timeout={WAIT_LIMIT}")
    healthy = [sys.executable, "-c", code]
    words = [PROGRAM, *(word.replace("0.0.0.0:9091", bind) for word in serve)]
    server = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_RIGHTS, *words],
        env=environment,
        cwd=environment["HOME"],
        stdout=subprocess.DEVNULL,
    )
    try:
        assert told.recv(1000).startswith(b"READY=1\n")
        status = Path(f"/proc/{server.pid}/status").read_text()
        rights = re.findall(r"^(?:CapEff|NoNewPrivs):\s*(\w+)", status, re.MULTILINE)
        assert [int(right, 16) for right in rights] == [0, 1]
        assert subprocess.run(healthy, env=environment).returncode == 0
        names = renewed(bind, environment)
        assert names == {"id", "token"}
    finally:
        server.terminate()
        server.wait(timeout=WAIT_LIMIT)
    assert server.returncode == 0
    assert subprocess.run(healthy, env=environment, capture_output=True).returncode == 1
    assert not [*Path(environment["TMPDIR"]).iterdir(), *Path(environment["HOME"]).iterdir()]


def renewed(bind, environment):
    """What is answered to the renewal of a token that was minted at the shell."""
    mint = "server mint --user flowbot --audience TEST_SERVER --name AIRFLOW --role viewer"
    token = subprocess.check_output([PROGRAM, *mint.split()], env=environment, text=True).strip()
    request = urllib.request.Request(
        f"http://{bind}/tokens/renew", method="POST", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        return json.load(answer).keys()
