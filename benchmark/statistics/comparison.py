"""Compare two checkpoints, or two ways to train a detector: paired differences with intervals.

A *setting* is everything a number depends on except the subject compared, the seed and the precision: a
data set under a protocol, and whatever else both sides share. In each setting A and B are paired

- over seeds, if there are several whose differences vary, and the test images, whose errors add up, or
- over the test images of a single seed (McNemar's exact test, or halves of the images), if the files
  exist; otherwise by the standard errors over these images, as if they were two samples.

Two names that each stand for several pretrainings are compared as *methods*: over pretrainings, each with
the mean over its own scoring seeds, and the test images. All else compares files.

Settings that differ only in the data set make one *line* per precision. Its wins, losses and ties are
counted from tests corrected by Holm over the settings of the line, so the probability of any wrong count
in a line is at most 5 %. Its mean is over the settings, each counting once, and its p-value is corrected
over the precisions, as is that of a line with a single setting.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lowbit.benchmark.results.comparability import (
    BOARD,
    MEASURED,
    precision_rank,
    protocol_rank,
    rankable,
)
from lowbit.benchmark.statistics.answered_images import AnsweredImages
from lowbit.benchmark.statistics.method_comparison import (
    COUNTED,
    compare_setting,
    compare_settings,
    pair_methods,
    pretrainings,
)
from lowbit.benchmark.statistics.paired_predictions import Scored, compare_images
from lowbit.benchmark.statistics.ranking import (
    ALPHA,
    Sample,
    Summary,
    add_errors,
    holm,
    image_variance,
    paired_difference,
)
from lowbit.common.suggest import did_you_mean

# What else must agree for two rows to form a pair, by what is compared.
_ALIKE = {
    "checkpoint": ("training", "policy_fingerprint"),
    "training": ("checkpoint", "architecture"),
}
_OF_DATA_SET = ("dataset", "split_sha256", "image_size")
_UNKNOWN = (math.nan, 1, math.nan, math.nan)
_HEADS = {"top1": 0, "AP": 0}  # a task's main metric comes first

Level = Literal["methods", "checkpoints", "training"]
Outcome = Literal["a", "b", "tie", "untested"]


@dataclass(frozen=True)
class Difference:
    """A minus B in one metric, in percentage points, and how it was tested.

    Attributes:
        dataset, protocol, precision, alike: where, and what else both sides share (the training of the
            detectors, or the checkpoint); "all" in a difference over several.
        metric: whose values these are.
        over: what the test is over: "seeds", "pretrainings", "images" that both sides answered or are
            "unpaired", several of these, or "settings", each counting once with its mean difference; ""
            where there is no test.
        n: how many of the first of these; of pretrainings, the fewer side's.
        a, b: the means of both sides over the pairs.
        mean, low, high: of the difference, with its 95 % interval; NaN where it is unknown.
        p: two-sided p-value of no difference.
        adjusted: the same, corrected over its family.
    """

    dataset: str
    protocol: str
    precision: str
    alike: str
    metric: str
    over: str
    n: int
    a: float
    b: float
    mean: float
    low: float
    high: float
    p: float
    adjusted: float

    @property
    def outcome(self) -> Outcome:
        """The side found better."""
        if np.isnan(self.adjusted):
            return "untested"
        return "tie" if self.adjusted > ALPHA else "a" if self.mean > 0 else "b"


@dataclass(frozen=True)
class Line:
    """The comparison at one precision over settings that differ only in the data set.

    Attributes:
        settings: one difference each, corrected over them.
        overall: over the settings, corrected over the precisions; a single setting is its own.
        level: what was compared: "methods" over their pretrainings, "checkpoints", one file each, or "training".
    """

    settings: tuple[Difference, ...]
    overall: Difference
    level: Level = "checkpoints"

    def count(self, outcome: Outcome) -> int:
        """Return how many settings have an outcome."""
        return sum(setting.outcome == outcome for setting in self.settings)


def compare(
    frame: pd.DataFrame, a: str, b: str, *, by: str = "checkpoint", runs_dir: Path | None = None
) -> list[Line]:
    """Pair every number of `a` with the number of `b` that is otherwise alike.

    Args:
        frame: a normalized results frame.
        a: a method's or a checkpoint's name (or, with `by="training"`, a way to train a detector).
        b: another.
        by: the column that `a` and `b` are names in.
        runs_dir: where the jobs' predictions and detections are; None: no test is over shared images.

    Returns:
        The lines, in the order of tasks, metrics, protocols and precisions.

    Raises:
        ValueError: a name is unknown, the two are one, or nothing of them can be paired.
    """
    scores = frame[rankable(frame)]
    several = [pretrainings(scores, name) > 1 for name in (a, b)]
    known = {*scores[by], *(scores["pretraining"] if by == "checkpoint" else ())} - {"-"}
    known = sorted(known)
    for name in (a, b):
        if name not in known:
            hint = did_you_mean(name, known) or f" There are: {', '.join(known) or 'none'}."
            raise ValueError(f"no {by} {name!r} has results; nothing was compared.{hint}")
    if a == b:
        raise ValueError(f"{a} cannot be compared with itself; nothing was compared. Name another.")
    level = "training" if by == "training" else "methods" if all(several) else "checkpoints"
    if by == "checkpoint" and any(several) and not all(several):
        many, one = (a, b) if several[0] else (b, a)
        raise ValueError(
            f"{many} is a method of {pretrainings(scores, many)} pretrainings, and {one} is one "
            "checkpoint, whose spread over pretrainings is not known; nothing was compared. Compare it "
            f"with one of them, as {sorted(scores.loc[scores['pretraining'] == many, by])[0]!r}, or give "
            f"{one} several `pretrain_seeds`."
        )
    pairs = _pairs(scores, a, b, by, level)
    if pairs.empty:
        raise ValueError(
            f"{a} and {b} have no result that differs in the {by} alone (same data set and split, "
            "protocol, image size, engine, policy, precision, metric and seed); nothing was compared. "
            "Run both in one suite."
        )
    return list(_lines(pairs, by, _Files(runs_dir), level))


@dataclass(frozen=True)
class _Files:
    """Where the jobs' files are; None: nowhere."""

    runs_dir: Path | None

    @cached_property
    def answers(self) -> AnsweredImages | None:
        return AnsweredImages(self.runs_dir) if self.runs_dir else None


