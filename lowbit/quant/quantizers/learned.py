"""Base class of quantizers with a learned scale."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowbit.quant.quantizers.base import Quantizer


def moments(x: Tensor, channels: int | None) -> Tensor:
    """Return sums of x and x², (2,) or (2, C)."""
    dim = None if channels is None else -1
    return torch.stack([x.sum(dim), x.square().sum(dim)])


def deviation(mean: Tensor) -> Tensor:
    """Return the standard deviation from the means of x and x²."""
    return (mean[1] - mean[0].square()).clamp_(min=0).sqrt_()


def interval_scale(mean: Tensor, *, signed: bool) -> Tensor:
    """Return EWGS's initial clip range: 3 std, or 3 std / sqrt(1 - 2/π) of a half-normal."""
    return 3 * deviation(mean) / (1 if signed else math.sqrt(1 - 2 / math.pi))


class LearnedScale(Quantizer):
    """A quantizer whose scale is a parameter, set from statistics before training starts.

    `q_scale` has its final shape from construction on, so an optimizer built right away or a loaded
    checkpoint finds it. `q_state` is (initialized, signed, reference bits).

    Args:
        learn_scale: whether `q_scale` requires gradient.
    """

    def __init__(self, *, learn_scale: bool = True, **place) -> None:
        super().__init__(**place)
        self.q_scale = nn.Parameter(torch.ones(self.scale_shape), requires_grad=learn_scale)
        self.register_buffer("q_state", torch.zeros(3, dtype=torch.int64))
        self.reset()

    def reset(self) -> None:
        self._count, self._sums, self._low, self._high = 0, None, None, None

    def observe(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        x = x if x.dtype == torch.float64 else x.float()
        sums = self._statistics(x if self.channels is None else x.flatten(1))
        low, high = torch.aminmax(x)
        if self._sums is None:
            self._sums, self._low, self._high = sums, low, high
        else:
            self._sums = self._sums + sums
            self._low = torch.minimum(self._low, low)
            self._high = torch.maximum(self._high, high)
        self._count += x.numel() // (self.channels or 1)

    def _statistics(self, x: Tensor) -> Tensor:
        """Sums for setting the scale, (k,) or (k, C), over the last dimension or all."""
        raise NotImplementedError

    def _initial_scale(self, mean: Tensor) -> Tensor:
        """Scale from the mean statistics; `self.signed` is already set."""
        raise NotImplementedError

    @torch.no_grad()
    def finish(self) -> None:
        if self._sums is None:
            return
        self._merge()
        self.signed = bool(self._low < 0)
        scale = self._initial_scale(self._sums / self._count)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # keeps a dead channel exact
        self.q_scale.copy_(scale.reshape(self.q_scale.shape))
        self._mark_initialized()
        self.reset()

    def _merge(self) -> None:
        """Merge the observations over the ranks of a distributed run."""
        if self.role == "weight" or not (dist.is_available() and dist.is_initialized()):
            return  # every rank has the same weights
        count = self._sums.new_tensor(self._count)
        for value in (self._sums, count):
            dist.all_reduce(value)
        dist.all_reduce(self._low, dist.ReduceOp.MIN)
        dist.all_reduce(self._high, dist.ReduceOp.MAX)
        self._count = count.item()

    def _mark_initialized(self, reference_bits: int = 0) -> None:
        self.initialized = True
        self.q_state.copy_(torch.tensor([1, int(self.signed), reference_bits]))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "q_state" in state_dict:
            self.follow_buffers()

    def follow_buffers(self) -> None:
        initialized, signed, reference_bits = self.q_state.tolist()
        self.initialized, self.signed = bool(initialized), bool(signed)
        self._restore(reference_bits)

    def _restore(self, reference_bits: int) -> None:
        """Adapt to a loaded scale that belongs to `reference_bits`."""

    @property
    def scale(self) -> Tensor:
        # |s| keeps a step size that the optimizer pushed below zero meaningful; the smallest normal
        # number keeps the division defined at exactly zero.
        return self.q_scale.abs() + torch.finfo(self.q_scale.dtype).tiny

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, signed={self.signed}, initialized={self.initialized}"
