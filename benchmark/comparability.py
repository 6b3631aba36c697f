"""What may be ranked with what.

A *board* is a set of rows that answer one question: same task, same pinned split (by hash), same
protocol at the same version, same image size, same engine, same quantization policy (by fingerprint).
Within a board, rows of one precision and one metric are ranked; nothing is ever ranked across boards.

Boards of detection and of quantization-aware training leave the policy out. Elsewhere a policy belongs
to the examination: every checkpoint sits it under the same one, and another policy is another
examination. A detector, or a network under `qat`, is trained *with* its policy, and how to train (LSQ
against SGDT, each with the quantizer its paper uses) is itself what is compared. The policy is still
part of a row's own name, so two are never averaged.

Validation numbers are kept but not ranked: hyper-parameters may have been chosen on them. Published
numbers are never ranked: nothing shows that they answer the same question.
"""

import numpy as np
import pandas as pd

from quant import Precision

# Who or what was measured. `method` made the backbone (SSQL); `training` made a detector, or a low-bit
# network, of it (lsq, sgdt).
SUBJECT = ("checkpoint", "method", "architecture", "training", "policy", "policy_fingerprint")
BOARD = (
    "task",
    "dataset",
    "split_sha256",
    "split",
    "protocol",
    "protocol_version",
    "image_size",
    "engine",
    "board_policy",
)
# Where a number comes from: a job that ran here; another's, scored again from its predictions; another's
# word for it. Published numbers are `reported`.
MEASURED, VERIFIED, SELF_REPORTED = "measured", "verified", "self-reported"
OWN = (MEASURED, VERIFIED, SELF_REPORTED)  # of result files, not of papers
RANKED = (MEASURED, VERIFIED)
RANKED_TASKS = ("classification", "detection")
UNRANKED_SPLITS = ("train", "val")
ORIGIN = ("source", "paper", "table", "notes", "printed")  # all but the first of published numbers

_TEXT = (
    *SUBJECT,
    *(c for c in BOARD if c != "board_policy"),
    "precision",
    "metric",
    "unit",
    *ORIGIN,
)


def protocol_rank(protocol: str) -> tuple[bool, str]:
    """Order protocols as the papers' tables do: linear evaluation first, the others by name."""
    return (not protocol.startswith("linear"), protocol)


def precision_rank(precision: str) -> tuple[int, int, str]:
    """Order precisions from full down to the fewest bits; what is none comes last, by name.

    Example:
        >>> sorted(["4w4a", "-", "FP", "8w8a"], key=precision_rank)
        ['FP', '8w8a', '4w4a', '-']
    """
    try:
        bits = Precision.parse(precision)
    except ValueError:
        return (0, 0, precision)
    return (-bits.weight_bits, -bits.activation_bits, "")


def normalize(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a results frame whose labels are all text ("-" when absent) plus `board_policy`."""
    frame = frame.reset_index(drop=True).copy()
    for column in _TEXT:
        absent = "" if column == "notes" else "-"
        values = frame[column] if column in frame else [None] * len(frame)
        frame[column] = pd.Series([_text(value, absent) for value in values], dtype=object)
    frame["precision"] = [_precision(text) for text in frame["precision"]]
    frame["reason"] = pd.Series([_text(value, "") for value in frame["reason"]], dtype=object)
    frame["stderr"] = frame["stderr"].astype(float) if "stderr" in frame else np.nan
    found = frame["zero_shot"] if "zero_shot" in frame else [False] * len(frame)
    frame["zero_shot"] = [bool(value == 1) for value in found]  # absent: False
    trained = (frame["task"] == "detection") | frame["protocol"].str.match(r"qat(-|$)")
    frame["board_policy"] = frame["policy_fingerprint"].mask(trained, "-")
    unusable = (frame["status"] == "completed") & ~np.isfinite(frame["value"].astype(float))
    frame.loc[unusable, ["status", "reason"]] = [
        "failed",
        "the value measured is not a finite number",
    ]
    return frame


def rankable(folded: pd.DataFrame) -> pd.Series:
    """Which rows are measured or verified, on a split that may be ranked, in a task that is."""
    return (
        folded["source"].isin(RANKED)
        & (folded["status"] == "completed")
        & folded["task"].isin(RANKED_TASKS)
        & ~folded["split"].isin(UNRANKED_SPLITS)
    )


def _text(value: object, absent: str) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return absent
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)  # a column that also holds missing values reads integers as floats
    return " ".join(str(value).split()) or absent


def _precision(text: str) -> str:
    try:
        return str(Precision.parse(text))
    except ValueError:
        return text
