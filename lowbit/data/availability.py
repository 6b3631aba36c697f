"""Whether an image set is on this machine, told before anything is computed."""

from functools import cache
from pathlib import Path

from lowbit.data.image_sets.registry import resolve_root
from lowbit.data.views.labelled_images import open_images


def missing_images(dataset: str, split: str, *, root: str | None = None) -> str | None:
    """Return what is not there and how to get it, or None where the images can be opened.

    A set that is there but damaged is not missing: whoever reads it says so.
    """
    return _missing(dataset, split, resolve_root(root))


@cache  # a plan has many jobs of one set
def _missing(dataset: str, split: str, root: Path) -> str | None:
    try:
        open_images(dataset, split, root=root)
    except FileNotFoundError as error:
        command = f"lowbit-bench datasets prepare {dataset}"
        said = str(error)
        return said if command in said else f"{said} See `{command} --root {root}`."
    except ValueError:  # damaged
        pass
    return None
