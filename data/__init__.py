"""Image sets with pinned splits, and the views drawn from them. Imports nothing of ours."""

import data.catalog  # noqa: F401  (registers the image sets)
from data.augment import Augment, normalize
from data.images import Center, Crop, Images, open_images
from data.sets import (
    IMAGE_SETS,
    ImageSet,
    Split,
    image_set,
    list_datasets,
    load,
    locate,
    normalization,
)
from data.sources import Batch, ViewSource, view_source

__all__ = [
    "IMAGE_SETS",
    "Augment",
    "Batch",
    "Center",
    "Crop",
    "ImageSet",
    "Images",
    "Split",
    "ViewSource",
    "image_set",
    "list_datasets",
    "load",
    "locate",
    "normalization",
    "normalize",
    "open_images",
    "view_source",
]
