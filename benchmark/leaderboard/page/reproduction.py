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
    """Return the published numbers that suites of the folder are to reproduce, by table.

    A table is shown where a planned job measures a number of it, those with something of ours first.
    `ran` is whether anything of any of them has run. All other tables, and why a printed number is
    uncertain, are in reproduction.csv.
    """
    asked = {(row.paper, row.table) for row in source.tables.reproduced if row.jobs}
    rows = [row for row in source.tables.reproduced if (row.paper, row.table) in asked]
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
    ran = any(row.ours is not None or row.status == "failed" for row in rows)
    return {
        "columns": _ROW,
        "statuses": STATUSES,
        "tables": found,
        "ran": ran,
        "numbers": len(rows),
    }


def _plain(name: str, value: Any) -> Any:
    if name == "metric":
        return metric_name(value)
    if name == "doubt":
        return int(bool(value))
    return round(value, _DIGITS) if isinstance(value, float) else value
