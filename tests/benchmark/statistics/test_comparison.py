"""Two checkpoints, or two ways to train, side by side: what is paired, tested, corrected and said."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lowbit.benchmark.results.comparability import normalize
from lowbit.benchmark.statistics.comparison import compare
from lowbit.benchmark.statistics.comparison_plot import plot
from lowbit.benchmark.statistics.comparison_text import sentence, to_json, to_text
from tests.benchmark.board_frames import make_frame, row, seeds

SETS = [f"set{k}" for k in range(7)]


def _compare(rows, a="a", b="b", **options):
    return compare(normalize(pd.DataFrame(rows)), a, b, **options)


def _both(a, b, **changes):
    return seeds(a, checkpoint="a", **changes) + seeds(b, checkpoint="b", **changes)


def _single(difference, *, base=80.0, stderr=1.0, **changes):
    a = row(checkpoint="a", value=base + difference, stderr=stderr, **changes)
    return [a, row(checkpoint="b", value=base, stderr=stderr, **changes)]


def test_one_setting_is_paired_over_seeds():
    a, b = [90.0, 92.0, 91.0], [88.0, 89.0, 89.5]
    (line,) = _compare(_both(a, b))
    found = line.overall
    assert (found.dataset, found.protocol, found.precision, found.metric) == (
        "digits", "linear", "4w4a", "top1",
    )  # fmt: skip
    assert (found.a, found.over, found.n) == (91.0, "seeds", 3)
    oracle = stats.ttest_rel(a, b)
    interval = oracle.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == found.adjusted == pytest.approx(oracle.pvalue)
    assert line.settings == (found,)


def test_swapping_the_sides_swaps_the_sign():
    rows = _both([90.0, 92.0], [88.0, 89.0])
    (there,), (back,) = _compare(rows), _compare(rows, "b", "a")
    assert there.overall.mean == -back.overall.mean == 2.5
    assert there.overall.low == -back.overall.high
    assert there.overall.p == back.overall.p


def test_a_line_is_over_data_sets_that_count_once_however_many_seeds_they_have():
    rows = _both([92.0], [90.0])
    for k, offset in enumerate((0.0, 1.0)):
        rows += _both([70.0 + offset] * 3, [64.0] * 3, dataset=f"cifar{k}")
    (line,) = _compare(rows)
    assert sorted(setting.mean for setting in line.settings) == [2.0, 6.0, 7.0]
    found = line.overall
    assert (found.dataset, found.over, found.n, found.mean) == ("all", "settings", 3, 5.0)
    interval = stats.ttest_1samp([2.0, 6.0, 7.0], 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_protocols_precisions_and_metrics_have_lines_of_their_own():
    rows = []
    for precision in ("4w4a", "FP"):
        for protocol in ("finetune", "linear"):
            for metric in ("mean_per_class", "top1"):
                facts = {"precision": precision, "protocol": protocol, "metric": metric}
                rows += _both([90.0, 92.0], [89.0, 90.0], **facts)
    found = [(x.overall.metric, x.overall.protocol, x.overall.precision) for x in _compare(rows)]
    assert found == [
        (metric, protocol, precision)
        for metric in ("top1", "mean_per_class")
        for protocol in ("linear", "finetune")
        for precision in ("FP", "4w4a")
    ]


def test_only_what_differs_in_nothing_else_is_paired():
    rows = seeds([90.0, 91.0, 92.0], checkpoint="a")
    rows += [row(checkpoint="b", seed=1, value=80.0), row(checkpoint="b", seed=7, value=10.0)]
    rows += seeds([5.0] * 3, checkpoint="b", policy_fingerprint="0" * 12)
    rows += seeds([6.0] * 3, checkpoint="b", split="val")
    (line,) = _compare(rows)
    assert (line.overall.n, line.overall.mean) == (1, 11.0)


def test_what_was_measured_here_stands_before_what_was_sent_of_the_same():
    rows = _both((90.0, 91.0, 92.0), (88.0, 89.5, 90.5))
    sent = seeds((50.0, 50.0, 50.0), checkpoint="a", source="verified")
    (with_sent,), (alone,) = _compare(rows + sent), _compare(rows)
    assert with_sent.overall == alone.overall
    (line,) = _compare([r for r in rows if r["checkpoint"] == "b"] + sent)
    assert line.overall.a == 50.0


def test_p_values_are_corrected_over_the_data_sets_of_a_line():
    rows = []
    for name, difference in zip(SETS, (4.0, 3.0, 2.9, 2.7, 0.5, 0.1, -3.0), strict=True):
        rows += _single(difference, dataset=name, stderr=0.7)
    (line,) = _compare(rows)
    p = [2 * stats.norm.sf(abs(d) / (0.7 * 2**0.5)) for d in (4.0, 3.0, 2.9, 2.7, 0.5, 0.1, -3.0)]
    assert [s.p for s in line.settings] == pytest.approx(p)
    # Holm by hand: times 7 for the smallest, 6 and 5 for the equal two, 4 and 3 and so on for the
    # rest, and none below a smaller one's: 4 p(2.9) = .0136 is raised to 6 p(3.0) = .0147
    assert line.settings[0].adjusted == pytest.approx(7 * p[0])
    assert [line.settings[k].adjusted for k in (1, 6, 2)] == pytest.approx([6 * p[1]] * 3)
    assert line.settings[3].adjusted == pytest.approx(3 * p[3])
    assert [s.outcome for s in line.settings] == ["a", "a", "a", "a", "tie", "tie", "b"]


def test_single_precision_lines_are_corrected_over_the_precisions():
    rows = []
    for precision, difference in (("FP", 3.0), ("8w8a", 3.1), ("4w4a", 9.0)):
        rows += _single(difference, precision=precision)
    full, eight, four = _compare(rows)
    # 3.0 and 3.1 of an error of 1.41: p = .034 and .028, each below .05 by itself
    assert full.overall.p < 0.05 and eight.overall.p < 0.05
    assert [x.overall.outcome for x in (full, eight, four)] == ["tie", "tie", "a"]
    assert full.settings == (full.overall,)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ((5, 5, 5, 5, 5, 6, 0.1), "a beats b at 4w4a on 6 of 7 data sets (1 tie), mean +4.4 ["),
        ((-5, -5, -5, -5, -5, -6, -7), "b beats a at 4w4a on 7 of 7 data sets, mean +5.4 ["),
        ((9, 8, 7, -6, 0, 0, 0), "a beats b at 4w4a on 3 of 7 data sets and loses on 1 (3 ties), mean"),
        ((9, 8, -8.5, -7.5, -0.1), "a beats b at 4w4a on 2 of 5 data sets and loses on 2 (1 tie)"),
        ((0.2, -0.2, 0.1), "a and b tie at 4w4a on all 3 data sets, mean 0.0 [−0.5, +0.6]"),
        ((1, 1.1, 0.9, 1, 1.05), "a beats b at 4w4a over 5 data sets together, on none alone, mean +1.0"),
        ((5,), "a beats b at 4w4a on set0, +5.0 [+2.2, +7.8]"),
        ((-0.5,), "a and b tie at 4w4a on set0, −0.5 [−3.3, +2.3]"),
    ],
)  # fmt: skip
def test_a_line_says_who_is_better_from_the_winners_side_and_ties_are_ties(differences, expected):
    rows = []
    for name, difference in zip(SETS, differences, strict=False):
        rows += _single(difference, dataset=name)
    (line,) = _compare(rows)
    assert sentence(line, "a", "b").startswith(expected)


def test_what_could_not_be_tested_is_said():
    rows = [row(checkpoint="a", value=95.0), row(checkpoint="b", value=60.0)]
    (line,) = _compare(rows)
    assert line.overall.outcome == "untested"
    assert "nothing known of its images" in sentence(line, "a", "b")
    rows += _single(5.0, dataset="set0") + _single(6.0, dataset="set1")
    (line,) = _compare(rows)
    assert sentence(line, "a", "b").startswith(
        "a beats b at 4w4a on 2 of 3 data sets (1 not tested)"
    )


def test_seeds_that_agree_to_the_last_digit_are_tested_by_their_images():
    rows = _both([90.1, 91.2, 93.3], [89.1, 90.2, 92.3], stderr=1.2)  # but for rounding
    (line,) = _compare(rows)
    assert (line.overall.over, line.overall.n) == ("images, unpaired", 540)
    assert line.overall.outcome == "tie"


def test_ways_to_train_are_paired_by_checkpoint():
    lines = compare(normalize(make_frame()), "sgdt", "lsq", by="training")
    line = lines[0]
    assert (line.overall.metric, line.overall.alike) == ("AP", "all")
    assert [s.alike for s in line.settings] == ["simclr-r10", "simsiam-r10", "ssql-r10"]
    assert line.overall.n == 3 and line.overall.mean > 0
    assert "3 checkpoints" in sentence(line, "sgdt", "lsq")


def test_detectors_of_two_checkpoints_are_paired_by_training():
    lines = compare(normalize(make_frame()), "ssql-r10", "simclr-r10")
    found = {(x.overall.alike, x.overall.precision) for x in lines if x.overall.metric == "AP50"}
    assert found == {("fp", "FP"), ("lsq", "4w4a"), ("sgdt", "4w4a")}
    assert lines[0].overall.metric == "top1"
    first = next(x.overall.metric for x in lines if x.overall.metric.startswith("AP"))
    assert first == "AP"


def test_text_has_a_sentence_a_line_and_a_row_a_difference():
    lines = compare(normalize(make_frame()), "ssql-r10", "simclr-r10")
    text = to_text(lines, "ssql-r10", "simclr-r10")
    for line in lines:
        assert f"  {sentence(line, 'ssql-r10', 'simclr-r10')}\n" in text
    rows = [x for x in text.splitlines() if x.startswith(("digit", "cifar")) and "top-1" in x]
    assert len(rows) == 2 * 3 * 6
    assert len({len(x) for x in rows}) == 1  # the columns are aligned


def test_json_is_the_whole_comparison_without_nan():
    rows = _single(5.0) + [row(checkpoint=x, value=80.0, dataset="other") for x in "ab"]
    lines = _compare(rows)
    found = to_json(lines, "a", "b", by="checkpoint")
    (line,) = found["lines"]
    assert (found["a"], found["by"], line["wins"], line["untested"]) == ("a", "checkpoint", 1, 1)
    assert line["sentence"] == sentence(lines[0], "a", "b")
    other = next(s for s in line["settings"] if s["dataset"] == "other")
    assert other["p"] is other["low"] is None and other["outcome"] == "untested"
    assert "NaN" not in str(found) and "nan" not in str(found)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_plots_draw_names_as_they_are_and_twice_the_same(tmp_path, suffix):
    rows = []
    for name in ("$\\frac$", "<b>set</b>"):
        rows += _single(5.0, dataset=name) + _single(0.1, dataset=name, precision="FP")
    rows += [row(checkpoint=x, value=80.0, dataset="other") for x in "ab"]
    path = tmp_path / f"compare{suffix}"
    plot(_compare(rows), "a<script>", "b$_", path)
    before = path.read_bytes()
    plot(_compare(rows), "a<script>", "b$_", path)
    assert path.read_bytes() == before
    if suffix == ".html":
        text = before.decode()
        assert "a<script>" not in text and "<b>set" not in text and "cdn." not in text[:2000]
    if suffix == ".svg":
        assert before.count(b'<g id="axes_') == 2  # a panel a precision


def test_a_plot_of_another_kind_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"\.bmp has no supported suffix; nothing was drawn\. Use one of \.svg"
    ):
        plot(_compare(_single(1.0)), "a", "b", tmp_path / "x.bmp")


def test_an_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"no checkpoint 'ssql-r18'.*Did you mean 'ssql-r10'"):
        compare(normalize(make_frame()), "ssql-r18", "simsiam-r10")
    with pytest.raises(ValueError, match="compared with itself"):
        compare(normalize(make_frame()), "ssql-r10", "ssql-r10")


def test_names_without_a_common_setting_are_refused():
    rows = seeds([90.0], checkpoint="a") + seeds([80.0], checkpoint="b", engine="other")
    with pytest.raises(ValueError, match="nothing was compared"):
        _compare(rows)


def test_lines_of_equal_checkpoints_rarely_claim_anything():
    draw = np.random.default_rng(4)
    claims = 0
    for _ in range(20):
        rows = []
        for name in SETS:
            a, b = draw.normal(80, 1, size=(2, 3))
            rows += _both(a, b, dataset=name)
        (line,) = _compare(rows)
        claims += line.count("a") + line.count("b") > 0
    assert claims <= 20 * 0.05 + 3 * (20 * 0.05 * 0.95) ** 0.5


def _method(name, pretrainings, **changes):
    return [
        one
        for seed, values in enumerate(pretrainings)
        for one in seeds(
            values,
            checkpoint=f"{name} seed {seed}",
            pretraining=name,
            pretrain_seed=seed,
            **changes,
        )
    ]


METHODS = {"a": [[93.0, 93.4], [92.0, 92.6], [94.1, 94.3]], "b": [[80.0], [81.0], [79.0]]}


def test_methods_are_compared_over_their_pretrainings():
    facts = {"stderr": 0.0, "n": 10_000_000}  # images that add no error
    rows = [x for name, values in METHODS.items() for x in _method(name, values, **facts)]
    (line,) = _compare(rows)
    means = [[np.mean(values) for values in METHODS[name]] for name in "ab"]
    oracle = stats.ttest_ind(
        *means
    )  # without an error over the images: two samples of pretrainings
    assert line.level == "methods" and line.overall.n == 3
    assert line.overall.mean == pytest.approx(np.mean(means[0]) - np.mean(means[1]))
    assert line.overall.p == pytest.approx(oracle.pvalue, rel=1e-3)
    assert line.overall.over == "pretrainings, images unpaired"
    text = to_text([line], "a", "b")
    assert "Compared: methods, over their pretrainings" in text
    assert to_json([line], "a", "b", by="checkpoint")["level"] == "methods"


def test_pretrainings_that_agree_less_than_they_differ_tie():
    close = {"a": [[90.0] * 20, [93.0] * 20], "b": [[89.0] * 20, [92.0] * 20]}
    (line,) = _compare([x for n, v in close.items() for x in _method(n, v, stderr=0.01)])
    assert line.overall.outcome == "tie"


def test_a_line_of_methods_has_the_spread_of_pretrainings_however_many_data_sets():
    effects = {"a": (3.0, 0.0, -3.0), "b": (2.0, -1.0, -4.0)}  # on every data set alike
    rows = []
    for k, name in enumerate(SETS):
        for method, found in effects.items():
            values = [[80.0 + e + 0.01 * k] for e in found]
            rows += _method(method, values, dataset=name, stderr=0.2)
    (line,) = _compare(rows)
    assert line.overall.mean == pytest.approx(1.0)
    assert line.overall.outcome == "tie" and line.overall.over == "pretrainings, settings"


def test_the_level_is_said_of_files_too_and_mixed_levels_are_refused():
    rows = [*_method("a", METHODS["a"]), *seeds([80.0, 81.0], checkpoint="b", pretraining="b")]
    with pytest.raises(
        ValueError, match=r"a is a method of 3 pretrainings, and b is one checkpoint.*'a seed 0'"
    ):
        _compare(rows)
    lines = _compare(rows, "a seed 0", "b")
    assert lines[0].level == "checkpoints"
    assert "Compared: checkpoints, one pretraining each." in to_text(lines, "a seed 0", "b")


def test_the_error_over_the_images_is_added_to_that_over_seeds():
    a, b = [92.0, 92.1, 92.2], [90.0, 90.15, 90.2]  # certain over seeds
    (alone,) = _compare(_both(a, b))
    assert (alone.overall.over, alone.overall.outcome) == ("seeds", "a")
    (line,) = _compare(_both(a, b, stderr=1.2))
    assert (line.overall.over, line.overall.outcome) == ("seeds, images unpaired", "tie")
    assert line.overall.mean == alone.overall.mean
    error = np.hypot(1.2, 1.2)
    assert line.overall.high - line.overall.mean > 1.96 * error


def test_settings_of_a_single_pretraining_are_no_comparison_of_methods():
    rows = [x for name, values in METHODS.items() for x in _method(name, values)]
    for name in "ab":
        rows += _method(name, [[70.0, 71.0]], protocol="finetune")
    lines = _compare(rows)
    assert {line.overall.protocol for line in lines} == {"linear"}
