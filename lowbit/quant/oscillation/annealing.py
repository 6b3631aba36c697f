"""How the weight of the dampening and the threshold of freezing move over a training."""

import math
from dataclasses import dataclass

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Annealing:
    """From one value to another, along half a cosine or a line, after a share of the training.

    Attributes:
        first, last: the values; "constant" has the last one throughout.
        total_steps: of the training.
        schedule: one of `SCHEDULES`.
        start: share of the steps before the value begins to move.

    Example:
        >>> half = Annealing(0.0, 0.1, total_steps=100, start=0.5)
        >>> [round(half.at(step), 3) for step in (0, 50, 75, 100)]
        [0.0, 0.0, 0.05, 0.1]
    """

    first: float
    last: float
    total_steps: int
    schedule: str = "cosine"
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"annealing schedule {self.schedule!r} is unknown; nothing was trained. Use one of "
                f"{', '.join(SCHEDULES)}."
            )
        if not 0 <= self.start < 1:
            raise ValueError(
                f"annealing starts at {self.start} of the training; nothing was trained. Give a share "
                "from 0 to below 1."
            )
        if self.total_steps < 1:
            raise ValueError(
                f"the training has {self.total_steps} steps; nothing was trained. Annealing needs at "
                "least one."
            )

    def started(self, step: int) -> bool:
        """Whether the value of a step, counted from 0, moves already."""
        return self.schedule == "constant" or step >= self.start * self.total_steps

    def at(self, step: int) -> float:
        """Return the value of a step, counted from 0."""
        if self.schedule == "constant":
            return self.last
        begin = self.start * self.total_steps
        progress = min(max(step - begin, 0.0) / (self.total_steps - begin), 1.0)
        left = (
            1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        )
        return self.last + (self.first - self.last) * left
