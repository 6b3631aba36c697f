"""The ZIP file of a bundle: written reproducibly, and read without trusting its content."""

import errno
import hashlib
import io
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from lowbit.benchmark.planning.job import ID_LENGTH
from lowbit.benchmark.results.result_file import RESULT
from lowbit.benchmark.submissions.manifest import (
    MANIFEST,
    BundleError,
    Content,
    Manifest,
    read_manifest,
)
from lowbit.benchmark.submissions.manifest import (
    MOST_BYTES as MOST_BYTES_OF_MANIFEST,
)
from lowbit.benchmark.submissions.untrusted_text import shown
from lowbit.common.atomic_file import atomic
from lowbit.common.input_files.regular_file import NotAFileError, check_regular
from lowbit.common.text import printable
from lowbit.transfer.scoring.predictions_file import FILE as PREDICTIONS

RECIPE = "recipe.yaml"
_JOBS = "jobs"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member: equal files make equal bundles
_MEMBER = re.compile(
    rf"{_JOBS}/(?P<job>[0-9a-f]{{{ID_LENGTH}}})/"
    r"(?P<file>result\.json|recipe\.yaml|predictions\.parquet|detections(_\w{1,30})?\.json)",
    re.ASCII,
)
_MIB = 2**20
# Larger than what any job leaves: a result has 0.5 MiB where ImageNet's counts are in it, its predictions
# 1 MiB, COCO's 5,000 images have 80 MiB of detections. Checking a file takes at most four times as much
# memory, and 300 MB.
MOST_BYTES = {
    MANIFEST: MOST_BYTES_OF_MANIFEST,
    RESULT: 4 * _MIB,
    RECIPE: 1 * _MIB,
    PREDICTIONS: 32 * _MIB,
}
MOST_BYTES_OF_DETECTIONS = 256 * _MIB
MOST_BYTES_OF_RESULTS = 64 * _MIB  # all together: they are kept until the last was checked
_MOST_IN_ALL = 4096 * _MIB
_MOST_MEMBERS = 50_000
_LONGEST_READ = 8 * _MIB  # of the directory, which zipfile reads at once
_MOST_RATIO = 200  # of sizes before and after; what jobs leave shrinks 2 to 30 times
_ALWAYS_FINE = 1 * _MIB  # a size at which the ratio does not matter
# What zipfile raises on malformed bytes.
_NOT_A_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError,
    ValueError, NotImplementedError, RuntimeError,
)  # fmt: skip
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _ShortReads(io.FileIO):
    """A file that refuses to be read in one piece: what a directory says of its own length is checked."""

    def read(self, size: int = -1, /) -> bytes:
        found = super().read(_LONGEST_READ + 1 if size < 0 else min(size, _LONGEST_READ + 1))
        if len(found) > _LONGEST_READ:
            raise BundleError(
                f"its directory is longer than {_LONGEST_READ // _MIB} MiB, more than "
                f"{_MOST_MEMBERS:,} files need"
            )
        return found


def member(job_id: str, name: str) -> str:
    """Return the path in a bundle of a file of a job."""
    return f"{_JOBS}/{job_id}/{name}"


def write_archive(path: Path, manifest: Manifest, files: Mapping[str, Path | bytes]) -> None:
    """Write a bundle atomically; equal content gives equal bytes."""
    first = manifest.model_dump_json(indent=1).encode() + b"\n"
    with atomic(path) as out, zipfile.ZipFile(out, "w") as archive:
        for name, source in [(MANIFEST, first), *sorted(files.items())]:
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with archive.open(info, "w", force_zip64=True) as member_file:
                if isinstance(source, bytes):
                    member_file.write(source)
                else:
                    with source.open("rb") as file:
                        shutil.copyfileobj(file, member_file, _MIB)


