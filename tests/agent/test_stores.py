import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowauth_rotator.agent.stores import FileStore
from flowauth_rotator.core.errors import MissingToken, ShadowedStore, StoreUnavailable
from flowauth_rotator.core.tokens import Token

OLD, NEW = Token("old.token.text"), Token("new.token.text")


@pytest.fixture
def path(tmp_path):
    """A file that holds a token, readable by all."""
    path = tmp_path / "flowapi.token"
    path.write_text(OLD.reveal() + "\n")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", " \n\n", "\t"])
def test_a_line_break_at_the_end_is_not_part_of_the_token(path, ending):
    """A file as an editor or `server mint` writes it is read."""
    path.write_bytes(b"old.token.text" + ending.encode())
    assert FileStore(path).read() == OLD


@pytest.mark.parametrize("content", [None, b"", b" \n"])
def test_no_file_and_an_empty_one_are_a_missing_token(path, content):
    """There is nothing to rotate, and the sentence says where."""
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(MissingToken, match=r"flowapi\.token"):
        FileStore(path).read()


def test_a_folder_in_the_place_of_the_file_cannot_be_read(tmp_path):
    """What the system says is told in one sentence."""
    with pytest.raises(StoreUnavailable, match="Is a directory"):
        FileStore(tmp_path).read()


def test_a_write_replaces_the_file_for_its_owner_alone(path):
    """The new token is there, with mode 0600, and nothing else is."""
    store = FileStore(path)
    store.preflight()
    store.write(NEW, "not kept")
    assert store.read() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_sees_the_old_token_or_the_new_one(path):
    """Whoever has the file open while it is replaced goes on reading the old token whole."""
    with path.open() as open_before:
        FileStore(path).write(NEW, "")
        assert open_before.read() == OLD.reveal() + "\n"


def test_a_link_stays_a_link(path, tmp_path):
    """The file behind a link is replaced, so that all who use the link see the new token."""
    link = tmp_path / "current"
    link.symlink_to(path)
    FileStore(link).write(NEW, "")
    assert link.is_symlink()
    assert FileStore(path).read() == NEW


def test_a_draft_of_a_crash_is_replaced(path):
    """What a crash in the middle of a write left behind does no harm and does not stay."""
    draft = path.with_name(".flowapi.token.new")
    draft.write_text("half a tok")
    FileStore(path).write(NEW, "")
    assert FileStore(path).read() == NEW
    assert not draft.exists()


def test_a_failed_write_leaves_the_old_token_and_no_draft(path, monkeypatch):
    """A full disk at the last moment costs nothing."""

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        FileStore(path).write(NEW, "")
    assert FileStore(path).read() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_preflight_refuses_what_is_no_regular_file(tmp_path):
    """A pipe is not a place that a token can be swapped in."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ShadowedStore, match="not a regular file"):
        FileStore(pipe).preflight()


def test_preflight_finds_a_write_that_would_fail(tmp_path):
    """Found before anything is minted: here, a name beside which no draft can stand."""
    path = tmp_path / ("x" * 252)
    path.write_text(OLD.reveal())
    with pytest.raises(StoreUnavailable, match="File name too long"):
        FileStore(path).preflight()
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_writers_each_finishes(path):
    """Whoever reads meanwhile reads a whole token, and each write that returned took place."""
    tokens = [Token(f"{number}." * 400) for number in range(8)]
    seen = []

    def write(token):
        for _ in range(20):
            FileStore(path).write(token, "")
            seen.append(FileStore(path).read())

    with ThreadPoolExecutor(len(tokens)) as pool:
        list(pool.map(write, tokens))
    assert set(seen) <= set(tokens)
    assert list(path.parent.iterdir()) == [path]
