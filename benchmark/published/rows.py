"""The published numbers as pandas frames: all, or a selection as rows of the results frame."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lowbit.benchmark.published.selection import KEY, Selection, published_rows, select

if TYPE_CHECKING:
    import pandas as pd

# Citations of the abbreviations in `paper`.
PAPERS = {
    "SSQL": "Synergistic Self-supervised and Quantization Learning, ECCV 2022",
    "CQ": "Contrastive Quant: Quantization Makes Stronger Contrastive Learning",
    "TR": "Scheduling Weight Transitions for Quantization-Aware Training, arXiv 2404.19248",
    "CoQuant": "Improved Techniques for Quantizing Deep Networks with Adaptive Bit-Widths, "
    "arXiv 2103.01435",
}
_UNITS = {"gpu_hours_4xA5000": "h", "final_target_avg_effective_step": "-"}  # all others: %
REPORTED = "reported"


def load_published() -> "pd.DataFrame":
    """Return all published numbers, every column as the text in the file.

    Example:
        >>> len(load_published())
        1024
    """
    import pandas as pd  # here: planning a suite reads the numbers without pandas

    return pd.DataFrame(published_rows(), dtype=str)


def reported_rows(selections: Iterable[Selection]) -> "pd.DataFrame":
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
    chosen = {tuple(row[c] for c in KEY) for selection in selections for row in select(selection)}
    published = load_published()
    keys = published[list(KEY)].itertuples(index=False, name=None)
    return _as_results(published[[key in chosen for key in keys]])


def _as_results(scores: "pd.DataFrame") -> "pd.DataFrame":
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
    return scores.assign(**facts)[list(facts)].reset_index(drop=True)
