"""Scores over bit-widths: intervals, what is retained, areas, costs, and which line is held against which."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from lowbit.benchmark.leaderboard.page import curve_series, curves
from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.statistics.ranking import summarize
from tests.benchmark.board_frames import make_frame, row, seeds
from tests.benchmark.page_sources import make_source

LADDER = ("8w8a", "4w4a", "2w2a")  # evenly spaced in bits, as 3, 2 and 1


def _points(rows):
    by_seed = curve_series.by_seed(normalize(pd.DataFrame(rows)))
    return by_seed, curve_series.over_seeds(by_seed).set_index("precision")


def _ladder(values, **changes):
    """Return a line of three seeds; `values` by precision."""
    return [
        found
        for precision, v in values.items()
        for found in seeds(v, precision=precision, **changes)
    ]


def test_intervals_over_seeds_are_the_boards():
    frame = make_frame()
    points = curve_series.over_seeds(curve_series.by_seed(normalize(frame)))
    folded = make_source(frame).tables.folded
    ranked = folded[folded["rank"] > 0].sort_values(["value"])
    points = points.sort_values(["value"])
    assert np.allclose(points["value"], ranked["value"])
    assert np.allclose(points["low"], ranked["low"])
    assert np.allclose(points["high"], ranked["high"])
    assert set(points["spread"]) == {"seeds"}


def test_a_single_seed_has_the_interval_over_its_images():
    _, points = _points([row(precision="4w4a", image_low=88.0, image_high=92.5)])
    assert points.loc["4w4a", ["low", "high", "spread"]].tolist() == [88.0, 92.5, "images"]
    _, points = _points([row(precision="4w4a")])
    assert points.loc["4w4a", "spread"] == "-" and math.isnan(points.loc["4w4a", "low"])


def test_retention_is_seed_by_seed():
    full, low = (90.0, 80.0, 85.0), (81.0, 60.0, 68.0)
    _, points = _points(_ladder({"FP": full, "4w4a": low}))
    expected = summarize([100 * a / b for a, b in zip(low, full, strict=True)])
    found = points.loc["4w4a", ["retention", "retention_low", "retention_high"]]
    assert found.tolist() == pytest.approx([expected.mean, expected.low, expected.high])
    assert points.loc["FP", "retention"] == 100


def test_a_seed_without_full_precision_is_held_against_the_mean():
    rows = [*seeds((80.0, 60.0), precision="FP"), row(precision="4w4a", value=35.0, seed=7)]
    _, points = _points(rows)
    assert points.loc["4w4a", "retention"] == 50


def test_without_full_precision_nothing_is_retained():
    _, points = _points(seeds((80.0, 60.0), precision="4w4a"))
    assert math.isnan(points.loc["4w4a", "retention"])
    line = curves.content(make_source(seeds((80.0, 60.0), precision="4w4a")))["boards"][0]["lines"][
        0
    ]
    assert line["full"] is None and line["points"][0][6] is None


def test_area_by_hand():
    by_seed, _ = _points(
        _ladder({"8w8a": (90.0, 92.0), "4w4a": (80.0, 84.0), "2w2a": (50.0, 52.0)})
    )
    found = curve_series.areas(by_seed, LADDER, "value")
    first, second = (90 + 2 * 80 + 50) / 4, (92 + 2 * 84 + 52) / 4  # trapezoids of equal width
    assert found["mean"].tolist() == pytest.approx([(first + second) / 2])
    assert found["sd"].tolist() == pytest.approx([abs(first - second) / math.sqrt(2)])


def test_area_weighs_a_step_by_its_halvings():
    by_seed, _ = _points(
        _ladder({"8w8a": (90.0,), "2w8a": (60.0,), "2w2a": (30.0,), "8w2a": (50.0,)})
    )
    found = curve_series.areas(by_seed, ("8w8a", "2w8a", "8w2a", "2w2a"), "value")
    assert found["mean"].tolist() == pytest.approx(
        [(90 + 2 * 55 + 30) / 4]
    )  # one width: their mean


def test_a_line_that_lacks_a_precision_has_no_area():
    whole = dict.fromkeys(LADDER, (90.0, 91.0))
    part = dict.fromkeys(LADDER[:2], (95.0, 96.0))
    rows = [*_ladder(whole), *_ladder(whole, checkpoint="b"), *_ladder(part, checkpoint="c")]
    (board,) = curves.content(make_source(rows))["boards"]
    assert board["shared"] == list(LADDER)
    area = {line["checkpoint"]: line["area"] for line in board["lines"]}
    assert area["c"] is None and list(area["b"]) == pytest.approx([90.5, math.sqrt(0.5)], abs=1e-4)


def test_two_precisions_of_one_width_span_nothing():
    by_seed, _ = _points(_ladder({"4w4a": (90.0,), "2w8a": (80.0,)}))
    assert curve_series.areas(by_seed, ("4w4a", "2w8a"), "value").empty


def test_a_detector_is_held_against_the_one_trained_in_full_precision():
    boards = curves.content(make_source(make_frame()))["boards"]
    board = next(board for board in boards if board["task"] == "detection")
    by_label = {line["label"]: line for line in board["lines"]}
    trained, full = by_label["ssql-r10, sgdt"], by_label["ssql-r10, fp"]
    assert board["lines"][trained["full"]] is full
    (point,) = trained["points"]
    assert point[6] == pytest.approx(100 * point[1] / full["points"][0][1], abs=1.0)


def test_measured_and_verified_never_average():
    rows = [*seeds((90.0, 91.0)), row(value=50.0, seed=2, source="verified")]
    by_seed = curve_series.by_seed(normalize(pd.DataFrame(rows)))
    assert by_seed["line"].nunique() == 2


def test_costs_reach_the_points():
    costs = {"weight_bytes": 162_000.0, "bit_operations": 101e6}
    board = curves.content(make_source(seeds((90.0, 91.0), **costs)))["boards"][0]
    assert board["lines"][0]["points"][0][-2:] == [162_000, 101_000_000]


def test_lines_come_best_first_with_names_that_tell_them_apart():
    rows = [
        *seeds((70.0, 71.0), checkpoint="a"),
        *seeds((80.0, 81.0), checkpoint="a", architecture="resnet18"),
        *seeds((90.0, 91.0), checkpoint="b"),
    ]
    lines = curves.content(make_source(rows))["boards"][0]["lines"]
    assert [line["checkpoint"] for line in lines] == ["b", "a", "a"]
    assert lines[0]["label"] == "b" and lines[1]["label"] != lines[2]["label"]
    assert "resnet18" in lines[1]["label"]


def test_content_is_json_and_the_same_every_time():
    source = make_source(make_frame())
    text = json.dumps(curves.content(source), allow_nan=False)
    assert text == json.dumps(curves.content(make_source(make_frame())), allow_nan=False)
    assert len(json.loads(text)["boards"]) == 6 + 3  # of classification, and AP, AP50, AP75


def test_nothing_ranked_is_no_section():
    assert curves.content(make_source(make_frame().iloc[:0])) == {}
