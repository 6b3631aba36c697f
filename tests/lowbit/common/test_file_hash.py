"""A file's hash is that of its content now, and a file that stays the same is read once."""

import hashlib
import os

import pytest

from lowbit.common import file_hash


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    path.write_bytes(b"one")
    first = file_hash.file_sha256(path)
    monkeypatch.setattr(file_hash.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert file_hash.file_sha256(path) == first == hashlib.sha256(b"one").hexdigest()
    monkeypatch.undo()
    stat = path.stat()
    path.write_bytes(b"two")  # as long as before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_hash.file_sha256(path) == hashlib.sha256(b"two").hexdigest()
