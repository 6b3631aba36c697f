"""Pairs of detections, by hand and against trying every way to pair them."""

from itertools import permutations

import numpy as np
import pytest

from lowbit.detection.scoring.same_detections import IOU, Shared, shared


def box(x=0.0, y=0.0, width=10.0, height=10.0, *, image=1, category=1, score=0.9):
    bbox = [x, y, width, height]
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


@pytest.mark.parametrize(
    ("second", "pairs"),
    [
        ([box()], 1),
        ([box(score=0.6)], 1),
        ([box(0.5)], 1),  # 95 / 105, more than 0.9
        ([box(0.6)], 0),  # 94 / 106, less
        ([box(category=2)], 0),
        ([box(image=2)], 0),
        ([box(), box()], 1),  # each with one at most
        ([], 0),
    ],
)
def test_a_pair_is_of_one_image_and_class_in_one_place(second, pairs):
    assert shared([box()], second) == Shared(1, len(second), pairs)
    assert shared(second, [box()]) == Shared(len(second), 1, pairs)


def test_a_box_without_area_is_like_itself_alone():
    empty = box(3, width=0)
    assert shared([empty], [empty]) == Shared(1, 1, 1)
    assert shared([empty], [box(3, width=1e-9)]) == Shared(1, 1, 0)


def test_unsure_detections_are_left_out_of_both_runs():
    assert shared([box(), box(score=0.49)], [box(score=0.5)]) == Shared(1, 1, 1)
    assert shared([box(score=0.51)], [box(score=0.49)]) == Shared(1, 0, 0)
    assert shared([box(score=0.3)], [box(score=0.3)], score=0.2) == Shared(1, 1, 1)


def test_the_share_counts_the_detections_of_both_runs():
    assert Shared(3, 1, 1).share == 0.5
    assert shared([box(), box(50)], [box()]).share == pytest.approx(2 / 3)
    assert shared([box(score=0.1)], []).share is None


def test_there_are_as_many_pairs_as_there_can_be():
    # The first of ours overlaps both of theirs, the second only the first: in turn there would be one pair.
    ours, theirs = [box(0.2), box(-0.3)], [box(0), box(0.6)]
    assert shared(ours, theirs) == Shared(2, 2, 2)


def _reference_pairs(ours, theirs):
    def iou(one, other):
        (x, y, w, h), (u, v, a, b) = one["bbox"], other["bbox"]
        inner = max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
        return inner / (w * h + a * b - inner)

    short, long = sorted((ours, theirs), key=len)
    return max(
        sum(
            one["category_id"] == other["category_id"] and iou(one, other) >= IOU
            for one, other in zip(short, chosen, strict=True)
        )
        for chosen in permutations(long, len(short))
    )


def test_pairs_are_those_of_trying_every_way():
    draw = np.random.default_rng(0)
    for _ in range(40):
        ours, theirs = (
            [
                box(*draw.uniform(0, 1.2, 2), category=int(draw.integers(2)))
                for _ in range(draw.integers(1, 6))
            ]
            for _ in range(2)
        )
        assert shared(ours, theirs).pairs == _reference_pairs(ours, theirs)
