"""Means over data sets: only over the same ones, each counting once, with what was left out by name."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lowbit.benchmark.leaderboard.aggregation.dataset_means import averages
from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import to_latex, to_markdown
from lowbit.benchmark.results.comparability import SUBJECT, normalize
from tests.benchmark.board_frames import make_frame, row, seeds


def _averages(rows):
    return averages(fold_seeds(normalize(pd.DataFrame(rows))))


def _covering(**values):
    """Rows of checkpoints with a single number a data set: a={"x": 90.0, ...}."""
    return [
        row(checkpoint=name, dataset=dataset, value=value, split_sha256=dataset)
        for name, found in values.items()
        for dataset, value in found.items()
    ]


def _means(average, precision="4w4a"):
    name = SUBJECT.index("checkpoint")
    return {subject[name]: cells[precision] for subject, cells in average.means.items()}


def test_the_mean_counts_each_data_set_once_whatever_its_seeds():
    rows = seeds([90.0, 92.0, 94.0], checkpoint="a", dataset="x", split_sha256="x")
    rows += seeds([60.0, 64.0], checkpoint="a", dataset="y", split_sha256="y")
    (average,) = _averages(rows)
    assert average.datasets == ("x", "y")
    mean = _means(average)["a"]
    assert (mean.value, mean.interval, mean.rank, mean.best) == (77.0, "seeds", 1, False)
    # by hand: variances 4/3 and 8/2 of the two means; Welch-Satterthwaite; half of the sum's error
    v = np.array([4 / 3, 8 / 2])
    freedom = v.sum() ** 2 / (v[0] ** 2 / 2 + v[1] ** 2 / 1)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(v.sum()) / 2
    assert (mean.low, mean.high) == pytest.approx((77 - half, 77 + half))


def test_a_single_seed_anywhere_makes_the_interval_one_over_images():
    rows = seeds([90.0, 92.0], checkpoint="a", dataset="x", split_sha256="x", stderr=1.2)
    rows += [row(checkpoint="a", dataset="y", split_sha256="y", value=60.0, stderr=1.6)]
    mean = _means(_averages(rows)[0])["a"]
    half = stats.norm.ppf(0.975) * math.hypot(1.2, 1.6) / 2
    assert mean.interval == "images"
    assert (mean.low, mean.high) == pytest.approx((75.5 - half, 75.5 + half))
    del rows[-1]["stderr"]
    mean = _means(_averages(rows)[0])["a"]
    assert mean.interval == "" and math.isnan(mean.low)


def test_only_checkpoints_with_every_data_set_have_a_mean_and_the_others_are_named():
    full = {"x": 90.0, "y": 80.0, "z": 70.0}
    easy = {"x": 95.0, "y": 85.0}  # skips the hard one: its mean would be the best
    (average,) = _averages(_covering(a=full, b={k: v - 1 for k, v in full.items()}, c=easy))
    assert average.datasets == ("x", "y", "z")
    assert {name: mean.value for name, mean in _means(average).items()} == {"a": 80.0, "b": 79.0}
    ((subject, lacks),) = average.left_out["4w4a"].items()
    assert subject[SUBJECT.index("checkpoint")] == "c" and lacks == ("z",)
    assert average.notes == ["4w4a: no mean where a data set is missing: c lacks z."]
    assert average.dropped == {}


def test_a_data_set_that_one_checkpoint_alone_has_is_dropped():
    (average,) = _averages(
        _covering(
            a={"x": 90.0, "y": 80.0, "z": 70.0}, b={"x": 88.0, "y": 79.0}, c={"y": 1.0, "w": 2.0}
        )
    )
    assert average.datasets == ("x", "y")
    assert set(_means(average)) == {"a", "b"}
    assert average.dropped == {"4w4a": ("w", "z")}
    assert "not averaged over w, z" in average.notes[0] and "c lacks x" in average.notes[1]


def test_of_two_sets_as_large_the_one_that_more_have_is_taken():
    xy, yz = {"x": 1.0, "y": 2.0}, {"y": 3.0, "z": 4.0}
    (average,) = _averages(_covering(a=xy, b=xy, c=yz, d=yz, e=yz))
    assert average.datasets == ("y", "z")


def test_precisions_over_the_same_sets_share_a_table_and_others_do_not():
    rows = _covering(a={"x": 90.0, "y": 80.0, "z": 70.0}, b={"x": 88.0, "y": 79.0, "z": 60.0})
    low = [r | {"precision": "2w2a"} for r in rows]
    full = [r | {"precision": "FP"} for r in rows]
    (average,) = _averages(rows + full + low)
    assert average.precisions == ["FP", "4w4a", "2w2a"]
    without = [r for r in low if r["dataset"] != "z"]
    first, second = _averages(rows + full + without)
    assert (first.precisions, first.datasets) == (["FP", "4w4a"], ("x", "y", "z"))
    assert (second.precisions, second.datasets) == (["2w2a"], ("x", "y"))


def test_what_else_differs_is_never_averaged():
    rows = _covering(a={"x": 90.0})
    for changes in (
        {"protocol": "finetune"},
        {"engine": "other"},
        {"policy_fingerprint": "0" * 12},
        {"metric": "mean_per_class"},
        {"source": "self-reported"},
    ):
        assert _averages(rows + [row(checkpoint="a", dataset="y", **changes)]) == [], changes


def test_two_versions_of_a_data_set_are_two_and_told_apart():
    rows = _covering(a={"x": 90.0, "y": 80.0})
    rows.append(row(checkpoint="a", dataset="y", split_sha256="other", value=70.0))
    (average,) = _averages(rows)
    assert average.datasets == ("x", "y (B)", "y (C)")
    assert _means(average)["a"].value == 80.0


def test_rows_that_cannot_be_told_apart_over_the_data_sets_share_a_rank():
    rows, draw = [], np.random.default_rng(0)
    for k in range(7):
        base = 60 + 5 * k
        for name, better in (("good", 4.0), ("alike", 3.9), ("bad", 0.0)):
            value = base + better + draw.normal(0, 0.3)
            rows.append(row(checkpoint=name, dataset=f"d{k}", split_sha256=f"d{k}", value=value))
    (average,) = _averages(rows)
    found = _means(average)
    assert list(found) == sorted(found, key=lambda name: -found[name].value)  # best first
    assert {name: mean.rank for name, mean in found.items()} == {"good": 1, "alike": 1, "bad": 3}
    assert found["good"].best and found["alike"].best and not found["bad"].best
    values = {name: [r["value"] for r in rows if r["checkpoint"] == name] for name in found}
    p = stats.ttest_rel(values["good"], values["alike"]).pvalue
    assert p > 0.05 > 3 * stats.ttest_rel(values["alike"], values["bad"]).pvalue


def test_a_whole_suite():
    found = averages(fold_seeds(normalize(make_frame())))
    assert [(x.facts["protocol"], x.metric) for x in found] == [
        ("linear", "top1"),
        ("finetune", "top1"),
    ]
    for average in found:
        assert average.datasets == ("cifar10", "cifar100", "digits")
        assert len(average.means) == 5 and not average.notes
        assert next(iter(_means(average))) == "ssql-r10"
    assert averages(fold_seeds(normalize(pd.DataFrame([row()])))) == []


def test_means_are_in_the_exports_with_their_intervals_and_what_they_leave_out():
    rows = []
    for dataset, base in (("x", 80.0), ("y", 60.0), ("z", 70.0)):
        for name, better in (("a", 5.0), ("b", 0.0)):
            values = [base + better, base + better + 0.2]
            rows += seeds(values, checkpoint=name, dataset=dataset, split_sha256=dataset)
    rows += _covering(c_1={"x": 99.0})
    tables = Tables(normalize(pd.DataFrame(rows)))
    markdown, latex = to_markdown(tables), to_latex(tables)
    table = markdown[markdown.index("## Mean over x, y, z: linear, top-1 (%)") :]
    # 75.1 of three data sets, variances .01 each with one degree of freedom: 3 together. The lead over
    # b is 5 on every set: no spread to test with, no ranks
    half = stats.t.ppf(0.975, 3) * math.sqrt(0.03) / 3
    assert (
        f"| a | SSQL | resnet10\\_slim | - | 75.1 \\[{75.1 - half:.1f}, {75.1 + half:.1f}\\] |"
        in table
    )
    assert "c\\_1 lacks y, z" in table
    assert r"Mean over x, y, z: linear, top-1 (\%)" in latex and r"c\_1 lacks y, z" in latex
