"""Methods over their pretrainings: nested means, intervals and ranks, and how every format shows them."""

import csv
import io
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.aggregation.methods import fold_methods, mean_over_data_sets
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.leaderboard.text_formats import (
    methods_to_csv,
    to_csv,
    to_latex,
    to_markdown,
)
from lowbit.benchmark.results.comparability import normalize
from tests.benchmark.board_frames import row

SCORES = {  # method -> pretraining -> scoring seeds
    "SSQL": ([93.0, 93.4], [92.0, 92.6], [94.1, 94.3]),
    "SimSiam": ([80.0, 80.2], [81.0, 81.6], [79.0, 79.6]),
    "CQ-C": ([95.0, 95.2],),
}


def _rows(scores=SCORES, **changes):
    for method, pretrainings in scores.items():
        for seed, values in enumerate(pretrainings):
            name = f"{method} seed {seed}" if len(pretrainings) > 1 else method
            for scoring, value in enumerate(values):
                yield row(
                    checkpoint=name, pretraining=method, pretrain_seed=seed, method=method,
                    seed=scoring, value=value, job_id=f"{name}{scoring}{changes.get('dataset', '')}",
                    **({"stderr": 0.5} | changes),
                )  # fmt: skip


def _folded(rows):
    folded = fold_seeds(normalize(pd.DataFrame(list(rows))))
    return folded, fold_methods(folded).set_index("checkpoint")


def test_a_method_s_interval_is_over_its_pretrainings_each_with_the_mean_of_its_seeds():
    _, found = _folded(_rows())
    means = [np.mean(values) for values in SCORES["SSQL"]]
    interval = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
    ssql = found.loc["SSQL"]
    assert (ssql["value"], ssql["sd"]) == pytest.approx((np.mean(means), np.std(means, ddof=1)))
    assert (ssql["low"], ssql["high"], ssql["interval"]) == (
        *map(pytest.approx, interval),
        "pretrainings",
    )
    assert (ssql["n_seeds"], ssql["scorings"], ssql["n_jobs"]) == (3, 2, 3)
    within = math.sqrt(np.mean([np.var(values, ddof=1) for values in SCORES["SSQL"]]))
    assert ssql["scoring_sd"] == pytest.approx(within)


def test_the_interval_is_that_of_the_nested_mixed_model():
    from statsmodels.formula.api import mixedlm  # here: collecting the tests need not import it

    draw = np.random.default_rng(3)
    values = 90 + draw.normal(0, 2, (6, 1)) + draw.normal(0, 0.3, (6, 4))
    _, found = _folded(_rows({"A": values.tolist()}))
    long = pd.DataFrame({"value": values.ravel(), "pretraining": np.repeat(np.arange(6), 4)})
    model = mixedlm("value ~ 1", long, groups="pretraining").fit(reml=True)
    error = (found.loc["A", "high"] - found.loc["A", "value"]) / stats.t.ppf(0.975, 5)
    assert found.loc["A", "value"] == pytest.approx(model.params["Intercept"])
    assert error == pytest.approx(model.bse["Intercept"], rel=1e-3)


def test_many_scoring_seeds_do_not_stand_for_pretrainings():
    apart = {"A": [[90.0 + 0.01 * k for k in range(20)], [93.0] * 20]}
    apart["B"] = [[v + 1 for v in values] for values in apart["A"]]
    _, found = _folded(_rows(apart, stderr=0.01))
    assert list(found["rank"]) == [1, 1]
    assert found.loc["A", "high"] - found.loc["A", "low"] > 30  # two pretrainings, 3 points apart


def test_methods_are_ranked_and_a_single_pretraining_is_not():
    _, found = _folded(_rows())
    assert found["rank"].to_dict() == {"SSQL": 1, "SimSiam": 2, "CQ-C": 0}
    alone = found.loc["CQ-C"]
    assert (alone["n_seeds"], alone["value"]) == (1, 95.1) and math.isnan(alone["sd"])


def test_test_images_count_too():
    # pretrainings that agree to .1, and a lead of 1.5 that ten test images of 540 may make
    close = {"A": [[92.0], [92.1], [92.2]], "B": [[90.5], [90.6], [90.7]]}
    _, found = _folded(_rows(close, stderr=1.1))
    assert list(found["rank"]) == [1, 1]
    _, found = _folded(_rows(close, stderr=0.05, n=100_000))
    assert found["rank"].to_dict() == {"A": 1, "B": 2}


