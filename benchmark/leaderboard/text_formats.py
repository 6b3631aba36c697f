"""The board as CSV (every number, long), Markdown and LaTeX (what fits in a paper)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lowbit.benchmark.leaderboard.adaptive_bits import BLANK
from lowbit.benchmark.leaderboard.csv_text import to_csv as write_csv
from lowbit.benchmark.leaderboard.labels import (
    FILES_ONLY,
    NOTE,
    NOTHING,
    ONE_PRETRAINING,
    ROUNDED,
    SHARED_SEEDS,
    ZERO_SHOT,
)
from lowbit.benchmark.leaderboard.table_parts import Cell, Table
from lowbit.benchmark.leaderboard.tables import Tables
from lowbit.benchmark.results.result_file import MACHINE
from lowbit.common.text import number, printable

CSV_COLUMNS = (
    "checkpoint",
    "method",
    "architecture",
    "task",
    "dataset",
    "protocol",
    "training",
    "precision",
    "metric",
    "value",
    "sd",
    "n_seeds",
    "engine",
    "policy",
    "source",
    "status",
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
    "split_sha256",
    "protocol_version",
    "image_size",
    "reason",
    "paper",
    "table",
    "notes",
    "n_jobs",
    "zero_shot",
    "pretraining",
    "pretrain_seed",
    "rounding",
    "warning",
    *MACHINE,
)
METHOD_COLUMNS = {  # of methods.csv, by the columns of `fold_methods`
    "checkpoint": "method",
    **{name: name for name in ("architecture", "task", "dataset", "protocol", "training")},
    **{name: name for name in ("precision", "metric", "value")},
    "sd": "pretraining_sd",
    "n_seeds": "n_pretrainings",
    "low": "ci_low",
    "high": "ci_high",
    "interval": "interval",
    "scoring_sd": "scoring_sd",
    "scorings": "n_scorings",
    **{name: name for name in ("stderr", "unit", "n", "rank", "group", "engine", "policy")},
    **{name: name for name in ("policy_fingerprint", "source")},
}


def to_csv(tables: Tables) -> str:
    """Return every folded row, numbers with four digits after the point, empty where unknown."""
    frame = tables.folded.rename(columns={"low": "ci_low", "high": "ci_high"})
    frame = frame[list(CSV_COLUMNS)].copy()
    for column in ("n_seeds", "n_jobs", "n", "rank"):
        frame[column] = frame[column].astype(object).where(frame[column] > 0, "")
    frame["zero_shot"] = np.where(frame["zero_shot"], "yes", "")
    return write_csv(frame, float_format="%.4f")


def methods_to_csv(tables: Tables) -> str:
    """Return every method's number; the rank is empty where it has a single pretraining."""
    frame = tables.methods[list(METHOD_COLUMNS)].rename(columns=METHOD_COLUMNS)
    for column in ("n", "rank"):
        frame[column] = frame[column].astype(object).where(frame[column] > 0, "")
    return write_csv(frame, float_format="%.4f")


def to_markdown(tables: Tables) -> str:
    """Return the boards, what is missing and the published numbers as GitHub-flavoured Markdown."""
    measured, reported = _split(tables)
    missing = [tables.missing] if tables.missing else []
    parts = ["# lowbit-bench leaderboard", _note(tables) if measured else NOTHING]
    parts += map(_markdown, [*measured, *missing, *reported])
    return "\n\n".join(parts) + "\n"


def to_latex(tables: Tables) -> str:
    """Return the boards and the published numbers as tables for the booktabs package."""
    measured, reported = _split(tables)
    head = "% \\usepackage{booktabs}\n% " + _latex_text(_note(tables))
    if not measured:
        head += f"\n% {NOTHING}"
    return "\n\n".join([head, *map(_latex, [*measured, *reported])]) + "\n"


def _note(tables: Tables) -> str:
    return NOTE if tables.sections["methods"] else f"{NOTE} {FILES_ONLY}"


def _split(tables: Tables) -> tuple[list[Table], list[Table]]:
    """Return the tables of measured numbers, and those of published ones."""
    sections = dict(tables.sections)
    reported = sections.pop("reported")
    return [table for section in sections.values() for table in section], list(reported)


