#!/usr/bin/env bash
# Annotation ids below 1 cost AP in two of three COCO scorers, each in its own way.
#
# Guess:    an annotation's id is a key. Two images, one object each, both found exactly: AP is 1.0
#           whichever distinct integers the ids are, in every scorer.
# Observed: pycocotools 2.0.11 scores AP 0.252 and AR 0.5 with ids 0 and 1 (it stores the matched id of a
#           detection and reads 0 as "no match"), and 1.0 with negative ids. faster-coco-eval 1.8.0, which
#           replaces it, gives the same 0.252 with ids 0 and 1, but counts negative ids as unmatched too:
#           0.252 with -1 and 1, 0.0 with -5 and -6. hotcoco 1.3.0 gives 1.0 with ids 0 and 1 and refuses
#           to read negative ones. Only faster-coco-eval says anything, and only about 0, not about negative ids.
# So:       renumber annotations from 1 before scoring; a file whose ids start at 0 (many exporters do that)
#           loses its first object silently, and swapping one scorer for another changes which.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11 faster-coco-eval==1.8.0 hotcoco==1.3.0
cd "$folder"
cat > score.py <<'PYTHON'
import contextlib
import io
import json
import sys

BOX = [10, 10, 50, 50]


def score(library, ids):
    truth = {
        "info": {},
        "images": [{"id": i, "width": 99, "height": 99, "file_name": f"{i}.jpg"} for i in range(2)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": key, "image_id": i, "category_id": 1, "bbox": BOX, "area": 2500, "iscrowd": 0}
            for i, key in enumerate(ids)
        ],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9} for i in range(2)]
    for name, content in (("truth.json", truth), ("found.json", found)):
        with open(name, "w") as file:
            json.dump(content, file)
    if library == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    elif library == "faster-coco-eval":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from hotcoco import COCO, COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO("truth.json")
        scores = COCOeval(gt, gt.loadRes("found.json"), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    return round(float(scores.stats[0]), 3), round(float(scores.stats[8]), 3)


SEEN = {
    "pycocotools": {(1, 2): (1.0, 1.0), (0, 1): (0.252, 0.5), (-1, 1): (1.0, 1.0), (-5, -6): (1.0, 1.0)},
    "faster-coco-eval": {
        (1, 2): (1.0, 1.0), (0, 1): (0.252, 0.5), (-1, 1): (0.252, 0.5), (-5, -6): (0.0, 0.0),
    },
    "hotcoco": {(1, 2): (1.0, 1.0), (0, 1): (1.0, 1.0), (-1, 1): "refused"},
}
changed = False
for library, cases in SEEN.items():
    for ids, expected in cases.items():
        try:
            got = score(library, ids)
        except ValueError:
            got = "refused"
        print(f"{library:>16}, ids {ids}: (AP, AR at 100) = {got}")
        changed |= got != expected
sys.exit("not as observed" if changed else 0)
PYTHON
"$folder/venv/bin/python" score.py
