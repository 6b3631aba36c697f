"""A file is the old one or the new one, whatever happens in between."""

import multiprocessing
import os
import signal

import pytest

from lowbit.common import atomic_file
from lowbit.common.atomic_file import atomic, write_text


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic(path) as file:
        file.write(b"new")
        raise RuntimeError("halfway")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_the_old_file_is_there_until_the_new_one_is_safe(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    seen = []
    with atomic(path, before=lambda: seen.append(path.read_text())) as file:
        file.write(b"new")
    assert seen == ["old"] and path.read_text() == "new" and os.listdir(tmp_path) == ["a"]


def test_the_mode_is_that_of_any_new_file(tmp_path):
    with atomic(tmp_path / "a") as file:
        file.write(b"x")
    (tmp_path / "b").touch()
    modes = {(tmp_path / name).stat().st_mode for name in "ab"}
    assert len(modes) == 1


def _die_within(path):
    with atomic(path) as file:
        file.write(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a[1]"
    writer = multiprocessing.get_context("fork").Process(target=_die_within, args=(path,))
    writer.start()
    writer.join()
    assert len(os.listdir(tmp_path)) == 1
    with atomic(path) as slow:  # a writer that lives keeps its own
        slow.write(b"slow")
        write_text(path, "quick")
        assert path.read_text() == "quick" and len(os.listdir(tmp_path)) == 2
    assert path.read_text() == "slow" and os.listdir(tmp_path) == ["a[1]"]


def test_a_temporary_file_taken_for_abandoned_is_made_again(tmp_path, monkeypatch):
    """As when another writer looks between its creation and its lock."""
    flock, taken = atomic_file.fcntl.flock, []

    def late(handle, how):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        flock(handle, how)

    monkeypatch.setattr(atomic_file.fcntl, "flock", late)
    write_text(tmp_path / "a", "new")
    assert len(taken) == 1 and os.listdir(tmp_path) == ["a"]
