"""Views of an image: the central one, or the k-th augmented one."""

from typing import TYPE_CHECKING

from lowbit.data import Center, Crop

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def center(recipe: "Recipe") -> Center:
    """Return the view used for scoring: resize, then centre crop (SPEC A.8)."""
    return Center(
        size=recipe.image_size,
        resize=recipe.eval_resize or recipe.image_size,
        interpolation=recipe.eval_interpolation,
    )


def crop(recipe: "Recipe", k: int) -> Crop:
    """Return the k-th training view: a random crop and flip (SPEC A.8)."""
    augmentation = recipe.augmentation
    return Crop(
        size=recipe.image_size,
        scale=augmentation.scale,
        ratio=augmentation.ratio,
        flip=augmentation.flip,
        interpolation=augmentation.interpolation,
        seed=recipe.seed,
        k=k,
    )
