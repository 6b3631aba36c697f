#!/usr/bin/env bash
# A mask result that also carries its box has the box's area in pycocotools.
#
# Guess:    results for masks may carry `bbox` as well, as several toolkits write them; `loadRes` then still takes
#           an object's area from its mask, as it does without the box.
# Observed: pycocotools 2.0.11 with NumPy 2.4.6. `loadRes` looks for `bbox` first: a thin diagonal mask of 200 pixels
#           has an area of 10000 once its box of 100 x 100 stands beside it, and 200 without. Size ranges judge
#           false detections by that area. One right and one false mask of this kind: AP of small masks is 0.50
#           without boxes and 1.00 with them; AP over all sizes is 0.50 both times.
# So:       drop `bbox` from results before masks are evaluated, or AP by size is not of masks; two toolkits'
#           numbers by size may differ by this alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
cat > "$folder/evaluate.py" <<'PYTHON'
import contextlib
import io
import sys

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def encoded(shape):
    code = mask.encode(np.asfortranarray(shape))
    return {**code, "counts": code["counts"].decode()}


square, diagonal = np.zeros((2, 200, 200), np.uint8)
square[:20, :20] = 1
steps = np.arange(100)
diagonal[50 + steps, 50 + steps] = diagonal[50 + steps, 51 + steps] = 1
truth = COCO()
truth.dataset = {
    "images": [{"id": 1, "height": 200, "width": 200}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [
        {
            "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 400,
            "bbox": [0, 0, 20, 20], "segmentation": encoded(square),
        }
    ],
}  # fmt: skip
false = {"score": 0.9, "segmentation": encoded(diagonal), "bbox": [50, 50, 100, 100]}
right = {"score": 0.8, "segmentation": encoded(square), "bbox": [0, 0, 20, 20]}


def scores(with_boxes):
    found = [{"image_id": 1, "category_id": 1, **each} for each in (false, right)]
    if not with_boxes:
        for each in found:
            del each["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(found)
        area = results.anns[1]["area"]
        evaluation = COCOeval(truth, results, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(area), round(float(evaluation.stats[0]), 2), round(float(evaluation.stats[3]), 2)


got = {kind: scores(kind == "with boxes") for kind in ("without boxes", "with boxes")}
for kind, (area, ap, small) in got.items():
    print(f"{kind}: area {area:g}, AP {ap}, AP of small masks {small}")
expected = {"without boxes": (200.0, 0.5, 0.5), "with boxes": (10000.0, 0.5, 1.0)}
sys.exit("not as observed" if got != expected else 0)
PYTHON
"$folder/venv/bin/python" "$folder/evaluate.py"
