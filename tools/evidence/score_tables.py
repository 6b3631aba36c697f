"""Tables of scores of the results kept: a row a method or training, a column a precision."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import mean

from lowbit.benchmark.results.result_file import Result, find_results
from lowbit.benchmark.statistics.ranking import summarize
from lowbit.quant.precision import Precision

_NAMES = (
    "checkpoint",
    "protocol",
    "training",
    "dataset",
)  # of a row, where several have different ones
_METRICS = ("top1", "AP")


def score_table(folder: Path, protocol: str) -> str:
    """Return a table in Markdown of the test scores of a suite's results under a protocol.

    A cell is the mean over the pretrainings of a method, each with the mean over its scoring seeds, and the
    standard deviation over them; with one pretraining, over the seeds of training.

    Args:
        folder: of the results.
        protocol: as the board shows it; `*` stands for anything.

    Raises:
        ValueError: there is no such result.
    """
    results = [r for r in find_results(folder) if _matches(r, protocol)]
    if not results:
        raise ValueError(
            f"{folder} has no result of protocol {protocol}; no table was made. Correct the name in the "
            "document, or run the suite."
        )
    names = _row_names(results)
    precisions = sorted({p for r in results for p in r.precisions}, key=_bits, reverse=True)
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        rows[names[result.job_id]].append(result)
    lines = [("", *precisions, "seeds"), ("---",) + ("---:",) * (len(precisions) + 1)]
    for name, group in sorted(rows.items(), key=lambda row: row[0].lower()):
        units = [units_of(group, precision) for precision in precisions]
        count = max(len(values) for values in units)
        lines.append((name, *map(_cell, units), str(count)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def units_of(results: Iterable[Result], precision: str) -> list[float]:
    """Return a test score for each pretraining, or for each seed where there is one pretraining."""
    found: dict[int | None, dict[int, float]] = defaultdict(dict)
    for result in results:
        for each in result.measurements:
            if (each.precision, each.split) == (precision, "test") and each.metric in _METRICS:
                seed = result.recipe.get("seed", 0)
                found[result.checkpoint.pretrain_seed][seed] = each.value
    if len(found) == 1:
        ((_, seeds),) = found.items()
        return list(seeds.values())
    return [mean(seeds.values()) for _, seeds in sorted(found.items())]


def _bits(precision: str) -> tuple[int, int]:
    parsed = Precision.parse(precision)
    return parsed.weight_bits, parsed.activation_bits


def _matches(result: Result, protocol: str) -> bool:
    said = str(result.identity.get("protocol", result.identity.get("task")))
    return result.stage != "pretrain" and fnmatchcase(said, protocol)


def _row_names(results: Sequence[Result]) -> dict[str, str]:
    """Name the rows of results by the facts in which they differ."""
    facts = {
        r.job_id: (
            r.checkpoint.pretraining or r.checkpoint.name,
            *(str(r.identity.get(name, "-")) for name in _NAMES[1:]),
        )
        for r in results
    }
    differ = [i for i in range(len(_NAMES)) if len({found[i] for found in facts.values()}) > 1]
    return {job: ", ".join(found[i] for i in differ or [0]) for job, found in facts.items()}


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = summarize(values)
    return f"{found.mean:.1f}" + (f" ± {found.sd:.1f}" if found.n > 1 else "")
