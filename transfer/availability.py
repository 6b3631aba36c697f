"""Whether a recipe's images are on this machine, told before anything is computed."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from data import open_images
from data.sets import resolve_root

if TYPE_CHECKING:
    from transfer.recipe import Recipe


def missing_data(recipe: "Recipe") -> str | None:
    """Return what is not there and how to get it, or None where the images can be opened.

    A set that is there but damaged is not missing: the job that reads it fails and says so.
    """
    return _missing(recipe.dataset, resolve_root(recipe.data_root))


@cache  # a plan has many jobs of one set
def _missing(dataset: str, root: Path) -> str | None:
    try:
        open_images(dataset, "test", root=root)
    except FileNotFoundError as error:
        command = f"tools/datasets.py prepare {dataset}"
        said = str(error)
        return said if command in said else f"{said} See `python {command} --root {root}`."
    except ValueError:  # damaged
        pass
    return None