def unpack(path: Path, folder: Path) -> tuple[Manifest, list[str]]:
    """Check a bundle as a file and write its jobs' files into FOLDER/<job id>/.

    Names, kinds and sizes are looked at before anything is decompressed, and decompressing ends at the
    size that was announced.

    Returns:
        The manifest, and the ids of the jobs, sorted.

    Raises:
        FileNotFoundError: there is no such file.
        BundleError: it is not a bundle, or not a safe one.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"there is no bundle {printable(str(path))}; nothing was added. Check the path."
        )
    try:
        check_regular(path)
    except NotAFileError as error:
        raise BundleError(str(error)) from error
    try:
        with _ShortReads(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
            manifest = read_manifest(_read(archive, members.pop(MANIFEST)))
            _compare(set(members), set(manifest.files))
            for name, info in members.items():
                target = folder / Path(name).relative_to(_JOBS)
                target.parent.mkdir(exist_ok=True)
                with target.open("xb") as out:
                    _extract(archive, info, out, manifest.files[name])
    except BundleError:
        raise
    except _NOT_A_ZIP as error:
        raise BundleError(f"it is no whole ZIP file: {shown(error)}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # seeking to an impossible offset
            raise
        raise BundleError(f"it is no whole ZIP file: {shown(error)}") from error
    return manifest, sorted({Path(name).parts[1] for name in members})


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MOST_MEMBERS:
        raise BundleError(f"it has {len(infos)} files, where {_MOST_MEMBERS} are allowed")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if problem := _problem(info):
            raise BundleError(f"its file {shown(info.orig_filename)} {problem}")
        if info.filename in members:
            raise BundleError(f"its file {shown(info.filename)} is there twice")
        members[info.filename] = info
    if MANIFEST not in members:
        raise BundleError(f"it has no {MANIFEST}: it is not a bundle of `leaderboard.py bundle`")
    results = sum(info.file_size for name, info in members.items() if Path(name).name == RESULT)
    if results > MOST_BYTES_OF_RESULTS:
        raise BundleError(
            f"its results have {results / _MIB:,.0f} MiB together, where "
            f"{MOST_BYTES_OF_RESULTS // _MIB} are allowed: send several bundles"
        )
    total = sum(info.file_size for info in infos)
    if total > _MOST_IN_ALL:
        raise BundleError(
            f"it would take {total / _MIB:,.0f} MiB, where {_MOST_IN_ALL // _MIB:,} are allowed"
        )
    return members


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Return why a member is refused, judging by its entry in the archive's directory."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    most = MOST_BYTES.get(Path(info.filename).name, MOST_BYTES_OF_DETECTIONS)
    ratio = info.file_size / max(info.compress_size, 1)
    # The name as written: `filename` is cut at a NUL and has its separators replaced.
    if info.orig_filename != MANIFEST and not _MEMBER.fullmatch(info.orig_filename):
        return "is none of the files of a bundle (a path that leads elsewhere?)"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device, not a file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _METHODS:
        return "is compressed in a way that bundles are not"
    if info.file_size > most:
        return f"is {info.file_size / _MIB:,.0f} MiB large, where {most // _MIB} are allowed"
    if info.file_size > _ALWAYS_FINE and ratio > _MOST_RATIO:
        return f"would grow {ratio:.0f} times, as only a ZIP bomb does"
    return None


def _compare(found: set[str], listed: set[str]) -> None:
    if extra := sorted(found - listed):
        raise BundleError(f"its file {shown(extra[0])} is not in {MANIFEST}")
    if absent := sorted(listed - found):
        raise BundleError(f"{MANIFEST} names {shown(absent[0])}, which is not in it")
    if not found:
        raise BundleError("it has no job")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(info.file_size + 1)


def _extract(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: BinaryIO, listed: Content
) -> None:
    digest, size = hashlib.sha256(), 0
    with archive.open(info) as file:
        while chunk := file.read(_MIB):
            size += len(chunk)
            if size > info.file_size:
                raise BundleError(f"its file {info.filename} is larger than it says")
            digest.update(chunk)
            out.write(chunk)
    if (size, digest.hexdigest()) != (listed.bytes, listed.sha256):
        raise BundleError(
            f"its file {info.filename} is not the one that {MANIFEST} lists: it was changed"
        )
