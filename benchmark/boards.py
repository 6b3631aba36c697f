"""The folded results as boards: lines of cells, ready to be written as HTML, Markdown or LaTeX."""

import math
from dataclasses import dataclass, field

import pandas as pd

from benchmark.comparability import BOARD, MEASURED, SUBJECT, precision_rank, rankable
from benchmark.reference.published import REPORTED

_FULL = "FP"


@dataclass(frozen=True)
class Cell:
    """One number of a board with all that is known about it, or why there is none.

    Attributes:
        value, sd, low, high: in the metric's unit; NaN where unknown.
        stderr: standard error over the test images, in the same unit; NaN where unknown.
        n_seeds: seeds averaged; 0 when there is no number.
        n_jobs: jobs averaged; more than `n_seeds` when two recipes share a label and a seed.
        rank: see `benchmark.statistics.rank_groups`.
        best: rank 1 where the tests told at least one row of the column to be worse.
        drop: value minus the same line's value in full precision; NaN where there is none.
        status, reason: completed, failed or skipped; why.
        printed: a published number as its paper prints it.
        zero_shot: the network was trained at other bit-widths only.
        missing: jobs of this cell that gave no number although others did.
    """

    value: float = math.nan
    sd: float = math.nan
    low: float = math.nan
    high: float = math.nan
    stderr: float = math.nan
    n_seeds: int = 0
    n_jobs: int = 0
    rank: int = 0
    best: bool = False
    drop: float = math.nan
    status: str = "completed"
    reason: str = ""
    printed: str = ""
    zero_shot: bool = False
    missing: int = 0


@dataclass
class Line:
    """What was measured (the columns of SUBJECT) and its cells by (precision, metric)."""

    subject: dict[str, str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)


@dataclass
class Board:
    """Lines that may be ranked against each other, best first."""

    group: str
    facts: dict[str, str]
    lines: list[Line]
    precisions: list[str]
    metrics: list[str]
    images: list[int]


def make_boards(folded: pd.DataFrame) -> list[Board]:
    """Return every board of ranked results, in the order of the groups' letters."""
    ranked = folded[rankable(folded)]
    missing = folded[(folded["source"] == MEASURED) & (folded["status"] != "completed")]
    return [
        _board(str(group), rows, missing) for group, rows in ranked.groupby("group", sort=False)
    ]


def _board(group: str, rows: pd.DataFrame, missing: pd.DataFrame) -> Board:
    lines: dict[tuple, Line] = {}
    for subject, part in rows.groupby(list(SUBJECT), sort=False):
        lines[subject] = Line(dict(zip(SUBJECT, subject, strict=True)))
        for row in part.to_dict("records"):
            lines[subject].cells[row["precision"], row["metric"]] = _cell(row)
    _mark_best(list(lines.values()))
    facts = {column: str(rows[column].iloc[0]) for column in BOARD}
    metrics = sorted(set(rows["metric"]), key=lambda metric: (len(metric), metric))
    for row in missing.to_dict("records"):
        if all(row[c] in (facts[c], "-") or facts[c] == "-" for c in BOARD):
            _place_missing(lines, row, metrics)
    for line in lines.values():
        _fill_drops(line, _reference(line, lines.values()))
    precisions = {precision for line in lines.values() for precision, _ in line.cells}
    return Board(
        group=group,
        facts=facts,
        lines=_best_first(list(lines.values()), metrics[0]),
        precisions=sorted(precisions, key=precision_rank),
        metrics=metrics,
        images=sorted({int(n) for n in rows["n"] if n}),
    )


def _cell(row: dict) -> Cell:
    spread = ("value", "sd", "low", "high", "stderr")
    names = (*spread, "n_seeds", "n_jobs", "rank", "status", "reason", "zero_shot")
    return Cell(**{name: row[name] for name in names})


def _mark_best(lines: list[Line]) -> None:
    for column in {column for line in lines for column in line.cells}:
        if max(line.cells[column].rank for line in lines if column in line.cells) > 1:
            for line in lines:
                cell = line.cells.get(column)
                if cell and cell.rank == 1:
                    line.cells[column] = _changed(cell, best=True)


