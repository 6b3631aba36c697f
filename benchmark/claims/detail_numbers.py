"""Numbers of a training that results keep beside their measurements, in `details`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lowbit.benchmark.results.result_file import Result

_LAST = 10  # of how many parts of the training the last counts as its end
_NEAR = 0.1  # how far the iteration of an evaluation may be from the one asked for, of that

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class Detail:
    """A number of a training.

    Attributes:
        unit: of the number.
        means: what it is.
        read: yields it for each precision of a result that has it.
    """

    unit: str
    means: str
    read: Callable[[Result], Iterator[tuple[str, float]]]


def _correlation(result: Result) -> Iterator[tuple[str, float]]:
    found = _mapping(result.details.get("correlation")).get("max_abs_rho")
    if _is_number(found):
        yield "FP", float(found)


def _rate_gap(result: Result) -> Iterator[tuple[str, float]]:
    for precision, curve in _curves(result):
        gap, target = curve.get("gap"), curve.get("target")
        if gap and target and sum(target) > 0:
            yield precision, 100 * sum(gap) / sum(target)


def _final_step(result: Result) -> Iterator[tuple[str, float]]:
    for precision, curve in _curves(result):
        steps = curve.get("effective_step")
        if steps and sum(steps) > 0:
            last = steps[-max(1, len(steps) // _LAST) :]
            yield precision, 100 * (sum(last) / len(last)) / (sum(steps) / len(steps))


DETAILS = {
    "correlation": Detail(
        "",
        "largest |rho| of SSQL's quantization and contrastive errors over a pretraining's steps, of "
        "`lowbit-bench analyze correlation`",
        _correlation,
    ),
    "rate_gap": Detail(
        "% of the target",
        "mean distance of a layer's transition rate K from its target R, over epochs and layers",
        _rate_gap,
    ),
    "final_step": Detail(
        "% of its mean",
        "mean effective step of quantized weights in the last tenth of the epochs, over that of all",
        _final_step,
    ),
}
"""By the name that a claim gives as its metric."""


def score_after(result: Result, share: float, metric: str) -> float | None:
    """Return a detector's score after a share of its iterations; None: it was not evaluated there."""
    curve = result.details.get("curve")
    rows = [row for row in curve if isinstance(row, dict)] if isinstance(curve, list) else []
    scores = {
        row["iteration"]: row[metric]
        for row in rows
        if _is_number(row.get("iteration")) and _is_number(row.get(metric))
    }
    if not scores:
        return None
    wanted = share * max(row["iteration"] for row in rows if _is_number(row.get("iteration")))
    nearest = min(scores, key=lambda iteration: abs(iteration - wanted))
    return float(scores[nearest]) if abs(nearest - wanted) <= _NEAR * wanted else None


def _curves(result: Result) -> Iterator[tuple[str, Curve]]:
    """Yield the curves of quantization-aware training, see `transition_curve`."""
    for precision, curve in _mapping(result.details.get("transitions")).items():
        lists = {name: v for name, v in _mapping(curve).items() if isinstance(v, list)}
        if all(_is_number(value) for values in lists.values() for value in values):
            yield precision, lists


# Details may hold anything, in another's result files at least.


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
