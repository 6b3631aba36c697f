"""Manifest of an image folder, a small file in it: identity, counts, image size.

The identity is the SHA-256 over a line "<path> <bytes>" of every file, sorted by path. The file
`<folder>/.lowbit/manifest.json` also has the modification times of the class folders, which change
when a file is added, removed or renamed; a manifest that does not match them is rebuilt. In sets of
up to 200,000 files every file's size is checked as well, each time; in larger ones a file
that was overwritten in place goes unnoticed until `lowbit-bench datasets verify`. The files of a set of
videos (`lowbit.data.image_sets.video_folder`) are its frames.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from lowbit.data import sidecar_files
from lowbit.data.decoding import image_size

Names = dict[str, list[list[str]]]  # by split, by class

_VERSION = 1  # of the manifest and of the rule that assigns files to splits
_LOOK_AT_ALL = 200_000  # files; checking their sizes takes about a second
_SAMPLED = 32  # headers read to see whether all images have one size
_LARGEST_SIDE = 64  # pixels, of images held in memory
_LARGEST_SET = 4 * 2**30  # bytes, of all of them


@dataclass(frozen=True)
class Manifest:
    """A folder's stored manifest.

    Attributes:
        sha256: the identity.
        counts: files per class, by split; no val if it is taken from train.
        size: side of the images in pixels; None if they are too large, or of too many sizes, to
            be held in memory.
        newest_ns: latest modification time of the files.
        folders: modification time of each class folder, by relative path.
    """

    version: int
    sha256: str
    counts: dict[str, list[int]]
    size: int | None
    newest_ns: int
    folders: dict[str, int]


class ListedFolder(Protocol):
    """Source of a manifest; file lists are read only when needed.

    Attributes:
        path: the folder.
        parts: folder of each split.
        classes: the class folders in each.
        names: samples by split, class by class.
        paths: of all samples, relative to `path`.
        contents: paths of the files that define the identity, relative to `path`.
        watched: paths whose modification times tell that files changed, relative to `path`.
        frames: sampled from each video; None: samples are images.
    """

    path: Path
    parts: dict[str, str]
    classes: tuple[str, ...]
    frames: int | None

    @property
    def names(self) -> Names: ...

    @property
    def paths(self) -> list[str]: ...

    @property
    def contents(self) -> list[str]: ...

    @property
    def watched(self) -> list[str]: ...


def read_manifest(folder: ListedFolder, *, trust: bool = True) -> Manifest:
    """Return a folder's stored manifest if still valid, else a new one.

    Args:
        folder: the image folder.
        trust: whether to trust folder modification times in a large set.
    """
    file = folder.path / sidecar_files.FOLDER / "manifest.json"
    kept = _kept(file)
    folders = _folders(folder)
    current = kept is not None and kept.folders == folders
    if trust and current and _files(kept, folder) > _LOOK_AT_ALL:
        return kept
    sha256, newest_ns = look(folder.path, folder.contents)
    if current and (kept.sha256, kept.newest_ns) == (sha256, newest_ns):
        return kept
    manifest = Manifest(
        version=_VERSION,
        sha256=sha256,
        counts={split: [len(c) for c in classes] for split, classes in folder.names.items()},
        size=None if folder.frames else _common_size(folder),
        newest_ns=newest_ns,
        folders=folders,
    )
    text = json.dumps(asdict(manifest)).encode()
    sidecar_files.keep(file, lambda out: out.write(text), otherwise="reads every file again")
    return manifest


def _kept(file: Path) -> Manifest | None:
    try:
        manifest = Manifest(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):  # missing, of another program, or of another version
        return None
    return manifest if manifest.version == _VERSION else None


def _files(manifest: Manifest, folder: ListedFolder) -> int:
    return sum(map(sum, manifest.counts.values())) * (folder.frames or 1)


def _folders(folder: ListedFolder) -> dict[str, int]:
    return {path: (folder.path / path).stat().st_mtime_ns for path in folder.watched}


def look(root: Path, paths: list[str]) -> tuple[str, int]:
    """Return the identity of the files under `root` and their latest modification time."""
    digest, newest_ns = hashlib.sha256(f"folder {_VERSION}\n".encode()), 0
    for path in sorted(paths):
        status = os.stat(f"{root}/{path}")
        digest.update(os.fsencode(f"{path} {status.st_size}\n"))
        newest_ns = max(newest_ns, status.st_mtime_ns)
    return digest.hexdigest(), newest_ns


def _common_size(folder: ListedFolder) -> int | None:
    """Return the images' side if a sample shows that they fit in memory, else None."""
    count = len(folder.paths)
    sample = folder.paths[:: max(1, count // _SAMPLED)]
    first = image_size(folder.path / sample[0])
    height, width = first
    if height != width or height > _LARGEST_SIDE or 3 * height * width * count > _LARGEST_SET:
        return None
    same = all(image_size(folder.path / path) == first for path in sample)
    return height if same else None
