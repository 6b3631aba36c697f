"""Detections matched with objects: what COCO's metrics, and every resampling of images, are made from."""

from typing import NamedTuple

import numpy as np
from pycocotools.cocoeval import Params

MISS, HIT, IGNORED = 0, 1, 2  # outcomes of a detection
_PARAMS = Params("bbox")  # masks' are the same
IOUS: np.ndarray = _PARAMS.iouThrs  # (T,) .50:.05:.95
RECALLS: np.ndarray = _PARAMS.recThrs  # (101,)
AREAS = dict(zip(_PARAMS.areaRngLbl, _PARAMS.areaRng, strict=True))  # pixels, inclusive
MOST: list[int] = _PARAMS.maxDets  # detections of a class in an image: 1, 10, 100


class Matches(NamedTuple):
    """Detections (D,) by class and falling score, and objects (G,), with what became of them.

    Attributes:
        images: number of images.
        starts: (K + 1,) where each class's detections begin.
        image: (D,) positions of the detections' images.
        rank: (D,) places among their class's detections in their image, from 0.
        outcome: (A, T, D) int8, MISS, HIT or IGNORED, by range of area and threshold of IoU.
        object_image, object_class: (G,) positions of the objects' images and classes.
        counted: (A, G) whether an object counts: it is no crowd, and of that area.
    """

    images: int
    starts: np.ndarray
    image: np.ndarray
    rank: np.ndarray
    outcome: np.ndarray
    object_image: np.ndarray
    object_class: np.ndarray
    counted: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.starts) - 1

    @property
    def objects(self) -> np.ndarray:
        """Counted objects by range of area and class, (A, K)."""
        return np.stack(
            [np.bincount(self.object_class[c], minlength=self.classes) for c in self.counted]
        )
