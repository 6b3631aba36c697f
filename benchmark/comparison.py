"""Two checkpoints, or two ways to train a detector, side by side: paired differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from benchmark.comparability import BOARD, precision_rank, rankable
from benchmark.messages import did_you_mean
from benchmark.statistics import Summary, paired_difference

# What else must agree for two rows to be a pair, by what is compared.
_ALIKE = {
    "checkpoint": ("training", "policy_fingerprint"),
    "training": ("checkpoint", "architecture"),
}
COMPARED = tuple(_ALIKE)


@dataclass(frozen=True)
class Difference:
    """A minus B in one metric, and what was paired.

    Attributes:
        dataset, protocol, precision, alike: where, and what else both sides share (the training of the
            detectors, or the checkpoint); "all" in a line that spans several.
        metric: in percentage points.
        unit: what the sample consists of: "seeds" of one setting, or "settings" (a data set under a
            protocol, and what is alike), each counting once with its mean difference.
        a, b: the means of both sides over the pairs.
        summary: of the differences.
    """

    dataset: str
    protocol: str
    precision: str
    alike: str
    metric: str
    unit: str
    a: float
    b: float
    summary: Summary


def compare(frame: pd.DataFrame, a: str, b: str, *, by: str = "checkpoint") -> list[Difference]:
    """Pair every number of `a` with the number of `b` that differs in nothing else.

    Args:
        frame: a normalized results frame.
        a: a checkpoint's name (or, with `by="training"`, a way to train a detector).
        b: another.
        by: the column that `a` and `b` are names in.

    Returns:
        For every metric one line a setting and precision, over seeds; then one line a precision that
        several settings have, over settings; then one over everything.

    Raises:
        ValueError: a name is unknown, or nothing of the two can be paired.
    """
    scores = frame[rankable(frame)]
    known = sorted(set(scores[by]) - {"-"})
    for name in (a, b):
        if name not in known:
            hint = did_you_mean(name, known) or f" There are: {', '.join(known) or 'none'}."
            raise ValueError(f"no {by} {name!r} has results; nothing was compared.{hint}")
    pairs = _pairs(scores, a, b, by)
    if pairs.empty:
        raise ValueError(
            f"{a} and {b} have no result that differs in the {by} alone (same data set and split, "
            "protocol, image size, engine, policy, precision, metric and seed); nothing was compared. "
            "Run both in one suite."
        )
    lines = []
    for _, of_metric in pairs.groupby(["task", "metric"], sort=True):
        lines += _lines(of_metric)
    return lines


def _pairs(scores: pd.DataFrame, a: str, b: str, by: str) -> pd.DataFrame:
    board = [column for column in BOARD if column not in _ALIKE[by]]
    key = [*board, *_ALIKE[by], "precision", "metric", "seed"]
    sides = [
        scores[scores[by] == name].groupby(key)["value"].mean().rename(side)
        for name, side in ((a, "a"), (b, "b"))
    ]
    pairs = pd.concat(sides, axis=1, join="inner").reset_index()
    pairs["setting"] = list(pairs[[*board, *_ALIKE[by]]].itertuples(index=False, name=None))
    pairs["alike"] = pairs[_ALIKE[by][0]]
    return pairs


def _lines(pairs: pd.DataFrame) -> list[Difference]:
    settings = list(dict.fromkeys(pairs["setting"]))
    precisions = sorted(set(pairs["precision"]), key=precision_rank)
    by_precision = {precision: pairs[pairs["precision"] == precision] for precision in precisions}
    lines = [
        _difference(part, "seed")
        for setting in settings
        for rows in by_precision.values()
        if len(part := rows[rows["setting"] == setting])
    ]
    lines += [
        _difference(rows, "setting")
        for rows in by_precision.values()
        if rows["setting"].nunique() > 1
    ]
    if len(precisions) > 1:
        lines.append(_difference(pairs, "setting" if len(settings) > 1 else "seed"))
    return lines


def _difference(pairs: pd.DataFrame, unit: str) -> Difference:
    means = pairs.groupby(unit)[["a", "b"]].mean()
    where = ("dataset", "protocol", "precision", "alike", "metric")
    return Difference(
        **{column: _only(pairs[column]) for column in where},
        unit=f"{unit}s",
        a=float(means["a"].mean()),
        b=float(means["b"].mean()),
        summary=paired_difference(means["a"], means["b"]),
    )


def _only(values: Sequence[str]) -> str:
    found = set(values)
    return found.pop() if len(found) == 1 else "all"
