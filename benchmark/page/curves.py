"""Accuracy against precision as plotly traces, one figure a board and metric."""

import math
from typing import Any

from benchmark.boards import Board, Line
from benchmark.wording import metric_name

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon")
COLOURS = 7  # of style.css: --line-0 ... --line-6
_HOVER_NAME = 40  # characters; a longer name would leave the screen
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C])


def make_figures(boards: list[Board]) -> list[dict[str, Any]]:
    """Return, for every classification board and metric, its title, axis and traces.

    A checkpoint, trained one way, keeps its colour, dash and symbol in all of them. Texts that plotly draws are plain:
    its own mark-up, and characters that reverse the reading direction, are taken out of names.
    """
    boards = [board for board in boards if board.facts["task"] == "classification"]
    names = sorted({_key(line) for board in boards for line in board.lines})
    style = {name: index for index, name in enumerate(names)}
    return [
        {
            "title": f"{board.facts['dataset']} · {board.facts['protocol']}",
            "group": board.group,
            "metric": f"{metric_name(metric)} (%)",
            "precisions": board.precisions,
            "traces": [
                trace
                for line in board.lines
                if (trace := _trace(line, board.precisions, metric, style[_key(line)]))["x"]
            ],
        }
        for board in boards
        for metric in board.metrics
    ]


def plain(text: str) -> str:
    """Return text that plotly draws as it is: no tags, no entities, no reversed reading direction."""
    text = text.translate(_BIDI)
    text = text if len(text) <= _HOVER_NAME else f"{text[: _HOVER_NAME - 1]}…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _key(line: Line) -> tuple[str, ...]:
    columns = ("checkpoint", "method", "architecture", "training")
    return tuple(line.subject[column] for column in columns)


def _name(line: Line) -> str:
    """Return the checkpoint, and how it was trained at low precision if that is what is compared."""
    checkpoint, training = line.subject["checkpoint"], line.subject["training"]
    return checkpoint if training == "-" else f"{checkpoint}, {training}"


def _trace(line: Line, precisions: list[str], metric: str, index: int) -> dict[str, Any]:
    cells = [(p, line.cells[p, metric]) for p in precisions if (p, metric) in line.cells]
    cells = [(precision, cell) for precision, cell in cells if cell.n_seeds]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(_name(line)),
        "x": [precision for precision, _ in cells],
        "y": [round(cell.value, 4) for _, cell in cells],
        "error_y": {
            "type": "data",
            "array": [0 if math.isnan(cell.sd) else round(cell.sd, 4) for _, cell in cells],
            "thickness": 1.2,
            "width": 3,
        },
        "customdata": [_spread(cell.sd, cell.n_seeds) for _, cell in cells],
        "hovertemplate": "%{y:.1f}%{customdata}",
        "line": {"dash": _DASHES[index // COLOURS % len(_DASHES)], "width": 2},
        "marker": {"symbol": _SYMBOLS[index % len(_SYMBOLS)], "size": 7},
        "meta": {"colour": index % COLOURS, "label": _name(line)},
    }


def _spread(sd: float, n_seeds: int) -> str:
    return " (1 seed)" if n_seeds == 1 else f" ± {sd:.1f} ({n_seeds} seeds)"
