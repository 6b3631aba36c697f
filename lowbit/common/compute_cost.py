"""Expected operations and disk space of a job, counted from its recipe."""

from dataclasses import dataclass

LEARNING = 3
"""Cost of a training pass over a forward one: gradients of activations and weights cost one each."""


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one job.

    A multiplication and an addition are two operations. Only matrix products and convolutions are
    counted; augmentation, normalization and simulated quantization are not.

    Attributes:
        operations: floating-point operations, forward and backward.
        disk: bytes in the job's folder at the end.
        shared_operations: those done once for all jobs on the same weights (features).
        shared_disk: bytes of their results.
    """

    operations: float
    disk: int
    shared_operations: float = 0.0
    shared_disk: int = 0
