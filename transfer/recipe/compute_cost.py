"""Compute cost of a transfer recipe: passes over images, and disk space."""

from dataclasses import dataclass

from lowbit.backbones.counting import NetworkSize, network_size
from lowbit.common.compute_cost import LEARNING, Work
from lowbit.data import ImageSet, image_set, locate
from lowbit.transfer.recipe.protocol_registry import get_protocol
from lowbit.transfer.recipe.recipe_fields import RecipeFields

_BYTES = 4  # of a number
_PREDICTION = 2  # bytes of a predicted class


@dataclass(frozen=True)
class CostInputs:
    """A recipe and the quantities that determine its cost.

    Attributes:
        recipe: the recipe.
        size: of its network.
        spec: of its images, with their counts.
    """

    recipe: RecipeFields
    size: NetworkSize
    spec: ImageSet

    @property
    def image(self) -> float:
        """Operations of a forward pass of one sample."""
        return self.size.operations * (self.spec.frames or 1)

    @property
    def train(self) -> int:
        """Number of training images."""
        both = self.recipe.train_on == "trainval"
        return self.spec.counts["train"] + (self.spec.counts["val"] if both else 0)

    @property
    def val(self) -> int:
        """Number of validation images."""
        return 0 if self.recipe.train_on == "trainval" else self.spec.counts["val"]

    @property
    def scored(self) -> int:
        """Number of images whose classes are predicted at the end."""
        return self.spec.counts["test"] + self.val

    @property
    def learned(self) -> float:
        """Operations of training the whole network once over the training images."""
        return LEARNING * self.train * self.image

    @property
    def weights(self) -> int:
        """Bytes of a stored network."""
        return _BYTES * self.size.parameters

    @property
    def head(self) -> float:
        """Operations of a linear classifier on one image's features."""
        return 2 * self.size.features * self.spec.num_classes


def work(recipe: RecipeFields) -> Work | None:
    """Count the work of a recipe that names its architecture; None if it cannot be counted.

    Each protocol defines its own count (`@protocol(cost=...)`).

    Raises:
        FileNotFoundError: the images are the user's and are missing, so they cannot be counted.
        ValueError: the network does not accept images of this size.
    """
    cost = get_protocol(recipe.protocol).cost
    if cost is None or recipe.architecture is None:
        return None
    spec = image_set(recipe.dataset)
    if spec.counts is None:  # the user's folder
        spec = locate(recipe.dataset, root=recipe.data_root)
    job = CostInputs(recipe, network_size(recipe.architecture, recipe.image_size), spec)
    found = cost(job)
    predictions = job.scored * (8 + _PREDICTION * len(recipe.precisions))
    return Work(
        operations=found.operations,
        disk=found.disk + (predictions if recipe.save_predictions else 0),
        shared_operations=found.shared_operations,
        shared_disk=found.shared_disk,
    )


def cost_on_features(job: CostInputs, solving: float) -> Work:
    """Features once per precision, possibly shared; then `solving` on them."""
    images = job.train * max(1, job.recipe.augment_views) + job.scored
    seen = images * len(job.recipe.precisions)
    return Work(
        operations=solving * len(job.recipe.precisions),
        disk=0,
        shared_operations=seen * job.image,
        shared_disk=seen * job.size.features * _BYTES,
    )


def cost_of_start(job: CostInputs) -> dict[str, float]:
    """Return the full-precision training that jobs with the same `fp_start` share."""
    if job.recipe.fp_start is None:
        return {}
    epochs = job.recipe.fp_start.epochs
    return {"shared_operations": epochs * job.learned, "shared_disk": job.weights}
