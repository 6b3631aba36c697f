"""The tables of a leaderboard: every format renders these, and each is laid out once."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import pandas as pd

from lowbit.benchmark.leaderboard import adaptive_bits, deployment
from lowbit.benchmark.leaderboard.aggregation import dataset_means, methods
from lowbit.benchmark.leaderboard.aggregation.fold_seeds import fold_seeds
from lowbit.benchmark.leaderboard.boards import (
    Board,
    Line,
    make_boards,
    make_reported,
    missing_jobs,
)
from lowbit.benchmark.leaderboard.labels import (
    METHOD_MEANS,
    METHODS,
    ROUNDING_NOTE,
    SENT,
    TASK_TITLES,
)
from lowbit.benchmark.leaderboard.reproduction import Reproduced, reproduce
from lowbit.benchmark.leaderboard.table_parts import Cell, Row, Table
from lowbit.benchmark.planning.plan_file import PlannedSuite
from lowbit.benchmark.results.comparability import MEASURED, SUBJECT, metric_name, precision_rank
from lowbit.benchmark.statistics.answered_images import AnsweredImages


class Tables:
    """All tables of a normalized results frame, each computed when it is first asked for, and once.

    Args:
        frame: normalized results, published rows among them, one row a measurement.
        planned: the jobs of every suite that was started in the runs folder.
        answers: of the jobs to the test images, by which rows are paired; None: none is.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        planned: Iterable[PlannedSuite] = (),
        answers: AnsweredImages | None = None,
    ):
        self.frame = frame
        self.answers = answers
        self.planned = tuple(planned)

    @cached_property
    def folded(self) -> pd.DataFrame:
        """The results folded over seeds: one row a number."""
        return fold_seeds(self.frame, self.answers)

    @cached_property
    def methods(self) -> pd.DataFrame:
        """The checkpoints folded over pretraining seeds: one row a method's number."""
        return methods.fold_methods(self.folded, self.answers)

    @cached_property
    def boards(self) -> list[Board]:
        """What may be ranked with what, in the order of the groups' letters."""
        return make_boards(self.folded)

    @cached_property
    def sections(self) -> dict[str, tuple[Table, ...]]:
        """The tables by section; one without a row has no table."""
        boards = self.boards
        reported = make_reported(self.folded)
        adaptive = adaptive_bits.make_adaptive(self.folded, boards, reported)
        return {
            "methods": tuple(self._methods()),
            "classification": tuple(
                _classification(board, metric)
                for board in boards
                if board.facts["task"] == "classification"
                for metric in board.metrics
            ),
            "detection": tuple(_detection(b) for b in boards if b.facts["task"] == "detection"),
            "adaptive": (_adaptive(adaptive),) if adaptive else (),
            "deployment": tuple(deployment.make_deployments(self.folded, self.frame)),
            "averages": tuple(map(_average, dataset_means.averages(self.folded))),
            "reported": (_reported(reported),) if reported else (),
        }

    def _methods(self) -> Iterable[Table]:
        if self.methods.empty:
            return
        yield from map(_method_mean, methods.mean_over_data_sets(self.folded, self.methods))
        for board in make_boards(self.methods):
            for metric in (
                board.metrics if board.facts["task"] == "classification" else board.metrics[:1]
            ):
                yield _method_board(board, metric)

    @cached_property
    def missing(self) -> Table | None:
        """The jobs that gave no number; None: all did."""
        jobs = missing_jobs(self.frame)
        if not jobs:
            return None
        rows = tuple(Row(tuple(job.values()), {}, job) for job in jobs)
        return Table("Jobs without numbers", tuple(jobs[0]), (), rows)

    @cached_property
    def reproduced(self) -> list[Reproduced]:
        """The published numbers beside ours."""
        return reproduce(self.frame, self.planned)


_METHOD = ("method", "architecture", "training")


def _method_board(board: Board, metric: str) -> Table:
    """Lay out one row a method, one column a precision."""
    rows = []
    for line in board.lines:
        cells = {p: cell for (p, of), cell in line.cells.items() if of == metric}
        rows.append(_method_row(line.subject, cells, line.name, _facts(board, line), metric))
    title = f"Methods: {_title(board)}, {metric_name(metric)} (%)"
    facts = {name: board.facts[name] for name in ("dataset", "protocol")} | {"over": ""}
    columns = tuple(p for p in board.precisions if any(p in row.cells for row in rows))
    note = _with_rounding(METHODS, (cell for row in rows for cell in row.cells.values()))
    return Table(title, (*_METHOD, "pretrainings"), columns, tuple(rows), note, facts=facts)


def _method_mean(average: dataset_means.Average) -> Table:
    """Lay out one row a method with a mean over data sets, one column a precision."""
    shared = {name: average.facts[name] for name in ("task", "protocol", "engine")}
    rows = []
    for subject, means in average.means.items():
        facts = dict(zip(SUBJECT, subject, strict=True))
        rows.append(_method_row(facts, means, facts["checkpoint"], shared, average.metric))
    over = ", ".join(average.datasets)
    metric = metric_name(average.metric)
    title = f"Methods, mean over {over}: {average.facts['protocol']}, {metric} (%)"
    labels, columns = (*_METHOD, "pretrainings"), tuple(average.precisions)
    facts = {"dataset": "-", "protocol": average.facts["protocol"], "over": over}
    return Table(title, labels, columns, tuple(rows), METHOD_MEANS, facts=facts)


