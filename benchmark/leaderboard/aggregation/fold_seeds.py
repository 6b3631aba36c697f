"""Fold the results frame over seeds: one row per number of the board, with its spread and rank."""

import math
import string
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from lowbit.benchmark.leaderboard.aggregation.rank_columns import rank_columns
from lowbit.benchmark.results.comparability import (
    BOARD,
    OWN,
    PUBLISHED,
    SUBJECT,
    precision_rank,
    protocol_rank,
    shown,
)
from lowbit.benchmark.results.result_file import (
    ADAPTIVE,
    INTERVAL,
    PRETRAIN_SEED,
    PRETRAINING,
    ROUNDING,
    WARNING,
)
from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.benchmark.statistics.ranking import half_width
from lowbit.export.latency import QUARTILES

SEEDS, IMAGES, ROUNDS = "seeds", "images", "rounds"  # what an interval is over

# ADAPTIVE follows from the protocol, INTERVAL from the metric, PRETRAINING and its seed from the checkpoint:
# they are carried along.
_KEY = (
    *SUBJECT,
    PRETRAINING,
    PRETRAIN_SEED,
    *BOARD,
    *ADAPTIVE,
    INTERVAL,
    "precision",
    "metric",
    "unit",
    *PUBLISHED,
    "status",
)
# The key in the order that rows are sorted by, after own before published.
_ORDER = (*BOARD, *SUBJECT, "precision", "metric", "status", "unit", *PUBLISHED)
_RANKED_BY: dict[str, Callable[[str], Any]] = {
    "protocol": protocol_rank,
    "precision": precision_rank,
    "source": lambda source: (*OWN, source).index(source),
}


def fold_seeds(frame: pd.DataFrame, answers: AnsweredImages | None = None) -> pd.DataFrame:
    """Fold a normalized frame to one row a (subject, board, precision, metric), in a stable order.

    Args:
        frame: normalized results.
        answers: of the same jobs to the test images, to pair rows by; None: no row is paired.

    Columns: SUBJECT, PRETRAINING, BOARD, precision, metric, unit, paper, table, notes, printed, status, reason, and

    - value, sd: mean over seeds, standard deviation;
    - low, high: 95 % interval, and `interval` says over what: "seeds", Student's of the mean, or where no
      two seeds differ "images", the one over the test images if the jobs left one, else ""; of a timing
      "rounds", the quartiles of its rounds, meaned over the jobs;
    - warning: why an interval over images may be too narrow, "" where nothing speaks for that;
    - stderr: standard error over the test images. Seeds answer the same images, so more of them do
      not make it smaller: the mean over jobs, which the error of their mean cannot exceed;
    - n_seeds, n_jobs: they differ when several jobs share a seed (two recipes under one label); such
      jobs are averaged first so that no seed counts twice;
    - rounding: largest share of predictions, in %, that rounding decides in one of the jobs;
    - jobs: ids of the jobs, of each seed a tuple;
    - n: images behind a value; zero_shot: whether any job was not trained at this precision;
    - group: the board's letter; rank: see `rank_groups`, of checkpoints: each is one pretraining; 0 when
      the row is not ranked.

    Jobs that gave no number are folded too, their reasons joined, with n_seeds 0.
    """
    order = [_positions(~frame["source"].isin(OWN))]
    order += [_positions(frame[column], _RANKED_BY.get(column)) for column in _ORDER]
    seed = frame["seed"].astype("Float64").fillna(-1).to_numpy(dtype=np.int64)
    rows = np.lexsort([seed, *reversed(order)])
    frame, seed = frame.iloc[rows], seed[rows]
    groups = _starts([positions[rows] for positions in order])
    folded = frame[list(_KEY)].iloc[groups].reset_index(drop=True)
    values = _fold(frame, seed, groups, folded)
    folded["group"] = _letters(folded)
    folded["rank"] = rank_columns(folded, values, answers)
    return folded


def _positions(values: pd.Series, key: Callable[[str], Any] | None = None) -> np.ndarray:
    """Return each value's place among the different ones in order."""
    codes, found = pd.factorize(values)
    order = sorted(range(len(found)), key=lambda i: key(found[i]) if key else found[i])
    places = np.empty(len(found), dtype=np.int64)
    places[order] = np.arange(len(found))
    return places[codes]


def _starts(columns: list[np.ndarray]) -> np.ndarray:
    """Return where runs of rows start that agree in all columns."""
    rows = len(columns[0])
    differs = np.zeros(rows, dtype=bool)
    differs[:1] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(differs)


