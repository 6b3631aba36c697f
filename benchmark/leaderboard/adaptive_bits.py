"""The table of adaptive bit-widths, as in the CoQuant paper: one network scored at many precisions.

Accuracies alone do not say what sharing one set of weights costs, so each row is set against networks
trained at one bit-width each, from the same checkpoint in every other respect (protocol
`adaptive-individual`). B are the bit-widths the row was trained at; zero-shot ones do not count:

    Delta_B = 100 * mean_{b in B} Acc_b(joint) / Acc_b(individual)

The methods are protocols of their own, hence boards of their own; this table ranks nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from lowbit.benchmark.leaderboard.boards import Board, Line
from lowbit.benchmark.leaderboard.labels import ZERO_SHOT
from lowbit.benchmark.leaderboard.table_parts import Cell
from lowbit.benchmark.results.comparability import BOARD, MEASURED, precision_rank

DELTA = "Δ_B"
_FULL = "FP"
_INDIVIDUAL = "individual"
METHODS = {  # in the paper's order
    _INDIVIDUAL: "individual",
    "switchable-bn": "Switchable BN",
    "adabits": "AdaBits",
    "any-precision": "Any-Precision",
    "coquant": "CoQuant",
}
NOTE = (
    f"{ZERO_SHOT} zero-shot: the network was not trained at this bit-width. {DELTA}: 100 × the mean, over the "
    "bit-widths it was trained at, of its accuracy over that of a network trained at this bit-width "
    "alone. The rows follow different protocols and are not ranked."
)
_PAPER = "CoQuant"
_REPORTED_DELTA = "Delta_B_percent"
BLANK = ("absent", "reference")  # states of a cell that is blank on purpose
_NOT_PRINTED = Cell(status="absent", reason="not in the paper's table")
_REFERENCE = Cell(status="reference", reason="these networks are what the others are set against")


@dataclass(frozen=True)
class AdaptiveRow:
    """One network, or a published one.

    Attributes:
        checkpoint, architecture, dataset, method, metric: what it is; a published row has the paper and
            table as its checkpoint.
        cells: accuracies by precision, without the ranks they have on their own boards.
        delta: Delta_B in %; where it is blank, `reason` says why, elsewhere what it is made of.
        board: where it is ranked; None: published.
    """

    checkpoint: str
    architecture: str
    dataset: str
    method: str
    metric: str
    cells: dict[str, Cell]
    delta: Cell
    board: Board | None = None


def make_adaptive(
    folded: pd.DataFrame, boards: Iterable[Board], reported: Iterable[Line]
) -> list[AdaptiveRow]:
    """Return the rows of folded results, published ones below the measured of their data set, or last.

    Empty where nothing adaptive was measured: published numbers have their own table.

    Args:
        folded: where the jobs without a number stand.
        boards: every board of the same results.
        reported: the published numbers of the same results.
    """
    boards = [board for board in boards if board.facts["adaptive_method"] != "-"]
    if not boards:
        return []
    references = {
        (_setting(board), tuple(line.subject.values())): line
        for board in boards
        if board.facts["adaptive_method"] == _INDIVIDUAL
        for line in board.lines
    }
    lost = folded[(folded["source"] == MEASURED) & (folded["status"] != "completed")]
    boards.sort(key=lambda board: _order(board.facts["adaptive_method"]))
    rows = [
        _row(
            board,
            line,
            metric,
            references.get((_setting(board), tuple(line.subject.values()))),
            lost,
        )
        for board in boards
        for line in board.lines
        for metric in board.metrics
    ]
    # Stable: rows of one checkpoint keep the order of their methods.
    rows.sort(key=lambda row: (row.checkpoint, row.architecture))
    measured = {_plain(row.dataset) for row in rows}
    return sorted(
        rows + _published(reported),
        key=lambda row: (
            _plain(row.dataset) not in measured,
            _plain(row.dataset),
            row.board is None,
            row.dataset,
        ),
    )


def columns(rows: Iterable[AdaptiveRow]) -> list[str]:
    """Return the precisions: full precision and those trained at in any row, then the zero-shot ones."""
    cells = [(precision, cell) for row in rows for precision, cell in row.cells.items()]
    trained = {precision for precision, cell in cells if not cell.zero_shot}
    return sorted({p for p, _ in cells}, key=lambda p: (p not in trained, precision_rank(p)))


def delta_b(joint: Mapping[str, float], individual: Mapping[str, float]) -> float:
    """Return Delta_B in % of accuracies by precision; B are the precisions of `joint`.

    Example:
        >>> round(delta_b({"8w8a": 95.0, "2w2a": 81.0}, {"8w8a": 95.0, "4w4a": 94.0, "2w2a": 90.0}), 6)
        95.0
    """
    return 100 * sum(joint[b] / individual[b] for b in joint) / len(joint)


def blanks(rows: Iterable[AdaptiveRow]) -> list[str]:
    """Return a sentence for each reason why measured rows have no Delta_B, with these rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.board is not None and row.delta.status == "absent":
            where = f"{row.method}, {row.checkpoint} on {row.dataset} ({row.board.group})"
            found.setdefault(row.delta.reason, []).append(where)
    return [f"No {DELTA} of {'; '.join(where)}: {reason}" for reason, where in found.items()]


