"""Write a comparison as sentences, a table and JSON."""

import dataclasses
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from lowbit.benchmark.results.comparability import metric_name
from lowbit.benchmark.statistics.comparison import Difference, Line
from lowbit.common.text import number

NOTE = """\
Pairs differ in nothing else. 95 % is the interval of A - B: Student's over paired seeds, or over
pretrainings, with the error over the test images added where it is known; over images alone, paired by
those that both sides answered (of AP: by random halves of them); unpaired, by their standard errors. p
of no difference: t-test, McNemar's exact test (a mean per class: the same within the classes).
Holm: corrected over the data sets of one precision, a single one over the precisions.
A line counts what p (Holm) <= 0.05 tells apart; its mean is over data sets, with Student's interval."""

_LEVELS = {
    "methods": "Compared: methods, over their pretrainings, each with the mean over its scoring seeds. "
    "Settings in which either has a single pretraining are left out.",
    "checkpoints": (
        "Compared: checkpoints, one pretraining each. It says which of these files is better, and nothing "
        "of the methods behind them: that takes several pretrainings (`pretrain_seeds` in the suite)."
    ),
    "training": "Compared: ways to train, on the same checkpoints.",
}
_HEADER = ["data set", "protocol", "alike", "precision", "metric"]
_NUMBERS = ["A", "B", "A - B", "95 %", "n", "p", "p (Holm)"]


def to_text(lines: Sequence[Line], a: str, b: str) -> str:
    """Lay a comparison out for a terminal: its level, a sentence a precision, then every difference."""
    parts = [f"A = {a}, B = {b}\n{_LEVELS[lines[0].level]}"]
    for heading, family in groupby(lines, key=_heading):
        parts.append("\n".join([heading, *(f"  {sentence(line, a, b)}" for line in family)]))
    return "\n\n".join([*parts, _table(lines), NOTE])


def to_json(lines: Sequence[Line], a: str, b: str, *, by: str) -> dict[str, Any]:
    """Return a comparison in plain types; what is unknown is null."""
    return {
        "a": a,
        "b": b,
        "by": by,
        "level": lines[0].level,
        "lines": [
            {
                "sentence": sentence(line, a, b),
                "wins": line.count("a"),
                "losses": line.count("b"),
                "ties": line.count("tie"),
                "untested": line.count("untested"),
                "overall": _plain(line.overall),
                "settings": [_plain(setting) for setting in line.settings],
            }
            for line in lines
        ],
    }


def sentence(line: Line, a: str, b: str) -> str:
    """Describe the result of a line, with the better side first.

    Returns:
        As "ssql beats simsiam at 4w4a on 6 of 7 data sets (1 tie), mean +3.1 [+1.9, +4.2]".
    """
    wins, losses, found = line.count("a"), line.count("b"), line.overall
    if losses > wins or (losses == wins and found.outcome == "b"):
        a, b, wins, losses, found = b, a, losses, wins, _swapped(found)
    at, settings = found.precision, len(line.settings)
    what, noun = f"{number(found.mean, sign=True)} {_interval(found)}", _noun(line)
    if settings == 1:
        where = f"at {at} on {found.dataset}"
        if found.outcome == "untested":
            return f"{a} and {b} {where}: {what}; a single seed, and nothing known of its images"
        return f"{a} beats {b} {where}, {what}" if wins else f"{a} and {b} tie {where}, {what}"
    mean, rest = f"mean {what}", _rest(line)
    if wins:
        lost = f" and loses on {losses}" if losses else ""
        return f"{a} beats {b} at {at} on {wins} of {settings} {noun}{lost}{rest}, {mean}"
    if found.outcome == "a":
        return f"{a} beats {b} at {at} over {settings} {noun} together, on none alone, {mean}"
    if line.count("tie") == settings:
        return f"{a} and {b} tie at {at} on all {settings} {noun}, {mean}"
    return f"{a} and {b} tie at {at} on {settings} {noun}{rest}, {mean}"


def _rest(line: Line) -> str:
    ties, untested = line.count("tie"), line.count("untested")
    parts = [f"{ties} {'tie' if ties == 1 else 'ties'}"] if ties else []
    parts += [f"{untested} not tested"] if untested else []
    return f" ({', '.join(parts)})" if parts else ""


def _noun(line: Line) -> str:
    settings = len(line.settings)
    if len({setting.dataset for setting in line.settings}) == settings:
        return "data sets"
    alone = len({setting.dataset for setting in line.settings}) == 1
    alike = len({setting.alike for setting in line.settings}) == settings
    return "checkpoints" if alone and alike else "settings"


def _swapped(found: Difference) -> Difference:
    return dataclasses.replace(
        found, a=found.b, b=found.a, mean=-found.mean, low=-found.high, high=-found.low
    )


def _heading(line: Line) -> str:
    found = line.overall
    alike = "" if found.alike in ("-", "all") else f", {found.alike}"
    return f"{found.protocol}{alike}, {metric_name(found.metric)}"


def _interval(found: Difference) -> str:
    if math.isnan(found.low):
        return "[unknown]"
    return f"[{number(found.low, sign=True)}, {number(found.high, sign=True)}]"


def _table(lines: Sequence[Line]) -> str:
    rows = [_HEADER + _NUMBERS]
    for setting in (setting for line in lines for setting in line.settings):
        rows.append(
            [setting.dataset, setting.protocol, setting.alike, setting.precision]
            + [metric_name(setting.metric), number(setting.a), number(setting.b)]
            + [
                number(setting.mean, sign=True),
                _interval(setting),
                f"{setting.n:,} {setting.over or 'seed'}",
            ]
            + [_p(setting.p), _p(setting.adjusted)]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < len(_HEADER) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _plain(found: Difference) -> dict[str, Any]:
    """JSON has no NaN: what is unknown is null."""
    fields = dataclasses.asdict(found) | {"outcome": found.outcome}
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in fields.items()
    }
