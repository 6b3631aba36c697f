"""A file is the old one or the new one, whatever happens in between."""

import os

import pytest

from lowbit.common.atomic_file import atomic


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
