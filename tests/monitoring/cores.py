"""A Nagios and an Icinga 2 for the tests, with the bundled definitions."""

import contextlib
import grp
import os
import pwd
import re
import subprocess
import time
from pathlib import Path

import flowauth_rotator.monitoring
from demo.parts import WAIT_LIMIT, clean_environment, running, wait_until

SHIPPED = Path(flowauth_rotator.monitoring.__file__).parent / "files"
INSTALLED = "/opt/flowauth-rotator/bin/flowauth-rotator"
USER = pwd.getpwuid(os.getuid()).pw_name  # neither is to become somebody else
GROUP = grp.getgrgid(os.getgid()).gr_name
STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


class Core:
    """The common part of Nagios and Icinga, which check services and write a status file.

    Attributes:
        folder: where all of its files are.
        broken: a folder that comes first on the path of Python's modules, empty so far.
        log: what it printed.
    """

    def __init__(self, folder, definitions):
        self.folder = folder
        self.broken = folder / "broken"
        self.broken.mkdir(parents=True)
        self.log = folder / "core.log"
        self.env = clean_environment(PYTHONPATH=str(self.broken), PYTHONDONTWRITEBYTECODE="1")
        (folder / "shipped").write_text(definitions)

    def find_problems(self):
        """Return the problems that it reports about its configuration, a line each."""
        done = subprocess.run(
            self.dry,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=WAIT_LIMIT,
            check=False,
        )
        problems = re.findall(
            r"^.*(?:warning|error|critical)\b.*$", done.stdout, re.MULTILINE | re.IGNORECASE
        )
        problems = [line for line in problems if not line.endswith("s: 0")]
        return problems if done.returncode == 0 else [f"exit code {done.returncode}", *problems]

    @contextlib.contextmanager
    def running(self):
        """Run it until the block ends."""
        with running(self.command, env=self.env, log=self.log):
            yield self

    def services(self):
        """Return the status of each checked service, by name."""
        try:
            text = (self.folder / "status.dat").read_text()
        except FileNotFoundError:
            return {}
        blocks = re.findall(r"^servicestatus \{\n(.*?)^\t\}$", text, re.MULTILINE | re.DOTALL)
        services = [dict(re.findall(r"^\t(\w+)=(.*)$", block, re.MULTILINE)) for block in blocks]
        return {
            service["service_description"]: service
            for service in services
            if service["has_been_checked"] == "1"
        }

    def state(self, service):
        """The state of a service by its word; empty before the first check."""
        status = self.services().get(service)
        return STATES[int(status["current_state"])] if status else ""


class Nagios(Core):
    """A Nagios core whose minutes last a second, beside the objects that Debian configures."""

    def __init__(self, monitors, folder, definitions, *more):
        super().__init__(folder, definitions)
        (folder / "more").write_text("\n".join(more))
        names = ("commands", "contacts", "timeperiods", "templates")
        debian = [monitors.nagios_objects / f"{name}.cfg" for name in names]
        lines = [
            *(f"cfg_file={path}" for path in (*debian, folder / "shipped", folder / "more")),
            *(f"nagios_user={USER}", f"nagios_group={GROUP}"),
            f"log_file={folder}/nagios.log",
            f"object_cache_file={folder}/objects.cache",
            f"precached_object_file={folder}/objects.precache",
            *(f"status_file={folder}/status.dat", "status_update_interval=1"),
            *(f"temp_file={folder}/nagios.tmp", f"temp_path={folder}"),
            f"lock_file={folder}/nagios.pid",
            *(f"command_file={folder}/nagios.cmd", f"query_socket={folder}/nagios.qh"),
            f"check_result_path={folder}",
            f"state_retention_file={folder}/retention.dat",
            f"debug_file={folder}/debug",
            *("use_syslog=0", "check_for_updates=0", "enable_notifications=0"),
            *("interval_length=1", "check_result_reaper_frequency=1"),
            *("service_inter_check_delay_method=n", "execute_host_checks=0"),
            "illegal_object_name_chars=`~!$%^&*|'\"<>?,()=",
            "illegal_macro_output_chars=`~$&|'\"<>",
        ]
        (folder / "nagios.cfg").write_text("\n".join(lines) + "\n")
        self.command = [str(monitors.nagios), str(folder / "nagios.cfg")]
        self.dry = [str(monitors.nagios), "-v", str(folder / "nagios.cfg")]