def _fold(
    frame: pd.DataFrame, seed: np.ndarray, groups: np.ndarray, folded: pd.DataFrame
) -> np.ndarray:
    """Fill in the columns of groups of rows that lie together; return each group's means by seed."""
    group = _labels(groups, len(frame))
    number = (folded["status"] == "completed").to_numpy()
    measured = number & folded["source"].isin(OWN).to_numpy()
    assert (np.bincount(group, minlength=len(groups))[number & ~measured] == 1).all()

    def mean(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return _sums(values, starts) / np.diff([*starts, len(values)])

    of_seed = _starts([group, seed])  # two jobs of one seed do not count as two seeds
    by_seed = mean(frame["value"].where(np.isfinite(frame["value"])).to_numpy(), of_seed)
    seeds = np.searchsorted(of_seed, groups)
    n = np.diff([*seeds, len(of_seed)])
    least, most = np.minimum.reduceat(by_seed, seeds), np.maximum.reduceat(by_seed, seeds)
    value = np.where(least == most, least, mean(by_seed, seeds))
    squares = _sums((by_seed - value[_labels(seeds, len(by_seed))]) ** 2, seeds)
    several = measured & (n > 1)
    sd = np.sqrt(squares / np.where(several, n - 1, np.nan))
    half = half_width(sd, n)
    timed = (folded[INTERVAL] == QUARTILES).to_numpy()
    differ = several & (least < most) & ~timed
    low, high, stderr = (
        np.where(measured, mean(frame[column].to_numpy(), groups), np.nan)
        for column in ("image_low", "image_high", "stderr")
    )
    known = np.where(np.isnan(low) | np.isnan(high), "", np.where(timed, ROUNDS, IMAGES))
    folded["reason"] = _joined(frame["reason"], group, len(groups))
    folded["zero_shot"] = number & np.logical_or.reduceat(frame["zero_shot"].to_numpy(), groups)
    folded["value"] = np.where(number, value, np.nan)
    folded["sd"] = sd
    folded["low"] = np.where(differ, value - half, low)
    folded["high"] = np.where(differ, value + half, high)
    folded["interval"] = np.where(differ, SEEDS, known).astype(object)
    warning = _joined(frame[WARNING], group, len(groups))
    folded["warning"] = np.where(folded["interval"] == IMAGES, warning, "").astype(object)
    folded["stderr"] = stderr
    folded[ROUNDING] = np.fmax.reduceat(frame[ROUNDING].to_numpy(), groups)
    folded["jobs"] = _jobs(frame["job_id"], of_seed, seeds)
    folded["n_seeds"] = np.where(measured, n, 0)
    folded["n_jobs"] = np.where(number & ~measured, 0, _different(frame["job_id"], group))
    folded["n"] = np.where(measured, _common(frame["n"], groups), 0)
    return np.array_split(by_seed, seeds[1:])


def _jobs(job_id: pd.Series, of_seed: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the ids behind each group of seeds: a tuple a seed."""
    listed = job_id.tolist()
    by_seed = [tuple(listed[a:b]) for a, b in pairwise([*of_seed.tolist(), len(listed)])]
    found = np.empty(len(seeds), dtype=object)
    for at, (a, b) in enumerate(pairwise([*seeds.tolist(), len(by_seed)])):
        found[at] = tuple(by_seed[a:b])
    return found


def _labels(starts: np.ndarray, rows: int) -> np.ndarray:
    """Return for each row which run it is in."""
    return np.repeat(np.arange(len(starts)), np.diff([*starts, rows]))


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    # fsum: the same sums in whatever order the result files were read
    runs = pairwise([*starts.tolist(), len(values)])
    listed = values.tolist()
    return np.array([math.fsum(listed[a:b]) for a, b in runs], dtype=float)


def _common(values: pd.Series, groups: np.ndarray) -> np.ndarray:
    """Return what the known values of each group agree on, 0 where they do not."""
    known = values.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    least, most = np.fmin.reduceat(known, groups), np.fmax.reduceat(known, groups)
    return np.where(least == most, least, 0).astype(int)


def _different(values: pd.Series, group: np.ndarray) -> np.ndarray:
    """Return how many different values each group has."""
    codes, found = pd.factorize(values)
    pairs = np.unique(group * len(found) + codes)
    return np.bincount(pairs // max(len(found), 1), minlength=group[-1] + 1 if len(group) else 0)


def _joined(texts: pd.Series, group: np.ndarray, groups: int) -> np.ndarray:
    """Join the different texts of each group."""
    joined = np.full(groups, "", dtype=object)
    given = (texts != "").to_numpy()
    for index, found in texts[given].groupby(group[given]):
        joined[index] = "; ".join(sorted(set(found)))
    return joined


def _letters(folded: pd.DataFrame) -> pd.Series:
    """Name every board A, B, ... in the order of the rows; "-" for what stands on none."""
    letters = pd.Series("-", index=folded.index, dtype=object)
    on_board = shown(folded)
    boards = folded[on_board].groupby(list(BOARD), sort=False).ngroup()
    letters[on_board] = boards.map(_letter)
    return letters


def _letter(index: int) -> str:
    letter = string.ascii_uppercase[index % 26]
    return letter if index < 26 else _letter(index // 26 - 1) + letter
