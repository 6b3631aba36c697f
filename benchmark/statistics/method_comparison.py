"""Compare two methods over their pretrainings, in the settings that both were scored in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lowbit.benchmark.results.comparability import MEASURED
from lowbit.benchmark.statistics.answered_images import AnsweredImages, Jobs
from lowbit.benchmark.statistics.ranking import Sample, Summary, compare_samples, sample_over_sets

COUNTED = ("top1", "mean_per_class")  # metrics that count right answers


@dataclass(frozen=True)
class Scores:
    """A method's scores in one setting, at one precision and metric.

    Attributes:
        values: by pretraining, the mean over its scoring seeds.
        jobs: their jobs, of each pretraining and seed a tuple.
        stderr, images: over the test images.
    """

    values: dict[str, float]
    jobs: Jobs
    stderr: float
    images: int

    @property
    def mean(self) -> float:
        """The mean over pretrainings."""
        return float(np.mean(list(self.values.values())))


def pretrainings(scores: pd.DataFrame, name: str) -> int:
    """Return how many pretrainings of a method have scores."""
    return int(scores.loc[scores["pretraining"] == name, "checkpoint"].nunique())


def pair_methods(scores: pd.DataFrame, a: str, b: str, key: Sequence[str]) -> pd.DataFrame:
    """Return one row per pair: the columns of `key`, and the Scores of both sides as `a` and `b`.

    Numbers measured here take precedence over submitted ones. Where either has a single pretraining
    there is no pair: that would compare files.
    """
    sides = []
    for name, side in ((a, "a"), (b, "b")):
        rows = scores[scores["pretraining"] == name]
        own = rows["source"] == MEASURED
        measured = own.groupby([rows[column] for column in key], dropna=False).transform("any")
        groups = rows[own | ~measured].groupby(list(key), dropna=False, sort=True)
        found = {place: _scores(part) for place, part in groups if part["checkpoint"].nunique() > 1}
        places = zip(*found, strict=True) if found else [()] * len(key)
        index = pd.MultiIndex.from_arrays([*map(list, places)], names=list(key))
        sides.append(pd.Series(list(found.values()), index=index, dtype=object, name=side))
    return pd.concat(sides, axis=1, join="inner").reset_index()


def _scores(rows: pd.DataFrame) -> Scores:
    values, jobs = {}, []
    for checkpoint, part in rows.groupby("checkpoint", sort=True):
        by_seed = part.groupby("seed", sort=True, dropna=False)
        values[str(checkpoint)] = float(by_seed["value"].mean().mean())
        jobs.append(tuple(tuple(seed["job_id"]) for _, seed in by_seed))
    images = rows["n"].dropna()
    n = int(images.iloc[0]) if images.nunique() == 1 else 0
    return Scores(values, tuple(jobs), float(rows["stderr"].mean()), n)


def compare_setting(row: pd.Series, answers: AnsweredImages | None) -> tuple[Summary, float, str]:
    """Test a - b in one setting; return the difference, its p-value and what it is over."""
    sides = [_sample(row, row[side], answers) for side in "ab"]
    found, p = compare_samples(*sides)
    same = sides[0].answered and sides[0].answered == sides[1].answered
    return found, p, "pretrainings, images" if same else "pretrainings, images unpaired"


def _sample(row: pd.Series, scores: Scores, answers: AnsweredImages | None) -> Sample:
    facts = {name: row[name] for name in ("metric", "precision", "split")}
    found = answers and answers.deviations(scores.jobs, value=scores.mean, **facts)
    unit = 100 / scores.images if row["metric"] in COUNTED and scores.images else 0.0
    return Sample(
        tuple(scores.values.values()),
        stderr=scores.stderr,
        images=scores.images,
        deviations=found.values if found else None,
        answered=found.answered if found else "",
        unit=unit,
    )


def compare_settings(rows: pd.DataFrame) -> tuple[Summary, float] | None:
    """Test a - b over settings together; None where a side has not two pretrainings in all of them."""
    sides = [list(_complete(rows[side])) for side in "ab"]
    if min(map(len, sides)) < 2:
        return None
    return compare_samples(*(sample_over_sets(np.array(side)) for side in sides))


def _complete(scores: Sequence[Scores]) -> Iterator[list[float]]:
    """Yield each pretraining's values in all settings, of those that have all."""
    scores = list(scores)
    for name in scores[0].values:
        if all(name in each.values for each in scores):
            yield [each.values[name] for each in scores]