def _place_missing(lines: dict[tuple, Line], row: dict, metrics: list[str]) -> None:
    # A job that never ran does not know its checkpoint's method or architecture: the label decides.
    of_checkpoint = [x for x in lines.values() if x.subject["checkpoint"] == row["checkpoint"]]
    same = [
        x
        for x in of_checkpoint
        if all(row[c] in (x.subject[c], "-") for c in ("method", "training", "policy_fingerprint"))
    ]
    if same:
        line = same[0]
    else:
        subject = tuple(row[column] for column in SUBJECT)
        line = lines.setdefault(subject, Line(dict(zip(SUBJECT, subject, strict=True))))
    for metric in metrics if row["metric"] == "-" else [row["metric"]]:
        column = (row["precision"], metric)
        if column in line.cells and line.cells[column].status == "completed":
            cell = line.cells[column]
            line.cells[column] = _changed(cell, missing=cell.missing + row["n_jobs"])
        else:
            line.cells.setdefault(column, Cell(status=row["status"], reason=row["reason"]))


def _reference(line: Line, lines) -> Line:
    """Return the line that holds this line's full-precision numbers.

    A detector trained in full precision is another job, with no policy, than the quantized one: its
    line is another line of the same checkpoint.
    """
    if any(precision == _FULL for precision, _ in line.cells):
        return line
    name = line.subject["checkpoint"]
    candidates = [
        other
        for other in lines
        if other.subject["checkpoint"] == name and other.subject["policy"] == "-"
    ]
    return candidates[0] if len(candidates) == 1 else line


def _fill_drops(line: Line, reference: Line) -> None:
    for (precision, metric), cell in line.cells.items():
        full = reference.cells.get((_FULL, metric))
        if full and precision != _FULL and full.n_seeds and cell.n_seeds:
            line.cells[precision, metric] = _changed(cell, drop=cell.value - full.value)


def _best_first(lines: list[Line], metric: str) -> list[Line]:
    """Order by the mean over the precisions that every line has, then by name."""
    found = [{p for (p, m), c in line.cells.items() if m == metric and c.n_seeds} for line in lines]
    common = set.intersection(*[precisions for precisions in found if precisions] or [set()])

    def order(line: Line) -> tuple:
        values = [line.cells[p, metric].value for p in common if (p, metric) in line.cells]
        mean = sum(values) / len(values) if values else math.nan
        name = tuple(line.subject[column] for column in SUBJECT)
        return (math.isnan(mean), -mean if not math.isnan(mean) else 0.0, name)

    return sorted(lines, key=order)


def _changed(cell: Cell, **changes) -> Cell:
    return Cell(**(vars(cell) | changes))


def make_reported(folded: pd.DataFrame) -> list[Line]:
    """Return the published numbers, one line a system and table; a cell's `reason` is its note."""
    lines: dict[tuple, Line] = {}
    columns = (
        "checkpoint",
        "paper",
        "table",
        "architecture",
        "dataset",
        "protocol",
        "metric",
        "unit",
    )
    for row in folded[folded["source"] == REPORTED].to_dict("records"):
        subject = tuple(row[column] for column in columns)
        line = lines.setdefault(subject, Line(dict(zip(columns, subject, strict=True))))
        line.cells[row["precision"], row["metric"]] = Cell(
            value=row["value"],
            printed=row["printed"],
            reason=row["notes"],
            zero_shot=row["zero_shot"],
        )
    return list(lines.values())


def missing_jobs(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Return the jobs of a normalized frame that gave no number, each with its reason."""
    lost = frame[frame["status"] != "completed"]
    jobs = []
    for job_id, part in lost.groupby("job_id", sort=True):
        first = part.iloc[0]
        labels = ("status", "checkpoint", "task", "dataset", "protocol")
        precisions = sorted(set(part["precision"]), key=precision_rank)
        jobs.append(
            {name: str(first[name]) for name in labels}
            | {"precisions": ", ".join(precisions), "seed": _seed(first["seed"])}
            | {"reason": first["reason"] or "no reason was recorded", "job_id": str(job_id)}
        )
    return sorted(jobs, key=lambda job: tuple(job.values()))


def _seed(seed: object) -> str:
    return "-" if pd.isna(seed) else str(int(seed))
