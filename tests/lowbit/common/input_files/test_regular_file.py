"""A file is read if it is one: whole, and without waiting for what is none."""

import os

import pytest

from lowbit.common.input_files.regular_file import NotAFileError, read_regular, read_seen


@pytest.mark.timeout(20)
def test_a_file_that_was_seen_is_read_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_seen(str(path), 5) == b"12345" == read_regular(path, limit=5)
    assert read_seen(str(path), 4) is None  # it grew
    assert read_seen(str(path), 6) is None  # it was truncated
    path.unlink()
    assert read_seen(str(path), 5) is None
    os.mkfifo(path)
    assert read_seen(str(path), 5) is None
    assert read_seen(str(tmp_path), 5) is None


def test_a_file_that_is_too_long_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with pytest.raises(NotAFileError, match="it is longer than 4 bytes"):
        read_regular(path, limit=4)
