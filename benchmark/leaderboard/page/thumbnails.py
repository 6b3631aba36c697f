"""Small pictures that travel inside the page."""

import io
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

BUDGET = 1_200_000  # bytes of all pictures of a page
_WIDTH = 480  # pixels
_QUALITY = 72


class Thumbnails:
    """Makes data URIs of pictures until the page's budget is spent."""

    def __init__(self, budget: int = BUDGET):
        self._left = budget

    def make(self, path: Path) -> dict[str, Any] | None:
        """Return a picture, shrunk: `image` (a data URI), `width` and `height`.

        None if it cannot be read or the budget is spent.
        """
        if self._left <= 0:
            return None
        try:
            with Image.open(path) as picture:
                picture.thumbnail((_WIDTH, _WIDTH))
                buffer = io.BytesIO()
                picture.convert("RGB").save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        except (OSError, ValueError, Image.DecompressionBombError):
            return None
        self._left -= buffer.tell()
        image = f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
        return {"image": image, "width": picture.width, "height": picture.height}


def pictures_of(folder: Path, artifacts: dict[str, str]) -> Iterator[Path]:
    """Yield the pictures among a job's artifacts, in the order of their names, none from outside."""
    for name, path in sorted(artifacts.items()):
        if name.startswith("picture_") and ".." not in Path(path).parts:
            yield folder / Path(path).relative_to(Path(path).anchor)
