"""A replaced file is complete at every moment, and a failure leaves nothing behind."""

import os

import pytest

from flowauth_rotator.atomic_file import replace_file


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
