"""The members of an archive are those that Python's `zipfile` finds, if they are stored as they are."""

import io
import struct
import zipfile

import pytest

from lowbit.backbones.checkpoints.file_formats import zip_directory
from lowbit.backbones.checkpoints.file_formats.memory_budget import MemoryBudget
from lowbit.backbones.checkpoints.file_formats.refusals import DamagedError, RefusedError

CONTENT = {"a/data.pkl": b"one", "a/data/0": bytes(range(256)) * 10, "a/empty": b"", "ü": b"x"}


def packed(content=CONTENT, *, method=zipfile.ZIP_STORED, comment=b"", force_zip64=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, data in content.items():
            with archive.open(name, "w", force_zip64=force_zip64) as member:
                member.write(data)
    return bytearray(buffer.getvalue())


def members(data):
    return zip_directory.members(memoryview(data), MemoryBudget(len(data)))


@pytest.mark.parametrize("comment", [b"", b"PK\5\6 in a comment"[4:]])
@pytest.mark.parametrize("force_zip64", [False, True])
def test_members_are_those_of_zipfile(comment, force_zip64):
    found = members(packed(comment=comment, force_zip64=force_zip64))
    assert {name: bytes(m.data) for name, m in found.items()} == CONTENT
    assert zip_directory.check(found)


def test_a_wrong_byte_is_found_and_named():
    data = packed()
    data[data.index(CONTENT["a/data/0"]) + 5] ^= 1
    with pytest.raises(DamagedError, match=r"checksum of a/data/0"):
        zip_directory.check(members(data))


def test_an_archive_may_have_no_checksums():
    data = packed()
    at = 0
    while (at := data.find(b"PK\1\2", at)) >= 0:
        data[at + 16 : at + 20] = bytes(4)
        at += 4
    assert not zip_directory.check(members(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(method):
    with pytest.raises(RefusedError, match=r"compressed member a/data\.pkl"):
        members(packed(method=method))


def test_members_may_not_share_their_bytes():
    data = packed({"a": bytes(1000), "b": bytes(1000), "c": b""})
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]  # where its local header is
    third = data.index(b"PK\1\2", second + 4)
    for at in (first, second, third):
        data[at + 20 : at + 28] = struct.pack("<2L", 1030, 1030)
    with pytest.raises(DamagedError):
        members(data)


def test_a_name_twice_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(DamagedError, match="twice"):
        members(bytearray(buffer.getvalue()))


def test_an_archive_cut_anywhere_is_damaged():
    data = packed()
    for length in range(0, len(data), 7):
        with pytest.raises((DamagedError, struct.error)):
            members(data[:length])
