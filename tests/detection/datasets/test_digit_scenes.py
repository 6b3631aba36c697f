"""Digit scenes: drawn from a seed alone, with boxes that enclose exactly what was painted."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lowbit.detection.datasets import catalog
from lowbit.detection.datasets.digit_scenes import (
    Layout,
    draw_background,
    draw_scene,
    draw_stamp,
    resize_matrix,
)

# Of digit-scenes, split test, seed 0, in the default layout: the first two scenes.
EXPECTED_LABELS = [[1, 0, 2, 9, 6], [5, 7]]
EXPECTED_BOXES = [
    [[79, 62, 92, 96], [57, 96, 67, 112], [57, 5, 78, 45], [77, 7, 94, 35], [42, 28, 56, 50]],
    [[3, 2, 25, 35], [66, 29, 80, 52]],
]


@pytest.fixture
def glyphs():
    """A filled bar, and a cross: (2, 8, 8) coverage."""
    bar, cross = np.zeros((2, 8, 8), dtype=np.float32)
    bar[1:7, 3:5] = 1
    cross[3:5, 1:7] = cross[0:8, 3:5] = 1
    return np.stack([bar, cross]), np.array([1, 4])


def draw(glyphs, index=0, **layout):
    return draw_scene(*glyphs, layout=Layout(**layout), seed=(3, 0), index=index)


def test_a_scene_depends_on_its_seed_and_index_alone(glyphs):
    first = draw(glyphs, index=5)
    for _ in range(2):  # other scenes drawn before change nothing
        draw(glyphs, index=1)
        again = draw(glyphs, index=5)
        assert np.array_equal(first.image, again.image)
        assert np.array_equal(first.boxes, again.boxes)
    other = draw(glyphs, index=6)
    assert not np.array_equal(first.image, other.image)


def test_the_scenes_of_a_seed_are_the_published_ones():
    """A change here changes every number: bump SCENES_VERSION with it."""
    scenes = catalog.load_detection("digit-scenes", "test", 2)
    assert [labels.tolist() for labels in scenes.labels] == EXPECTED_LABELS
    assert [boxes.tolist() for boxes in scenes.boxes] == EXPECTED_BOXES


def test_a_box_encloses_exactly_the_pixels_a_digit_painted(glyphs):
    """Without noise and texture, whatever differs from the plain canvas is ink."""
    for index in range(20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "lowbit.detection.datasets.digit_scenes.draw_background", plain_background
            )
            patch.setattr("lowbit.detection.datasets.digit_scenes.NOISE", 0.0)
            scene = draw(glyphs, index=index, digits=(1, 1))
        painted = (scene.image != scene.image[:, :1, :1]).any(0)
        if painted[0, 0]:
            continue  # the digit covers the corner the canvas is read from
        rows, columns = np.nonzero(painted)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert scene.boxes.tolist() == [box]


def plain_background(rng, size):
    return np.full((3, size, size), 0.5), 0.5


def test_heights_counts_and_overlaps_keep_to_the_layout(glyphs):
    for index in range(30):
        scene = draw(glyphs, index=index, digits=(2, 4), digit_size=(16, 40), overlap=0.0)
        heights = scene.boxes[:, 3] - scene.boxes[:, 1]
        assert 1 <= len(scene.labels) <= 4
        assert ((heights >= 15) & (heights <= 40)).all()
        assert scene.boxes.min() >= 0 and scene.boxes.max() <= 128
        taken = np.zeros((128, 128), dtype=int)
        for x1, y1, x2, y2 in scene.boxes.astype(int):
            taken[y1:y2, x1:x2] += 1
        assert taken.max() == 1  # overlap 0: no pixel belongs to two boxes


def test_ink_stands_out_from_its_background(glyphs):
    rng = np.random.default_rng(0)
    for index in range(20):
        scene = draw(glyphs, index=index, digits=(1, 1), digit_size=(40, 40))
        x1, y1, x2, y2 = scene.boxes[0].astype(int)
        inside = scene.image[:, y1:y2, x1:x2].mean(0)
        middle = np.median(scene.image.mean(0))
        assert np.abs(inside - middle).max() > 0.2 * 255
    assert draw_background(rng, 32)[0].shape == (3, 32, 32)


@pytest.mark.parametrize(("old", "new"), [(8, 8), (8, 21), (32, 17), (20, 40), (40, 11)])
def test_resizing_is_torchs_antialiased_linear_interpolation(old, new):
    x = torch.rand(1, 1, old, old, dtype=torch.float64)
    theirs = F.interpolate(x, size=(new, new), mode="bilinear", antialias=True)
    matrix = resize_matrix(old, new)
    ours = matrix @ x[0, 0].numpy() @ matrix.T
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=1e-12)


@pytest.mark.parametrize("height", [4, 16, 23, 40])
def test_a_stamp_has_ink_on_every_side(glyphs, height):
    for glyph in glyphs[0]:
        stamp = draw_stamp(glyph, height)
        assert abs(stamp.shape[0] - height) <= 1
        assert all(side.max() > 0 for side in sides(stamp))


def test_what_shrinking_washes_out_is_outside_the_box():
    """A stroke one pixel wide at the tip of a block, averaged over eight pixels, is no ink."""
    glyph = np.zeros((32, 32), dtype=np.float32)
    glyph[16:32, 0:32] = 1
    glyph[0:16, 16] = 1
    stamp = draw_stamp(glyph, 4)
    assert len(stamp) == 3 and all(side.max() > 0 for side in sides(stamp))


def sides(stamp):
    return stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]


@pytest.mark.parametrize(
    "layout", [{"digits": (0, 2)}, {"digits": (3, 2)}, {"digit_size": (16, 200)}, {"overlap": 1.0}]
)
def test_a_layout_that_cannot_be_drawn_is_refused(layout):
    with pytest.raises(ValueError, match="nothing was drawn"):
        Layout(**layout)
