"""The results frame folded over seeds: one row a number of the board, with its spread and rank."""

import math
import string
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from benchmark.comparability import (
    BOARD,
    MEASURED,
    ORIGIN,
    SUBJECT,
    precision_rank,
    protocol_rank,
    rankable,
)
from benchmark.statistics import Sample, rank_groups, summarize

PROPORTIONS = ("top1",)  # metrics that count right answers, so that their images are a sample

_KEY = (*SUBJECT, *BOARD, "precision", "metric", "unit", *ORIGIN, "status")
_FOUND = (
    "reason",
    "zero_shot",
    "value",
    "sd",
    "low",
    "high",
    "stderr",
    "n_seeds",
    "n_jobs",
    "n",
    "values",
)
_NO_NUMBER = dict.fromkeys(("value", "sd", "low", "high", "stderr"), math.nan) | {
    "n_seeds": 0,
    "n": 0,
    "values": (),
}
_Record = dict[str, Any]


def fold_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Fold a normalized frame to one row a (subject, board, precision, metric), in a stable order.

    Columns: SUBJECT, BOARD, precision, metric, unit, source, paper, table, notes, printed, status,
    reason, and

    - value, sd, low, high: mean over seeds, standard deviation, 95 % interval of the mean;
    - stderr: standard error over the test images. Seeds answer the same images, so more of them do
      not make it smaller: the mean over jobs, which the error of their mean cannot exceed;
    - n_seeds, n_jobs: they differ when several jobs share a seed (two recipes under one label); such
      jobs are averaged first so that no seed counts twice;
    - n: images behind a value; zero_shot: whether any job was not trained at this precision;
    - group: the board's letter; rank: see `rank_groups`, 0 when the row is not ranked.

    Jobs that gave no number are folded too, their reasons joined, with n_seeds 0.
    """
    groups = _grouped(frame.to_dict("records"), _KEY)
    rows = [dict(zip(_KEY, key, strict=True)) | _fold(part) for key, part in groups.items()]
    folded = pd.DataFrame(sorted(rows, key=_order), columns=[*_KEY, *_FOUND])
    folded["group"] = _letters(folded)
    folded["rank"] = _ranks(folded)
    return folded.drop(columns="values")


def _grouped(records: Iterable[_Record], key: Sequence[str]) -> dict[tuple, list[_Record]]:
    groups = defaultdict(list)
    for record in records:
        groups[tuple(record[column] for column in key)].append(record)
    return groups


def _fold(part: list[_Record]) -> _Record:
    """Fold records that agree in the key; what they agree in says how."""
    jobs = len({record["job_id"] for record in part})
    zero_shot = any(record["zero_shot"] for record in part)
    if part[0]["status"] != "completed":
        reasons = sorted({record["reason"] for record in part} - {""})
        return _NO_NUMBER | {"reason": "; ".join(reasons), "zero_shot": False, "n_jobs": jobs}
    if part[0]["source"] != MEASURED:  # whatever a published number averages, it is one number
        assert len(part) == 1, part
        value = float(part[0]["value"])
        return _NO_NUMBER | {"reason": "", "zero_shot": zero_shot, "n_jobs": 0, "value": value}
    by_seed = defaultdict(list)
    for record in part:
        by_seed[_seed(record["seed"])].append(float(record["value"]))
    # fsum: the same mean in whatever order the result files were read
    values = tuple(math.fsum(of_seed) / len(of_seed) for _, of_seed in sorted(by_seed.items()))
    seeds = summarize(values)
    errors = [float(record["stderr"]) for record in part]
    images = {int(record["n"]) for record in part if not pd.isna(record["n"])}
    return {
        "reason": "",
        "zero_shot": zero_shot,
        "value": seeds.mean,
        "sd": seeds.sd,
        "low": seeds.low,
        "high": seeds.high,
        "stderr": math.fsum(sorted(errors)) / len(errors),
        "n_seeds": seeds.n,
        "n_jobs": jobs,
        "n": images.pop() if len(images) == 1 else 0,
        "values": values,
    }


def _seed(seed: Any) -> int:
    return -1 if pd.isna(seed) else int(seed)


def _order(row: _Record) -> tuple:
    board = (protocol_rank(row[c]) if c == "protocol" else row[c] for c in BOARD)
    subject = (row[column] for column in SUBJECT)
    tail = (row[column] for column in ("metric", "status", "unit", *ORIGIN))
    return (row["source"] != MEASURED, *board, *subject, precision_rank(row["precision"]), *tail)


def _letters(folded: pd.DataFrame) -> list[str]:
    """Name every ranked board A, B, ... in the order of the rows; "-" for the rest."""
    named: dict[tuple, str] = {}
    boards = folded[list(BOARD)].itertuples(index=False, name=None)
    return [
        named.setdefault(board, _letter(len(named))) if ranked else "-"
        for board, ranked in zip(boards, rankable(folded), strict=True)
    ]


def _letter(index: int) -> str:
    letter = string.ascii_uppercase[index % 26]
    return letter if index < 26 else _letter(index // 26 - 1) + letter


def _ranks(folded: pd.DataFrame) -> list[int]:
    ranks = [0] * len(folded)
    ranked = folded[rankable(folded)].reset_index(names="row").to_dict("records")
    for column in _grouped(ranked, ("group", "precision", "metric")).values():
        for record, rank in zip(column, rank_groups([_sample(r) for r in column]), strict=True):
            ranks[record["row"]] = rank
    return ranks


def _sample(row: _Record) -> Sample:
    proportion = row["metric"] in PROPORTIONS and row["unit"] == "%" and row["n"]
    return Sample(row["values"], images=row["n"] if proportion else None)
