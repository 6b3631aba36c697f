"""Archives of the published sets: sources, locations, checksums.

URLs, MD5s and unpacking are torchvision's, taken from its classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A publisher's archive, stored at `path`."""

    path: Path
    url: str
    md5: str

    def problem(self) -> str | None:
        """Return what is wrong with the file (missing or altered), or None."""
        from torchvision.datasets.utils import calculate_md5

        if not self.path.is_file():
            return f"{self.path} does not exist"
        found = calculate_md5(self.path)
        if found == self.md5:
            return None
        return f"{self.path} has MD5 {found} but its publisher's has {self.md5}: download it again"


def archives(name: str, root: Path) -> list[Archive]:
    """Return a set's archives; empty if torchvision cannot unpack the set."""
    from torchvision import datasets

    if name in ("cifar10", "cifar100"):
        kind = getattr(datasets, name.upper())
        return [Archive(root / kind.filename, kind.url, kind.tgz_md5)]
    if name == "flowers102":
        kind, folder = datasets.Flowers102, root / "flowers-102"
        return [
            Archive(folder / file, kind._download_url_prefix + file, md5)
            for file, md5 in kind._file_dict.values()
        ]
    if name == "food101":
        kind = datasets.Food101
        return [_archive(root, kind._URL, kind._MD5)]
    if name == "pets":
        folder = root / "oxford-iiit-pet"
        return [_archive(folder, url, md5) for url, md5 in datasets.OxfordIIITPet._RESOURCES]
    if name == "dtd":
        return [_archive(root / "dtd", datasets.DTD._URL, datasets.DTD._MD5)]
    if name == "caltech101":  # torchvision has these inside a function
        url = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
        return [_archive(root / "caltech101", url, "3138e1922a9193bfa496528edbbc45d0")]
    return []


def _archive(folder: Path, url: str, md5: str) -> Archive:
    return Archive(folder / url.rpartition("/")[2], url, md5)


def damaged(name: str, root: Path) -> Iterator[str]:
    """Yield the problems of the archives that exist; they may be deleted after unpacking."""
    for archive in archives(name, root):
        problem = archive.problem() if archive.path.exists() else None
        if problem:
            yield problem


def unpack(name: str, root: Path) -> None:
    """Let torchvision download and check missing archives and unpack a set.

    Raises:
        RuntimeError, OSError: an archive could not be downloaded, or its checksum is wrong.
    """
    from torchvision import datasets

    kinds = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "flowers102": datasets.Flowers102,
        "food101": datasets.Food101,
        "pets": datasets.OxfordIIITPet,
        "dtd": datasets.DTD,
        "caltech101": datasets.Caltech101,
    }
    kinds[name](str(root), download=True)
