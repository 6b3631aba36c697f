"""Target transition rates over a run: how often a quantized layer's weights should change level."""

import math
from collections.abc import Callable
from dataclasses import dataclass

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}


def target_rate(lambda_: float, weight_bits: int) -> float:
    """Return the initial target R_0 = λ sqrt(b_w).

    Example:
        >>> target_rate(1e-3, 4)
        0.002
    """
    return lambda_ * math.sqrt(weight_bits)


@dataclass(frozen=True)
class TargetSchedule:
    """The target R_t from R_0 to a final value, updated every iteration.

    Attributes:
        total_steps: steps over which the cosine and the line fall; the target stays there afterwards.
        schedule: "cosine", "linear", "constant", or "step": times `factor` at each milestone.
        final: end of the cosine and the line, and lower bound of "step".
        milestones: steps of the "step" schedule.
        factor: of the "step" schedule; 1/5 in the paper (Table S3).

    Example:
        >>> TargetSchedule(100, "linear", final=0.5).at(50, 1.0)
        0.75
    """

    total_steps: int
    schedule: str = "cosine"
    final: float = 0.0
    milestones: tuple[int, ...] = ()
    factor: float = 0.2

    def __post_init__(self) -> None:
        known = (*SCHEDULES, "step")
        if self.schedule not in known:
            raise ValueError(
                f"target schedule {self.schedule!r} is unknown; no optimizer was made. "
                f"Use one of {', '.join(known)}."
            )
        if self.total_steps < 1:
            raise ValueError(
                f"total_steps is {self.total_steps}; no optimizer was made. The target needs at "
                "least one step to decay over."
            )
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"target schedule {self.schedule!r} got milestones {list(self.milestones)}; no "
                "optimizer was made. 'step' needs milestones, the other schedules take none."
            )

    def at(self, step: int, initial: float) -> float:
        """Return R_t of step `step`, counted from 0, for the initial target R_0 = `initial`."""
        if self.schedule == "step":
            fallen = sum(step >= milestone for milestone in self.milestones)
            return max(initial * self.factor**fallen, min(self.final, initial))
        share = SCHEDULES[self.schedule](min(step / self.total_steps, 1.0))
        return self.final + (initial - self.final) * share