def _pairs(scores: pd.DataFrame, a: str, b: str, by: str, level: str) -> pd.DataFrame:
    """Return one row per pair: the setting, its precision, metric and seed, and both sides.

    Numbers measured here take precedence over submitted ones.
    """
    setting = [*(column for column in BOARD if column not in _ALIKE[by]), *_ALIKE[by]]
    if level == "methods":
        pairs = pair_methods(scores, a, b, [*setting, "precision", "metric"])
        return _described(pairs, setting, by)
    key = [*setting, "precision", "metric", "seed"]
    found = {"value": "mean", "stderr": "mean", "n": "first", "job_id": ["first", "nunique", tuple]}
    sides = []
    for name, side in ((a, "a"), (b, "b")):
        rows = scores[scores[by] == name]
        own = rows["source"] == MEASURED
        measured = own.groupby([rows[column] for column in key], dropna=False).transform("any")
        rows = rows[own | ~measured].groupby(key, dropna=False).agg(found)
        rows.columns = [f"{side}_{'_'.join(column)}" for column in rows.columns]
        sides.append(rows)
    return _described(pd.concat(sides, axis=1, join="inner").reset_index(), setting, by)


def _described(pairs: pd.DataFrame, setting: Sequence[str], by: str) -> pd.DataFrame:
    pairs["setting"] = list(pairs[setting].itertuples(index=False, name=None))
    pairs["alike"] = pairs[_ALIKE[by][0]]
    return pairs


def _lines(pairs: pd.DataFrame, by: str, files: _Files, level: str) -> Iterator[Line]:
    # Checkpoints are compared under one training at a time; ways to train, over all checkpoints.
    shared = [column for column in BOARD if column in pairs and column not in _OF_DATA_SET]
    shared += _ALIKE[by] if by == "checkpoint" else ()
    families = list(pairs.groupby(["task", "metric", *shared], sort=True))
    for _, family in sorted(families, key=_order):
        lines = [
            _line(rows, files, level)
            for _, rows in sorted(
                family.groupby("precision", sort=False), key=lambda g: precision_rank(g[0])
            )
        ]
        overall = _corrected([line.overall for line in lines])
        for line, difference in zip(lines, overall, strict=True):
            alone = len(line.settings) == 1
            yield Line((difference,) if alone else line.settings, difference, level)


def _order(family: tuple) -> tuple:
    first = family[1].iloc[0]
    metric = first["metric"]
    return (first["task"], _HEADS.get(metric, 1), metric, protocol_rank(first["protocol"]))


