"""Activation ranges of a quantized backbone, from training images in a pinned order."""

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.data import Images
from lowbit.quant import calibrate
from lowbit.training.seeding import stream
from lowbit.transfer.features.views import center, crop

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

_PINNED_SEED = 0  # clean images are the same in every job on a data set, whatever its seed


def calibrate_on(
    model: nn.Module, train: Images, *, recipe: "Recipe", device: torch.device
) -> dict[str, Any]:
    """Set the activation ranges of `model` and return the images used.

    `clean`: the first images of a permutation independent of the recipe, un-augmented. `official`:
    order and training augmentation are drawn from the job's seed (SSQL's worker; its 1 to 5
    batches, an accident there, are the explicit `calibration_batches`: SPEC A.13-4).
    """
    places = calibration_order(
        len(train), mode=recipe.calibration, seed=recipe.seed, count=_images_wanted(recipe)
    )
    batches = train.batches(
        center(recipe) if recipe.calibration == "clean" else crop(recipe, k=0),
        batch_size=recipe.calibration_batch_size,
        device=device,
        places=places,
        workers=recipe.num_workers,
        generator=stream(recipe.seed, "calibration views"),
    )
    calibrate(model, batches)
    return {
        "mode": recipe.calibration,
        "images": len(places),
        "batch_size": recipe.calibration_batch_size,
        "ids_sha256": hashlib.sha256(train.ids[places].numpy().tobytes()).hexdigest(),
    }


def calibration_order(n: int, *, mode: str, seed: int, count: int) -> Tensor:
    """Return the indices, in order, of `count` of n training images; all if there are fewer.

    Example:
        >>> a, b = (calibration_order(99, mode="clean", seed=s, count=9) for s in (0, 1))
        >>> bool((a == b).all())
        True
    """
    generator = stream(_PINNED_SEED if mode == "clean" else seed, "calibration")
    return torch.randperm(n, generator=generator)[:count]


def _images_wanted(recipe: "Recipe") -> int:
    return recipe.calibration_batches * recipe.calibration_batch_size
