"""Matches, and the twelve metrics of them, are pycocotools' to the last bit."""

import numpy as np
import pytest

from lowbit.detection.scoring import reference
from lowbit.detection.scoring.coco_arrays import ranks
from lowbit.detection.scoring.matches import HIT, IGNORED
from lowbit.detection.scoring.matching import match
from lowbit.detection.scoring.precision_recall import METRICS, precisions, recalls, summarize
from tests.detection.scoring.annotated_sets import as_masks, pycocotools, random_set


def assert_equal(truth, detections, *, iou_type="bbox"):
    """Compare every precision, recall and metric; return ours and the matches."""
    matches = match(truth, detections, iou_type=iou_type)
    run = pycocotools(truth, detections, iou_type=iou_type)
    precision, recall = precisions(matches), recalls(matches)
    np.testing.assert_array_equal(precision, run.eval["precision"][..., -1])
    np.testing.assert_array_equal(recall, run.eval["recall"])
    found = summarize(precision, recall)
    assert list(found) == list(METRICS) and list(found.values()) == run.stats.tolist()
    return found, matches


@pytest.mark.parametrize("part", range(8))
def test_two_hundred_random_sets_are_scored_as_by_pycocotools(part):
    found = [assert_equal(*random_set(seed))[0] for seed in range(25 * part, 25 * (part + 1))]
    assert np.std([scores["AP"] for scores in found]) > 0.02


def test_random_sets_have_what_the_matching_has_to_know():
    made = [random_set(seed) for seed in range(60)]
    matches = [match(*one) for one in made]
    assert any(a["iscrowd"] for truth, _ in made for a in truth["annotations"])
    assert any(m.rank.max(initial=0) == 99 for m in matches)  # more than 100 in an image
    assert any((m.objects[0] == 0).any() for m in matches)
    assert any(len({a["image_id"] for a in t["annotations"]}) < len(t["images"]) for t, _ in made)
    assert all(len({d["score"] for d in found}) <= 11 for _, found in made)  # ties
    assert all((m.outcome == kind).any() for m in matches for kind in (HIT, IGNORED))


def test_many_images_and_classes_are_scored_as_by_pycocotools():
    assert_equal(*random_set(1, images=150, classes=30))


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_scored_as_by_pycocotools(seed):
    found, _ = assert_equal(*as_masks(*random_set(seed, images=4)), iou_type="segm")
    assert found["AP"] > 0


def test_matches_are_those_of_pycocotools_themselves():
    for seed in range(20):
        ours, theirs = match(*random_set(seed)), reference.match(*random_set(seed))
        for name in ("images", "starts", "image", "rank", "outcome"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        for area in range(4):  # objects of an image and class may be in another order
            a, b = (
                sorted(zip(m.object_image[kept], m.object_class[kept], strict=True))
                for m, kept in ((ours, ours.counted[area]), (theirs, theirs.counted[area]))
            )
            assert a == b


def test_an_object_with_id_0_is_never_found_as_by_pycocotools():
    """Test sets number their objects from 1; see `DetectionSet.to_coco`."""
    lost = 0
    for seed in range(10):
        found, _ = assert_equal(*random_set(seed, first_id=0))
        lost += found["AP"] < assert_equal(*random_set(seed))[0]["AP"]
    assert lost


def test_repeated_ids_and_numbers_without_end_are_left_to_pycocotools(monkeypatch):
    truth, detections = random_set(3)
    truth["annotations"][1]["id"] = truth["annotations"][0]["id"]
    assert_equal(truth, detections)
    truth, detections = random_set(4)
    detections[0] |= {"bbox": [5.0, 5.0, float("inf"), 9.0], "score": 1.0}
    detections[1]["score"] = float("nan")
    with np.errstate(invalid="ignore"):
        assert_equal(truth, detections)
    asked = []
    monkeypatch.setattr(reference, "match", lambda *a, **k: asked.append(a))
    match(truth, detections)
    match(*random_set(4))
    assert len(asked) == 1


def test_detections_of_no_image_of_the_set_are_refused():
    truth, detections = random_set(0)
    detections[5]["image_id"] = 77
    with pytest.raises(ValueError, match="in image 77, which is none of the 8 images"):
        match(truth, detections)


def test_detections_of_other_categories_do_not_count():
    truth, detections = random_set(0)
    more = [{**d, "category_id": 99} for d in detections]
    assert assert_equal(truth, detections + more)[0] == assert_equal(truth, detections)[0]


def test_ranks_count_within_runs():
    assert ranks(np.array([], dtype=int)).tolist() == []
    assert ranks(np.array([0, 0, 0, 1]), np.array([4, 4, 5, 5])).tolist() == [0, 1, 0, 0]
