"""Compute a frozen backbone's features, one set per precision."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import Tensor, nn

from lowbit.data import Center, Crop, Images
from lowbit.quant import FP, Precision, get_policy, quantize
from lowbit.quant.integer.frozen_forward import ARITHMETIC, FrozenForward, computes_on_integers
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.feature_cache import FeatureCache, state_sha256
from lowbit.transfer.features.views import center, crop

if TYPE_CHECKING:
    from lowbit.training.job_state import Workspace
    from lowbit.transfer.recipe.recipe import Recipe

CACHE = "features"  # in the job's folder, unless the recipe sets one


def feature_batches(
    forward: FrozenForward,
    images: Images,
    view: Center | Crop,
    precisions: Sequence[Precision],
    *,
    batch_size: int,
    workers: int | None = None,
    start: int = 0,
) -> Iterator[list[Tensor]]:
    """Yield features of images seen by `view` from `start` on, on the network's device.

    Each batch is decoded once, for all precisions: a list of (B, D), one for each. `start` is a
    multiple of the batch size. The network must be frozen, which means eval(): a training-mode batch
    norm would update the buffers of a network that is only evaluated.

    Raises:
        ValueError: a quantizer that is on was never asked; raised after the last batch.
    """
    device = next(forward.network.parameters()).device
    if start >= len(images):
        return  # no quantizer has anything left to be asked for
    # Random crops may be drawn from one stream, so those before `start` are drawn too.
    skipped = start if isinstance(view, Center) else 0
    batches = images.batches(
        view,
        batch_size=batch_size,
        device=device,
        workers=workers,
        places=torch.arange(skipped, len(images)),
    )
    with forward.at(precisions) as run:
        for x in islice(batches, (start - skipped) // batch_size, None):
            yield run(x)


def extract(
    backbone: nn.Module,
    images: Images,
    precision: Precision | str,
    *,
    view: Center | Crop,
    recipe: "Recipe",
) -> Tensor:
    """Return the features (N, D) of all images at a precision, on the backbone's device."""
    batches = feature_batches(
        FrozenForward(backbone),
        images,
        view,
        [Precision.parse(precision)],
        batch_size=recipe.eval_batch_size,
        workers=recipe.num_workers,
    )
    return torch.cat([batch for (batch,) in batches])


class Features:
    """The features of a quantized, calibrated and frozen backbone, each set computed once.

    What is missing at the recipe's precisions is computed in one pass over the images. Features are kept in
    files (`lowbit.transfer.features.feature_cache`) keyed by everything they depend on, so that jobs that
    share a `cache_dir` share them; memory is needed for only one batch.

    Args:
        backbone: in eval mode, at any precision.
        calibration: the facts of its calibration.
        recipe: gives the file location and batch size.
        workspace: of the job; its folder has the files unless the recipe names another.
    """

    def __init__(
        self,
        backbone: nn.Module,
        calibration: dict[str, Any],
        *,
        recipe: "Recipe",
        workspace: "Workspace",
    ) -> None:
        self.backbone, self.calibration, self.recipe = backbone, calibration, recipe
        self.device = next(backbone.parameters()).device
        facts = {
            "architecture": getattr(backbone, "architecture", type(backbone).__name__),
            "state_sha256": state_sha256(backbone),
            "policy_fingerprint": get_policy(recipe.policy).fingerprint,
            "calibration": calibration,
            "batch_size": recipe.eval_batch_size,  # may affect rounding
            "dtype": "float32",
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,  # decodes and resizes
            "device": _device_name(self.device),
        }
        self._forward = FrozenForward(backbone)
        # As of now: knn reads training images' features of float32 within `in_float64` too.
        self._integers = computes_on_integers(backbone)
        self._waiting: dict[str, Tensor] = {}
        self._cache = FeatureCache(Path(recipe.cache_dir or workspace.folder / CACHE), facts)

    def __call__(
        self, images: Images, precision: Precision | str, view: Center | Crop | None = None
    ) -> Tensor:
        """Return the features (N, D) of images at a precision, on the CPU, mapped from a file.

        `view` defaults to the recipe's central view. If they are missing, those at the recipe's other
        precisions are computed with them; they are asked for next.
        """
        view, precision = view or center(self.recipe), Precision.parse(precision)
        key = json.dumps(self._facts(images, precision, view))
        if key not in self._waiting:
            wanted = [precision]
            if precision in self.recipe.precisions:
                wanted = list(self.recipe.precisions)
            several = {json.dumps(f): f for f in (self._facts(images, p, view) for p in wanted)}

            def compute(missing: Sequence[int], start: int) -> Iterator[list[Tensor]]:
                return feature_batches(
                    self._forward,
                    images,
                    view,
                    [wanted[place] for place in missing],
                    batch_size=self.recipe.eval_batch_size,
                    workers=self.recipe.num_workers,
                    start=start,
                )

            found = self._cache.get_all(list(several.values()), compute)
            self._waiting.update(zip(several, found, strict=True))
        return self._waiting.pop(key)

    def _facts(
        self, images: Images, precision: Precision, view: Center | Crop
    ) -> dict[str, object]:
        facts = {
            "precision": str(precision),
            "view": {"kind": type(view).__name__, **asdict(view)},
            "dataset": images.name,
            "split": images.split,
            "split_sha256": images.split_sha256,
            "count": len(images),
            "ids_sha256": hashlib.sha256(images.ids.numpy().tobytes()).hexdigest(),
        }
        if precision != FP and self._integers:
            facts["arithmetic"] = ARITHMETIC
        return facts

    def of_training(self, train: Images) -> list[list[Tensor]]:
        """Return a classifier's training features: views, each at every precision.

        The view is the central one, or the `augment_views` augmented ones, the same at every
        precision.
        """
        views = [crop(self.recipe, k) for k in range(self.recipe.augment_views)] or [None]
        return [[self(train, p, view) for p in self.recipe.precisions] for view in views]


def frozen_features(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: "Workspace",
    device: torch.device,
) -> Features:
    """Freeze, quantize and calibrate a backbone, in this order, and return its features.

    Frozen means eval mode, no gradient, no change of statistics.
    """
    backbone.to(device).eval().requires_grad_(False)
    quantize(backbone, get_policy(recipe.policy))
    calibration = calibrate_on(backbone, train, recipe=recipe, device=device)
    return Features(backbone, calibration, recipe=recipe, workspace=workspace)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
