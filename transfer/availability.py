"""Whether a recipe's images are there: a job without them is skipped, and the plan says why."""

from typing import TYPE_CHECKING

from lowbit.data import missing_images

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def missing_data(recipe: "Recipe") -> str | None:
    """Return what is not there and how to get it, or None where the images can be opened."""
    return missing_images(recipe.dataset, "test", root=recipe.data_root)
