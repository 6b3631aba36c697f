"""From numbers to a verdict: paired differences, their intervals, Holm's correction.

A *goal* says what a claim needs of a difference D between its sides, m being the smallest difference that
would matter:

    goal      supported where the interval of D    contradicted where it
    more      lies above 0                         lies below m
    within    lies between -m and m                lies outside them

"Contradicted" takes precedence: an interval between 0 and m says that one side is better, and by less than
would matter. Every claim is decided once its interval is narrower than m (`within`: than its distance from
the nearer bound).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from lowbit.benchmark.statistics.ranking import ALPHA, ROUNDING, summarize

Verdict = Literal["supported", "contradicted", "undecided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("supported", "contradicted", "undecided", "not run")


@dataclass(frozen=True)
class Goal:
    """What a claim says of a difference.

    Attributes:
        kind: see the module.
        matters: the smallest difference that would matter, positive, in the unit of the difference.
    """

    kind: Literal["more", "within"]
    matters: float

    def verdict(self, low: float, high: float) -> Verdict:
        """Return the verdict that an interval gives; one that is not known decides nothing.

        Example:
            >>> goal = Goal("more", 0.5)
            >>> goal.verdict(0.2, 3.0), goal.verdict(-3.0, 0.4), goal.verdict(0.1, 0.4)
            ('supported', 'contradicted', 'contradicted')
            >>> goal.verdict(-0.1, 0.6), Goal("within", 0.5).verdict(-0.4, 0.4)
            ('undecided', 'supported')
        """
        m = self.matters
        if self.kind == "more":
            supported, contradicted = low > 0, high < m
        else:
            supported, contradicted = low > -m and high < m, low > m or high < -m
        return "contradicted" if contradicted else "supported" if supported else "undecided"

    def distance(self, mean: float) -> float:
        """Return how wide half the interval around a mean may be for it to decide.

        Example:
            >>> Goal("more", 0.5).distance(2.0), Goal("more", 0.5).distance(-0.5)
            (2.0, 1.0)
        """
        if self.kind == "more":
            return max(mean, self.matters - mean)
        return abs(self.matters - abs(mean))


@dataclass(frozen=True)
class Estimate:
    """A difference over pairs: its mean, their number, at least two, and their standard deviation.

    A pair is the unit of which there could be more: two pretrainings of one seed, each with the mean over
    its scoring seeds, or two trainings of one seed from the same start.

    Example:
        >>> low, high = Estimate(1.5, n=3, sd=0.5).interval(0.05)  # Student's
        >>> round(low, 3), round(high, 3)
        (0.258, 2.742)
    """

    mean: float
    n: int
    sd: float

    @property
    def error(self) -> float:
        """The standard error."""
        return self.sd / math.sqrt(self.n)

    @property
    def varies(self) -> bool:
        """Whether there is a spread to test with, beyond rounding."""
        return self.sd > ROUNDING

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that misses the truth with probability `level`; NaN without a spread."""
        if not self.varies:
            return math.nan, math.nan
        half = float(stdtrit(self.n - 1, 1 - level / 2)) * self.error
        return self.mean - half, self.mean + half

    def p(self, goal: Goal) -> float:
        """Return the smallest level whose interval decides; 1 without a spread."""
        if not self.varies:
            return 1.0

        # The probability of such a mean, or one further out, if the truth is the bound.
        def above(bound: float) -> float:
            return float(stdtr(self.n - 1, (bound - self.mean) / self.error))

        def below(bound: float) -> float:
            return float(stdtr(self.n - 1, (self.mean - bound) / self.error))

        m = goal.matters
        if goal.kind == "more":
            found = min(above(0), below(m))
        else:
            found = min(max(above(-m), below(m)), above(m), below(-m))
        return min(1.0, 2 * found)


def estimate(differences: Sequence[float]) -> Estimate:
    """Estimate a difference from its values, one a pair."""
    found = summarize(differences)
    return Estimate(found.mean, found.n, found.sd)


@dataclass(frozen=True)
class Decision:
    """A verdict, with what it was made from.

    Attributes:
        low, high: the interval of the difference, at `level`.
        p: as if this claim alone had been tried.
        level: the probability with which the interval misses the truth; smaller, the more was tried.
    """

    verdict: Verdict
    low: float
    high: float
    p: float
    level: float


def decide(tried: Sequence[tuple[Estimate, Goal]], *, alpha: float = ALPHA) -> list[Decision]:
    """Decide all claims that were tried, corrected by Holm for how many they are.

    The i-th smallest of k p-values is tested at alpha / (k - i + 1), up to the first that fails; that and
    all after it are undecided. The probability that any verdict is wrong is at most `alpha`, however the
    claims depend on each other: of the two ways in which a claim can be decided, one at most is wrong.
    Each interval is shown at the level of its test, so that it gives the verdict.

    Example:
        >>> sure, unsure = Estimate(4.0, n=5, sd=0.5), Estimate(1.0, n=5, sd=1.0)
        >>> [found.verdict for found in decide([(unsure, Goal("more", 0.5)), (sure, Goal("more", 0.5))])]
        ['undecided', 'supported']
    """
    p = np.array([estimate.p(goal) for estimate, goal in tried])
    levels = np.zeros(len(p))
    left, level = len(p), 0.0
    for index in np.argsort(p, kind="stable"):
        if left:  # none has failed yet
            level = alpha / left
            left = left - 1 if p[index] <= level else 0
        levels[index] = level
    found = []
    for (given, goal), value, own in zip(tried, p.tolist(), levels.tolist(), strict=True):
        low, high = given.interval(own)
        found.append(Decision(goal.verdict(low, high), low, high, value, own))
    return found
