"""A population of images with objects, and detectors of them, from which any number can be drawn.

Objects come in groups of a class, have one of COCO's three sizes, and are found with an IoU and a score
that depend on their class, their size and their image; what is hard for one detector is hard for the
others. Further detections find nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lowbit.detection.scoring.coco_arrays import ranks
from lowbit.detection.scoring.matches import AREAS, IGNORED, IOUS, Matches

_SIZES = (0.4, 0.35, 0.25)  # shares of small, medium and large objects
_SAME = 0.4  # chance that an object is of the class of the one before it in its image
_BEHIND = 0.35  # of the second detector in the logit of the IoU and in scores


@dataclass(frozen=True)
class Population:
    """Images with `objects` objects on average, in classes as frequent as 1 / rank ** `skew`."""

    classes: int
    skew: float
    objects: float
    quality: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(0)
        of_class = draw.normal(0.9, 0.6, self.classes), draw.normal(1.6, 0.5, self.classes)
        object.__setattr__(self, "quality", of_class)

    @property
    def shares(self) -> np.ndarray:
        """The classes' shares of the objects, (K,)."""
        frequent = 1 / np.arange(1, self.classes + 1) ** self.skew
        return frequent / frequent.sum()

    def draw(
        self, draw: np.random.Generator, images: int, *, behind: Sequence[float] = (0, _BEHIND)
    ) -> list[Matches]:
        """Draw images, with the detections of detectors that are so far behind the best there may be."""
        number = draw.poisson(self.objects * draw.gamma(2, 0.5, images))
        image = np.repeat(np.arange(images), number)
        kind = draw.choice(self.classes, len(image), p=self.shares)
        alone = (draw.random(len(image)) > _SAME) | (ranks(image) == 0)
        kind = kind[np.maximum.accumulate(np.where(alone, np.arange(len(image)), 0))]
        size = draw.choice(3, len(image), p=_SIZES)
        ease = 0.5 * draw.normal(size=images)[image] + 0.5 * draw.normal(size=len(image))
        return [self._detect(draw, images, image, kind, size, ease - less) for less in behind]

    def _detect(
        self,
        draw: np.random.Generator,
        images: int,
        image: np.ndarray,
        kind: np.ndarray,
        size: np.ndarray,
        ease: np.ndarray,
    ) -> Matches:
        exact, sure = self.quality
        logit = ease + np.array([-0.6, 0, 0.4])[size] + 0.85 * draw.normal(size=len(image))
        iou = 1 / (1 + np.exp(-exact[kind] - logit))
        score = sure[kind] + 0.8 * logit + draw.normal(size=len(image))
        found = draw.random(len(image)) < 0.95
        wrong = np.repeat(np.arange(images), draw.poisson(2 * self.objects, images))
        like = draw.choice(self.classes, len(wrong), p=self.shares)
        any_class = draw.integers(self.classes, size=len(wrong))
        parts = (
            (image[found], wrong),
            (kind[found], np.where(draw.random(len(wrong)) < 0.5, like, any_class)),
            (score[found], draw.normal(-0.4, 1.1, len(wrong))),
            (size[found], draw.choice(3, len(wrong), p=_SIZES)),
            (iou[found], np.zeros(len(wrong))),
        )
        where, what, scores, area, ious = map(np.concatenate, parts)
        order = np.lexsort((-scores, what))
        hit = (ious[order] >= IOUS[:, None]).astype(np.int8)  # MISS or HIT, (T, D)
        every = np.ones(len(order), dtype=bool)
        inside = [every, *(area[order] == s for s in range(3))]
        counted = [np.ones(len(image), dtype=bool), *(size == s for s in range(3))]
        assert len(inside) == len(AREAS)
        return Matches(
            images=images,
            starts=np.searchsorted(what[order], np.arange(self.classes + 1)),
            image=where[order],
            rank=np.zeros(len(order), dtype=int),
            outcome=np.stack([np.where(there, hit, IGNORED).astype(np.int8) for there in inside]),
            object_image=image,
            object_class=kind,
            counted=np.stack(counted),
        )