def test_boards_without_several_pretrainings_have_no_methods():
    _, found = _folded(_rows({"A": [[90.0]], "B": [[91.0]]}))
    assert found.empty
    rows = [*_rows(), *_rows({"A": [[90.0, 91.0]]}, dataset="pets", split_sha256="p" * 64)]
    assert set(_folded(rows)[1]["dataset"]) == {"digits"}


def test_what_was_sent_is_no_pretraining_of_a_method_measured_here():
    sent = [r | {"source": "verified"} for r in _rows() if r["pretrain_seed"] == 0]
    for r in sent:
        r["checkpoint"] += "@sent"
    _, found = _folded([*_rows(), *sent])
    assert list(found.loc["SSQL", "n_seeds"]) == [3, 1]


def test_a_mean_over_data_sets_has_one_value_a_pretraining():
    rows = list(_rows())
    for name, easier in (("pets", 5.0), ("dtd", 11.0)):
        shifted = {m: [[v - easier for v in p] for p in ps] for m, ps in SCORES.items()}
        rows += _rows(shifted, dataset=name, split_sha256=name * 16)
    folded, _ = _folded(rows)
    (table,) = mean_over_data_sets(folded, fold_methods(folded))
    assert sorted(table.datasets) == ["digits", "dtd", "pets"]
    cells = {subject[0]: cells["4w4a"] for subject, cells in table.means.items()}
    assert list(cells) == ["SSQL", "SimSiam"]  # best first; CQ-C has one pretraining
    means = [np.mean(values) - 16 / 3 for values in SCORES["SSQL"]]
    ssql = cells["SSQL"]
    assert (ssql.value, ssql.sd, ssql.n_seeds) == pytest.approx(
        (np.mean(means), np.std(means, ddof=1), 3)
    )
    # not narrower for more data sets: the pretrainings share their effect on all of them
    assert ssql.high - ssql.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * ssql.sd / math.sqrt(3))
    assert (ssql.rank, cells["SimSiam"].rank) == (1, 2)


def test_every_format_shows_methods_in_bold_and_files_in_italics():
    tables = Tables(normalize(pd.DataFrame(list(_rows()))))
    text = to_markdown(tables)
    assert "## Methods: A. Classification: digits, linear, top-1 (%)" in text
    assert "| SSQL | resnet10\\_slim | - | 3 | **93.2 ± 1.0** <sup>1</sup> |" in text
    assert "| SimSiam | resnet10\\_slim | - | 3 | 80.2 ± 1.0 <sup>2</sup> |" in text
    assert "| CQ-C | resnet10\\_slim | - | 1 | 95.1¶ |" in text
    assert "| SSQL seed 2 | SSQL | resnet10\\_slim | *94.2 ± 0.1* <sup>1</sup> |" in text
    latex = to_latex(tables)
    assert "\\textbf{93.2 $\\pm$ 1.0}$^{1}$" in latex and "95.1\\P{}" in latex
    rows = {r["method"]: r for r in csv.DictReader(io.StringIO(methods_to_csv(tables)))}
    assert (rows["SSQL"]["value"], rows["SSQL"]["n_pretrainings"], rows["SSQL"]["rank"]) == (
        "93.2333",
        "3",
        "1",
    )
    assert (rows["CQ-C"]["n_pretrainings"], rows["CQ-C"]["rank"], rows["CQ-C"]["interval"]) == (
        "1",
        "",
        "seeds",
    )
    files = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert {r["checkpoint"]: (r["pretraining"], r["pretrain_seed"]) for r in files}[
        "SSQL seed 1"
    ] == ("SSQL", "1")


def test_a_board_of_files_alone_says_so():
    only = Tables(normalize(pd.DataFrame(list(_rows({"A": [[90.0]], "B": [[50.0]]})))))
    assert "ranks say which file is better, not which method" in to_markdown(only)
    assert "ranks say which file is better" not in to_markdown(
        Tables(normalize(pd.DataFrame(list(_rows()))))
    )
