"""Sets of videos by name: `frames:NAME`, in folders of their classes or named by lists.

F, the number of frames of a video that are seen, is part of the name, since it affects every result:
`frames:NAME@16`; without it, 8.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from lowbit.common.input_files.file_names import is_name
from lowbit.common.text import brief
from lowbit.data.image_sets.image_folder import unlocated
from lowbit.data.image_sets.listed_videos import ListedVideos, find_lists
from lowbit.data.image_sets.spec import FRAMES, ImageSet
from lowbit.data.image_sets.video_folder import Videos

DEFAULT_FRAMES = 8
_COUNT = re.compile("[1-9][0-9]{0,5}")  # of frames


def video_set(name: str) -> ImageSet:
    """Specify `frames:NAME` or `frames:NAME@F` without reading the disk."""
    folder, at, count = name.removeprefix(FRAMES).partition("@")
    if not is_name(folder) or (at and not _COUNT.fullmatch(count)):
        raise ValueError(
            f"{brief(name)} does not name videos of the data root; nothing was loaded. Write {FRAMES}NAME "
            f"for <root>/NAME, without a path, or {FRAMES}NAME@16 for 16 frames a video; data_root "
            "(or $LOWBIT_DATA) is the root."
        )
    frames = int(count) if at else DEFAULT_FRAMES
    opened = partial(_opened, name, folder, frames)
    return replace(unlocated(name, folder), folder=opened, frames=frames)


def _opened(name: str, folder: str, frames: int, root: Path) -> Videos:
    path = root / folder
    kind = ListedVideos if find_lists(path) else Videos
    return kind(name, path, frames=frames)
