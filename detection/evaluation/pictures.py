"""Pictures of detections: a test image with its objects, beside the same with detections."""

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import draw_bounding_boxes

from lowbit.common.atomic_file import atomic
from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.datasets.subsets import draw

FOLDER = "pictures"

_COLOURS = ("#d62728", "#2ca02c", "#1f77b4", "#9467bd", "#c45a00", "#8c564b", "#c2339a", "#007f8c")
_SIDE = (384, 800)  # smallest and largest side of an image in a picture, pixels
_GAP = 8  # between the two, pixels
_MOST = 30  # detections drawn in an image


def draw_pictures(
    folder: str | Path,
    images: DetectionSet,
    detections: Sequence[dict[str, Any]],
    *,
    count: int = 4,
    threshold: float = 0.3,
    suffix: str = "",
) -> dict[str, str]:
    """Draw a few images, truth on the left and detections on the right, as JPEG files.

    The choice depends only on the image ids, so the pictures of two detectors can be compared.

    Args:
        folder: the job's folder; the pictures go into its `pictures/`.
        images: the test set.
        detections: in COCO's format, with the set's ids.
        count: number of pictures, of images with objects.
        threshold: lowest score of a drawn detection.
        suffix: appended to a picture's name, such as "_4w4a".

    Returns:
        Path in `folder` of each picture, by artifact name.
    """
    target = Path(folder) / FOLDER
    target.mkdir(exist_ok=True)
    by_image = defaultdict(list)
    for detection in detections:
        if detection["score"] >= threshold:
            by_image[detection["image_id"]].append(detection)
    places = {images.ids[place]: place for place in images.annotated}
    chosen = draw(places, min(count, len(places)))
    paths = {}
    for number, image_id in enumerate((i for i in images.ids if i in chosen), 1):
        place = places[image_id]
        found = sorted(by_image[image_id], key=lambda d: -d["score"])[:_MOST]
        picture = draw_beside(images.image(place), images.objects[place], found, images)
        name = f"picture_{number}{suffix}"
        buffer = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
        with atomic(target / f"{name}.jpg") as file:
            file.write(buffer.getbuffer())
        paths[name] = f"{FOLDER}/{name}.jpg"
    return paths


def draw_beside(
    image: Tensor, objects: list[dict], detections: list[dict], images: DetectionSet
) -> Tensor:
    """Return an image (3, H, W) twice side by side: with its objects, and with the detections."""
    large, factor = _resize(image)
    left = _draw(large, objects, factor, images)
    right = _draw(large, detections, factor, images)
    gap = torch.full((3, left.shape[1], _GAP), 255, dtype=torch.uint8)
    return torch.cat([left, gap, right], dim=2)


def _resize(image: Tensor) -> tuple[Tensor, float]:
    """Enlarge a small image so that its labels are legible; shrink a large one."""
    short, long = sorted(image.shape[1:])
    factor = min(max(1, _SIDE[0] / short), _SIDE[1] / long)
    size = [max(1, round(side * factor)) for side in image.shape[1:]]
    if factor == 1:
        return image, 1.0
    large = F.interpolate(image[None].float(), size, mode="bilinear", antialias=factor < 1)[0]
    return large.round().clamp(0, 255).to(torch.uint8), factor


def _draw(image: Tensor, entries: list[dict], factor: float, images: DetectionSet) -> Tensor:
    """Draw boxes with their classes and, for detections, scores."""
    if not entries:
        return image
    labels = {category_id: label for label, category_id in enumerate(images.category_ids)}
    boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float64) * factor
    boxes[:, 2:] += boxes[:, :2]
    height, width = image.shape[1:]
    boxes[:, 0::2].clamp_(0, width - 1)
    boxes[:, 1::2].clamp_(0, height - 1)
    classes = [labels[entry["category_id"]] for entry in entries]
    texts = [
        images.classes[label] + (f" {entry['score']:.2f}" if "score" in entry else "")
        for label, entry in zip(classes, entries, strict=True)
    ]
    colours = [_COLOURS[label % len(_COLOURS)] for label in classes]
    return draw_bounding_boxes(
        image,
        boxes,
        texts,
        colors=colours,
        width=2,
        font=str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"),
        font_size=12,
        label_colors=["white"] * len(texts),
        fill_labels=True,
    )
