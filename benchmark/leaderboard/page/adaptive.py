"""Networks of adaptive bit-widths, measured and published, and what sharing one set of weights costs."""

import math
from typing import Any

from lowbit.benchmark.leaderboard import adaptive_bits
from lowbit.benchmark.leaderboard.boards import Cell
from lowbit.benchmark.leaderboard.page import rows
from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.results.comparability import metric_name
from lowbit.common.text import number


def content(source: Source) -> dict[str, Any]:
    """Return one row a network with a cell for each precision; empty where none was measured."""
    networks = adaptive_bits.make_adaptive(source.folded)
    if not networks:
        return {}
    precisions = adaptive_bits.columns(networks)
    return {
        "cell": rows.CELL,
        "columns": precisions,
        "rows": [_row(network, precisions) for network in networks],
        "blanks": adaptive_bits.blanks(networks),
    }


def _row(network: adaptive_bits.AdaptiveRow, precisions: list[str]) -> rows.Row:
    kept = ("checkpoint", "architecture", "dataset", "method")
    pack = rows.pack_cell if network.board else rows.pack_printed
    return {name: getattr(network, name) for name in kept} | {
        "metric": metric_name(network.metric),
        "group": network.board.group if network.board else "",
        "source": "measured" if network.board else "reported",
        "cells": [pack(network.cells.get(precision)) for precision in precisions],
        "delta": _delta(network.delta),
    }


def _delta(cell: Cell) -> list[Any]:
    """Return Delta_B: its text, its value (null where blank) and what it is made of or why it is blank."""
    blank = math.isnan(cell.value)
    return [
        cell.printed or number(cell.value),
        None if blank else round(cell.value, 4),
        cell.reason,
    ]
