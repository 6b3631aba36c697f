"""Read the published numbers, and turn chosen ones into rows of the results frame."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.messages import did_you_mean

# What `paper` abbreviates, as the board cites it.
PAPERS = {
    "SSQL": "Synergistic Self-supervised and Quantization Learning, ECCV 2022",
    "CQ": "Contrastive Quant: Quantization Makes Stronger Contrastive Learning",
    "TR": "Scheduling Weight Transitions for Quantization-Aware Training, arXiv 2404.19248",
    "CoQuant": "Improved Techniques for Quantizing Deep Networks with Adaptive Bit-Widths, "
    "arXiv 2103.01435",
}
_FILE = Path(__file__).with_name("published.csv")
_NOT_SCORES = ("hparam:", "num_")  # prefixes of metrics that are settings or data set statistics
_UNITS = {"gpu_hours_4xA5000": "h", "final_target_avg_effective_step": "-"}  # all others: %
REPORTED = "reported"


def load_published() -> pd.DataFrame:
    """Return all published numbers, every column as the text in the file.

    Example:
        >>> len(load_published())
        1024
    """
    return pd.read_csv(_FILE, dtype=str, keep_default_na=False)


def reported_rows(selections: Iterable[Mapping[str, str | Sequence[str]]]) -> pd.DataFrame:
    """Return the published scores that match any selection, as rows of the results frame.

    Args:
        selections: each names columns of the file and the value, or the values, wanted there, for
            instance `{"paper": "SSQL", "table": "Table 11", "precision": ["FP", "4w4a"]}`.

    Returns:
        One row a number, `source` "reported", in the order of the file, each at most once; besides the
        columns of the results frame also `paper`, `table`, `notes` and `printed` (the number's text).
        Nothing says on which split, at which image size or under which policy in our sense a number
        was taken, so these are "-".

    Raises:
        ValueError: a column does not exist, or a selection matches no score.

    Example:
        >>> rows = reported_rows([{"paper": "SSQL", "table": "Table 11", "dataset": "Pets"}])
        >>> len(rows), set(rows["source"])
        (20, {'reported'})
    """
    published = load_published()
    scores = published[~published["metric"].str.startswith(_NOT_SCORES)]
    chosen = pd.Series(False, index=scores.index)
    for selection in selections:
        chosen |= _matches(scores, selection)
    return _as_results(scores[chosen])


def _matches(scores: pd.DataFrame, selection: Mapping[str, str | Sequence[str]]) -> pd.Series:
    if not isinstance(selection, Mapping):
        raise ValueError(
            f"{selection!r} selects no published numbers; no board was made. Write each entry of "
            "`reported` as columns with values: {paper: SSQL, table: Table 11}."
        )
    found = pd.Series(True, index=scores.index)
    for column, wanted in selection.items():
        if column not in scores.columns:
            raise ValueError(
                f"the published numbers have no column {column!r}; no board was made."
                f"{_suggestion(str(column), scores.columns)}"
            )
        values = [wanted] if isinstance(wanted, str) else [str(value) for value in wanted]
        for value in values:
            if value not in set(scores[column]):
                raise ValueError(
                    f"no published score has {column} {value!r}; no board was made."
                    f"{_suggestion(value, sorted(set(scores[column])))}"
                )
        found &= scores[column].isin(values)
    if not found.any():
        raise ValueError(
            f"no published score matches {dict(selection)}; no board was made. Each value exists, but "
            "not together: leave one out."
        )
    return found


def _suggestion(word: str, known: Iterable[str]) -> str:
    return did_you_mean(word, known) or f" There are: {', '.join(known)}."


def _as_results(scores: pd.DataFrame) -> pd.DataFrame:
    detection = scores["protocol"].str.contains("detection|coco", regex=True)
    facts: dict[str, Any] = {
        "job_id": "-",
        "status": "completed",
        "reason": "",
        "checkpoint": scores["system"],
        "method": scores["system"],
        "architecture": scores["architecture"],
        "task": detection.map({True: "detection", False: "classification"}),
        "dataset": scores["dataset"],
        "protocol": scores["protocol"],
        "precision": scores["precision"],
        "metric": scores["metric"],
        "value": scores["value"].astype(float),
        "unit": scores["metric"].map(_UNITS).fillna("%"),
        "n": float("nan"),
        "split": "-",
        "seed": float("nan"),
        "engine": "-",
        "policy": "-",
        "policy_fingerprint": "-",
        "split_sha256": "-",
        "protocol_version": "-",
        "image_size": "-",
        "source": REPORTED,
        "zero_shot": scores["protocol"].str.startswith("zero_shot"),
        "paper": scores["paper"],
        "table": scores["table"],
        "notes": scores["notes"],
        "printed": scores["value"],
    }
    return pd.DataFrame(facts, index=scores.index).reset_index(drop=True)
