"""Image names of Pascal VOC's lists, and the annotation and image files that they name."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from lowbit.common.encoded_text import decode_text
from lowbit.common.input_files.file_names import is_inside
from lowbit.common.input_files.regular_file import read_regular
from lowbit.common.text import brief, counted

_CLASS_FILES = ("classes.txt", "labels.txt")
_LARGEST = 256 * 10**6  # bytes of a list; Objects365's has 30 million
_SHOWN = 5  # lines that a message lists
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


class VocFiles:
    """The annotation and image files of a folder, in VOC's layout or the bare one."""

    def __init__(self, folder: Path) -> None:
        self.annotations = first_folder(folder, "Annotations", "annotations")
        self.pictures = first_folder(folder, "JPEGImages", "images")

    def annotation(self, line: str) -> Path:
        """Return the annotation file that a line of a list names, whether it exists or not.

        The line is the image's name, which may have spaces, with or without its extension, and VOC's
        flag (-1, 0 or 1) behind it.
        """
        files = [self.annotations / f"{name}.xml" for name in _readings(line)]
        return next((file for file in files if file.is_file()), files[-1])

    def image(self, annotation: Path, filename: str) -> Path:
        """Return the image of an annotation: of its name or, if several have it, its `<filename>`.

        Raises:
            ValueError: several images have the name, and the annotation names none of them.
        """
        name = annotation.relative_to(self.annotations).with_suffix("")
        found = self._by_name.get(str(name), [])
        if len(found) == 1:
            return found[0]
        said = re.split(r"[/\\]", filename)[-1]  # some tools write a path, of Windows too
        named = [file for file in found or self._all(name.parent) if file.name == said]
        if named:
            return named[0]
        if found:
            raise ValueError(
                f"{annotation}: {' and '.join(p.name for p in found)} in {self.pictures} both have "
                f"this name, and <filename> is {brief(filename)}; nothing was loaded. Name the photograph "
                "in <filename>, or move the other file."
            )
        return self.pictures / f"{name}.jpg"  # the check says that there is none

    def _all(self, folder: Path) -> Iterator[Path]:
        files = (file for several in self._by_name.values() for file in several)
        return (file for file in files if file.parent == self.pictures / folder)

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """The image files by their path without extension."""
        found = defaultdict(list)
        for file in sorted(self.pictures.rglob("*")):
            if file.suffix.lower() in _EXTENSIONS:
                found[str(file.relative_to(self.pictures).with_suffix(""))].append(file)
        return found


def read_list(file: Path) -> list[str]:
    """Read the lines of an ImageSets list or a list of classes, without empty ones.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text.
    """
    return [line for _, line in _numbered(file)]


def read_image_names(file: Path) -> list[str]:
    """Read the lines of an ImageSets list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, or a line leads out of the folder; the message has the line.
    """
    lines = _numbered(file)
    wrong = [(number, line) for number, line in lines if not is_inside(line)]
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{file} has {counted(len(wrong), 'line')} that lead out of the folder; nothing was loaded. "
            "Write names of images inside it, with / between folders:\n"
            + "\n".join(f"  {file}:{number}: {brief(line)}" for number, line in wrong[:_SHOWN])
            + more
        )
    return [line for _, line in lines]


def _numbered(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a file that are not empty, with their numbers."""
    try:
        text = decode_text(read_regular(file, limit=_LARGEST))
    except ValueError as error:
        raise ValueError(
            f"{file} is not text in UTF-8 ({error}); nothing was loaded. Save it as UTF-8."
        ) from error
    lines = enumerate(text.splitlines(), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def class_list(path: Path) -> list[str] | None:
    """Return the classes that a folder lists, or None."""
    return next((read_list(path / file) for file in _CLASS_FILES if (path / file).is_file()), None)


def first_folder(path: Path, *names: str) -> Path:
    """Return the first folder that exists, or else the last."""
    return next((path / name for name in names if (path / name).is_dir()), path / names[-1])


def _readings(line: str) -> Iterator[str]:
    """Yield the names that a line may mean: as it is, without its flag, without its extension."""
    for name in (line, re.sub(r"\s+-?[01]$", "", line)):
        yield name
        if Path(name).suffix.lower() in _EXTENSIONS:
            yield str(Path(name).with_suffix(""))
