"""What a transfer recipe takes, protocol by protocol: passes over images, and bytes left behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowbit.backbones.counting import NetworkSize, network_size
from lowbit.common.compute_cost import LEARNING, Work
from lowbit.data import ImageSet, image_set, locate
from lowbit.quant import FP

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

_BYTES = 4  # of a number
_PREDICTION = 2  # bytes of a predicted class


@dataclass(frozen=True)
class _Job:
    """A recipe with the numbers its work is a product of.

    Attributes:
        recipe: the recipe.
        size: of its network.
        spec: of its images, with their counts.
    """

    recipe: "Recipe"
    size: NetworkSize
    spec: ImageSet

    @property
    def image(self) -> float:
        """Operations of a forward pass of one sample."""
        return self.size.operations * (self.spec.frames or 1)

    @property
    def train(self) -> int:
        """Images that are learned from."""
        both = self.recipe.train_on == "trainval"
        return self.spec.counts["train"] + (self.spec.counts["val"] if both else 0)

    @property
    def val(self) -> int:
        """Validation images."""
        return 0 if self.recipe.train_on == "trainval" else self.spec.counts["val"]

    @property
    def scored(self) -> int:
        """Images whose classes are predicted in the end."""
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


def work(recipe: "Recipe") -> Work | None:
    """Count the work of a recipe that names its architecture; None where it cannot be counted.

    Raises:
        FileNotFoundError: the images are the user's, and are not there to be counted.
        ValueError: the network takes no images of this size.
    """
    count = _COUNTS.get(recipe.protocol)
    if count is None or recipe.architecture is None:
        return None
    spec = image_set(recipe.dataset)
    if spec.counts is None:  # the user's folder
        spec = locate(recipe.dataset, root=recipe.data_root)
    job = _Job(recipe, network_size(recipe.architecture, recipe.image_size), spec)
    found = count(job)
    predictions = job.scored * (8 + _PREDICTION * len(recipe.precisions))
    return Work(
        operations=found.operations,
        disk=found.disk + (predictions if recipe.save_predictions else 0),
        shared_operations=found.shared_operations,
        shared_disk=found.shared_disk,
    )


def _on_features(job: _Job, solving: float) -> Work:
    """Features once at each precision, whoever shares them; then `solving` on them."""
    images = job.train * max(1, job.recipe.augment_views) + job.scored
    seen = images * len(job.recipe.precisions)
    return Work(
        operations=solving * len(job.recipe.precisions),
        disk=0,
        shared_operations=seen * job.image,
        shared_disk=seen * job.size.features * _BYTES,
    )


def _linear(job: _Job) -> Work:
    return _on_features(
        job, len(job.recipe.rates) * job.recipe.epochs * LEARNING * job.train * job.head
    )


def _linear_exact(job: _Job) -> Work:
    evaluations = 100  # passes over the features until the gradient vanishes, as the details say
    return _on_features(job, len(job.recipe.l2_strengths) * evaluations * 2 * job.train * job.head)


def _knn(job: _Job) -> Work:
    return _on_features(job, 2 * job.scored * job.train * job.size.features)


def _finetune(job: _Job) -> Work:
    scoring = len(job.recipe.precisions) * job.scored * job.image
    warm_up = job.train * job.image if job.recipe.warmup_fc else 0
    return Work(job.recipe.epochs * job.learned + warm_up + scoring, disk=job.weights)


def _semi(job: _Job) -> Work:
    precisions = len(job.recipe.precisions)
    training = job.recipe.epochs * job.recipe.label_fraction * job.learned
    return Work(precisions * (training + job.scored * job.image), disk=precisions * job.weights)


def _qat(job: _Job) -> Work:
    recipe = job.recipe
    trained = sum(precision != FP for precision in recipe.precisions)
    teacher = job.train * job.image if recipe.distillation else 0  # taken as large as the network
    epoch = job.learned + teacher + job.val * job.image
    scoring = len(recipe.precisions) * job.scored * job.image
    return Work(
        operations=trained * recipe.epochs * epoch + scoring,
        disk=len(recipe.precisions) * job.weights,
        **_start(job),
    )


def _adaptive(job: _Job) -> Work:
    section = job.recipe.adaptive
    epoch = job.learned + job.val * job.image
    networks = len(section.bits) if section.method == "individual" else 1
    scoring = len(job.recipe.precisions) * job.scored * job.image
    return Work(
        operations=len(section.bits) * job.recipe.epochs * epoch + scoring,
        disk=networks * job.weights + job.weights // _BYTES,  # and the nested file, of 8-bit codes
        **_start(job),
    )


def _start(job: _Job) -> dict[str, float]:
    """Return the full-precision training that jobs with the same `fp_start` do once."""
    if job.recipe.fp_start is None:
        return {}
    epochs = job.recipe.fp_start.epochs
    return {"shared_operations": epochs * job.learned, "shared_disk": job.weights}


_COUNTS: dict[str, Callable[[_Job], Work]] = {
    "linear": _linear,
    "linear-exact": _linear_exact,
    "knn": _knn,
    "finetune": _finetune,
    "semi": _semi,
    "qat": _qat,
    "adaptive": _adaptive,
}
"""By protocol; the work of one that is not here is not known before it has run."""
