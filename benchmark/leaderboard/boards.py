"""Arrange the folded results as boards: lines of cells, for every output format."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from lowbit.benchmark.leaderboard.table_parts import Cell
from lowbit.benchmark.published.rows import REPORTED
from lowbit.benchmark.results.comparability import (
    BOARD,
    MEASURED,
    RANKED,
    SUBJECT,
    precision_rank,
    shown,
)
from lowbit.benchmark.results.result_file import ADAPTIVE

_FULL = "FP"
_FOLDED = (  # what a cell takes from the folded row as it is
    "value",
    "sd",
    "low",
    "high",
    "interval",
    "stderr",
    "n_seeds",
    "n_jobs",
    "rank",
    "status",
    "reason",
    "zero_shot",
    "rounding",
    "warning",
)
_OF_METHOD = ("scorings", "scoring_sd")  # and of a method's row also these


@dataclass
class Line:
    """A subject (the columns of SUBJECT) and its cells by (precision, metric)."""

    subject: dict[str, str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The checkpoint, with the source of its numbers where they were not measured here."""
        checkpoint, source = self.subject["checkpoint"], self.subject["source"]
        return checkpoint if source == MEASURED else f"{checkpoint} ({source})"


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
    """Return every board of results, in the order of the groups' letters.

    Self-reported numbers stand on their boards below the others, without ranks.
    """
    rows = folded[shown(folded)]
    missing = folded[(folded["source"] == MEASURED) & (folded["status"] != "completed")]
    boards = [_board(str(group), part) for group, part in rows.groupby("group", sort=False)]
    for key, part in missing.groupby(list(BOARD), sort=False):
        lost = part.to_dict("records")
        for board in boards:
            if all(
                x in (board.facts[c], "-") or board.facts[c] == "-"
                for c, x in zip(BOARD, key, strict=True)
            ):
                _place_missing(board, lost)
    return [_finished(board) for board in boards]


def _board(group: str, rows: pd.DataFrame) -> Board:
    """Return a board of the numbers there are."""
    lines: dict[tuple, Line] = {}
    subjects = zip(*(rows[name].tolist() for name in SUBJECT), strict=True)
    columns = zip(rows["precision"].tolist(), rows["metric"].tolist(), strict=True)
    folded = [*_FOLDED, *(name for name in _OF_METHOD if name in rows)]
    cells = zip(*(rows[name].tolist() for name in folded), strict=True)
    for subject, column, cell in zip(subjects, columns, cells, strict=True):
        if subject not in lines:
            lines[subject] = Line(dict(zip(SUBJECT, subject, strict=True)))
        lines[subject].cells[column] = Cell(**dict(zip(folded, cell, strict=True)))
    _mark_best(list(lines.values()))
    return Board(
        group=group,
        facts={column: str(rows[column].iloc[0]) for column in (*BOARD, *ADAPTIVE)},
        lines=list(lines.values()),
        precisions=[],
        metrics=sorted(set(rows["metric"]), key=lambda metric: (len(metric), metric)),
        images=sorted({int(n) for n in rows["n"] if n}),
    )


def _finished(board: Board) -> Board:
    """Fill in what takes all of a board's cells: the drops, the precisions and the order of lines."""
    unquantized = defaultdict(list)
    for line in board.lines:
        if line.subject["policy"] == "-":
            unquantized[line.subject["checkpoint"], line.subject["source"]].append(line)
    for line in board.lines:
        _fill_drops(line, _reference(line, unquantized))
    precisions = {precision for line in board.lines for precision, _ in line.cells}
    board.precisions = sorted(precisions, key=precision_rank)
    board.lines = _best_first(board.lines, board.metrics[0])
    return board


def _mark_best(lines: list[Line]) -> None:
    for column in {column for line in lines for column in line.cells}:
        if max(line.cells[column].rank for line in lines if column in line.cells) > 1:
            for line in lines:
                cell = line.cells.get(column)
                if cell and cell.rank == 1:
                    cell.best = True


def _place_missing(board: Board, lost: list[dict]) -> None:
    """Put jobs without a number on the lines where they belong, or on separate lines."""
    lines = defaultdict(list)
    for line in board.lines:
        if line.subject["source"] == MEASURED:
            lines[line.subject["checkpoint"]].append(line)
    for row in lost:
        of_checkpoint = lines[row["checkpoint"]]
        # A job that never ran does not know its checkpoint's method or architecture: the label decides.
        same = ("method", "training", "policy_fingerprint")
        fits = [x for x in of_checkpoint if all(row[c] in (x.subject[c], "-") for c in same)]
        if not fits:
            fits = [Line({column: row[column] for column in SUBJECT})]
            of_checkpoint += fits
            board.lines += fits
        for metric in board.metrics if row["metric"] == "-" else [row["metric"]]:
            _note(fits[0].cells, (row["precision"], metric), row)


def _note(cells: dict[tuple[str, str], Cell], column: tuple[str, str], row: dict) -> None:
    """Record a job without a number in its cell."""
    cell = cells.get(column)
    if cell is None:
        cells[column] = Cell(status=row["status"], reason=row["reason"])
    elif cell.n_seeds:
        cell.missing += row["n_jobs"]


def _reference(line: Line, unquantized: Mapping[tuple[str, str], list[Line]]) -> Line:
    """Return the line that holds this line's full-precision numbers.

    A detector trained in full precision is another job, with no policy, than the quantized one: its
    line is another line of the same checkpoint.
    """
    if any(precision == _FULL for precision, _ in line.cells):
        return line
    candidates = unquantized.get((line.subject["checkpoint"], line.subject["source"]), [])
    return candidates[0] if len(candidates) == 1 else line


def _fill_drops(line: Line, reference: Line) -> None:
    for (precision, metric), cell in line.cells.items():
        full = reference.cells.get((_FULL, metric))
        if full and precision != _FULL and full.n_seeds and cell.n_seeds:
            cell.drop = cell.value - full.value


def _best_first(lines: list[Line], metric: str) -> list[Line]:
    """Order by the mean over the precisions that every ranked line has, then by name.

    Self-reported lines come last, and their missing numbers do not affect the order.
    """

    def numbers(line: Line) -> set[str]:
        return {p for (p, of), cell in line.cells.items() if of == metric and cell.n_seeds}

    ranked = [found for line in lines if _ranked(line) and (found := numbers(line))]
    common = set.intersection(*ranked) if ranked else set()

    def order(line: Line) -> tuple:
        values = [line.cells[p, metric].value for p in sorted(common & numbers(line))]
        name = tuple(line.subject[column] for column in SUBJECT)
        return (not _ranked(line), not values, -math.fsum(values) / max(len(values), 1), name)

    return sorted(lines, key=order)


def _ranked(line: Line) -> bool:
    return line.subject["source"] in RANKED


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
    lost = frame[frame["status"] != "completed"].sort_values("job_id", kind="stable")
    precisions = defaultdict(set)
    for job_id, precision in zip(lost["job_id"], lost["precision"], strict=True):
        precisions[job_id].add(precision)
    labels = ["status", "checkpoint", "task", "dataset", "protocol"]
    jobs = [
        {name: str(job[name]) for name in labels}
        | {"precisions": ", ".join(sorted(precisions[job["job_id"]], key=precision_rank))}
        | {"seed": _seed(job["seed"]), "reason": job["reason"] or "no reason was recorded"}
        | {"job_id": str(job["job_id"])}
        for job in lost.drop_duplicates("job_id").to_dict("records")
    ]
    return sorted(jobs, key=lambda job: tuple(job.values()))


def _seed(seed: object) -> str:
    return "-" if pd.isna(seed) else str(int(seed))