def _method_row(
    subject: Mapping[str, str], cells: Mapping[str, Cell], name: str, shared: Mapping, metric: str
) -> Row:
    """`subject` has the method's own name as its checkpoint, and what pretrained it as its method."""
    counts = sorted({cell.n_seeds for cell in cells.values() if cell.n_seeds})
    pretrainings = "–".join(dict.fromkeys(str(n) for n in (counts[:1] + counts[-1:])))
    facts = {**subject, **shared, "name": name, "pretrainings": pretrainings}
    facts |= {"metric": metric_name(metric)}
    labels = (name, subject["architecture"], subject["training"], pretrainings)
    return Row(labels, {p: replace(cell, of_method=True) for p, cell in cells.items()}, facts)


def _classification(board: Board, metric: str) -> Table:
    """Lay out one row a line, one column a precision."""
    labels = ("checkpoint", "method", "architecture")
    rows = tuple(
        Row(
            labels=(line.name, *(line.subject[x] for x in labels[1:])),
            cells={p: cell for (p, of), cell in line.cells.items() if of == metric},
            facts=_facts(board, line) | {"metric": metric_name(metric)},
        )
        for line in board.lines
    )
    title = f"{_title(board)}, {metric_name(metric)} (%)"
    return Table(title, labels, tuple(board.precisions), rows, note=_note(board))


def _detection(board: Board) -> Table:
    """Lay out one row a line and precision, one column a metric."""
    labels = ("checkpoint", "architecture", "training", "policy")
    rows = tuple(
        Row(
            labels=(line.name, *(line.subject[x] for x in labels[1:]), precision),
            cells={metric: cell for (p, metric), cell in line.cells.items() if p == precision},
            facts=_facts(board, line) | {"precision": precision},
        )
        for line in board.lines
        for precision in sorted({p for p, _ in line.cells}, key=precision_rank)
    )
    labels = (*labels, "precision")
    return Table(f"{_title(board)} (%)", labels, tuple(board.metrics), rows, note=_note(board))


def _title(board: Board) -> str:
    facts = board.facts
    return f"{board.group}. {TASK_TITLES[facts['task']]}: {facts['dataset']}, {facts['protocol']}"


def _facts(board: Board, line: Line) -> dict[str, str]:
    shared = {name: board.facts[name] for name in ("dataset", "protocol", "engine")}
    return line.subject | shared | {"group": board.group}


def _note(board: Board) -> str:
    sent = SENT if any(line.subject["source"] != MEASURED for line in board.lines) else ""
    return _with_rounding(sent, (cell for line in board.lines for cell in line.cells.values()))


def _with_rounding(note: str, cells: Iterable[Cell]) -> str:
    """Add what the mark of numbers that depend on rounding means, where one of `cells` has it."""
    marked = any(cell.depends_on_rounding for cell in cells)
    return " ".join(filter(None, (note, ROUNDING_NOTE if marked else "")))


def _adaptive(networks: list[adaptive_bits.AdaptiveRow]) -> Table:
    """Lay out one row a network, one column a precision and one of Delta_B."""
    labels = ("group", "checkpoint", "architecture", "dataset", "method", "metric")
    rows = []
    for network in networks:
        facts = {name: getattr(network, name) for name in labels[1:-1]}
        facts |= {
            "metric": metric_name(network.metric),
            "group": network.board.group if network.board else "",
            "source": "measured" if network.board else "reported",
        }
        texts = (facts["group"] or "reported", *(facts[x] for x in labels[1:]))
        rows.append(Row(texts, {**network.cells, adaptive_bits.DELTA: network.delta}, facts))
    return Table(
        title=f"Adaptive bit-widths: accuracy and {adaptive_bits.DELTA} (%)",
        labels=labels,
        columns=(*adaptive_bits.columns(networks), adaptive_bits.DELTA),
        rows=tuple(rows),
        note=_with_rounding(
            adaptive_bits.NOTE, (cell for row in rows for cell in row.cells.values())
        ),
        gaps=tuple(adaptive_bits.blanks(networks)),
    )


def _average(average: dataset_means.Average) -> Table:
    """Lay out one row a checkpoint with a mean, one column a precision."""
    labels = ("checkpoint", "method", "architecture", "training")
    metric = metric_name(average.metric)
    shared = {name: average.facts[name] for name in ("task", "protocol", "engine")}
    rows = []
    for subject, means in average.means.items():
        facts = dict(zip(SUBJECT, subject, strict=True)) | shared | {"metric": metric}
        rows.append(Row(tuple(facts[x] for x in labels), means, facts))
    return Table(
        title=f"Mean over {', '.join(average.datasets)}: {average.facts['protocol']}, {metric} (%)",
        labels=labels,
        columns=tuple(average.precisions),
        rows=tuple(rows),
        note=dataset_means.NOTE,
        gaps=tuple(average.notes),
        facts={"datasets": average.datasets} | average.facts,
    )


def _reported(lines: list[Line]) -> Table:
    """Lay out one row a system and table of a paper, one column a precision."""
    labels = ("checkpoint", "paper", "table", "architecture", "dataset", "protocol", "metric")
    rows = []
    for line in lines:
        subject = line.subject
        unit = "" if subject["unit"] == "-" else f" ({subject['unit']})"
        cells = {precision: cell for (precision, _), cell in line.cells.items()}
        facts = subject | {
            "metric": metric_name(subject["metric"]) + unit,
            "protocol": subject["protocol"].replace(">", " → ").replace("_", " "),
            "notes": "; ".join(sorted({cell.reason for cell in cells.values() if cell.reason})),
        }
        rows.append(Row(tuple(subject[x] for x in labels), cells, facts))
    return Table(
        title="Reported by the papers, neither measured here nor ranked",
        labels=("system", *labels[1:]),
        columns=tuple(sorted({p for row in rows for p in row.cells}, key=precision_rank)),
        rows=tuple(rows),
    )
