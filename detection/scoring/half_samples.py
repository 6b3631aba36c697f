"""Standard error and 95 % interval of average precision over the test images, from random halves of them.

AP of n images is too high: the best precision at or above a recall is a maximum over noise. The excess
falls with n^(-2/3), as that of every estimate of a falling curve by such a maximum does (Groeneboom
1985), so from halves, whose mean AP is that of n/2 images without bias, to all images it shrinks by
2^(2/3). That gives the AP of the population:

    AP(n) - AP(oo) = (AP(n/2) - AP(n)) / (2^(2/3) - 1)

How fast it falls is known for large n only. With rates of 1/2 and 1 it would be larger and smaller by
0.4 of itself, which counts as its standard error.

VOC's metric of 2007 reads a curve at eleven recalls and is so rough a function of the images that its own
halves are an uneven measure of its bias; it takes that of the 2012 metric, which reads the whole of the same
curve.

Halves drawn without replacement vary around their mean as samples of n images do around theirs (the
delete-d jackknife of Shao and Wu 1989 with d = n/2), and no image occurs twice. In the bootstrap's
draws images do, and each repetition raises precision in every class at once: its intervals lie too high.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

PAIRS = 100  # of complementary halves
LEVEL = 0.95  # of the intervals
_RATE = 2 / 3
_UNSURE = 0.4  # of the bias: what it would be with rates of 1/2 and of 1
FEW = 10  # objects: docs/statistics.md has what intervals cover with fewer in a class
INTERVAL = "halves"
SMOOTH = {
    f"{ap}_voc07": f"{ap}_voc12" for ap in ("AP", "AP50", "AP75")
}  # whose bias a metric takes
_UNDEFINED = 0.05  # largest share of halves without an object that still gives an interval


class Spread(NamedTuple):
    """Standard error over the test images, and the 95 % interval of the population's number, in %.

    `warning` says why the interval may be too narrow; empty if nothing speaks for that.
    """

    stderr: float
    low: float
    high: float
    warning: str = ""


def draw_halves(n: int, pairs: int = PAIRS, *, seed: int = 0) -> np.ndarray:
    """Return which of n images are in each of 2 x `pairs` halves: (n, draws) of 0 and 1, deterministic.

    Halves come in pairs without a common image; of an odd number of images each pair leaves one out.
    """
    draw, half = np.random.default_rng(seed), n // 2
    halves = np.zeros((n, 2 * pairs), dtype=np.float32)
    for pair in range(pairs):
        order = draw.permutation(n)
        halves[order[:half], 2 * pair] = 1
        halves[order[half : 2 * half], 2 * pair + 1] = 1
    return halves


def few_objects(objects: np.ndarray) -> str:
    """Return the warning that goes with classes of so many objects, (K,); classes without are left out."""
    some = objects[objects > 0]
    few = int((some < FEW).sum())
    if not few:
        return ""
    return f"{few} of {len(some)} classes have fewer than {FEW} objects: the interval may be too narrow"


def spreads(
    values: Mapping[str, float],
    halves: Mapping[str, np.ndarray],
    images: int,
    warnings: Mapping[str, str],
) -> dict[str, Spread]:
    """Return the spreads of numbers by metric; those that are not known are left out."""
    found = {}
    for name, value in values.items():
        other = SMOOTH.get(name, name)
        known = spread(value, halves[name], images, bias=bias_of(values[other], halves[other]))
        if known:
            found[name] = known._replace(warning=warnings[name])
    return found


def bias_of(value: float, halves: np.ndarray) -> float:
    """Return by how much a number exceeds its limit for many images, from its values on halves."""
    defined = halves[~np.isnan(halves)]
    return float(defined.mean() - value) / (2**_RATE - 1) if len(defined) else 0.0


def spread(
    value: float, halves: np.ndarray, images: int, *, bias: float | None = None
) -> Spread | None:
    """Return standard error and interval of a number from its values on halves of the images, in %.

    The interval is that of the number's limit for many images, by Student's distribution, and is
    extended to the number itself where it does not contain it. None where the halves say nothing: all
    are equal (every object was found, or none), or more than 1 in 20 has no object for the metric.
    `bias` is the number's, where its own halves are not to say it.
    """
    return _spread(value, halves, images, bias, lowest=0.0)


def spread_of_difference(
    value: float, halves: np.ndarray, images: int, *, bias: float | None = None
) -> Spread | None:
    """Return the same for the difference of two numbers, by its values on the same halves."""
    return _spread(value, halves, images, bias, lowest=-100.0)


def p_of_difference(
    value: float, halves: np.ndarray, images: int, *, bias: float | None = None
) -> float:
    """Return the p-value, two-sided, that a difference has the limit 0; of a known spread."""
    centre, error = _limit(value, halves[~np.isnan(halves)], bias)
    return float(2 * special.stdtr(images - 1, -abs(centre) / error))


def deviations(halves: np.ndarray) -> np.ndarray:
    """Return what each half adds to a number's error, (halves,): the squares sum to that squared.

    Those of a difference are the differences of two numbers' deviations on the same halves.
    """
    return (halves - halves.mean()) / np.sqrt(len(halves) - 1)


def _spread(
    value: float, halves: np.ndarray, images: int, bias: float | None, *, lowest: float
) -> Spread | None:
    defined = halves[~np.isnan(halves)]
    if len(defined) < (1 - _UNDEFINED) * len(halves) or np.ptp(defined) < 1e-4:
        return None
    centre, error = _limit(value, defined, bias)
    half = float(special.stdtrit(images - 1, (1 + LEVEL) / 2)) * error
    low, high = np.clip([min(centre - half, value), max(centre + half, value)], lowest, 100.0)
    return Spread(float(defined.std(ddof=1)), float(low), float(high))


def _limit(value: float, halves: np.ndarray, bias: float | None) -> tuple[float, float]:
    """Return what a number tends to for many images, and the standard error of that."""
    bias = bias_of(value, halves) if bias is None else bias
    return value - bias, float(np.hypot(halves.std(ddof=1), _UNSURE * bias))
