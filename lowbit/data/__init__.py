"""Image sets with pinned splits, and the views drawn from them. Imports nothing of ours."""

import lowbit.data.image_sets.catalog  # noqa: F401  (registers the image sets)
from lowbit.data.image_sets.registry import (
    IMAGE_SETS,
    ImageSet,
    Split,
    image_set,
    list_datasets,
    load,
    locate,
    normalization,
)
from lowbit.data.views.augment import Augment, normalize
from lowbit.data.views.labelled_images import Center, Crop, Images, open_images
from lowbit.data.views.training_views import Batch, ViewSource, view_source

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
