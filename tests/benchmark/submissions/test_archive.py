"""ZIP files that nobody should open: refused by their directory, before anything is written."""

import io
import json
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from lowbit.benchmark.submissions import BundleError, add, examine
from lowbit.benchmark.submissions.archive import unpack
from lowbit.benchmark.submissions.manifest import Manifest
from tests.benchmark.bundles import ENTRY, tree


@pytest.fixture
def bundle(linear_bundle):
    return linear_bundle


@pytest.fixture
def room(tmp_path):
    """A folder deep enough that what leads out of it would still be found."""
    (tmp_path / "a" / "b" / "board").mkdir(parents=True)
    return tmp_path


def repack(bundle, out, *, change=lambda info: None, more=(), leave_out=()):
    """Write the members again, each changed, with more of them or less."""
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(out, "w") as written:
        for info in archive.infolist():
            data = archive.read(info)
            change(info)
            if info.filename not in leave_out:
                written.writestr(info, data)
        for name, data in more:
            written.writestr(name, data)
    return out


def refused(bundle, room, match):
    board = room / "a" / "b" / "board"
    before = set(room.rglob("*"))
    with pytest.raises(BundleError, match=rf"was refused; nothing was added. .*{match}"):
        add(bundle, board)
    kept = {board / "submissions", board / "submissions" / ".lock"}
    assert set(room.rglob("*")) - before <= kept


def job_id(bundle):
    (found,) = examine(bundle).results
    return found


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "jobs/../../evil.txt",
        "/tmp/evil.txt",
        "C:/evil.txt",
        "jobs/{id}/../../../evil.txt",
        "jobs\\{id}\\..\\evil.txt",
        "jobs/{id}/evil.pth",
        "jobs/{id}/deeper/result.json",
        "jobs/{id}/detections_.json/x",
        "jobs/{id}/",
        "jobs/0123456789AB/result.json",
        "evil.py",
        "MANIFEST.json",
    ],
)
def test_a_name_that_leads_elsewhere_or_is_none_of_ours(bundle, room, name):
    more = [(name.format(id=job_id(bundle)), b"evil")]
    refused(repack(bundle, room / "bad.zip", more=more), room, "is none of the files of a bundle")


def test_a_name_that_readers_would_cut(bundle, room):
    """At a NUL, which zipfile does not write."""
    more = [(f"jobs/{job_id(bundle)}/detections.json@.pth", b"evil")]
    bad = repack(bundle, room / "bad.zip", more=more)
    bad.write_bytes(bad.read_bytes().replace(b"json@.pth", b"json\0.pth"))
    refused(bad, room, r"json\\x00.pth' is none of the files of a bundle")


def test_a_link(bundle, room):
    link = zipfile.ZipInfo(f"jobs/{job_id(bundle)}/detections.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    bad = repack(bundle, room / "bad.zip", more=[(link, b"/etc/passwd")])
    refused(bad, room, "is a link or a device")


def test_a_name_twice(bundle, room):
    with pytest.warns(UserWarning, match="Duplicate name"):
        bad = repack(bundle, room / "bad.zip", more=[(f"jobs/{job_id(bundle)}/result.json", b"{}")])
    refused(bad, room, "is there twice")


def test_a_file_that_the_manifest_does_not_list_and_one_that_only_it_has(bundle, room):
    more = [(f"jobs/{'0' * 12}/result.json", b"{}")]
    refused(repack(bundle, room / "bad.zip", more=more), room, "is not in manifest.json")
    name = f"jobs/{job_id(bundle)}/predictions.parquet"
    bad = repack(bundle, room / "bad.zip", leave_out=[name])
    refused(bad, room, "names 'jobs/.*/predictions.parquet', which is not in it")


def test_a_file_exchanged(bundle, room):
    name = f"jobs/{job_id(bundle)}/recipe.yaml"
    bad = repack(bundle, room / "bad.zip", leave_out=[name], more=[(name, b"lr: 1\n")])
    refused(bad, room, "is not the one that manifest.json lists: it was changed")


def test_a_bomb_is_told_by_what_it_says(bundle, room):
    name = f"jobs/{job_id(bundle)}/detections.json"
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    bad = repack(bundle, room / "bad.zip", more=[(info, b" " * (20 << 20))])
    assert bad.stat().st_size < 200_000
    refused(bad, room, "would grow [0-9]+ times, as only a ZIP bomb does")


def edit_directory(bundle, out, name, offset, value):
    """Write the ZIP file with four other bytes in a member's entry of its directory."""
    data = bytearray(bundle.read_bytes())
    place = data.rindex(f"jobs/{job_id(bundle)}/{name}".encode()) - 46
    assert data[place : place + 4] == b"PK\x01\x02"
    data[place + offset : place + offset + 4] = struct.pack("<I", value)
    out.write_bytes(data)
    return out


SIZE = 24  # where an entry says how large the file is


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("predictions.parquet", 300 << 20, "is 300 MiB large, where 32 are allowed"),
        ("result.json", 17 << 20, "is 17 MiB large, where 4 are allowed"),
        ("predictions.parquet", 10, "no whole ZIP file: .Bad CRC"),
    ],
)
def test_a_size_that_is_too_large_or_a_lie(bundle, room, name, size, match):
    plain = repack(bundle, room / "plain.zip")
    refused(edit_directory(plain, room / "bad.zip", name, SIZE, size), room, match)