@dataclass(frozen=True)
class _Markup:
    """How a format writes plain text, the best methods', the best files' numbers, and a rank."""

    text: Callable[[str], str]
    bold: Callable[[str], str]
    italic: Callable[[str], str]
    rank: Callable[[int], str]

    def rows(self, table: Table) -> list[list[str]]:
        """Return the header of a table, then its rows."""
        header = [self.text(name) for name in (*table.labels, *table.columns)]
        explained = ZERO_SHOT in table.note
        return [
            header,
            *(
                [
                    *map(self.text, row.labels),
                    *(self._cell(row.cells.get(c), explained) for c in table.columns),
                ]
                for row in table.rows
            ),
        ]

    def _cell(self, cell: Cell | None, explained: bool) -> str:
        """Write a cell; a published number has the mark of zero-shot only where a note explains it."""
        if cell is None:
            return self.text("–")
        zero_shot = ZERO_SHOT if cell.zero_shot else ""
        if cell.printed:
            return self.text(cell.printed + (zero_shot if explained else ""))
        if math.isnan(cell.value):
            return self.text("–" if cell.status in BLANK else cell.status)
        rounded = ROUNDED if cell.depends_on_rounding else ""
        text = self.text(number(cell.value) + _spread(cell) + zero_shot + rounded)
        mark = self.rank(cell.rank) if cell.best or cell.rank > 1 else ""
        marked = self.bold if cell.of_method else self.italic
        return (marked(text) if cell.best else text) + mark


def _spread(cell: Cell) -> str:
    """Write what is known of a number's spread: over seeds, or the interval of a mean of means."""
    if cell.of_method and cell.n_seeds == 1:
        return ONE_PRETRAINING
    if cell.n_seeds:
        shared = SHARED_SEEDS if cell.n_jobs > cell.n_seeds else ""
        return ("†" if cell.n_seeds == 1 else f" ± {number(cell.sd)}") + shared
    return f" [{number(cell.low)}, {number(cell.high)}]" if cell.interval else ""


# What Markdown, or the HTML inside it, would read as anything but text.
_MARKDOWN_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in r"\`*_[]|~$"}
)


def _markdown_text(text: str) -> str:
    return printable(text, len(text)).translate(_MARKDOWN_ESCAPES)


_MARKDOWN = _Markup(_markdown_text, "**{}**".format, "*{}*".format, " <sup>{}</sup>".format)


def _markdown(table: Table) -> str:
    header, *rows = _MARKDOWN.rows(table)
    align = ["---"] * len(table.labels) + ["---:"] * len(table.columns)
    lines = [f"| {' | '.join(row)} |" for row in (header, align, *rows)]
    notes = [f"\n{_markdown_text(note)}" for note in (table.note, *table.gaps) if note]
    return "\n".join([f"## {_markdown_text(table.title)}", "", *lines, *notes])


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
        "‡": r"$^\ddagger$",
        "§": r"\S{}",
        "¶": r"\P{}",
        "Δ": r"$\Delta$",
        "×": r"$\times$",
        "≈": r"$\approx$",
    }
    | {character: f"\\{character}" for character in "&%$#_{}"}
)


def _latex_text(text: str) -> str:
    seen = text if text.isprintable() else "".join(filter(str.isprintable, text))
    escaped = seen.translate(_LATEX_ESCAPES)
    return escaped.replace(r"$\Delta$\_B", r"$\Delta_{\mathcal{B}}$")


_LATEX_MARKUP = _Markup(
    _latex_text, r"\textbf{{{}}}".format, r"\textit{{{}}}".format, "$^{{{}}}$".format
)


def _latex(table: Table) -> str:
    columns = "l" * len(table.labels) + "r" * len(table.columns)
    header, *rows = _LATEX_MARKUP.rows(table)
    notes = [note for note in (table.note, *table.gaps) if note]
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
            *(rf"  \par\footnotesize {_latex_text(note)}" for note in notes),
            r"\end{table}",
        ]
    )
