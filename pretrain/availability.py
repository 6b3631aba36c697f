"""Whether a recipe's images are there: a job without them is skipped, and the plan says why."""

from typing import TYPE_CHECKING

from lowbit.data import locate, missing_images

if TYPE_CHECKING:
    from lowbit.pretrain.recipe import Recipe


def missing_data(recipe: "Recipe") -> str | None:
    """Return what is not there and how to get it, or None; an untrained network reads no images."""
    if recipe.epochs:
        return missing_images(recipe.dataset, recipe.split, root=recipe.data_root)
    try:
        locate(recipe.dataset, root=recipe.data_root)  # its identity names the split
    except FileNotFoundError as error:
        return str(error)
    return None
