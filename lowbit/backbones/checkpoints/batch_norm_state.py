"""Check whether a checkpoint's batch-norm statistics were ever updated."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class NormState:
    """State of the batch-norm layers in a checkpoint.

    Attributes:
        total: number of batch-norm layers.
        idle: number whose running statistics still have their initial values.
        trained: whether an idle layer's weight or bias differs from its initial value.
    """

    total: int
    idle: int
    trained: bool

    @property
    def warning(self) -> str | None:
        """Description of the problem, or None."""
        if not self.idle:
            return None
        share = f"{self.idle} of {self.total} batch-norm layers"
        if self.trained:
            return (
                f"{share} have running_mean 0 and running_var 1, though their weights were trained: "
                "their statistics were not saved or never updated, and features in evaluation mode "
                "will be wrong"
            )
        return f"{share} are as initialized: this looks like an untrained network"

    def __str__(self) -> str:
        if not self.total:
            return "none"
        return f"untrained ({self.idle} of {self.total})" if self.idle else f"sane ({self.total})"


def norm_state(tensors: Mapping[str, Tensor]) -> NormState:
    """Inspect the running statistics of every batch-norm layer among named tensors."""
    suffix = ".running_mean"
    layers = [name.removesuffix(suffix) for name in tensors if name.endswith(suffix)]
    idle = [layer for layer in layers if _is_idle(tensors, layer)]
    return NormState(len(layers), len(idle), any(_is_trained(tensors, layer) for layer in idle))


def _is_idle(tensors: Mapping[str, Tensor], layer: str) -> bool:
    variance = tensors.get(f"{layer}.running_var")
    batches = tensors.get(f"{layer}.num_batches_tracked")
    return bool(
        (tensors[f"{layer}.running_mean"] == 0).all()
        and (variance is None or (variance == 1).all())
        and (batches is None or batches == 0)
    )


def _is_trained(tensors: Mapping[str, Tensor], layer: str) -> bool:
    weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
    # The last norm of a residual branch may start at 0 (Goyal et al. 2017).
    constant = weight is None or (weight == 1).all() or (weight == 0).all()
    return not constant or (bias is not None and bool((bias != 0).any()))
