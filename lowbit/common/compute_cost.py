"""What a job is expected to take, counted from its recipe and not measured."""

from dataclasses import dataclass

LEARNING = (
    3  # a training pass over a forward one: activations' and weights' gradients cost one each
)


@dataclass(frozen=True)
class Work:
    """Operations and bytes of one job.

    A multiplication and an addition are two operations. Only matrix products and convolutions are
    counted; augmentation, normalization and simulated quantization are not.

    Attributes:
        operations: floating-point operations, forward and backward.
        disk: bytes that its folder holds in the end.
        shared_operations: of what jobs on the same weights do once for all (features).
        shared_disk: bytes of that.
    """

    operations: float
    disk: int
    shared_operations: float = 0.0
    shared_disk: int = 0
