"""The board as CSV (every number, long), Markdown and LaTeX (what fits in a paper)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lowbit.benchmark.leaderboard import adaptive_bits
from lowbit.benchmark.leaderboard.boards import Board, Cell, Line, make_reported, missing_jobs
from lowbit.benchmark.leaderboard.dataset_means import NOTE as AVERAGED
from lowbit.benchmark.leaderboard.dataset_means import Average, Mean, averages
from lowbit.benchmark.leaderboard.labels import (
    NOTE,
    NOTHING,
    SENT,
    ZERO_SHOT,
    title,
)
from lowbit.benchmark.results.comparability import MEASURED, SUBJECT, metric_name, precision_rank
from lowbit.common.text import number

CSV_COLUMNS = (
    *("checkpoint", "method", "architecture", "task", "dataset", "protocol", "training"),
    *("precision", "metric", "value", "sd", "n_seeds", "engine", "policy", "source", "status"),
    *(
        "ci_low",
        "ci_high",
        "interval",
        "stderr",
        "unit",
        "n",
        "split",
        "group",
        "rank",
        "policy_fingerprint",
    ),
    *("split_sha256", "protocol_version", "image_size", "reason", "paper", "table", "notes"),
    "zero_shot",
)


@dataclass
class Table:
    """A titled table of texts and cells."""

    title: str
    header: list[str]
    rows: list[list[str | Cell | Mean]]
    labels: int  # leading columns that are text
    notes: list[str] = field(default_factory=list)  # below it


def to_csv(folded: pd.DataFrame) -> str:
    """Return every folded row, numbers with four digits after the point, empty where unknown."""
    frame = folded.rename(columns={"low": "ci_low", "high": "ci_high"})[list(CSV_COLUMNS)].copy()
    for column in ("n_seeds", "n", "rank"):
        frame[column] = frame[column].astype(object).where(frame[column] > 0, "")
    frame["zero_shot"] = np.where(frame["zero_shot"], "yes", "")
    return frame.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def to_markdown(frame: pd.DataFrame, folded: pd.DataFrame, boards: Sequence[Board]) -> str:
    """Return the boards, what is missing and the published numbers as GitHub-flavoured Markdown."""
    tables, reported = _tables(folded, boards)
    parts = ["# lowbit-bench leaderboard", NOTE if tables else NOTHING]
    parts += [_markdown(table) for table in tables]
    if missing := missing_jobs(frame):
        header = list(missing[0])
        rows = [list(job.values()) for job in missing]
        parts.append(_markdown(Table("Jobs without numbers", header, rows, labels=len(header))))
    if reported:
        parts.append(_markdown(reported))
    return "\n\n".join(parts) + "\n"


def to_latex(folded: pd.DataFrame, boards: Sequence[Board]) -> str:
    """Return the boards and the published numbers as tables for the booktabs package."""
    tables, reported = _tables(folded, boards)
    head = "% \\usepackage{booktabs}\n% " + _latex_text(NOTE)
    if not tables:
        head += f"\n% {NOTHING}"
    parts = [head, *map(_latex, tables), *([_latex(reported)] if reported else [])]
    return "\n\n".join(parts) + "\n"


def _tables(folded: pd.DataFrame, boards: Sequence[Board]) -> tuple[list[Table], Table | None]:
    tables: list[Table] = []
    for board in boards:
        if board.facts["task"] == "detection":
            tables.append(_detection(board))
        else:
            tables += [_classification(board, metric) for metric in board.metrics]
    if rows := adaptive_bits.make_adaptive(folded):
        tables.append(_adaptive(rows))
    tables += [_average(average) for average in averages(folded)]
    reported = make_reported(folded)
    return tables, _reported(reported) if reported else None


def _classification(board: Board, metric: str) -> Table:
    labels = ["checkpoint", "method", "architecture"]
    rows = [
        [line.name, *(line.subject[x] for x in labels[1:])]
        + [line.cells.get((p, metric), "–") for p in board.precisions]
        for line in board.lines
    ]
    header = labels + board.precisions
    return Table(title(board, metric), header, rows, labels=len(labels), notes=_notes(board))


def _detection(board: Board) -> Table:
    labels = ["checkpoint", "architecture", "training", "policy"]
    rows = [
        [
            line.name,
            *(line.subject[x] for x in labels[1:]),
            p,
            *(line.cells.get((p, m), "–") for m in board.metrics),
        ]
        for line in board.lines
        for p in sorted({precision for precision, _ in line.cells}, key=precision_rank)
    ]
    header = [*labels, "precision", *board.metrics]
    return Table(title(board), header, rows, labels=len(labels) + 1, notes=_notes(board))


def _notes(board: Board) -> list[str]:
    return [SENT] if any(line.subject["source"] != MEASURED for line in board.lines) else []


def _adaptive(rows: Sequence[adaptive_bits.AdaptiveRow]) -> Table:
    labels = ["group", "checkpoint", "architecture", "dataset", "method", "metric"]
    precisions = adaptive_bits.columns(rows)
    body = []
    for row in rows:
        group = row.board.group if row.board else "reported"
        texts = [group, *(getattr(row, x) for x in labels[1:-1]), metric_name(row.metric)]
        cells = [row.cells.get(precision, "–") for precision in precisions]
        body.append([*texts, *(_printed(cell) for cell in cells), _delta(row.delta)])
    heading = f"Adaptive bit-widths: accuracy and {adaptive_bits.DELTA} (%)"
    header = [*labels, *precisions, adaptive_bits.DELTA]
    notes = [adaptive_bits.NOTE, *adaptive_bits.blanks(rows)]
    return Table(heading, header, body, labels=len(labels), notes=notes)


def _average(average: Average) -> Table:
    labels = ["checkpoint", "method", "architecture", "training"]
    rows = []
    for subject, cells in average.means.items():
        facts = dict(zip(SUBJECT, subject, strict=True))
        means = [cells.get(precision, "–") for precision in average.precisions]
        rows.append([*(facts[x] for x in labels), *means])
    facts, metric = average.facts, metric_name(average.metric)
    heading = f"Mean over {', '.join(average.datasets)}: {facts['protocol']}, {metric} (%)"
    header = labels + average.precisions
    notes = [AVERAGED, *average.notes]
    return Table(heading, header, rows, labels=len(labels), notes=notes)


def _printed(cell: str | Cell) -> str | Cell:
    """Return a published number as its paper prints it, and all else as it is."""
    if isinstance(cell, str) or not cell.printed:
        return cell
    return cell.printed + (ZERO_SHOT if cell.zero_shot else "")


def _delta(cell: Cell) -> str:
    return cell.printed or number(cell.value)


def _reported(lines: Sequence[Line]) -> Table:
    labels = ["checkpoint", "paper", "table", "architecture", "dataset", "protocol", "metric"]
    precisions = sorted({p for line in lines for p, _ in line.cells}, key=precision_rank)
    rows = []
    for line in lines:
        cells = {p: cell.printed for (p, _), cell in line.cells.items()}
        rows.append([line.subject[x] for x in labels] + [cells.get(p, "–") for p in precisions])
    heading = "Reported by the papers, neither measured here nor ranked"
    return Table(heading, ["system", *labels[1:], *precisions], rows, labels=len(labels))


@dataclass(frozen=True)
class _Markup:
    """How a format writes plain text, the best group's numbers, and a rank."""

    text: Callable[[str], str]
    bold: Callable[[str], str]
    rank: Callable[[int], str]

    def cell(self, cell: str | Cell | Mean) -> str:
        if isinstance(cell, str):
            return self.text(cell)
        if isinstance(cell, Mean):
            interval = f" [{number(cell.low)}, {number(cell.high)}]" if cell.interval else ""
            return self._ranked(number(cell.value) + interval, cell)
        if not cell.n_seeds:
            return self.text(cell.status)
        spread = "†" if cell.n_seeds == 1 else f" ± {number(cell.sd)}"
        zero_shot = ZERO_SHOT if cell.zero_shot else ""
        return self._ranked(number(cell.value) + spread + zero_shot, cell)

    def _ranked(self, text: str, cell: Cell | Mean) -> str:
        text = self.text(text)
        mark = self.rank(cell.rank) if cell.best or cell.rank > 1 else ""
        return (self.bold(text) if cell.best else text) + mark


