"""Videos as folders of frames, in the folders of their classes: `{train,val|test}/CLASS/VIDEO/*.jpg`.

A sample is a video, represented by F uniformly spaced frames; a network's outputs for them are
averaged (`lowbit.backbones.networks.video_frames`). Splits are made as in a folder of images, with
whole videos (`lowbit.data.image_sets.image_folder`), and the identity of the splits is that of all
frames' paths and sizes.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lowbit.data.decoding import problems
from lowbit.data.image_sets.image_folder import EXTENSIONS, Folder


class Videos(Folder):
    """A folder of videos on disk, the counterpart of `Folder` for images.

    `names` and `paths` are those of the videos, each a folder; `contents` are their frames.
    """

    def __init__(self, name: str, path: Path, *, frames: int) -> None:
        super().__init__(name, path)
        self.frames = frames

    def _images(self, part: str, name: str) -> list[str]:
        folder = self.path / part / name
        videos = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
        least = 2 if part == "train" and "val" not in self.parts else 1
        if len(videos) < least:
            raise ValueError(
                f"{self.name}: {folder} has {len(videos)} videos, but {least} or more are needed; "
                "nothing was loaded. A video is a folder of its frames: add some, or remove the "
                "class from every folder."
            )
        return videos

    @property
    def contents(self) -> list[str]:
        """Relative paths of all frames; not kept, as there may be millions."""
        found = []
        for path in self.paths:
            found += [f"{path}/{os.path.basename(f)}" for f in frames_of(self.path / path)]
        return found

    def damaged(self) -> Iterator[str | None]:
        """Decode every frame; yield for each its problem or None."""
        return problems([f"{self.path}/{path}" for path in self.contents])


def frames_of(video: str | os.PathLike) -> list[str]:
    """Return the paths of a video's frames, sorted by name.

    Raises:
        ValueError: there are no frames.
    """
    names = sorted(name for name in os.listdir(video) if name.lower().endswith(EXTENSIONS))
    if not names:
        raise ValueError(
            f"{video} has no frames; nothing was loaded. Extract its frames again, or remove the "
            "folder."
        )
    return [os.path.join(video, name) for name in names]


def spread(frames: Sequence[str], count: int) -> list[str]:
    """Return the middle frames of `count` equal parts; a short video repeats some.

    Example:
        >>> spread("abcdefgh", 2), spread("abc", 4)
        (['c', 'g'], ['a', 'b', 'b', 'c'])
    """
    return [frames[(2 * part + 1) * len(frames) // (2 * count)] for part in range(count)]
