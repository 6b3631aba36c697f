"""Which results may be ranked together.

A *board* is a set of rows that answer one question: same task, same pinned split (by hash), same
protocol at the same version, same image size, same engine, same quantization policy (by fingerprint) and,
of deployed networks, the same machine.
Within a board, rows of one precision and one metric are ranked; nothing is ever ranked across boards.

Boards of detection, of quantization-aware training and of deployed networks leave the policy out, as a
job's identity says (`policy_on_board`). Elsewhere a policy belongs to the protocol: every checkpoint is
scored under the same policy, and another policy is another board. A detector, or a network under `qat`, is
trained *with* its policy, and how to train (LSQ against SGDT, each with the quantizer its paper uses) is
itself what is compared; so is, of deployed networks, what a policy costs. The policy is still part of a
row's own name, so two are never averaged.

Validation numbers are kept but not ranked: hyper-parameters may have been chosen on them. Published
numbers are never ranked: nothing shows that they answer the same question.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lowbit.benchmark.results.result_file import (
    ADAPTIVE,
    INTERVAL,
    MACHINE,
    POLICY_ON_BOARD,
    PRETRAIN_SEED,
    PRETRAINING,
    ROUNDING,
    WARNING,
    ZERO_SHOT,
)
from lowbit.quant import Precision

# The subject of a measurement. `method` made the backbone (SSQL); `training` made a detector, or a low-bit
# network, of it (lsq, sgdt). With the source, so that what was measured here is never averaged with what
# was sent.
SUBJECT = (
    "checkpoint", "method", "architecture", "training", "policy", "policy_fingerprint", "source",
)  # fmt: skip
BOARD = (
    "task",
    "dataset",
    "split_sha256",
    "split",
    "protocol",
    "protocol_version",
    "image_size",
    "engine",
    *MACHINE,
    "board_policy",
)
# The source of a number: a job that ran here; a submission, scored again from its predictions; or a
# submission's own claim. Published numbers are `reported`.
MEASURED, VERIFIED, SELF_REPORTED = "measured", "verified", "self-reported"
OWN = (MEASURED, VERIFIED, SELF_REPORTED)  # from result files, not papers
RANKED = (MEASURED, VERIFIED)
RANKED_TASKS = ("classification", "detection")
UNRANKED_SPLITS = ("train", "val")
PUBLISHED = ("paper", "table", "notes", "printed")  # columns that only published numbers fill

_TEXT = (
    *SUBJECT,
    *(c for c in BOARD if c != "board_policy"),
    "precision",
    "metric",
    "unit",
    *PUBLISHED,
    *ADAPTIVE,
    INTERVAL,
    PRETRAINING,
)
_NUMBERS = ("value", "stderr", "image_low", "image_high", ROUNDING)
_METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}


def protocol_rank(protocol: str) -> tuple[bool, str]:
    """Order protocols as the papers' tables do: linear evaluation first, the others by name."""
    return (not protocol.startswith("linear"), protocol)


def precision_rank(precision: str) -> tuple[int, int, str]:
    """Order precisions from full down to the fewest bits; other words come last, by name.

    Example:
        >>> sorted(["4w4a", "-", "FP", "8w8a"], key=precision_rank)
        ['FP', '8w8a', '4w4a', '-']
    """
    try:
        bits = Precision.parse(precision)
    except ValueError:
        return (0, 0, precision)
    return (-bits.weight_bits, -bits.activation_bits, "")


def metric_name(metric: str) -> str:
    """Return a metric's printed name; by default its own."""
    return _METRICS.get(metric, metric)


def normalize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a results frame whose labels are all text ("-" when absent) plus `board_policy`."""
    frame = frame.reset_index(drop=True).copy()
    absent = dict.fromkeys(_TEXT, "-") | {"notes": "", "reason": "", WARNING: ""}
    for column, blank in absent.items():
        if column in frame:
            text = each(frame[column], _text, absent=blank)
            frame[column] = text.where(text != "", blank)
        else:
            frame[column] = pd.Series(blank, index=frame.index, dtype=object)
    frame[PRETRAINING] = frame[PRETRAINING].where(frame[PRETRAINING] != "-", frame["checkpoint"])
    seed = frame[PRETRAIN_SEED] if PRETRAIN_SEED in frame else pd.Series(pd.NA, frame.index)
    frame[PRETRAIN_SEED] = seed.astype("Int64")
    frame["status"] = frame["status"].astype(object)
    frame["precision"] = each(frame["precision"], _precision)
    for column in _NUMBERS:
        frame[column] = frame[column].astype(float) if column in frame else np.nan
    for column, absent in ((ZERO_SHOT, False), (POLICY_ON_BOARD, True)):
        flags = frame[column] if column in frame else pd.Series(absent, index=frame.index)
        frame[column] = flags.astype("boolean").fillna(absent).astype(bool)
    frame["board_policy"] = frame["policy_fingerprint"].where(frame[POLICY_ON_BOARD], "-")
    unusable = (frame["status"] == "completed") & ~np.isfinite(frame["value"])
    frame.loc[unusable, ["status", "reason"]] = [
        "failed",
        "the value measured is not a finite number",
    ]
    return frame


def each(
    values: pd.Series, function: Callable[[Any], str], *, absent: str | None = None
) -> pd.Series:
    """Apply a function to a column, once per different value; missing values become `absent`."""
    codes, found = pd.factorize(values)
    results = np.array([*map(function, found), absent], dtype=object)
    return pd.Series(results[codes], index=values.index, dtype=object)  # -1, missing, is the last


def rankable(folded: pd.DataFrame) -> pd.Series:
    """Mask of rows that are measured or verified, on a ranked split, in a ranked task."""
    return shown(folded) & folded["source"].isin(RANKED)


def shown(folded: pd.DataFrame) -> pd.Series:
    """Mask of rows on a board: those that may be ranked, and the self-reported ones."""
    return (
        folded["source"].isin(OWN)
        & (folded["status"] == "completed")
        & folded["task"].isin(RANKED_TASKS)
        & ~folded["split"].isin(UNRANKED_SPLITS)
    )


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # a column that also holds missing values reads integers as floats
    return " ".join(str(value).split())


def _precision(text: str) -> str:
    try:
        return str(Precision.parse(text))
    except ValueError:
        return text