# What Markdown, or the HTML inside it, would read as anything but text.
_MARKDOWN_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in r"\`*_[]|~$"}
)


def _markdown_text(text: str) -> str:
    return text.translate(_MARKDOWN_ESCAPES)


_MARKDOWN = _Markup(_markdown_text, "**{}**".format, " <sup>{}</sup>".format)


def _markdown(table: Table) -> str:
    align = ["---"] * table.labels + ["---:"] * (len(table.header) - table.labels)
    rows = [[_MARKDOWN.cell(x) for x in row] for row in (table.header, *table.rows)]
    rows.insert(1, align)
    lines = [f"## {_markdown_text(table.title)}", "", *(f"| {' | '.join(r)} |" for r in rows)]
    return "\n".join([*lines, *(f"\n{_markdown_text(note)}" for note in table.notes)])


_LATEX_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "−": "$-$",
        "–": "--",
        "†": r"$^\dagger$",
        "§": r"\S{}",
        "Δ": r"$\Delta$",
        "×": r"$\times$",
    }
    | {character: f"\\{character}" for character in "&%$#_{}"}
)


def _latex_text(text: str) -> str:
    printable = text if text.isprintable() else "".join(filter(str.isprintable, text))
    escaped = printable.translate(_LATEX_ESCAPES)
    return escaped.replace(r"$\Delta$\_B", r"$\Delta_{\mathcal{B}}$")


_LATEX_MARKUP = _Markup(_latex_text, r"\textbf{{{}}}".format, "$^{{{}}}$".format)


def _latex(table: Table) -> str:
    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    header, *rows = [[_LATEX_MARKUP.cell(x) for x in row] for row in (table.header, *table.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            rf"  \caption{{{_latex_text(table.title)}}}",
            r"  \centering",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            rf"    {' & '.join(header)} \\",
            r"    \midrule",
            *(rf"    {' & '.join(row)} \\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            *(rf"  \par\footnotesize {_latex_text(note)}" for note in table.notes),
            r"\end{table}",
        ]
    )
