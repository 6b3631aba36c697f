"""Videos named by lists: `frames:NAME` is `<root>/NAME/` with lists, class names and frames.

    train_split.txt, val_split.txt  a line a video: VIDEO,FRAMES,LABEL[,LABEL...], or split by spaces
    classInd.txt                    a class a line; label 0 is the first. Without it classes are numbers
    frames/VIDEO/*.jpg              the frames; FRAMES in the lists is not used

This is the form in which AR-Net publishes ActivityNet and Mini-Kinetics, and in which CoQuant has them.
A list is named by its split, with anything before and behind (`actnet_train_split.txt`,
`mini_val_videofolder.txt`); test lists may stand for val's, as in folders. A video may have several
labels. It is trained on with the first, the lowest number, and scored with all (`targets`).
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from lowbit.common.input_files.regular_file import read_regular
from lowbit.data.image_sets.folder_manifest import Names
from lowbit.data.image_sets.spec import SPLITS
from lowbit.data.image_sets.video_folder import Videos

FRAMES_FOLDER = "frames"
CLASS_NAMES = ("classInd.txt", "classes.txt")
_LIST = re.compile(r"(?:.*_)?(train|val|test)_(?:split|videofolder)\.txt")
_MOST_BYTES = 100_000_000  # of a list
_MOST_CLASSES = 100_000

_Line = tuple[str, tuple[int, ...]]  # a video and its labels, rising


def find_lists(path: Path) -> dict[str, Path]:
    """Return the lists in a set's folder by split; empty if it is no set of lists.

    Raises:
        ValueError: two lists are of one split.
    """
    found: dict[str, Path] = {}
    for file in sorted(path.glob("*.txt")):
        if match := _LIST.fullmatch(file.name):
            if match[1] in found:
                raise ValueError(
                    f"{path} has two lists of {match[1]}, {found[match[1]].name} and {file.name}; "
                    "nothing was loaded. Keep one."
                )
            found[match[1]] = file
    return {split: found[split] for split in SPLITS if split in found}


class ListedVideos(Videos):
    """A set of videos whose lists name them, the counterpart of `Videos`.

    Attributes:
        targets: whether a video has a class, bool (N, C).
    """

    def __init__(self, name: str, path: Path, *, frames: int) -> None:
        self.name, self.path, self.frames, self._val_per_class = name, path, frames, None
        lists = find_lists(path)
        if "train" not in lists or len(lists) < 2:
            raise FileNotFoundError(
                f"{name} is not complete: {path.resolve()} has lists of "
                f"{' and '.join(lists) or 'nothing'}; nothing was loaded. Put train_split.txt and "
                "val_split.txt there (docs/adaptive.md has their form)."
            )
        self._lists = lists
        last = [split for split in lists if split != "train"]
        self.parts = (
            dict.fromkeys(SPLITS, FRAMES_FOLDER)
            if len(last) == 2
            else dict.fromkeys(("train", "test"), FRAMES_FOLDER)
        )
        files = dict(lists) if len(last) == 2 else {"train": lists["train"], "test": lists[last[0]]}
        self._lines = {split: _read(file) for split, file in files.items()}
        self.classes = self._find_classes()
        self._check()

    def _find_classes(self) -> tuple[str, ...]:
        highest = max(label for lines in self._lines.values() for _, ls in lines for label in ls)
        file = next((self.path / n for n in CLASS_NAMES if (self.path / n).is_file()), None)
        if file is None:
            return tuple(map(str, range(highest + 1)))
        text = read_regular(file, limit=_MOST_BYTES).decode("utf-8", "replace")
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
        if highest >= len(names):
            raise ValueError(
                f"{self.name}: a list has label {highest}, and {file} names {len(names)} classes; "
                "nothing was loaded. Labels count from 0: use the lists and the names of one release."
            )
        return names

    def _check(self) -> None:
        """Refuse videos in two splits, classes without videos, and videos without frames."""
        videos = [video for lines in self._lines.values() for video, _ in lines]
        if len(set(videos)) < len(videos):
            twice = next(video for video in videos if videos.count(video) > 1)
            raise ValueError(
                f"{self.name} lists {twice} twice; nothing was loaded. A video belongs to one split."
            )
        for split, classes in self.names.items():
            least = 2 if split == "train" and "val" not in self._lines else 1
            few = [
                name for name, own in zip(self.classes, classes, strict=True) if len(own) < least
            ]
            if few:
                raise ValueError(
                    f"{self.name}: {len(few)} classes have fewer than {least} videos in "
                    f"{split} ({', '.join(few[:3])}); nothing was loaded. Complete the list, or "
                    "leave the classes out of all lists and renumber the others."
                )
        missing = [video for video in videos if not (self.path / FRAMES_FOLDER / video).is_dir()]
        if missing:
            raise ValueError(
                f"{self.name}: {len(missing)} of {len(videos)} listed videos have no folder in "
                f"{self.path / FRAMES_FOLDER} ({', '.join(missing[:3])}); nothing was loaded. "
                "Extract their frames, or remove their lines from the lists."
            )

    @cached_property
    def _by_class(self) -> dict[str, list[list[_Line]]]:
        """Lines by split and first label, sorted by video."""
        found = {split: [[] for _ in self.classes] for split in self._lines}
        for split, lines in self._lines.items():
            for line in sorted(lines):
                found[split][line[1][0]].append(line)
        return found

    @property
    def names(self) -> Names:
        """Videos by split and first label."""
        return {
            split: [[video for video, _ in own] for own in classes]
            for split, classes in self._by_class.items()
        }

    @cached_property
    def paths(self) -> list[str]:
        """Relative paths of all videos; an id is an index into them."""
        return [
            f"{FRAMES_FOLDER}/{video}"
            for classes in self.names.values()
            for own in classes
            for video in own
        ]

    @property
    def watched(self) -> list[str]:
        """Paths whose modification means that the set has changed."""
        return [*(file.name for file in self._lists.values()), FRAMES_FOLDER]

    @cached_property
    def targets(self) -> Tensor:
        """Whether each video has each class, bool (N, C), in the order of the ids."""
        lines = [line for classes in self._by_class.values() for own in classes for line in own]
        found = torch.zeros(len(lines), len(self.classes), dtype=torch.bool)
        for row, (_, labels) in enumerate(lines):
            found[row, list(labels)] = True
        return found

    @property
    def split_sha256(self) -> str:
        """The identity of the splits: of all frames' paths and sizes, and of the lists."""
        digest = hashlib.sha256(self.manifest.sha256.encode())
        for split, lines in self._lines.items():
            for video, labels in sorted(lines):
                digest.update(f"{split} {video} {labels}\n".encode())
        return digest.hexdigest()