def _line(rows: pd.DataFrame, files: _Files, level: str) -> Line:
    test = _method_setting if level == "methods" else _setting
    settings = _corrected([test(part, files) for _, part in rows.groupby("setting", sort=True)])
    if len(settings) == 1:
        return Line(settings, settings[0])
    a, b = ([getattr(setting, side) for setting in settings] for side in ("a", "b"))
    found = paired_difference(a, b)
    where = {
        name: _only([getattr(setting, name) for setting in settings])
        for name in ("dataset", "protocol", "precision", "alike", "metric")
    }
    ends = (found.low, found.high) if found.varies else (np.nan, np.nan)
    tested = {"over": "settings", "n": found.n, "low": ends[0], "high": ends[1], "p": found.p}
    if level == "methods":
        over, p = compare_settings(rows) or (Summary(found.mean, *_UNKNOWN), math.nan)
        tested |= {"over": "pretrainings, settings", "low": over.low, "high": over.high, "p": p}
    means = {"a": float(np.mean(a)), "b": float(np.mean(b)), "mean": found.mean}
    return Line(settings, Difference(**where, **tested, **means, adjusted=tested["p"]))


def _method_setting(pairs: pd.DataFrame, files: _Files) -> Difference:
    (pair,) = (row for _, row in pairs.iterrows())
    found, p, over = compare_setting(pair, files.answers)
    return Difference(
        **{name: pair[name] for name in ("dataset", "protocol", "precision", "alike", "metric")},
        over="" if math.isnan(p) else over,
        n=min(len(pair[side].values) for side in "ab"),
        a=pair["a"].mean,
        b=pair["b"].mean,
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=p,
        adjusted=p,
    )


def _setting(pairs: pd.DataFrame, files: _Files) -> Difference:
    """Test one setting's difference at one precision; `pairs` are its seeds."""
    first = pairs.iloc[0]
    names = ("dataset", "protocol", "precision", "alike", "metric")
    found = paired_difference(pairs["a_value_mean"], pairs["b_value_mean"])
    difference = Difference(
        **{name: first[name] for name in names},
        over="seeds",
        n=found.n,
        a=float(pairs["a_value_mean"].mean()),
        b=float(pairs["b_value_mean"].mean()),
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        adjusted=found.p,
    )
    if found.varies:
        return _with_images(difference, found, pairs, files)
    runs_dir = files.runs_dir
    unknown = replace(difference, over="", low=np.nan, high=np.nan)
    if first["a_job_id_nunique"] > 1 or first["b_job_id_nunique"] > 1:
        runs_dir = None  # a mean of several jobs has no predictions of its own
    tested = compare_images(_scored(first, "a"), _scored(first, "b"), runs_dir)
    if tested is None:
        return unknown
    test, paired = tested
    return replace(
        unknown,
        over="images" if paired else "images, unpaired",
        n=0 if pd.isna(first["a_n_first"]) else int(first["a_n_first"]),
        low=test.low,
        high=test.high,
        p=test.p,
        adjusted=test.p,
    )


def _with_images(
    difference: Difference, found: Summary, pairs: pd.DataFrame, files: _Files
) -> Difference:
    """Add the error over the test images to that over seeds, where it is known."""
    first, sides = pairs.iloc[0], []
    for side in "ab":
        value = float(pairs[f"{side}_value_mean"].mean())
        facts = {name: first[name] for name in ("metric", "precision", "split")}
        jobs = tuple(pairs[f"{side}_job_id_tuple"])
        answered = files.answers and files.answers.deviations(jobs, value=value, **facts)
        stderr = float(pairs[f"{side}_stderr_mean"].mean())
        deviations = (answered.values, answered.answered) if answered else (None, "")
        images = 0 if pd.isna(first[f"{side}_n_first"]) else int(first[f"{side}_n_first"])
        unit = 100 / images if images and first["metric"] in COUNTED else 0.0
        sides.append(Sample((value,), stderr, images, *deviations, unit))
    images = float(image_variance(sides)(slice(0, 1))[0, 1])
    if math.isnan(images):
        return difference
    count = min(side.images or math.inf for side in sides)
    summed, p = add_errors(found.mean, found.sd**2 / found.n, found.n - 1, images, count)
    paired = sides[0].answered and sides[0].answered == sides[1].answered
    over = "seeds, images" if paired else "seeds, images unpaired"
    return replace(difference, over=over, low=summed.low, high=summed.high, p=p, adjusted=p)


def _scored(pair: pd.Series, side: str) -> Scored:
    return Scored(
        job_id=pair[f"{side}_job_id_first"],
        value=float(pair[f"{side}_value_mean"]),
        stderr=float(pair[f"{side}_stderr_mean"]),
        **{name: pair[name] for name in ("metric", "precision", "split")},
    )


def _corrected(family: Sequence[Difference]) -> tuple[Difference, ...]:
    """Correct the p-values of a family by Holm; untested differences do not belong to it."""
    tested = [difference for difference in family if not np.isnan(difference.p)]
    adjusted = iter(holm([difference.p for difference in tested]).tolist())
    return tuple(d if np.isnan(d.p) else replace(d, adjusted=next(adjusted)) for d in family)


def _only(values: Sequence[str]) -> str:
    found = set(values)
    return found.pop() if len(found) == 1 else "all"
