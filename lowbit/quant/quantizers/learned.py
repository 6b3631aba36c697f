"""Base classes of quantizers with a learned scale."""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lowbit.quant.kernels.learned_scale_quantize import SMALLEST_SCALE
from lowbit.quant.kernels.range_quantize import run
from lowbit.quant.precision import OFF
from lowbit.quant.quantizers.base import Quantizer

DEFAULT_REFERENCE = 4
"""Bit-width whose step is the parameter, if the quantizer was off when its step was set."""


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


class _Positive(torch.autograd.Function):
    """max(|s|, SMALLEST_SCALE); the gradient is that of |s| everywhere, and 1 at 0."""

    @staticmethod
    def forward(ctx, s: Tensor) -> Tensor:
        ctx.save_for_backward(s)
        return s.abs().clamp_(min=SMALLEST_SCALE)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        (s,) = ctx.saved_tensors
        return torch.where(s < 0, -g, g)


class _Rescaled(torch.autograd.Function):
    """s·ratio, with the gradient divided by the ratio instead of multiplied."""

    @staticmethod
    def forward(ctx, s: Tensor, ratio: Tensor | float) -> Tensor:
        ctx.ratio = ratio
        return s * ratio

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        return g / ctx.ratio, None


class LearnedScale(Quantizer):
    """A quantizer whose scale is a parameter, set from statistics before training starts.

    `q_scale` has its final shape from construction on, so an optimizer built right away or a loaded
    checkpoint finds it. `q_state` is (initialized, signed, reference bits), of a floating type: what
    averages a network's tensors would truncate integers.

    Args:
        learn_scale: whether `q_scale` requires gradient.
    """

    mirrored = "q_state"
    _reference = 0  # of `LearnedStep`

    def __init__(self, *, learn_scale: bool = True, **place) -> None:
        super().__init__(**place)
        self.q_scale = nn.Parameter(torch.ones(self.scale_shape), requires_grad=learn_scale)
        self.register_buffer("q_state", torch.zeros(3))
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
        self.initialized = True
        self.q_state.copy_(torch.tensor([1, int(self.signed), self._reference]))
        self._note_read()
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

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "q_state" in state_dict:
            self.follow_copies()

    def follow_buffers(self) -> None:
        initialized, signed, self._reference = map(round, self.q_state.tolist())
        self.initialized, self.signed = bool(initialized), bool(signed)

    def _magnitude(self) -> Tensor:
        """|q_scale|, never below SMALLEST_SCALE, also after the optimizer pushed it below zero."""
        return run(_Positive, self.q_scale)

    @property
    def scale(self) -> Tensor:
        return self._magnitude()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, signed={self.signed}, initialized={self.initialized}"


class LearnedStep(LearnedScale):
    """A learned scale that is the step between levels, and so depends on the bit-width.

    `q_scale` is the step at the reference bit-width: the one the quantizer had when its step was set,
    else 4. At another one the step is that times the ratio of the two bit-widths' initial steps, and its
    gradient is divided by this ratio, so that SGD moves the step as if it were the parameter (at the
    reference bit-width it is, for every optimizer). Setting bits changes no tensor. So networks can be
    averaged whatever bits they are at: their average's steps are the averages of their steps.
    """

    scale_lr_factor = 1.0

    def _initial_step(self, mean: Tensor) -> Tensor:
        """Initial step from the mean statistics, at the reference bit-width."""
        raise NotImplementedError

    def _step_ratio(self, bits: int, reference: int) -> Tensor | float:
        """Initial step at `bits` over that at `reference`."""
        raise NotImplementedError

    def _initial_scale(self, mean: Tensor) -> Tensor:
        self._reference = self._bits if self._bits < OFF else DEFAULT_REFERENCE
        return self._initial_step(mean)

    @property
    def _is_rescaled(self) -> bool:
        return self.initialized and self._bits < OFF and self._bits != self._reference

    @property
    def scale(self) -> Tensor:
        step = self._magnitude()
        if not self._is_rescaled:
            return step
        return run(_Rescaled, step, self._step_ratio(self._bits, self._reference))