class Icinga(Core):
    """An Icinga 2 with its library of templates."""

    def __init__(self, monitors, folder, definitions, *more):
        super().__init__(folder, definitions)
        self.env["LD_LIBRARY_PATH"] = str(monitors.icinga_libraries)
        libraries = ("itl", "plugins", "plugins-contrib", "manubulon", "windows-plugins", "nscp")
        plugins = ("PluginDir", "ManubulonPluginDir", "PluginContribDir")
        lines = [
            *(f'const {name} = "/usr/lib/nagios/plugins"' for name in plugins),
            *('const NodeName = "here"', "const ZoneName = NodeName"),
            *("object Endpoint NodeName { }", "object Zone ZoneName { endpoints = [ NodeName ] }"),
            *(f"include <{name}>" for name in libraries),
            'object CheckerComponent "checker" { }',
            'object StatusDataWriter "status" {',
            f'  status_path = "{folder}/status.dat"',
            f'  objects_path = "{folder}/objects.cache"',
            *("  update_interval = 1s", "}"),
            f'include "{folder}/shipped"',
            *more,
        ]
        (folder / "icinga2.conf").write_text("\n".join(lines) + "\n")
        constants = {"RunAsUser": USER, "RunAsGroup": GROUP}
        for name in ("Config", "Data", "Log", "Cache", "Spool", "InitRun"):
            constants[f"{name}Dir"] = str(folder / name)
            (folder / name).mkdir()
        self.command = [str(monitors.icinga), "daemon", "-c", str(folder / "icinga2.conf")]
        self.command += ["-I", str(monitors.icinga_includes)]
        self.command += [f"-D{name}={value}" for name, value in constants.items()]
        self.dry = [*self.command, "-C"]


def adapted(path, changes):
    """Return a bundled file with the changes that its comments require of a user."""
    text = (SHIPPED / path).read_text()
    for old, new in changes.items():
        assert old in text, f"{path} has no {old}"
        text = text.replace(old, str(new))
    return text


def walk(core, server):
    """See the service of `etl main` go through all states, each for its message.

    Its tokens live for 168 hours: due when 56 are left, a warning below 33.6, critical below 16.8.
    """
    service = "FlowAuth_Token_etl main"

    def mint(hours_left):
        issued_at = int(time.time()) - (168 - hours_left) * 3600
        server.mint("etl main", lifetime_minutes=168 * 60, issued_at=issued_at)

    def seen(state, *words):
        def holds():
            status = core.services().get(service, {})
            output = status.get("plugin_output", "")
            return core.state(service) == state and all(word in output for word in words)

        wait_until(holds, f"{service} is {state} {words}; last {core.services().get(service)}")
        return core.services()[service]

    def broken_by(program):
        (core.broken / "requests.py").write_text(program)

    mint(hours_left=10)
    status = seen("CRITICAL", "TOKEN CRITICAL - 'etl main': Expires in")
    left, *levels = status["performance_data"].split(" ")[0].split("=")[1].split(";")
    assert 9 * 3600 < int(left.removesuffix("s")) <= 10 * 3600
    assert levels == ["120960:", "60480:"]
    mint(hours_left=25)
    status = seen("WARNING", "TOKEN WARNING - 'etl main': Expires in")
    used, *levels = status["performance_data"].split(" ")[1].removeprefix("used=").split(";")
    assert 85 <= float(used.removesuffix("%")) < 86
    assert levels == ["80", "90", "0", "100"]
    mint(hours_left=168)
    status = seen("OK", "TOKEN OK - 'etl main': Expires in 6 d 23 h")
    assert "Thresholds: warning below 0.6 of" in status["long_plugin_output"]
    broken_by("raise RuntimeError\n")
    status = seen("UNKNOWN", "internal error: RuntimeError")
    assert status["performance_data"] == ""
    broken_by("import os\nos.kill(os.getpid(), 9)\n")
    wait_until(lambda: "TOKENS" not in core.services()[service]["plugin_output"], "it was killed")
    assert core.state(service) in ("CRITICAL", "UNKNOWN")
    (core.broken / "requests.py").unlink()
    seen("OK")
    server.stop()
    seen("UNKNOWN", "cannot be reached")
