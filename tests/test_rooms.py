"""Who may import whom: the rooms of the package, and the message for each wall."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flowauth_rotator"
OWN = "flowauth_rotator"

ROOMS = {  # what each room may import beside itself and the standard library
    "atomic_file": set(),  # shared by rooms that must not import each other
    "core": {"jwt", "cryptography"},  # pure, so that every rule is tested as a function
    "agent": {"core"},  # no host, no HTTP: the sequence of effects and nothing else
    "agent/issuer_calls": {"core", "tenacity"},
    "agent/flowauth": {"core", "pyotp"},
    "agent/http": {"core", "requests"},  # this and what it consists of: the only HTTP of the agent
    "agent/connection": {"requests"},
    "agent/connection_errors": {"core", "requests", "urllib3"},
    "server": {
        *("core", "flask", "werkzeug", "itsdangerous", "sqlalchemy", "alembic"),
        *("jwt", "cryptography", "argon2", "prometheus_client", "click", "tables"),
    },  # meets the agent on the wire alone, so that FlowAuth can stand in its place
    "server/serving": {"flask", "gunicorn"},
    "server/http_server": {"waitress"},
    "monitoring": {"core", "atomic_file"},  # renders a snapshot of any host or issuer
    "monitoring/prometheus": {"core", "prometheus_client", "__version__"},
    "monitoring/terminal": {"core", "rich"},
    # Airflow comes through compat alone
    "provider": {"core", "agent", "monitoring", "atomic_file"},
    # every difference between generations of Airflow, and its form, is here
    "provider/compat": {"core", "airflow", "flask_appbuilder", "wtforms"},
    # what a secrets backend's library raises
    "provider/aws_store": {"core", "botocore"},
    "provider/vault_store": {"core", "hvac"},
    # the web server's side, of which no task is a part
    "provider/web/compat": {"airflow", "sqlalchemy"},
    "provider/web/queries": {"core", "monitoring", "airflow", "sqlalchemy"},
    "provider/web/api": {"core", "monitoring", "airflow"},
    "provider/web/runbooks": {"monitoring", "markdown_it"},  # a dependency of either Airflow
    "provider/web/fastapi_app": {"monitoring", "airflow", "fastapi", "starlette"},
    "provider/web/flask_blueprint": {"monitoring", "airflow", "flask", "flask_appbuilder"},
    "cli": {
        "core",
        "agent",
        "monitoring",
        "provider",
        "server",
        "click",
        "rich",
        "tables",
        "atomic_file",
    },
    "tables": {"core", "rich"},  # the one table writer of the command line
    "__init__": {"core", "agent"},
}
HOSTS = {"dags/flowauth_token_rotation.py", "plugins/flowauth_rotator_plugin.py"}


def imported(path: Path):
    """Every module that a file imports, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide their room"
            if node.module == OWN:
                yield from (f"{OWN}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))


def room_of(module: str) -> str:
    """The room of one of our modules, or the top-level name of anybody else's."""
    parts = module.split(".")
    return parts[1] if parts[0] == OWN and len(parts) > 1 else parts[0]


def sources():
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("source", sources(), ids=str)
def test_a_room_imports_only_what_it_may(source):
    """No import crosses a wall, wherever in the file it stands."""
    name = str(source.with_suffix(""))
    room = source.parts[0].removesuffix(".py")
    allowed = ROOMS.get(name, ROOMS.get(room)) | {room}
    for module in imported(PACKAGE / source):
        target = room_of(module)
        if target not in sys.stdlib_module_names:
            assert target in allowed, f"{room} ({source}) must not import {target} ({module})"


def test_only_compat_knows_which_airflow_there_is():
    """Whoever wants to know what differs between generations reads one file, or the web's."""
    asking = {
        str(source)
        for source in sources()
        if re.search(r"AIRFLOW_2|airflow.*__version__", (PACKAGE / source).read_text())
    }
    assert asking == {"provider/compat.py", "provider/web/compat.py"}


@pytest.mark.parametrize("source", sorted(HOSTS))
def test_a_host_file_imports_one_name(source):
    """What an operator copies into a folder of Airflow is one import."""
    imports = [
        node
        for node in ast.walk(ast.parse((ROOT / source).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    [only] = imports
    assert only.module == f"{OWN}.provider"
    assert len(only.names) == 1


def test_only_settings_and_commands_read_the_environment():
    """What a deployment can set is found in two places; errors name the variables of requests."""
    readers = {
        str(source)
        for source in sources()
        for node in ast.walk(ast.parse((PACKAGE / source).read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        if ast.unparse(node.value) == "os"
    }
    assert readers == {"agent/connection_errors.py", "cli/sources.py", "server/settings.py"}


def test_the_clock_is_read_only_at_entries():
    """`now` is an argument everywhere else."""
    clocks = ("datetime.now(", "time.time(", "utcnow(")
    readers = {
        str(source)
        for source in sources()
        if any(clock in (PACKAGE / source).read_text() for clock in clocks)
    }
    assert readers == {
        "cli/check.py",
        "cli/file_report.py",
        "provider/dag.py",
        "provider/hook.py",
        "provider/operator.py",
        "provider/sensor.py",
        "provider/web/fastapi_app.py",
        "provider/web/flask_blueprint.py",
        "server/__init__.py",
        "server/commands/options.py",
    }
