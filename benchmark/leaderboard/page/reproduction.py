"""Reproduction: every published number of the reproduced tables beside ours."""

from collections import Counter
from typing import Any

from lowbit.benchmark.leaderboard.page.source import Source
from lowbit.benchmark.leaderboard.reproduction import STATUSES
from lowbit.benchmark.results.comparability import metric_name

_ROW = (
    "system",
    "dataset",
    "architecture",
    "protocol",
    "precision",
    "metric",
    "published",
    "printed",
    "doubt",
    "ours",
    "sd",
    "n_seeds",
    "difference",
    "tolerance",
    "status",
    "reason",
)
_DIGITS = 4


def content(source: Source) -> dict[str, Any]:
    """Return published numbers by table, tables with something of ours first.

    Each table says what reproduces it and what differs from the published experiment; each row is set
    against its tolerance.
    """
    rows = source.tables.reproduced
    if not rows:
        return {}
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row.paper, row.table)
        facts = {
            name: getattr(row, name) for name in ("paper", "table", "suite", "command", "differs")
        }
        table = tables.setdefault(key, facts | {"rows": []})
        table["rows"].append([_plain(name, getattr(row, name)) for name in _ROW])
    place = _ROW.index("status")
    ours = _ROW.index("ours")
    for table in tables.values():
        table["rows"].sort(key=lambda row: row[ours] is None)
        counts = Counter(row[place] for row in table["rows"])
        table["counts"] = [counts[status] for status in STATUSES]
    found = sorted(tables.values(), key=lambda t: all(row[ours] is None for row in t["rows"]))
    return {"columns": _ROW, "statuses": STATUSES, "tables": found}


def _plain(name: str, value: Any) -> Any:
    if name == "metric":
        return metric_name(value)
    return round(value, _DIGITS) if isinstance(value, float) else value
