"""How many seeds would decide a claim that is undecided: a power calculation from the spread seen."""

import math

from scipy.special import nctdtr, stdtrit

from lowbit.benchmark.claims.decide import Estimate, Goal

POWER = 0.8  # probability of a decision, if the difference and the spread are those found
MOST = 1_000  # seeds that anybody might run


def seeds_needed(found: Estimate, goal: Goal, *, level: float, power: float = POWER) -> int | None:
    """Return the fewest pairs that decide with probability `power`, of at least those there are.

    It takes the mean and the spread found for the truth. The test is that of `decide` at `level`:
    Student's t, whose distribution where the mean is `goal.distance` from the bound is the noncentral one.

    Returns:
        None if not even `MOST` do, as where the difference is close to a bound.

    Example:
        >>> seeds_needed(Estimate(1.0, n=3, sd=0.5), Goal("more", 0.5), level=0.05)
        5
    """
    if not found.varies or power_of(found, goal, MOST, level=level) < power:
        return None
    low, high = found.n - 1, MOST  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(found, goal, middle, level=level) < power:
            low = middle
        else:
            high = middle
    return high


def power_of(found: Estimate, goal: Goal, n: int, *, level: float) -> float:
    """Return the probability that n pairs decide, at that level.

    Example:
        >>> round(power_of(Estimate(1.0, n=3, sd=0.5), Goal("more", 0.5), 5, level=0.05), 2)
        0.91
    """
    if n < 2:
        return 0.0
    away = goal.distance(found.mean) * math.sqrt(n) / found.sd
    bound = float(stdtrit(n - 1, 1 - level / 2))
    missed = float(nctdtr(n - 1, away, bound))
    return float(away > bound) if math.isnan(missed) else 1 - missed
