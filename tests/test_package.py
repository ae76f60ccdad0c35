"""What is shipped: the root package, and the wheel in an environment that has nothing else."""

import ast
import filecmp
import importlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import flowauth_rotator
import flowauth_rotator.provider

ROOT = Path(__file__).parent.parent
DAG_FILE = ROOT / "dags" / "flowauth_token_rotation.py"
HEAVY = ("airflow", "flask", "sqlalchemy", "requests", "jwt", "cryptography")


@pytest.mark.parametrize("package", [flowauth_rotator, flowauth_rotator.provider])
def test_each_public_name_is_where_it_is_said_to_be(package):
    """The list, the lazy loader and the type checker's view agree."""
    homes = {name: f"{package.__name__}.{package._MODULES[name]}" for name in package.__all__}
    for name, home in homes.items():
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
    tree = ast.parse(Path(package.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname}
    assert seen == homes


def test_a_name_that_is_not_public_is_not_there():
    """The shop window has an end."""
    with pytest.raises(AttributeError, match="no attribute 'rotat'"):
        _ = flowauth_rotator.rotat


@pytest.mark.parametrize(
    "code",
    [
        "import flowauth_rotator",
        "from flowauth_rotator.cli.main import main; main(['--help'], standalone_mode=False)",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code):
    """Neither the package nor its listing of commands loads what they may never need."""
    printed = subprocess.check_output(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], text=True
    )
    assert set(HEAVY).isdisjoint(printed.splitlines()[-1].split())


def build(target, source, folder):
    """Build the wheel or the sdist of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target]
    subprocess.run([*command, "--directory", folder], cwd=source, check=True, capture_output=True)
    [path] = folder.glob("flowauth_rotator-*")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare_python(wheel, tmp_path_factory):
    """An environment with the wheel and what it depends on, in the versions of the lock."""
    folder = tmp_path_factory.mktemp("bare")
    lock = (ROOT / "locks" / "airflow-3.txt").read_text()
    pins = [line.rstrip(" \\") for line in lock.splitlines() if line[:1].isalnum()]
    (folder / "pins.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--constraint",
            folder / "pins.txt",
            wheel,
        ],
        check=True,
    )
    return python


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_no_more(wheel):
    """Types, licence and the DAG file come along; tests and the demo do not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "flowauth_rotator/py.typed" in names
    assert "flowauth_rotator/provider/example_dags/flowauth_token_rotation.py" in names
    assert not [name for name in names if "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "flowauth_rotator",
        f"flowauth_rotator-{flowauth_rotator.__version__}.dist-info",
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The built source distribution."""
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture
def unpacked(sdist, tmp_path):
    """The folder in the source distribution, whose files have other times and rights."""
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not before 3.11.4
        archive.extractall(tmp_path / "unpacked")
    [folder] = (tmp_path / "unpacked").iterdir()
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (0, 0))
    return folder


@pytest.mark.slow
def test_who_builds_it_gets_the_same_bytes(wheel, sdist, unpacked, tmp_path):
    """In another folder, with other times and rights, and from the sdist."""
    assert build("wheel", unpacked, tmp_path / "wheel").read_bytes() == wheel.read_bytes()
    assert build("sdist", unpacked, tmp_path / "sdist").read_bytes() == sdist.read_bytes()


@pytest.mark.slow
def test_the_sdist_has_each_file_once(sdist):
    """By name, and by content where there is some: the repository has symbolic links."""
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        contents = [archive.extractfile(member).read() for member in archive]
    assert len(set(names)) == len(names)
    contents = [content for content in contents if len(content) > 300]
    assert len(set(contents)) == len(contents)


@pytest.mark.slow
def test_every_link_works_in_the_sdist(unpacked):
    """Of README and of all that it leads to."""
    targets = [
        page.parent / target.partition("#")[0]
        for page in unpacked.rglob("*.md")
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text())
    ]
    assert len(targets) > 100
    assert [str(target) for target in targets if not target.exists()] == []


@pytest.mark.slow
def test_the_wheel_works_without_airflow_flask_and_sqlalchemy(bare_python, tmp_path):
    """Everything public imports, --help answers, and a server command says what it lacks."""
    for absent in ("airflow", "flask", "sqlalchemy", "gunicorn", "argon2"):
        there = subprocess.run([bare_python, "-c", f"import {absent}"], capture_output=True)
        assert there.returncode == 1, f"{absent} is here: this proves nothing"
    code = "import flowauth_rotator as f; print(*[getattr(f, name) for name in f.__all__])"
    subprocess.run([bare_python, "-W", "error", "-c", code], check=True, capture_output=True)
    command = bare_python.with_name("flowauth-rotator")
    subprocess.run([command, "init-dag", tmp_path / "dags"], check=True, capture_output=True)
    assert filecmp.cmp(tmp_path / "dags" / DAG_FILE.name, DAG_FILE, shallow=False)
    shown = subprocess.check_output([command, "--help"], text=True)
    assert all(name in shown for name in ("plan", "rotate", "serve", "server"))
    version = subprocess.check_output([command, "--version"], text=True)
    assert flowauth_rotator.__version__ in version
    lacking = subprocess.run([command, "server", "init"], capture_output=True, text=True)
    assert lacking.returncode == 1
    assert lacking.stderr.endswith(
        "which is not installed. Run: pip install 'flowauth-rotator[server]'\n"
    )
    (tmp_path / "airflow").mkdir()  # all that is asked of an Airflow: that it can be found
    (tmp_path / "airflow" / "__init__.py").touch()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for words in (["server", "init"], ["serve"]):
        lacking = subprocess.run([command, *words], capture_output=True, text=True, env=environment)
        assert lacking.stderr.endswith(
            "which is not installed. Install it outside of this environment, since it needs other "
            "versions of Airflow's packages: python3 -m venv DIR && "
            "DIR/bin/pip install 'flowauth-rotator[server]'\n"
        )


def test_the_lock_is_pinned_by_hashes_and_names_no_host():
    """Each requirement has a hash; where it comes from is the machine's own affair."""
    lock = (ROOT / "locks" / "airflow-3.txt").read_text()
    assert "://" not in lock
    entries = [entry for entry in lock.split("\n") if entry[:1].isalnum()]
    assert all("==" in entry and entry.endswith("\\") for entry in entries)
