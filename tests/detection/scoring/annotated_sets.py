"""Random sets in COCO's format with everything that a matching can meet, and what pycocotools says of them."""

import contextlib
import io

import numpy as np

from lowbit.detection.scoring import reference


def random_set(seed, *, images=8, classes=4, first_id=1):
    """Objects of all areas and detections near and far, with crowds, ties, and empty images and classes.

    Scores have one digit, so that many are equal; boxes are often copies, so that IoUs are; an image
    may have more than 100 detections of a class; some areas are not the boxes'.
    """
    draw = np.random.default_rng(seed)
    annotations, detections = [], []
    whole = draw.random() < 0.3  # boxes on a grid: IoUs that are equal, and at the thresholds
    for image in range(1, images + 1):
        if draw.random() < 0.2:
            continue
        for _ in range(draw.integers(0, 7)):
            side = float(draw.choice([12, 28, 32, 36, 70, 96, 100, 180]))
            box = [*draw.uniform(0, 200, size=2), side, side * draw.uniform(0.5, 2)]
            if whole:
                box = [10 * round(value / 10) + 10 for value in box]
            box = [float(value) for value in box]
            category = int(draw.integers(1, classes))  # the last has none
            area = box[2] * box[3] * float(draw.choice([1, 1, 0.6]))
            for _ in range(draw.choice([1, 1, 1, 2])):
                annotations.append(
                    {
                        "id": len(annotations) + first_id,
                        "image_id": image,
                        "category_id": category,
                        "bbox": box,
                        "area": area,
                        "iscrowd": int(draw.random() < 0.12),
                    }
                )
            for _ in range(draw.integers(0, 5)):
                moved = np.array(box) + draw.choice([0, 0, 0.05, 0.15]) * side * draw.normal(size=4)
                wrong = draw.random() < 0.15
                found = int(draw.integers(1, classes + 1)) if wrong else category
                detections.append(detection(image, found, moved, draw.random()))
        for _ in range(draw.choice([0, 3, 130], p=[0.5, 0.45, 0.05])):
            box = [*draw.uniform(0, 200, size=2), *draw.uniform(10, 120, size=2)]
            detections.append(detection(image, 1, box, 0.8 * draw.random()))
    draw.shuffle(detections)
    if not annotations:
        return random_set(seed + 10_000, images=images, classes=classes, first_id=first_id)
    truth = {
        "info": {},
        "images": [{"id": i, "width": 500, "height": 500} for i in range(images, 0, -1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, detections


def detection(image, category, box, score):
    """One detection; sides are at least a pixel, the score has one digit."""
    box = [float(side) for side in box[:2]] + [max(float(side), 1.0) for side in box[2:]]
    return {"image_id": image, "category_id": category, "bbox": box, "score": round(score, 1)}


def as_masks(truth, detections, *, seed=0):
    """Give every object a mask in one of COCO's three forms, and every detection an encoded one."""
    from pycocotools import mask

    draw = np.random.default_rng(seed)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}

    def octagon(box):
        x, y, w, h = box
        points = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
        return [float(v) for a, b in points for v in (x + a * w, y + b * h)]

    def encoded(polygon, size):
        return mask.merge(mask.frPyObjects([polygon], *size))

    annotations = []
    for entry in truth["annotations"]:
        polygon, size = octagon(entry["bbox"]), sizes[entry["image_id"]]
        shape = [polygon]
        if entry["iscrowd"]:
            pixels = np.asfortranarray(mask.decode(encoded(polygon, size))).ravel(order="F")
            changes = np.flatnonzero(np.diff(pixels, prepend=0, append=1 - pixels[-1]))
            shape = {"counts": np.diff(changes, prepend=0).tolist(), "size": list(size)}
        elif draw.random() < 0.3:
            shape = encoded(polygon, size)
        annotations.append({**entry, "segmentation": shape})
    found = [
        {**d, "segmentation": encoded(octagon(d["bbox"]), sizes[d["image_id"]])} for d in detections
    ]
    return {**truth, "annotations": annotations}, found


def pycocotools(truth, detections, *, iou_type="bbox"):
    """Evaluate by COCOeval, to the end."""
    run = reference.evaluated(truth, detections, iou_type=iou_type)
    with contextlib.redirect_stdout(io.StringIO()):
        run.accumulate()
        run.summarize()
    return run