def test_a_password(bundle, room):
    plain = repack(bundle, room / "plain.zip")
    bad = edit_directory(plain, room / "bad.zip", "predictions.parquet", 8, 8 << 16 | 1)
    refused(bad, room, "is encrypted")


def test_an_unusual_compression(bundle, room):
    def change(info):
        info.compress_type = zipfile.ZIP_BZIP2

    refused(repack(bundle, room / "bad.zip", change=change), room, "compressed in a way that")


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + b"\0" * 18])
def test_no_archive(room, content):
    (room / "bad.zip").write_bytes(content)
    refused(room / "bad.zip", room, "no whole ZIP file|has no manifest.json")


def test_half_of_one(bundle, room):
    data = bundle.read_bytes()
    (room / "bad.zip").write_bytes(data[: len(data) // 2])
    refused(room / "bad.zip", room, "no whole ZIP file")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(schema_version=2), "schema_version '2', and this version reads 1"),
        (lambda m: m.update(schema_version="1"), "schema_version|manifest.json: "),
        (lambda m: m.update(motto="x"), "'motto'"),
        (lambda m: m["entry"].update(name="../../up"), "'entry.name'"),
        (lambda m: m["entry"].update(submitter="<img src=x>"), "'entry.submitter'.*markup"),
        (lambda m: m["entry"].update(weights={"x": "javascript:alert(1)"}), "entry.weights"),
        (lambda m: m.update(files={}), "is not in manifest.json"),
    ],
)
def test_a_manifest_that_will_not_do(bundle, room, change, match):
    with zipfile.ZipFile(bundle) as archive:
        mapping = json.loads(archive.read("manifest.json"))
    change(mapping)
    text = json.dumps(mapping)
    bad = repack(
        bundle, room / "bad.zip", leave_out=["manifest.json"], more=[("manifest.json", text)]
    )
    refused(bad, room, match)


def test_a_message_steers_no_terminal(bundle, room):
    bad = repack(bundle, room / "bad.zip", more=[("\x1b[2J\u202eevil", b"")])
    with pytest.raises(BundleError) as caught:
        add(bad, room / "a" / "b" / "board")
    assert r"'\x1b[2J\u202eevil'" in str(caught.value)


def test_a_good_one_unpacks_to_what_was_packed(bundle, tmp_path):
    manifest, (job,) = unpack(bundle, tmp_path)
    assert isinstance(manifest, Manifest) and manifest.entry == ENTRY
    with zipfile.ZipFile(bundle) as archive:
        packed = {n: archive.read(n) for n in archive.namelist() if n != "manifest.json"}
    assert {f"jobs/{name}": data for name, data in tree(tmp_path).items()} == packed
    assert {Path(name).parts[1] for name in packed} == {job}


def test_bits_flipped_anywhere_are_refused_or_mean_nothing(bundle, tmp_path):
    """Whatever bytes come, the answer is a refusal and never another error."""
    good, data = examine(bundle), bundle.read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(draw.choice([1, 1, 8])):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        (tmp_path / "b.zip").write_bytes(broken)
        try:
            found = examine(tmp_path / "b.zip")
        except BundleError:
            continue
        assert (found.entry, found.results) == (good.entry, good.results)


def test_members_may_come_in_any_order(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        members = [(i.filename, archive.read(i)) for i in archive.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in reversed(members):
            archive.writestr(name, data)
    (tmp_path / "b.zip").write_bytes(out.getvalue())
    assert examine(tmp_path / "b.zip").results == examine(bundle).results
