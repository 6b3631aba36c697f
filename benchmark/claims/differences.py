"""The differences that a claim is decided by: of two rows, unit by unit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from lowbit.benchmark.claims.claim import Claim
from lowbit.benchmark.claims.result_rows import Number, ResultRow, Unit
from lowbit.benchmark.claims.scales import Sides
from lowbit.common.text import counted


@dataclass(frozen=True)
class Differences:
    """What a claim compares, by unit, and what it is missing.

    Attributes:
        by_unit: the difference of each pretraining and seed that all rows have.
        pretrainings: whether the sides differ in their pretraining, so that its seeds are the pairs.
        missing: the first numbers that no row of a side has, in words; "": none.
        image_error: see `lowbit.benchmark.claims.trials.Trial`.
    """

    by_unit: Mapping[Unit, float]
    pretrainings: bool
    missing: str = ""
    image_error: float | None = None

    def pairs(self) -> tuple[list[float], str]:
        """Return one value a pair, the mean over its scoring seeds, and how many there are, in words.

        Pretrainings are the pairs where there are several or where the sides differ in them; else seeds.
        """
        by_pretraining: dict[int | str | None, list[float]] = {}
        for (pretraining, _), value in self.by_unit.items():
            by_pretraining.setdefault(pretraining, []).append(value)
        if not self.pretrainings and len(by_pretraining) == 1:
            return list(self.by_unit.values()), counted(len(self.by_unit), "seed")
        counts = Counter(map(len, by_pretraining.values()))
        words = counted(len(by_pretraining), "pretraining")
        if max(counts) > 1:
            words += f", {'–'.join(str(n) for n in sorted({min(counts), max(counts)}))} seeds each"
        return [sum(values) / len(values) for values in by_pretraining.values()], words


def find_differences(claim: Claim, sides: Sides) -> Differences:
    """Subtract the second side from the first, unit by unit, and the place that the claim subtracts."""
    less = claim.less.precisions if claim.less and claim.less.precisions else claim.precisions
    places = [(1, sides.a, claim.precisions), (-1, sides.b, claim.precisions)]
    if claim.less is not None:
        places += [(-1, sides.a_less, less), (1, sides.b_less, less)]
    total: dict[Unit, float] | None = None
    errors: list[float | None] = []
    for sign, row, precisions in places:
        if row is None:
            continue
        found = _mean_over(claim, row, precisions)
        if isinstance(found, str):
            return Differences({}, pretrainings=False, missing=found)
        units = found if total is None else found.keys() & total.keys()
        total = {unit: (total[unit] if total else 0.0) + sign * found[unit].value for unit in units}
        known = [found[unit].stderr for unit in units]
        errors.append(None if not known or None in known else sum(known) / len(known))
    between = sides.b is not None and sides.a.origins != sides.b.origins
    missing = "" if total else "no pretraining and seed that both sides have"
    image_error = None if None in errors else hypot(*errors)
    ordered = dict(sorted((total or {}).items(), key=lambda item: str(item[0])))
    return Differences(ordered, between, missing, image_error)


def _mean_over(claim: Claim, row: ResultRow, precisions: Sequence[str]) -> dict[Unit, Number] | str:
    """Return the mean over precisions by unit, or what is missing, in words.

    Its standard error over the images is at most the mean of those at the precisions.
    """
    columns = [row.values(claim.metric, precision, claim.after) for precision in precisions]
    units = set.intersection(*(set(column) for column in columns))
    if not units:
        lacking = [p for p, column in zip(precisions, columns, strict=True) if not column]
        after = f" after {claim.after:.2g} of the iterations" if claim.after else ""
        where = f" at {', '.join(lacking)}" if lacking else " at all precisions of one seed"
        return f"{row.name} has no {claim.metric}{where}{after}"
    means = {}
    for unit in units:
        numbers = [column[unit] for column in columns]
        errors = [number.stderr for number in numbers]
        means[unit] = Number(
            sum(number.value for number in numbers) / len(numbers),
            None if None in errors else sum(errors) / len(errors),
        )
    return means