def _plain(dataset: str) -> str:
    """Return a data set's name without what papers write it differently in: CIFAR-10 is cifar10."""
    return "".join(character for character in dataset.lower() if character.isalnum())


def _setting(board: Board) -> tuple[str, ...]:
    """Return what a row and its reference share: everything but how bit-widths share weights."""
    shared = (column for column in BOARD if column != "protocol")
    return tuple(board.facts[column] for column in (*shared, "adaptive_reference"))


def _order(method: str) -> int:
    known = list(METHODS)
    return known.index(method) if method in known else len(known)


def _row(
    board: Board, line: Line, metric: str, reference: Line | None, lost: pd.DataFrame
) -> AdaptiveRow:
    method, variant = board.facts["adaptive_method"], board.facts["adaptive_variant"]
    name = METHODS.get(method, method)
    cells = {
        precision: replace(cell, rank=0, best=False, drop=float("nan"))
        for (precision, of), cell in line.cells.items()
        if of == metric
    }
    if method == _INDIVIDUAL:
        delta = _REFERENCE
    elif reference is None:
        delta = Cell(status="absent", reason=_no_reference(board, line, lost))
    else:
        delta = _delta(cells, {p: c for (p, of), c in reference.cells.items() if of == metric})
    return AdaptiveRow(
        checkpoint=line.name,
        architecture=line.subject["architecture"],
        dataset=board.facts["dataset"],
        method=name if variant == "-" else f"{name} ({variant})",
        metric=metric,
        cells=cells,
        delta=delta,
        board=board,
    )


def _delta(joint: Mapping[str, Cell], individual: Mapping[str, Cell]) -> Cell:
    trained = sorted((p for p, c in joint.items() if _counts(p, c)), key=precision_rank)
    if not trained:
        return Cell(status="absent", reason="there is no number at a bit-width it was trained at")
    missing = [p for p in trained if p not in individual or not _counts(p, individual[p])]
    if missing:
        failures = {individual[p].reason for p in missing if p in individual} - {""}
        because = f": {'; '.join(sorted(failures))}" if failures else ""
        return Cell(
            status="absent",
            reason=f"no network trained at {', '.join(missing)} alone has a number{because}",
        )
    if zero := [p for p in trained if individual[p].value <= 0]:
        return Cell(
            status="absent", reason=f"the network trained at {', '.join(zero)} alone has accuracy 0"
        )
    pairs = [(p, joint[p], individual[p]) for p in trained]
    value = delta_b({p: a.value for p, a, _ in pairs}, {p: b.value for p, _, b in pairs})
    shares = ", ".join(f"{p} {100 * a.value / b.value:.2f} %" for p, a, b in pairs)
    seeds = [f"{min(c.n_seeds for c in cells)}" for cells in list(zip(*pairs, strict=True))[1:]]
    return Cell(
        value=value, reason=f"{shares}; means over {seeds[0]} and, individually, {seeds[1]} seed(s)"
    )


def _counts(precision: str, cell: Cell) -> bool:
    return bool(cell.n_seeds) and not cell.zero_shot and precision != _FULL


def _no_reference(board: Board, line: Line, lost: pd.DataFrame) -> str:
    """Say why a row has no individual networks: the state of their job, or that none ran."""
    protocol = board.facts["adaptive_reference"]
    same = (lost["protocol"] == protocol) & (lost["dataset"] == board.facts["dataset"])
    same &= lost["checkpoint"] == line.subject["checkpoint"]
    if same.any():
        job = lost[same].iloc[0]
        return f"the job of {protocol} {job['status']}: {job['reason']}"
    return (
        f"no {protocol} result has the same checkpoint, split, policy and image size; add that job to "
        "the suite"
    )


def _published(reported: Iterable[Line]) -> list[AdaptiveRow]:
    """Return the paper's own rows among the reported; accuracy and zero-shot tests of one are one row."""
    rows: dict[tuple[str, ...], AdaptiveRow] = {}
    for line in reported:
        subject = line.subject
        if subject["paper"] != _PAPER:
            continue
        key = tuple(subject[name] for name in ("dataset", "architecture", "table", "checkpoint"))
        dataset, architecture, table, system = key
        is_delta = subject["metric"] == _REPORTED_DELTA
        metric = "top1" if is_delta else subject["metric"]
        source = f"{_PAPER}, {table}"
        empty = AdaptiveRow(source, architecture, dataset, system, metric, {}, _NOT_PRINTED)
        row = rows.setdefault(key, empty)
        if is_delta:
            (delta,) = line.cells.values()
            rows[key] = replace(row, delta=delta)
        else:
            row.cells.update({precision: cell for (precision, _), cell in line.cells.items()})
    return list(rows.values())
