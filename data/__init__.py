"""Image sets with pinned splits, and their batched augmentation. Imports nothing of ours."""

import data.catalog  # noqa: F401  (registers the image sets)
from data.augment import Augment, normalize
from data.sets import IMAGE_SETS, ImageSet, Split, image_set, list_datasets, load, normalization

__all__ = [
    "IMAGE_SETS",
    "Augment",
    "ImageSet",
    "Split",
    "image_set",
    "list_datasets",
    "load",
    "normalization",
    "normalize",
]
