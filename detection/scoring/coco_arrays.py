"""COCO's annotations and detections as arrays, in the order in which pycocotools reads them."""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

from lowbit.common.text import brief


class Entries(NamedTuple):
    """Objects or detections (N,), sorted by image, then by class.

    Attributes:
        images: position of the image among the sorted ids.
        classes: position of the category among the sorted ids.
        areas: in pixels.
        shapes: (N, 4) boxes as x, y, width, height, or N run-length encodings.
        scores: of detections; zeros for objects.
        crowd: whether an object is a crowd; false for detections.
        named: whether an object has an id other than 0, which pycocotools takes for "unmatched".
    """

    images: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    shapes: np.ndarray | list[dict[str, Any]]
    scores: np.ndarray
    crowd: np.ndarray
    named: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether all areas, scores and boxes are numbers below infinity."""
        boxes = () if isinstance(self.shapes, list) else (self.shapes,)
        return all(np.isfinite(part).all() for part in (self.areas, self.scores, *boxes))

    def take(self, places: np.ndarray) -> "Entries":
        """Return the entries at these places."""
        shapes = self.shapes
        if isinstance(shapes, list):
            shapes = [shapes[place] for place in places.tolist()]
        else:
            shapes = shapes[places]
        return Entries(*(shapes if part is self.shapes else part[places] for part in self))


def objects(truth: dict[str, Any], iou_type: str) -> Entries:
    """Return the annotated objects of the set's images and categories."""
    kept, images, classes = _known(truth, truth["annotations"])
    shapes = _boxes(kept) if iou_type == "bbox" else _truth_masks(truth, kept)
    areas = _numbers(kept, "area")
    crowd = np.fromiter((bool(a.get("iscrowd", 0)) for a in kept), bool, len(kept))
    named = np.fromiter((a["id"] != 0 for a in kept), bool, len(kept))
    found = Entries(images, classes, areas, shapes, np.zeros(len(kept)), crowd, named)
    return found.take(np.lexsort((classes, images)))


def detected(
    truth: dict[str, Any], detections: Sequence[dict[str, Any]], iou_type: str, most: int
) -> Entries:
    """Return the `most` surest detections of each class in each image, by falling score.

    Raises:
        ValueError: a detection is of an image that the set does not have.
    """
    kept, images, classes = _known(truth, detections, strict=True)
    scores = _numbers(kept, "score")
    order = np.lexsort((-scores, classes, images))  # equal scores stay in their order
    order = order[ranks(images[order], classes[order]) < most]
    kept = [kept[place] for place in order.tolist()]
    if iou_type == "bbox":
        shapes = _boxes(kept)
        areas = shapes[:, 2] * shapes[:, 3]
    else:
        shapes, areas = _detected_masks(kept)
    nothing = np.zeros(len(kept), dtype=bool)
    return Entries(images[order], classes[order], areas, shapes, scores[order], nothing, nothing)


def ranks(*keys: np.ndarray) -> np.ndarray:
    """Return the place of each element in its run of equal keys, (N,), from 0.

    Example:
        >>> ranks(np.array([3, 3, 3, 5, 5, 3])).tolist()
        [0, 1, 2, 0, 1, 0]
    """
    places = np.arange(len(keys[0]))
    first = np.ones(len(places), dtype=bool)
    if len(places):
        first[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return places - np.maximum.accumulate(np.where(first, places, 0))


def _known(
    truth: dict[str, Any], entries: Sequence[dict[str, Any]], *, strict: bool = False
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Return the entries of the set's images and categories, and the positions of these two."""
    image_of = {i: place for place, i in enumerate(sorted({i["id"] for i in truth["images"]}))}
    class_of = {i: place for place, i in enumerate(sorted({c["id"] for c in truth["categories"]}))}
    images = np.fromiter((image_of.get(e["image_id"], -1) for e in entries), int, len(entries))
    classes = np.fromiter((class_of.get(e["category_id"], -1) for e in entries), int, len(entries))
    if strict and (strange := np.flatnonzero(images < 0)).size:
        raise ValueError(
            f"a detection is in image {brief(entries[strange[0]]['image_id'])}, which is none of the "
            f"{len(image_of)} images; average precision was not computed. Detect on the images that are "
            "scored."
        )
    inside = (images >= 0) & (classes >= 0)
    if not inside.all():
        entries = [e for e, known in zip(entries, inside.tolist(), strict=True) if known]
    return list(entries), images[inside], classes[inside]


def _numbers(entries: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.fromiter((entry[key] for entry in entries), float, len(entries))


def _boxes(entries: list[dict[str, Any]]) -> np.ndarray:
    sides = chain.from_iterable(entry["bbox"] for entry in entries)
    return np.fromiter(sides, float, 4 * len(entries)).reshape(-1, 4)


def _truth_masks(truth: dict[str, Any], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    return [_encoded(entry["segmentation"], *sizes[entry["image_id"]]) for entry in entries]


def _encoded(shape: Any, height: int, width: int) -> dict[str, Any]:
    """Return polygons, or counts in either form, as a run-length encoding."""
    if isinstance(shape, list):
        return mask.merge(mask.frPyObjects(shape, height, width))
    if isinstance(shape["counts"], list):
        return mask.frPyObjects(shape, height, width)
    return shape


def _detected_masks(entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], np.ndarray]:
    shapes = [entry["segmentation"] for entry in entries]
    # One at a time: pycocotools 2.0.11 counts the masks of a call in 8 bits.
    return shapes, np.fromiter(map(mask.area, shapes), float, len(shapes))
