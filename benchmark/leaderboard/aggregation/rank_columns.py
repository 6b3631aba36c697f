"""Rank the rows of each column of a board: those of one group, precision and metric."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.benchmark.results.comparability import rankable
from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.benchmark.statistics.ranking import Sample, rank_groups

PROPORTIONS = ("top1",)  # metrics that count right answers, so that their images are a sample
_COUNTED = (*PROPORTIONS, "mean_per_class")


def rank_columns(
    rows: pd.DataFrame,
    values: Sequence[Sequence[float]],
    answers: AnsweredImages | None = None,
    *,
    among: pd.Series | None = None,
) -> np.ndarray:
    """Return the rank of each row, 0 where it is not ranked.

    Args:
        rows: with group, precision, metric, unit, split, value, stderr, n and jobs.
        values: of each row, one a seed.
        answers: of the rows' jobs, to pair them by.
        among: which rows are ranked; None: those that may be.
    """
    ranks = np.zeros(len(rows), dtype=int)
    ranked = np.flatnonzero(rankable(rows) if among is None else among)
    samples = dict(zip(ranked.tolist(), _samples(rows.iloc[ranked], values, ranked), strict=True))
    columns = rows.iloc[ranked].groupby(["group", "precision", "metric"], sort=False)
    for places in columns.indices.values():
        at = ranked[places]
        column = [samples[i] for i in at.tolist()]
        if answers is not None and len(at) > 1:
            column = [_paired(s, rows.iloc[i], answers) for i, s in zip(at, column, strict=True)]
        ranks[at] = rank_groups(column)
    return ranks


def _samples(rows: pd.DataFrame, values: Sequence, places: np.ndarray) -> list[Sample]:
    value, stderr = (rows[name].to_numpy(dtype=float) for name in ("value", "stderr"))
    images = rows["n"].to_numpy(dtype=float)
    percent = (rows["unit"] == "%").to_numpy() & (images > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        binomial = np.sqrt(value * (100 - value) / images)
        unit = np.where(percent & rows["metric"].isin(_COUNTED), 100 / images, 0.0)
    counted = percent & rows["metric"].isin(PROPORTIONS).to_numpy() & np.isnan(stderr)
    stderr = np.where(counted, binomial, stderr)
    facts = zip(places.tolist(), stderr.tolist(), images.tolist(), unit.tolist(), strict=True)
    return [Sample(tuple(values[i]), stderr=s, images=int(n), unit=u) for i, s, n, u in facts]


def _paired(sample: Sample, row: pd.Series, answers: AnsweredImages) -> Sample:
    found = answers.deviations(
        row["jobs"],
        value=row["value"],
        metric=row["metric"],
        precision=row["precision"],
        split=row["split"],
    )
    if found is None:
        return sample
    return Sample(
        sample.values,
        stderr=sample.stderr,
        images=found.images,
        deviations=found.values,
        answered=found.answered,
        unit=sample.unit,
    )
