"""Scores as series over bit-widths: spread, what is retained of full precision, and what it costs."""

from functools import cache

import numpy as np
import pandas as pd

from lowbit.benchmark.results.comparability import BOARD, SUBJECT, rankable
from lowbit.benchmark.results.result_file import BIT_OPERATIONS, HIGH, LOW, WEIGHT_BYTES
from lowbit.benchmark.statistics.ranking import half_width
from lowbit.quant import Precision

LINE = (*SUBJECT, *BOARD, "metric")  # SUBJECT says the source
FULL = "FP"
_NUMBERS = ("value", LOW, HIGH, WEIGHT_BYTES, BIT_OPERATIONS)
_SAME_BACKBONE = (*BOARD, "metric", "source", "checkpoint", "method", "architecture")


def by_seed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (line, precision, seed) of everything that is ranked, with its retention.

    Columns: LINE, `line` (a number for them), precision, seed, the numbers of the frame, `retention`
    (100 value / value in full precision) and `reference` (the line that this full precision is of). Full
    precision is that of the same seed or, where that seed has none, the mean. A line without it takes that
    of the one line of the same backbone that was trained without quantization, as a detector's is.
    """
    ranked = frame[rankable(frame)]
    ranked = ranked.reindex(columns=[*LINE, "precision", "seed", *_NUMBERS])
    ranked["seed"] = ranked["seed"].astype("Float64").fillna(-1).astype(int)
    ranked["line"] = ranked.groupby(list(LINE), sort=False).ngroup()
    labels = ranked.drop_duplicates("line").set_index("line")[list(LINE)]
    seeds = ranked.groupby(["line", "precision", "seed"], sort=False)[list(_NUMBERS)].mean()
    seeds = seeds.reset_index().join(labels, on="line")
    full = seeds[seeds["precision"] == FULL]
    seeds["reference"] = seeds["line"].map(_references(labels, set(full["line"]))).astype("Int64")
    reference = seeds["reference"]
    same_seed = pd.MultiIndex.from_arrays([reference, seeds["seed"]])
    found = full.set_index(["line", "seed"])["value"].reindex(same_seed).to_numpy()
    mean = reference.map(full.groupby("line")["value"].mean()).to_numpy(dtype=float)
    found = np.where(np.isnan(found), mean, found)
    seeds["retention"] = 100 * seeds["value"] / np.where(found > 0, found, np.nan)
    return seeds


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Fold `by_seed` to one row a (line, precision).

    `low` and `high` are the 95 % interval of the mean over seeds (Student) or, of a single seed, that
    over test images where it is known; `spread` says which: "seeds", "images" or "-". Retention has
    the first kind only.
    """
    groups = seeds.groupby(["line", "precision"], sort=False)
    found = groups[list(_NUMBERS)].mean()
    found["seeds"] = groups.size()
    half = half_width(groups["value"].std(), found["seeds"])
    several = found["seeds"] > 1
    found["low"] = (found["value"] - half).where(several, found[LOW])
    found["high"] = (found["value"] + half).where(several, found[HIGH])
    known = np.where(found["low"].isna(), "-", "images")
    found["spread"] = np.where(several, "seeds", known)
    found["retention"] = groups["retention"].mean()
    half = half_width(groups["retention"].std(), groups["retention"].count())
    found["retention_low"] = found["retention"] - half
    found["retention_high"] = found["retention"] + half
    return found.drop(columns=[LOW, HIGH]).reset_index()


def shared_precisions(points: pd.DataFrame) -> tuple[str, ...]:
    """Return the low-bit precisions that at least half of a board's lines have, fewest bits first."""
    low = points[points["precision"] != FULL]
    lines = low.groupby("precision")["line"].nunique()
    usual = lines[2 * lines >= points["line"].nunique()].index
    return tuple(sorted((p for p in usual if bits(p) is not None), key=lambda p: (bits(p), p)))


def areas(seeds: pd.DataFrame, precisions: tuple[str, ...], column: str) -> pd.DataFrame:
    """Return the area under each line's curve, a line a row: `mean` and `sd` over seeds.

    The curve is linear between the given precisions, over b = (log2 w + log2 a) / 2, and its area is
    divided by the width: the mean of `column` where each halving of the bit-width counts alike. Seeds
    that lack one of the precisions are left out; nothing is found for fewer than two widths.
    """
    chosen = seeds[seeds["precision"].isin(precisions)].copy()
    chosen["bits"] = chosen["precision"].map(bits)
    # 3w5a and 5w3a have one width: their mean stands there.
    table = chosen.pivot_table(index=["line", "seed"], columns="bits", values=column, sort=True)
    complete = chosen.groupby(["line", "seed"])["precision"].nunique() == len(precisions)
    table = table[complete.reindex(table.index)].dropna()
    if table.shape[1] < 2 or table.empty:
        return pd.DataFrame(columns=["mean", "sd"], dtype=float)
    axis = table.columns.to_numpy(dtype=float)
    area = np.trapezoid(table.to_numpy(), axis, axis=1) / (axis[-1] - axis[0])
    folded = pd.Series(area, index=table.index).groupby("line")
    return pd.DataFrame({"mean": folded.mean(), "sd": folded.std()})


@cache
def bits(precision: str) -> float | None:
    """Return (log2 w + log2 a) / 2, or None of what is no precision.

    Example:
        >>> bits("8w8a"), bits("8w2a"), bits("-")
        (3.0, 2.0, None)
    """
    try:
        found = Precision.parse(precision)
    except ValueError:
        return None
    return float(np.log2(found.weight_bits) + np.log2(found.activation_bits)) / 2


def _references(labels: pd.DataFrame, with_full: set[int]) -> dict[int, int]:
    """Return, for each line, the line that holds its full-precision numbers, where there is one."""
    unquantized: dict[tuple, list[int]] = {}
    backbones = list(labels[list(_SAME_BACKBONE)].itertuples(index=False, name=None))
    for line, backbone, policy in zip(labels.index, backbones, labels["policy"], strict=True):
        if line in with_full and policy == "-":
            unquantized.setdefault(backbone, []).append(line)
    found = {}
    for line, backbone in zip(labels.index, backbones, strict=True):
        others = unquantized.get(backbone, [])
        if line in with_full:
            found[line] = line
        elif len(others) == 1:
            found[line] = others[0]
    return found
