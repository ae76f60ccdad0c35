"""Monitoring files in folders that are hostile, full or out of order."""

import json
import os
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from flowauth_rotator.core.report import Outcome
from flowauth_rotator.monitoring.status import (
    Event,
    RotationDagStatus,
    StatusDocument,
    TokenStatus,
)

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
DAG = "rotation"
SPOOL_FILE = "3720_flowauth_rotator_rotation"
TEXTFILE = "flowauth_rotator_rotation.prom"
OPTIONS = {"CHECKMK_SPOOL_DIR": "spool", "TEXTFILE_DIR": "textfiles"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders of both files, of which Airflow's configuration knows."""
    for option, name in OPTIONS.items():
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"AIRFLOW__FLOWAUTH_ROTATOR__{option}", str(tmp_path / name))
    return tmp_path / "spool", tmp_path / "textfiles"


def write(*others, name="AIRFLOW"):
    from flowauth_rotator.provider.monitoring_files import write_monitoring_files

    dag = RotationDagStatus(DAG, checked_at=NOON, deadline_at=NOON + timedelta(minutes=62))
    token = TokenStatus(name, last_check=Event(NOON, Outcome.HEALTHY))
    write_monitoring_files(StatusDocument((dag,), (token, *others)), NOON)


def list_files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_both_files_are_written_and_stale_drafts_removed(folders):
    """A killed run has left a draft in each folder two hours ago."""
    long_ago = time.time() - 7200
    for folder, name in zip(folders, (SPOOL_FILE, TEXTFILE), strict=True):
        draft = folder / f".{name}.0123abcd"
        draft.write_bytes(b"half")
        os.utime(draft, (long_ago, long_ago))
    write()
    assert [list_files(folder) for folder in folders] == [[SPOOL_FILE], [TEXTFILE]]


def test_a_token_that_no_check_has_read_yet_raises_no_alert(folders):
    """It is managed, of unknown severity, neither readable nor not, and no service of Checkmk."""
    write(TokenStatus("NEW", "NEW_TOKEN", DAG))
    spool, textfiles = (
        (folder / name).read_text()
        for folder, name in zip(folders, (SPOOL_FILE, TEXTFILE), strict=True)
    )
    assert "FlowAuth_Token_AIRFLOW" in spool
    assert "FlowAuth_Token_NEW" not in spool
    samples = dict(line.rsplit(" ", 1) for line in textfiles.splitlines() if "NEW" in line)
    names = {
        key.partition("{")[0].removeprefix("flowauth_rotator_"): samples[key] for key in samples
    }
    assert names.pop("token_severity") == "3.0"
    assert names.pop("token_expected") == names.pop("token_info") == "1.0"
    assert names.pop("token_name_known") == "1.0"
    assert {name.partition("_")[0] for name in names} <= {"rotations"}


@pytest.mark.parametrize("prepare", [os.mkfifo, "link", "hard link"], ids=str)
def test_prepared_files_do_not_lead_elsewhere(folders, tmp_path, prepare):
    """Also not those of another age, which are removed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    spool, textfiles = folders
    for path in (spool / SPOOL_FILE, spool / f"60{SPOOL_FILE}", textfiles / TEXTFILE):
        if prepare == "link":
            path.symlink_to(victim)
        elif prepare == "hard link":
            path.hardlink_to(victim)
        else:
            prepare(path)
    write()
    assert victim.read_bytes() == b"precious"
    assert [list_files(folder) for folder in folders] == [[SPOOL_FILE], [TEXTFILE]]
    assert b"FlowAuth_Token_AIRFLOW" in (spool / SPOOL_FILE).read_bytes()


def make_directory(folder, name):
    (folder / name).mkdir()


def make_pipe(folder, _):
    folder.rmdir()
    os.mkfifo(folder)


def make_broken_link(folder, _):
    folder.rmdir()
    folder.symlink_to(folder.with_name("nowhere"))


def make_unwritable(folder, _):
    folder.rmdir()
    folder.symlink_to("/proc/self")  # not writable for root either


@pytest.mark.parametrize("number", [0, 1], ids=OPTIONS)
@pytest.mark.parametrize("spoil", [make_directory, make_pipe, make_broken_link, make_unwritable])
def test_one_folder_that_takes_no_file_is_logged(folders, caplog, number, spoil):
    """The run continues, and the other file is written."""
    names = (SPOOL_FILE, TEXTFILE)
    spoil(folders[number], names[number])
    write()
    assert (folders[1 - number] / names[1 - number]).is_file()
    [line] = caplog.messages
    assert f"Writing {folders[number] / names[number]} failed" in line


def test_a_file_system_that_hangs_delays_a_run_for_a_limited_time(folders, caplog, monkeypatch):
    """Both files are tried; an error in the log names each."""
    from flowauth_rotator.provider import monitoring_files

    released = threading.Event()
    monkeypatch.setattr(monitoring_files, "replace_file", lambda *_: released.wait(60))
    monkeypatch.setattr(monitoring_files, "LONGEST_WRITE", 0.2)
    began = time.monotonic()
    write()
    assert time.monotonic() - began < 20
    released.set()
    assert [json.dumps(line).count("did not end within 0.2 s") for line in caplog.messages] == [
        1,
        1,
    ]
    for folder, line in zip(folders, caplog.messages, strict=True):
        assert str(folder) in line


def test_a_thread_that_hangs_does_not_keep_the_process(tmp_path):
    """The task ends although its file was not written."""
    from flowauth_rotator.provider import monitoring_files

    started = []
    monitoring_files.run_with_time_limit(
        "Writing",
        lambda: (started.append(threading.current_thread()), time.sleep(5)),
        seconds=0.1,
    )
    assert [thread.daemon for thread in started] == [True]