def _read(file: Path) -> list[_Line]:
    text = read_regular(file, limit=_MOST_BYTES).decode("utf-8", "replace")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            found.append(_parsed(line, f"{file}, line {number}"))
    if not found:
        raise ValueError(f"{file} lists no video; nothing was loaded. Get it again.")
    return found


def _parsed(line: str, place: str) -> _Line:
    """Read VIDEO,FRAMES,LABEL[,LABEL...]; a video's name may itself have the separator."""
    separator = "," if "," in line else None
    words = [word.strip() for word in line.strip().split(separator)]
    numbers: list[str] = []
    while len(words) > 1 and words[-1].isascii() and words[-1].isdecimal():
        numbers.insert(0, words.pop())
    if separator is None:  # one label: what stands before FRAMES is the video's name
        words, numbers = [*words, *numbers[:-2]], numbers[-2:]
    video = (separator or " ").join(words)
    path = PurePosixPath(video)
    bad = not video or path.is_absolute() or ".." in path.parts or not video.isprintable()
    if bad or len(numbers) < 2 or max(len(number) for number in numbers) > 9:
        raise ValueError(
            f"{place} is not VIDEO,FRAMES,LABEL[,LABEL...], with a video's path in frames/ and labels "
            "from 0 on; nothing was loaded. Correct the line."
        )
    labels = tuple(sorted({int(number) for number in numbers[1:]}))
    if labels[-1] >= _MOST_CLASSES:
        raise ValueError(
            f"{place} has label {labels[-1]}, and at most {_MOST_CLASSES:,} classes are read; nothing "
            "was loaded. Correct the line."
        )
    return video, labels
