"""Tables of integer inference: what exported networks cost where they were run, and how right they are.

A table holds what may be compared: one data set, protocol, runtime (with its version) and machine. Nothing
in it is ranked: which cost matters is the reader's to say. Detectors have a column more, how they were
trained; their costs are those of backbone and pyramid, their average precision that of the whole.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from lowbit.benchmark.leaderboard.aggregation.fold_seeds import ROUNDS
from lowbit.benchmark.leaderboard.labels import (
    DECIDES_OTHERWISE,
    DEPLOYMENT,
    SATURATES,
    TASK_TITLES,
)
from lowbit.benchmark.leaderboard.table_parts import Cell, Row, Table
from lowbit.benchmark.results.comparability import (
    BOARD,
    MEASURED,
    SUBJECT,
    metric_name,
)
from lowbit.benchmark.results.result_file import BIT_OPERATIONS, MACHINE, TRAINING

TASK = "deployment"
LABELS = ("checkpoint", "architecture", "policy", "precision")
_OF_DETECTORS = ("checkpoint", "architecture", TRAINING, "policy", "precision")


@dataclass(frozen=True)
class Timing:
    """One of the latencies that are measured: how its metrics end, and of what it is."""

    place: str
    batch: int
    threads: str

    @property
    def column(self) -> str:
        """The column of its ratio."""
        return f"latency b{self.batch}, {self.threads} (× FP)"

    @property
    def fact(self) -> str:
        """The fact of a row that is its time, see `make_deployments`."""
        return f"time_{self.place}"


TIMINGS = (
    Timing("1t_b1", 1, "1 thread"),
    Timing("1t_b8", 8, "1 thread"),
    Timing("allt_b1", 1, "all threads"),
    Timing("allt_b8", 8, "all threads"),
)
COLUMNS = {
    "file_bytes": "size (MB)",
    "packed_bytes": "packed (MB)",
    **{f"latency_ratio_{timing.place}": timing.column for timing in TIMINGS},
    "integer_layers": "integer layers",
    "agreement": "agreement (%)",
    "noise_floor": "noise floor (%)",
}
"""Columns by metric, after the accuracies."""

_NETWORK = (*SUBJECT, *BOARD, "precision")
_FULL = "FP"
_SATURATE = "saturate"
_SHARED = ("dataset", "protocol", "image_size", "engine", *MACHINE)  # by all rows of a table


@dataclass(frozen=True)
class _Network:
    """A network at a precision: what it is, its folded rows by metric, and its bit-operations."""

    labels: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Any]]
    operations: float | None

    def value(self, metric: str) -> float | None:
        """Return a number; None where the result lacks it."""
        return self.rows[metric]["value"] if metric in self.rows else None

    def ends(self, metric: str) -> dict[str, Any]:
        """Return the quartiles of a timing; of other costs nothing: their spread is in the CSV."""
        row = self.rows[metric]
        timed = row["interval"] == ROUNDS
        return {name: row[name] for name in ("low", "high", "interval")} if timed else {}


def make_deployments(folded: pd.DataFrame, frame: pd.DataFrame) -> list[Table]:
    """Return a table for each data set, protocol, runtime and machine that networks were run on.

    Args:
        folded: results folded over seeds.
        frame: the same before that, which has the counted bit-operations.

    A row's facts have, beside its labels, what its Pareto fronts are over: `bit_operations` of one image,
    `file_bytes`, `packed_bytes` and the times of TIMINGS in ms; None where a result lacks one.

    A time is the row's ratio times the time of its architecture in full precision: the median over the rows
    of the table. So a job during which the machine was busier moves no point: a ratio is measured in turns.
    """
    rows = folded[_measured(folded)]
    counted_in = frame[_measured(frame)].reindex(columns=[*_NETWORK, BIT_OPERATIONS])
    operations = (
        counted_in.groupby(list(_NETWORK), sort=False)[BIT_OPERATIONS].max().dropna().to_dict()
    )
    tables: dict[tuple, list[_Network]] = {}
    for key, part in rows.groupby(list(_NETWORK), sort=False):
        labels = dict(zip(_NETWORK, map(str, key), strict=True))
        by_metric = {row["metric"]: row for row in part.to_dict("records")}
        board = tuple(labels[column] for column in BOARD)
        tables.setdefault(board, []).append(_Network(labels, by_metric, operations.get(key)))
    return [_lay_out(networks) for networks in tables.values()]


def score_columns(tables: Iterable[Table]) -> list[str]:
    """Return the columns of accuracies, each once."""
    headers = (column for table in tables for column in table.columns)
    return [header for header in dict.fromkeys(headers) if header not in COLUMNS.values()]


def _measured(rows: pd.DataFrame) -> pd.Series:
    completed = rows["status"] == "completed"
    # Nobody could check what another machine measured.
    return completed & (rows["task"] == TASK) & (rows["source"] == MEASURED)


def _lay_out(networks: list[_Network]) -> Table:
    """Lay out one row a network and precision, one column a metric."""
    percent = (m for each in networks for m, row in each.rows.items() if row["unit"] == "%")
    scores = [metric for metric in dict.fromkeys(percent) if metric not in COLUMNS]
    shared = {name: networks[0].labels[name] for name in _SHARED}
    full = {_subject(each): each for each in networks if each.labels["precision"] == _FULL}
    trained = any(each.labels[TRAINING] != "-" for each in networks)
    names = _OF_DETECTORS if trained else LABELS
    rows = []
    for each, times in zip(networks, _times(networks), strict=True):
        cells = {f"{metric_name(m)} (%)": _score(each, m, full) for m in scores if m in each.rows}
        cells |= {h: _cost(each, m) for m, h in COLUMNS.items() if m in each.rows}
        facts = {name: each.labels[name] for name in (*SUBJECT, *_SHARED, "precision")}
        facts |= {BIT_OPERATIONS: each.operations, **times}
        facts |= {name: each.value(name) for name in ("file_bytes", "packed_bytes")}
        rows.append(Row(tuple(each.labels[name] for name in names), cells, facts))
    return Table(
        title=f"{TASK_TITLES[TASK]}: {_what(shared)}, {_where(shared)}",
        labels=names,
        columns=(*(f"{metric_name(metric)} (%)" for metric in scores), *COLUMNS.values()),
        rows=tuple(rows),
        note=DEPLOYMENT,
        gaps=tuple(_cautions(networks, saturates=shared["products"] == _SATURATE)),
        facts=shared,
    )


def _cautions(networks: list[_Network], *, saturates: bool) -> Iterator[str]:
    if saturates:
        yield SATURATES
    named = []
    for each in networks:
        agreement, floor = each.value("agreement"), each.value("noise_floor")
        if agreement is None or floor is None:
            continue
        if round(agreement, 2) < round(floor, 2):  # as they are shown
            said = ("checkpoint", TRAINING, "policy", "precision")
            labels = " ".join(each.labels[n] for n in said if each.labels[n] != "-")
            named.append(f"{labels} (agreement {agreement:.2f} %, noise floor {floor:.2f} %)")
    if named:
        yield DECIDES_OTHERWISE.format(networks="; ".join(named))


def _subject(network: _Network) -> tuple[str, ...]:
    return tuple(network.labels[column] for column in SUBJECT)


def _what(facts: Mapping[str, str]) -> str:
    side = "" if facts["image_size"] == "-" else f" at {facts['image_size']} px"
    return f"{facts['dataset']}{side}, {facts['protocol']}"


def _where(facts: Mapping[str, str]) -> str:
    """Name runtime and machine."""
    processor = f"{facts['processor']} ({facts['instruction_set']})"
    cores = f"{facts['cores']} core{'' if facts['cores'] == '1' else 's'}"
    return f"{facts['engine']} on {processor}, {cores}, 8-bit products {facts['products']}"


def _times(networks: list[_Network]) -> list[dict[str, float | None]]:
    """Return the times of each network, see `make_deployments`."""
    found: list[dict[str, float | None]] = [{} for _ in networks]
    for timing in TIMINGS:
        full = defaultdict(list)
        for each in networks:
            ratio, time = _timed(each, timing)
            if ratio and time:
                full[each.labels["architecture"]].append(time / ratio)
        for each, times in zip(networks, found, strict=True):
            ratio, known = _timed(each, timing)[0], full[each.labels["architecture"]]
            times[timing.fact] = ratio * median(known) if ratio and known else None
    return found


def _timed(network: _Network, timing: Timing) -> tuple[float | None, float | None]:
    """Return a network's ratio and time, in ms."""
    return tuple(network.value(f"{m}_{timing.place}") for m in ("latency_ratio", "latency"))


def _score(network: _Network, metric: str, full: Mapping[tuple[str, ...], _Network]) -> Cell:
    names = ("value", "sd", "low", "high", "interval", "stderr", "n_seeds", "n_jobs")
    row, reference = network.rows[metric], full.get(_subject(network))
    compared = reference is not None and reference is not network and metric in reference.rows
    drop = row["value"] - reference.value(metric) if compared else math.nan
    return Cell(**{name: row[name] for name in names}, drop=drop)


def _cost(network: _Network, metric: str) -> Cell:
    """Return a cell with the text that fits its unit."""
    value, ends, layers = network.value(metric), network.ends(metric), network.value("layers")
    text = f"{value:.2f}"
    if metric.endswith("_bytes"):
        text = _three_digits(value / 1e6)
    elif metric == "integer_layers" and layers is not None:
        text = f"{value:.4g} of {layers:.4g}"
    elif ends:
        text += " [{low:.2f}, {high:.2f}]".format(**ends)
    return Cell(value=value, printed=text, **ends)


def _three_digits(value: float) -> str:
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"
