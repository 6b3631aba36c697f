"""A quarter of the digits as an image set of its own, for jobs whose length no check depends on."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lowbit.data import image_set
from lowbit.data.image_sets import spec

NAME = "small-digits"
COUNTS = {"train": 270, "val": 90, "test": 135}
_EVERY = {"train": 4, "val": 2, "test": 4}


@contextmanager
def small_digits(folder: Path) -> Iterator[None]:
    """Let data sets include `NAME`, whose split file, beside links to the others, is in `folder`."""
    for file in spec.SPLITS_DIR.iterdir():
        (folder / file.name).symlink_to(file)
    digits = json.loads((folder / "digits.json").read_text())
    pinned = digits | {split: digits[split][::step] for split, step in _EVERY.items()}
    text = json.dumps(pinned)
    (folder / f"{NAME}.json").write_text(text)
    small = replace(
        image_set("digits"),
        name=NAME,
        counts=COUNTS,
        split_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "SPLITS_DIR", folder)
        patch.setitem(spec.IMAGE_SETS._obj_map, NAME, lambda: small)
        yield
