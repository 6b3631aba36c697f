"""Methods: the checkpoints of one pretraining recipe, folded over its seeds.

A checkpoint is one pretraining, and says what that file does. A method is what its pretrainings share, so
its spread is over them: scoring seeds are nested in pretrainings, each of which counts once with the mean
over its own. With equally many scoring seeds that is the analysis of variance of the nested design, and
the interval is that of a mixed model whose random effects are the pretrainings. A method with a single
pretraining has a number and no rank.
"""

import math

import numpy as np
import pandas as pd

from lowbit.benchmark.leaderboard.aggregation.dataset_means import (
    FAMILY,
    Average,
    best_first,
    family_order,
    names_of_data_sets,
    shared_data_sets,
)
from lowbit.benchmark.leaderboard.aggregation.rank_columns import rank_columns
from lowbit.benchmark.leaderboard.labels import PRETRAININGS
from lowbit.benchmark.leaderboard.table_parts import Cell
from lowbit.benchmark.results.comparability import SUBJECT, precision_rank, shown
from lowbit.benchmark.results.result_file import PRETRAINING, ROUNDING
from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.benchmark.statistics.ranking import rank_groups, sample_over_sets, summarize

_OF_METHOD = (PRETRAINING, *(column for column in SUBJECT if column != "checkpoint"))
_COLUMN = ("group", "precision", "metric")


def fold_methods(folded: pd.DataFrame, answers: AnsweredImages | None = None) -> pd.DataFrame:
    """Fold checkpoints to one row a (method, board, precision, metric), in the order of the boards.

    Args:
        folded: results folded over scoring seeds, see `fold_seeds`.
        answers: of their jobs to the test images, to pair methods by; None: none is paired.

    The columns are those of `folded`, `checkpoint` being the method's name, with

    - value, sd, low, high: mean over pretrainings, their standard deviation and Student's interval;
    - n_seeds: pretrainings; scorings, scoring_sd: the fewest scoring seeds of one, and the standard
      deviation over them within pretrainings;
    - rank: among methods with several pretrainings, 0 for the others.

    Empty where no method has several pretrainings; boards of such methods alone are left out.
    """
    rows = folded[shown(folded)]
    groups = rows.groupby([*_OF_METHOD, *_COLUMN], sort=False, dropna=False)
    several = groups["checkpoint"].transform("nunique") > 1
    rows = rows[rows["group"].isin(rows.loc[several, "group"])]
    found, values = [], []
    for _, part in rows.groupby([*_OF_METHOD, *_COLUMN], sort=False, dropna=False):
        found.append(part.iloc[0].to_dict() | _fold(part))
        values.append(tuple(part["value"]))
    methods = pd.DataFrame(found, columns=[*folded.columns, "scorings", "scoring_sd"])
    methods["checkpoint"] = methods[PRETRAINING]
    ranked = methods["n_seeds"] > 1
    methods["rank"] = rank_columns(methods, values, answers, among=ranked & shown(methods))
    return methods


def _fold(part: pd.DataFrame) -> dict[str, object]:
    """Return what a method has for itself; `part` are its checkpoints in one column."""
    over = summarize(part["value"])
    within = part["sd"].to_numpy(dtype=float)
    freedom = part["n_seeds"].to_numpy() - 1
    pooled = np.nansum(within**2 * freedom) / freedom.sum() if freedom.sum() else math.nan
    alone = over.n == 1
    ends = part[["low", "high"]].iloc[0] if alone else (over.low, over.high)
    images = set(part["n"])
    return {
        "value": over.mean,
        "sd": over.sd,
        "low": ends[0] if not alone else ends["low"],
        "high": ends[1] if not alone else ends["high"],
        "interval": part["interval"].iloc[0] if alone else PRETRAININGS,
        "warning": part["warning"].iloc[0] if alone else "",
        "stderr": part["stderr"].mean(),
        "n_seeds": over.n,
        "n_jobs": over.n + int((part["n_jobs"] - part["n_seeds"]).sum()),  # more: some share a seed
        "n": images.pop() if len(images) == 1 else 0,
        "jobs": tuple(part["jobs"]),
        "zero_shot": bool(part["zero_shot"].any()),
        ROUNDING: part[ROUNDING].max(),
        "reason": "; ".join(sorted({*part["reason"]} - {""})),
        "scorings": int(part["n_seeds"].min()),
        "scoring_sd": math.sqrt(pooled) if not math.isnan(pooled) else math.nan,
    }


def mean_over_data_sets(folded: pd.DataFrame, methods: pd.DataFrame) -> list[Average]:
    """Return the means of methods over data sets, a table a family, metric and set of data sets.

    A pretraining shares its effect on all data sets: each counts once, with its mean over them. The
    interval is over the pretrainings. Ranks add the spread over pretrainings to that of the paired
    differences over the data sets, which has the test images' in it.
    """
    tables: dict[tuple, Average] = {}
    rows = folded[shown(folded) & folded["group"].isin(methods["group"])]
    for key, family in sorted(
        rows.groupby([*FAMILY, "metric"], sort=False), key=lambda item: family_order(item[0])
    ):
        names = names_of_data_sets(family)
        by_precision = family.groupby("precision", sort=False)
        for precision, part in sorted(by_precision, key=lambda item: precision_rank(item[0])):
            _add(tables, key, precision, part, names)
    return [best_first(table) for table in tables.values()]


def _add(tables: dict, key: tuple, precision: str, rows: pd.DataFrame, names: dict) -> None:
    numbers = {
        method: part.pivot_table(index="checkpoint", columns="group", values="value", sort=False)
        .reindex(columns=list(names))
        .to_numpy()  # (pretrainings, data sets)
        for method, part in rows.groupby(list(_OF_METHOD), sort=False, dropna=False)
    }
    numbers = {method: found for method, found in numbers.items() if len(found) > 1}
    if not numbers:
        return
    has = np.array([~np.isnan(found).any(axis=0) for found in numbers.values()])
    chosen = shared_data_sets(has)
    if chosen.sum() < 2:
        return
    labels = tuple(np.array(list(names.values()))[chosen].tolist())
    full = {
        method: found[:, chosen]
        for method, found in numbers.items()
        if not np.isnan(found[:, chosen]).any()
    }
    table = tables.setdefault(
        (key, *labels),
        Average(dict(zip(FAMILY, map(str, key), strict=False)), key[-1], labels, {}),
    )
    ranks = rank_groups([sample_over_sets(found) for found in full.values()])
    for (method, found), rank in zip(full.items(), ranks, strict=True):
        over = summarize(found.mean(axis=1))
        table.means.setdefault(method, {})[precision] = Cell(
            value=over.mean,
            sd=over.sd,
            low=over.low,
            high=over.high,
            interval=PRETRAININGS,
            n_seeds=over.n,
            n_jobs=over.n,
            rank=rank,
            best=rank == 1 < max(ranks),
        )
