"""A replaced file is complete at every moment, and a failure leaves nothing behind."""

import os
import time

import pytest

from flowauth_rotator import atomic_file
from flowauth_rotator.atomic_file import STALE_AFTER, remove_stale_drafts, replace_file

DRAFT = "0123abcd"  # the random part of the name of a draft
OBSTACLES = {
    "symbolic link": lambda path, victim: path.symlink_to(victim),
    "broken link": lambda path, victim: path.symlink_to(victim.with_name("nowhere")),
    "link to itself": lambda path, _: path.symlink_to(path),
    "link to a named pipe": lambda path, victim: (
        os.mkfifo(victim.with_name("pipe")),
        path.symlink_to(victim.with_name("pipe")),
    ),
    "hard link": lambda path, victim: path.hardlink_to(victim),
    "named pipe": lambda path, _: os.mkfifo(path),
    "directory": lambda path, _: path.mkdir(),
    "link to a directory": lambda path, victim: path.symlink_to(victim.parent),
}


@pytest.fixture(autouse=True)
def umask():
    """A umask that removes all permissions of others."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.parametrize(("apply_umask", "mode"), [(False, 0o644), (True, 0o600)])
def test_the_file_has_its_mode_from_the_start(tmp_path, apply_umask, mode):
    """Other users can read the file, or cannot, whatever the mode of its predecessor was."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    replace_file(path, b"new", 0o644, apply_umask=apply_umask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_no_draft(tmp_path):
    """A folder stands in the way of the rename."""
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder"):
        replace_file(path, b"new", 0o644)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def victim(tmp_path):
    """A file outside the folder to which another user's link may lead."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = folder / "victim"
    file.write_bytes(b"precious")
    file.chmod(0o600)
    return file


@pytest.fixture
def folder(tmp_path):
    """The folder with the file to replace."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def assert_unharmed(victim):
    assert victim.read_bytes() == b"precious"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in victim.parent.iterdir()} <= {"victim", "pipe"}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_stands_at_the_path_is_replaced_and_never_opened(folder, victim, obstacle):
    """A link does not lead the content elsewhere, and a named pipe does not wait for a reader."""
    path = folder / "file"
    OBSTACLES[obstacle](path, victim)
    if obstacle == "directory":
        with pytest.raises(IsADirectoryError):
            replace_file(path, b"new", 0o644)
    else:
        replace_file(path, b"new", 0o644)
        assert not path.is_symlink()
        assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o644)
    assert list(folder.iterdir()) == [path]
    assert_unharmed(victim)


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_stands_at_the_name_of_the_draft_is_neither_used_nor_removed(
    folder, victim, monkeypatch, obstacle
):
    """If somebody guesses the random name."""
    monkeypatch.setattr(atomic_file.secrets, "token_hex", lambda _: DRAFT)
    path, draft = folder / "file", folder / f".file.{DRAFT}"
    path.write_bytes(b"old")
    OBSTACLES[obstacle](draft, victim)
    with pytest.raises(FileExistsError):
        replace_file(path, b"new", 0o644)
    assert path.read_bytes() == b"old"
    assert set(folder.iterdir()) == {path, draft}
    assert_unharmed(victim)


def test_the_name_of_a_draft_is_random(folder, monkeypatch):
    """Nobody can prepare it."""
    names = []
    create = os.open
    monkeypatch.setattr(
        atomic_file.os, "open", lambda path, *rest: (names.append(path), create(path, *rest))[1]
    )
    for _ in range(20):
        replace_file(folder / "file", b"new", 0o644)
    assert len(set(names)) == 20


def test_stale_drafts_of_the_path_are_removed(folder, victim):
    """Those of a killed process; neither a new one, nor another file, nor anything but a file."""
    path = folder / "file"
    kept = ["file", ".file.00000001", ".file.old", ".other.00000002", ".file.0000000g", "x.file"]
    names = [*kept, f".file.{DRAFT}", ".file.00000003"]
    for name in names:
        (folder / name).write_bytes(b"")
    (folder / ".file.00000004").symlink_to(victim)
    os.mkfifo(folder / ".file.00000005")
    (folder / ".file.00000006").mkdir()
    hour_ago = time.time() - STALE_AFTER - 1
    for entry in (*folder.iterdir(), victim):
        if entry.name not in ("file", ".file.00000001"):
            os.utime(entry, (hour_ago, hour_ago), follow_symlinks=False)
    remove_stale_drafts(path)
    odd = [".file.00000004", ".file.00000005", ".file.00000006"]
    assert {entry.name for entry in folder.iterdir()} == {*kept, *odd}
    assert_unharmed(victim)
    remove_stale_drafts(folder / "missing" / "file")
