"""`flowauth-rotator monitoring export` writes complete files and overwrites no edited file."""

import os
import re
import stat
import subprocess
import tarfile
import zipfile

import pytest
from click.testing import CliRunner

from demo.parts import BIN, ROOT
from flowauth_rotator.cli.main import main
from flowauth_rotator.monitoring.export import FILES, PURPOSES, read_files

RULES = "prometheus/flowauth_rotator.rules.yml"


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Export into the folder `monitoring`; the result has `exit_code`, `stdout` and `stderr`."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(main, ["monitoring", "export", "monitoring", *words])


def written(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_that_is_shipped_is_written(export, tmp_path):
    """Byte by byte, with the runbooks, and nothing beside it."""
    assert export().exit_code == 0
    files = written(tmp_path / "monitoring")
    assert files == read_files()
    for path in FILES.rglob("*"):
        assert path.is_dir() or str(path.relative_to(FILES)) in files
    assert (
        files["runbooks/FlowAuthTokenExpired.md"]
        == (ROOT / "docs" / "runbooks" / "FlowAuthTokenExpired.md").read_bytes()
    )


def test_each_part_is_listed_with_its_purpose(export, tmp_path):
    """A line each; the README has it at greater length."""
    lines = export().stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"monitoring/{top}" for top in PURPOSES]
    readme = (tmp_path / "monitoring" / "README.md").read_text()
    for line, (top, use) in zip(lines, PURPOSES.items(), strict=True):
        assert line.endswith(f"  {use}")
        number = len([path for path in read_files() if path.split("/")[0] == top])
        assert re.search(rf" {number} files?  ", line)
        assert top == "README.md" or f"| `{top}/` |" in readme


def test_a_script_may_be_run_and_a_text_may_be_read(export, tmp_path):
    """By all whom the umask allows."""
    before = os.umask(0o022)
    try:
        export()
    finally:
        os.umask(before)
    for path, content in read_files().items():
        mode = stat.S_IMODE((tmp_path / "monitoring" / path).stat().st_mode)
        assert mode == (0o755 if content.startswith(b"#!") else 0o644)


@pytest.mark.parametrize(
    "url", ["https://wiki.example.org/flowauth", "https://wiki.example.org/flowauth/"]
)
def test_an_address_is_put_before_the_links_of_alerts(export, tmp_path, url):
    """Everywhere outside the pages, also in the unit tests; and once."""
    assert export("--runbook-url", url).exit_code == 0
    for path, content in read_files().items():
        exported = (tmp_path / "monitoring" / path).read_bytes()
        if path.endswith(".md"):
            assert exported == content
        else:
            address = b"https://wiki.example.org/flowauth/"
            assert exported.count(b"runbooks/") == exported.count(address + b"runbooks/FlowAuth")
            assert exported.replace(address, b"") == content
    rules = (tmp_path / "monitoring" / RULES).read_text()
    assert (
        "runbook_url: https://wiki.example.org/flowauth/runbooks/FlowAuthTokenExpired.md" in rules
    )


def test_the_unit_tests_pass_with_an_address_before_the_links(export, monitors, tmp_path):
    """They expect the links that the rules have."""
    export("--runbook-url", "https://wiki.example.org/flowauth")
    tests = sorted((tmp_path / "monitoring" / "prometheus").glob("*.test.yml"))
    subprocess.run([monitors.promtool, "test", "rules", *tests], check=True, capture_output=True)


@pytest.mark.parametrize(
    "url", ["wiki.example.org", "https://a b", "https://x/{{ $labels }}", 'https://x/"', "ftp://x/"]
)
def test_an_invalid_url_is_refused(export, tmp_path, url):
    """It would break the files, or be a template to Prometheus."""
    done = export("--runbook-url", url)
    assert done.exit_code == 1
    assert "is not a valid address" in done.stderr
    assert not (tmp_path / "monitoring").exists()


def test_a_second_export_changes_nothing(export, tmp_path):
    """So that a watcher of these files sees no change."""
    export()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert export().exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_edited_file_is_kept(export, tmp_path):
    """Nothing at all is written, and the sentence names the file; --force writes all anew."""
    export()
    rules = tmp_path / "monitoring" / RULES
    rules.write_text(rules.read_text().replace("0.6", "0.5"))
    (tmp_path / "monitoring" / "README.md").unlink()
    changed = written(tmp_path / "monitoring")
    done = export()
    assert done.exit_code == 1
    assert done.stderr.startswith(
        f"Error: Files in monitoring differ from the files to be written: {RULES}. "
    )
    assert "Nothing was written; use --force to overwrite them." in done.stderr
    assert written(tmp_path / "monitoring") == changed
    assert export("--force").exit_code == 0
    assert written(tmp_path / "monitoring") == read_files()


def test_what_is_not_ours_is_left_alone(export, tmp_path):
    """A folder may hold other rules, too."""
    own = tmp_path / "monitoring" / "prometheus" / "ours.rules.yml"
    own.parent.mkdir(parents=True)
    own.write_text("groups: []\n")
    assert export("--force").exit_code == 0
    assert own.read_text() == "groups: []\n"


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(export, tmp_path):
    """A sentence with its path, no traceback, no draft."""
    (tmp_path / "monitoring" / RULES).mkdir(parents=True)
    done = export("--force")
    assert done.exit_code == 1
    assert done.stderr == f"Error: monitoring/{RULES} cannot be written: Is a directory.\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_target_that_is_a_file_is_an_error(export, tmp_path):
    (tmp_path / "monitoring").write_text("mine")
    done = export()
    assert done.exit_code == 2
    assert "Directory 'monitoring' is a file." in done.stderr
    assert (tmp_path / "monitoring").read_text() == "mine"


@pytest.mark.slow
def test_whatever_is_built_holds_all_of_it(tmp_path):
    """A wheel from the repository, a source distribution, and a wheel made from that one."""

    def build(target, source):
        command = [BIN / "python", "-m", "hatchling", "build", "--target", target]
        folder = tmp_path / f"{target}-of-{source.name}"
        subprocess.run(
            [*command, "--directory", folder], cwd=source, check=True, capture_output=True
        )
        [built] = folder.iterdir()
        return built

    sdist = build("sdist", ROOT)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    prefix = str(FILES.relative_to(ROOT)) + "/"
    for source in (ROOT, unpacked):
        with zipfile.ZipFile(build("wheel", source)) as wheel:
            files = {
                name.removeprefix(prefix): wheel.read(name)
                for name in wheel.namelist()
                if name.startswith(prefix)
            }
        assert files == read_files()
