"""Image sets with pinned splits, and views of their images."""

import lowbit.data.image_sets.catalog  # noqa: F401  (registers the image sets)
from lowbit.data.image_sets.registry import image_set, list_datasets, load, locate, normalization
from lowbit.data.image_sets.spec import IMAGE_SETS, ImageSet, Split
from lowbit.data.views.augment import Augment, normalize
from lowbit.data.views.labelled_images import missing_images, open_images
from lowbit.data.views.training_views import Batch, ViewSource, view_source
from lowbit.data.views.view import Center, Crop, Images

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
    "missing_images",
    "normalization",
    "normalize",
    "open_images",
    "view_source",
]
