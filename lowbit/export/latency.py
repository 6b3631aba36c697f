"""Time one graph against another in turns, so that what else the machine does falls on both."""

import time
from dataclasses import dataclass

import numpy as np

from lowbit.export.runtime import Session

QUARTILES = "quartiles"  # what `low` and `high` are
_ROUND = 5e-3  # s of each graph in a round; short, so that a disturbance spoils few rounds
_MOST_REPEATS = 64
_WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """Time for a batch.

    Attributes:
        seconds: of the graph, the median of rounds.
        reference: of the other one.
        ratio: median over rounds of seconds / reference.
        low, high: quartiles of that ratio over rounds.
    """

    seconds: float
    reference: float
    ratio: float
    low: float
    high: float


def time_in_turns(
    session: Session, reference: Session, images: np.ndarray, *, rounds: int
) -> Latency:
    """Run two graphs on the same images in turns; the one that begins changes every round.

    Args:
        session, reference: the graphs.
        images: a batch (B, 3, size, size).
        rounds: how many.
    """
    for _ in range(_WARM_UP):
        for each in (session, reference):
            each.run(images)
    once = _seconds(reference, images, 1)
    repeats = int(min(_MOST_REPEATS, max(1, _ROUND // once)))
    times = np.empty((rounds, 2))
    for number in range(rounds):
        turns = [(0, session), (1, reference)]
        for column, each in turns[:: 1 if number % 2 else -1]:
            times[number, column] = _seconds(each, images, repeats) / repeats
    ratios = times[:, 0] / times[:, 1]
    low, ratio, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    seconds, other = np.median(times, axis=0).tolist()
    return Latency(seconds, other, ratio, low, high)


def _seconds(session: Session, images: np.ndarray, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        session.run(images)
    return time.perf_counter() - started
