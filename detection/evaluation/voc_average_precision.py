"""VOC's average precision, by the functions of Detectron2's evaluator. Needs Detectron2.

They read truth and detections from files in VOC's format. The truth is rewritten from the set,
because many folders lack required tags or lists of images.
"""

import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from detectron2.evaluation.pascal_voc_evaluation import parse_rec, voc_ap, voc_eval

from lowbit.detection.datasets.detection_set import DetectionSet
from lowbit.detection.evaluation.average_precision import Scores

_THRESHOLDS = range(50, 100, 5)  # of the IoU, percent
_FINE = 100  # parts of a pixel, if boxes have fractions: the evaluation takes whole corners
_METRICS = {"voc07": True, "voc12": False}  # 11 points of recall, or the area under the curve


def score_voc(images: DetectionSet, detections: Sequence[dict[str, Any]]) -> Scores:
    """Score detections by VOC's metrics: AP_voc07, AP50_voc07, AP75_voc07, and _voc12 likewise.

    AP is the mean over IoU .50:.05:.95 of VOC's AP, which is not COCO's AP. Difficult objects count
    neither as hits nor as misses, and the mean is over the classes with other objects. The number by
    class is AP50 of the 2007 metric, VOC's own.

    Raises:
        ValueError: every object is difficult, so precision is not defined.
    """
    wanted = {a["category_id"] for a in images.truth["annotations"] if not a.get("difficult", 0)}
    if not wanted:
        raise ValueError(
            f"{images.split} of {images.name} has only difficult objects or none; VOC's average "
            "precision was not computed. Evaluate on images with objects."
        )
    by_category = defaultdict(list)
    for detection in detections:
        by_category[detection["category_id"]].append(detection)
    found: dict[tuple[str, int], list[float]] = defaultdict(
        list
    )  # by metric and IoU: one per class
    classes = {}
    unit = _unit(images)
    with tempfile.TemporaryDirectory(prefix="voc_evaluation_") as folder:
        _write_truth(images, Path(folder), unit=unit)
        for category_id, name in zip(images.category_ids, images.classes, strict=True):
            if category_id not in wanted:
                continue
            _write_detections(images, by_category[category_id], Path(folder), unit=unit)
            for threshold in _THRESHOLDS:
                recall, precision, _ = voc_eval(
                    f"{folder}/detections.txt",
                    f"{folder}/Annotations/{{}}.xml",
                    f"{folder}/images.txt",
                    name,
                    ovthresh=threshold / 100,
                )
                for metric, eleven_points in _METRICS.items():
                    ap = 100 * float(voc_ap(recall, precision, eleven_points))
                    found[metric, threshold].append(ap)
            classes[name] = found["voc07", 50][-1]
    parse_rec.cache_clear()  # entries of deleted files
    overall = {}
    for metric in _METRICS:
        means = {threshold: fmean(found[metric, threshold]) for threshold in _THRESHOLDS}
        overall[f"AP_{metric}"] = fmean(means.values())
        overall |= {f"AP{threshold}_{metric}": means[threshold] for threshold in (50, 75)}
    return Scores(overall, classes)


def _unit(images: DetectionSet) -> int:
    """Return the parts of a pixel that corners are written in: 1, or more if a box has fractions."""
    whole = all(float(v).is_integer() for a in images.truth["annotations"] for v in a["bbox"])
    return 1 if whole else _FINE


def _write_detections(
    images: DetectionSet, detections: list[dict[str, Any]], folder: Path, *, unit: int
) -> None:
    """Write a class's detections with as many digits as Detectron2's evaluator."""
    places = {image_id: place for place, image_id in enumerate(images.ids)}
    with open(folder / "detections.txt", "w") as file:
        for detection in detections:
            x, y, width, height = detection["bbox"]
            corners = np.array([x, y, x + width, y + height], dtype=np.float32)
            x1, y1, x2, y2 = unit * corners
            box = f"{x1 + 1:.1f} {y1 + 1:.1f} {x2:.1f} {y2:.1f}"
            file.write(f"{places[detection['image_id']]} {detection['score']:.3f} {box}\n")


def _write_truth(images: DetectionSet, folder: Path, *, unit: int) -> None:
    """Write the objects as VOC does: corners count from 1 and are inclusive.

    Images are named by position, because the evaluation splits its lines at spaces.
    """
    (folder / "Annotations").mkdir()
    (folder / "images.txt").write_text("".join(f"{place}\n" for place in range(len(images))))
    names = dict(zip(images.category_ids, images.classes, strict=True))
    for place, objects in enumerate(images.objects):
        root = ET.Element("annotation")
        for annotation in objects:
            x, y, width, height = (unit * value for value in annotation["bbox"])
            tag = ET.SubElement(root, "object")
            for key, value in (
                ("name", names[annotation["category_id"]]),
                ("pose", "Unspecified"),
                ("truncated", "0"),
                ("difficult", str(annotation.get("difficult", 0))),
            ):
                ET.SubElement(tag, key).text = value
            box = ET.SubElement(tag, "bndbox")
            corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
            for corner, value in corners.items():
                ET.SubElement(box, corner).text = str(round(value))
        (folder / "Annotations" / f"{place}.xml").write_bytes(ET.tostring(root))
