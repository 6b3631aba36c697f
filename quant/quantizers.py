"""Quantizers: modules that own a scale and turn a float tensor into one on a low-bit grid.

The contract every quantizer obeys (see `Quantizer`): `forward(x)`, `codes(x)`, `init_from(x)`, and the
attributes `bits`, `signed`, `granularity`, `scale`. The scale lives here and nowhere else; layers ask.
Facts a forward pass branches on (initialized, signed) are Python values, mirrored in the buffer
`q_state` so that they survive a checkpoint, and never read from the device in a step.
"""

import math

import torch
from torch import Tensor, nn

from quant.precision import OFF
from quant.primitives import (
    code_dtype,
    fake_quantize,
    fake_quantize_anchored,
    interval,
    lsq,
)

QUANTIZERS: dict[str, type["Quantizer"]] = {}
"""Quantizers by the name a policy uses. A class registers itself with `@register`; its constructor
takes what `Quantizer` takes and its own keyword options, which a policy's YAML may set."""


def register(cls: type["Quantizer"]) -> type["Quantizer"]:
    """Make `cls` available to policies under its class name."""
    QUANTIZERS[cls.__name__] = cls
    return cls


class Quantizer(nn.Module):
    """Base of all quantizers; itself the identity at 32 bits.

    Attributes:
        bits: current bit-width; 32 turns the quantizer off exactly.
        signed: whether codes run below zero.
        granularity: "tensor" (one scale) or "channel" (one for each index of dimension 0).
        scale: the positive scale, shape (1,) or broadcastable over dimension 0.
        observing: while True, forward passes record their input and do not quantize.

    Args:
        bits: bit-width to start at.
        channels: None for one scale a tensor, else the size of dimension 0.
        ndim: dimensions of the tensors to come, which shapes a stored scale per channel.
        role: "weight" or "activation" (whose dimension 0 counts samples).
    """

    def __init__(
        self,
        *,
        bits: int = OFF,
        channels: int | None = None,
        ndim: int = 1,
        role: str = "activation",
    ) -> None:
        super().__init__()
        self._bits = bits
        self.channels, self.ndim, self.role = channels, ndim, role
        self.signed = False
        self.initialized = False
        self.observing = False

    @property
    def ready(self) -> bool:
        """Whether the scale is known, or needs no knowing, before the next tensor comes."""
        return self.initialized

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        self._bits = bits

    @property
    def granularity(self) -> str:
        return "tensor" if self.channels is None else "channel"

    @property
    def scale(self) -> Tensor:
        """The scale at the current bit-width."""
        raise NotImplementedError

    @property
    def active(self) -> bool:
        """Whether a forward pass quantizes."""
        return self._bits < OFF and not self.observing

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` rounded to the grid, or `x` itself while off or observing."""
        if self.observing:
            self.observe(x.detach())
            return x
        if self._bits >= OFF or x.numel() == 0:
            return x
        if not self.ready:
            self._initialize_late(x.detach())
        return self._quantize(x)

    def _quantize(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def codes(self, x: Tensor) -> Tensor:
        """Return the integer code of each element, in the narrowest type that holds all of them."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget what was observed."""

    def observe(self, x: Tensor) -> None:
        """Take one more batch into the statistics the scale is set from."""

    def finish(self) -> None:
        """Set the scale from what was observed."""

    def init_from(self, x: Tensor) -> None:
        """Set the scale from `x` alone."""
        if x.numel() == 0:
            return
        self.reset()
        self.observe(x.detach())
        self.finish()

    def _initialize_late(self, x: Tensor) -> None:
        if not self.training:
            raise RuntimeError(
                f"{type(self).__name__} has no scale yet; nothing was quantized. Call "
                "quant.calibrate(model, batches) on training images before evaluating."
            )
        self.init_from(x)

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """(1,), or (C, 1, ...): never 0-dimensional, which would not promote bf16 to float32."""
        return (1,) if self.channels is None else (self.channels, *[1] * (self.ndim - 1))

    def extra_repr(self) -> str:
        return f"bits={self._bits}, granularity={self.granularity}"


@register
class MinMax(Quantizer):
    """Scale from the range of the data, never learned (SSQL; Contrastive Quant Eq. 9).

    Schemes, with n = 2^b - 1:
        symmetric: s = max|x| / (n/2), codes -2^(b-1) .. 2^(b-1)-1 (SSQL's weights).
        affine: s = (max-min)/n, z = -round(min/s), codes 0..n (SSQL's activations).
        zero_anchored: s = (max-min)/n, multiples of s, no clamp (CQ Eq. 9).
        min_anchored: s = (max-min)/n, multiples of s counted from min (the CQ authors' other code).

    Ranges:
        call: of each tensor as it comes.
        observed: of all batches seen while observing, then fixed.
        running: of each tensor while training; an exponential average of those in eval mode.

    Where the range is empty (a dead channel, a constant), s is the constant's magnitude, or 1 for
    zeros: that channel stays exact and the others are quantized as ever.

    Args:
        scheme: one of the four above.
        range: one of the three above.
        rounding: "round" (half to even) or "floor".
        scale_gradient: symmetric only: let gradient flow through max|x|, as the official SSQL code
            does for weights.
        momentum: weight of the past in a running range.
    """

    def __init__(
        self,
        *,
        scheme: str = "affine",
        range: str = "observed",
        rounding: str = "round",
        scale_gradient: bool = False,
        momentum: float = 0.9,
        **place,
    ) -> None:
        super().__init__(**place)
        _one_of("scheme", scheme, ("symmetric", "affine", "zero_anchored", "min_anchored"))
        _one_of("range", range, ("call", "observed", "running"))
        _one_of("rounding", rounding, ("round", "floor"))
        if rounding == "floor" and scheme not in ("zero_anchored", "min_anchored"):
            raise ValueError(
                f"rounding 'floor' has no meaning for scheme {scheme!r}; no quantizer was made. Use "
                "scheme 'zero_anchored' or 'min_anchored'."
            )
        self.scheme, self.range, self.rounding = scheme, range, rounding
        self.scale_gradient, self.momentum = scale_gradient, momentum
        self.signed = scheme != "affine"
        if range != "call":
            if self.channels is not None:
                raise ValueError(
                    f"range {range!r} keeps one range a tensor, but one scale for each of "
                    f"{self.channels} channels was asked for; no quantizer was made. Use range 'call'."
                )
            self.register_buffer("q_min", torch.full((1,), math.inf))
            self.register_buffer("q_max", torch.full((1,), -math.inf))

    @property
    def ready(self) -> bool:
        live = self.range == "call" or (self.range == "running" and self.training)
        return live or self.initialized

    def reset(self) -> None:
        if self.range != "call":
            self.q_min.fill_(math.inf)
            self.q_max.fill_(-math.inf)
            self.initialized = False

    def observe(self, x: Tensor) -> None:
        if self.range == "call" or x.numel() == 0:
            return
        low, high = (r.reshape(1).to(self.q_min.dtype) for r in torch.aminmax(x))
        if self.range == "running":
            self._update_running(low, high)
        else:
            torch.minimum(self.q_min, low, out=self.q_min)
            torch.maximum(self.q_max, high, out=self.q_max)
            self.initialized = True

    def levels(self) -> tuple[int, int]:
        """Lowest and highest code (of a clamped scheme)."""
        half = 2 ** (self._bits - 1)
        return (-half, half - 1) if self.scheme == "symmetric" else (0, 2 * half - 1)

    def _ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.range == "observed" or (self.range == "running" and not self.training):
            return self.q_min, self.q_max
        if self.channels is None:
            low, high = (r.reshape(1) for r in torch.aminmax(x.detach()))
        else:
            low, high = torch.aminmax(x.detach().flatten(1), dim=1)
            low, high = low.reshape(self.scale_shape), high.reshape(self.scale_shape)
        if self.range == "running":
            self._update_running(low, high)
        return low, high

    def _update_running(self, low: Tensor, high: Tensor) -> None:
        if self.initialized:
            self.q_min.lerp_(low.to(self.q_min.dtype), 1 - self.momentum)
            self.q_max.lerp_(high.to(self.q_max.dtype), 1 - self.momentum)
        else:
            self.q_min.copy_(low)
            self.q_max.copy_(high)
            self.initialized = True

    def _scale_of(self, low: Tensor, high: Tensor) -> Tensor:
        low, high = (r if r.dtype == torch.float64 else r.float() for r in (low, high))
        n = 2**self._bits - 1
        if self.scheme == "symmetric":
            s = torch.maximum(high.abs(), low.abs()) / (n / 2)
        else:
            s = (high - low) / n
        constant = torch.where(high == 0, torch.ones_like(high), high.abs())
        return torch.where(s > 0, s, constant)

    def _differentiable_scale(self, x: Tensor) -> Tensor:
        """max|x| / ((2^b - 1)/2) with its graph: gradient reaches each channel's largest weight."""
        x = x if x.dtype == torch.float64 else x.float()
        top = x.abs().amax() if self.channels is None else x.abs().flatten(1).amax(1)
        s = top.reshape(self.scale_shape) / ((2**self._bits - 1) / 2)
        return torch.where(s > 0, s, torch.ones_like(s))

    def _zero_point(self, s: Tensor, low: Tensor) -> Tensor | None:
        return (low / s).round_().neg_() if self.scheme == "affine" else None

    @property
    def scale(self) -> Tensor:
        if self.range == "call":
            raise AttributeError(
                "this MinMax takes its scale from each tensor as it comes and keeps none; ask "
                "qparams(x) for the scale of a tensor."
            )
        return self._scale_of(self.q_min, self.q_max)

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scale and zero-point (None: 0) that a forward pass of `x` would use, detached."""
        low, high = self._ranges(x)
        s = self._scale_of(low, high)
        return s, self._zero_point(s, low)

    def _quantize(self, x: Tensor) -> Tensor:
        if self.scale_gradient and self.scheme == "symmetric" and torch.is_grad_enabled():
            return fake_quantize(x, self._differentiable_scale(x), None, *self.levels())
        low, high = self._ranges(x)
        s = self._scale_of(low, high)
        if self.scheme in ("symmetric", "affine"):
            return fake_quantize(x, s, self._zero_point(s, low), *self.levels())
        anchor = low if self.scheme == "min_anchored" else None
        return fake_quantize_anchored(x, s, anchor, floor=self.rounding == "floor")

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        low, high = self._ranges(x)
        s = self._scale_of(low, high)
        if self.scheme in ("symmetric", "affine"):
            lo, hi = self.levels()
            q, z = (x / s).round_(), self._zero_point(s, low)
            q = q if z is None else q.add_(z)
            return q.clamp_(lo, hi).to(code_dtype(lo, hi))
        q = (x - low) / s if self.scheme == "min_anchored" else x / s
        return (q.floor_() if self.rounding == "floor" else q.round_()).to(torch.int32)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.range != "call" and prefix + "q_min" in state_dict:
            self.initialized = bool(torch.isfinite(self.q_min).all())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme}, range={self.range}"


class LearnedScale(Quantizer):
    """A quantizer whose scale is a parameter, set from statistics before training starts.

    `q_scale` has its final shape from construction on, so an optimizer built at once, or a resumed
    checkpoint, finds it. `q_state` is (initialized, signed, reference bits).

    Args:
        learn_scale: whether `q_scale` requires gradient.
    """

    def __init__(self, *, learn_scale: bool = True, **place) -> None:
        super().__init__(**place)
        self.q_scale = nn.Parameter(torch.ones(self.scale_shape), requires_grad=learn_scale)
        self.register_buffer("q_state", torch.zeros(3, dtype=torch.int64))
        self.reset()

    def reset(self) -> None:
        self._count, self._sums, self._low = 0, None, None

    def observe(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        x = x if x.dtype == torch.float64 else x.float()
        sums = self._statistics(x if self.channels is None else x.flatten(1))
        low = torch.aminmax(x).min
        self._sums = sums if self._sums is None else self._sums + sums
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._count += x.numel() // (self.channels or 1)

    def _statistics(self, x: Tensor) -> Tensor:
        """Sums that the scale is set from, (k,) or (k, C), over the last dimension or all."""
        raise NotImplementedError

    def _initial_scale(self, mean: Tensor) -> Tensor:
        """Scale from the mean statistics; `self.signed` is known."""
        raise NotImplementedError

    @torch.no_grad()
    def finish(self) -> None:
        if self._sums is None:
            return
        self.signed = bool(self._low < 0)
        scale = self._initial_scale(self._sums / self._count)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a dead channel stays exact
        self.q_scale.copy_(scale.reshape(self.q_scale.shape))
        self._mark_initialized()
        self.reset()

    def _mark_initialized(self, reference_bits: int = 0) -> None:
        self.initialized = True
        self.q_state.copy_(torch.tensor([1, int(self.signed), reference_bits]))

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "q_state" in state_dict:
            initialized, signed, reference_bits = self.q_state.tolist()
            self.initialized, self.signed = bool(initialized), bool(signed)
            self._restore(reference_bits)

    def _restore(self, reference_bits: int) -> None:
        """Follow a state dict whose scale belongs to `reference_bits`."""

    @property
    def scale(self) -> Tensor:
        # |s| keeps a step size that the optimizer pushed below zero meaningful; the smallest normal
        # number keeps the division defined at exactly zero.
        return self.q_scale.abs() + torch.finfo(self.q_scale.dtype).tiny

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, signed={self.signed}, initialized={self.initialized}"


@register
class LSQ(LearnedScale):
    """Learned step size quantization (Esser et al. 2020).

    Signed: Q_N = 2^(b-1), Q_P = 2^(b-1)-1; unsigned: Q_N = 0, Q_P = 2^b-1. The step starts at
    2 mean|v| / sqrt(Q_P); when the bit-width changes it is rescaled by the same rule, so that the mean
    magnitude it was fitted to is kept. Its gradient is scaled by 1/sqrt(N Q_P), where N is the number
    of weights of a scale, or of features of one sample of an activation.
    """

    _reference_bits = 0  # bits that q_scale is the step of

    @property
    def bits(self) -> int:
        return self._bits

    @bits.setter
    def bits(self, bits: int) -> None:
        self._bits = bits
        if bits < OFF and self.initialized and bits != self._reference_bits:
            ratio = math.sqrt(self._q_p(self._reference_bits) / self._q_p(bits))
            with torch.no_grad():
                self.q_scale.mul_(ratio)
            self._mark_initialized()

    def _q_p(self, bits: int) -> int:
        return max(2 ** (bits - 1) - 1, 1) if self.signed else 2**bits - 1

    def levels(self) -> tuple[int, int]:
        """Lowest and highest code, (-Q_N, Q_P)."""
        return (-(2 ** (self._bits - 1)) if self.signed else 0), self._q_p(self._bits)

    def _statistics(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1 if self.channels else None).unsqueeze(0)

    def _initial_scale(self, mean: Tensor) -> Tensor:
        bits = self._bits if self._bits < OFF else 8  # off for now: kept as an 8-bit step
        return 2 * mean[0] / math.sqrt(self._q_p(bits))

    def _mark_initialized(self, reference_bits: int = 0) -> None:
        self._reference_bits = reference_bits or (self._bits if self._bits < OFF else 8)
        super()._mark_initialized(self._reference_bits)

    def _restore(self, reference_bits: int) -> None:
        self._reference_bits = reference_bits
        self.bits = self._bits  # rescales where this model stands at other bits than the file

    def _quantize(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        n = x.numel() // (len(x) if self.role == "activation" else self.channels or 1)
        return lsq(x, self.scale, -lo, hi, 1 / math.sqrt(n * hi))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        lo, hi = self.levels()
        return (x / self.scale).clamp_(lo, hi).round_().to(code_dtype(lo, hi))


@register
class Interval(LearnedScale):
    """Quantizer of transition-rate scheduling (Eq. 13): fixed output interval, learned clip range.

    Signed (α, β, γ) = (-2^(b-1), 2^(b-1)-1, 2^(b-1)); unsigned (0, 2^b-1, 2^b). The scale starts as in
    EWGS: 3 std for signed data, 3 std / sqrt(1 - 2/π) for the half-normal an activation resembles.
    The output lies in [-1, 1) or [0, 1) whatever the scale, so a normalization must follow.
    """

    def levels(self) -> tuple[int, int]:
        """Lowest and highest code, (α, β)."""
        alpha, beta, _ = self._constants()
        return alpha, beta

    def _constants(self) -> tuple[int, int, int]:
        half = 2 ** (self._bits - 1)
        return (-half, half - 1, half) if self.signed else (0, 2 * half - 1, 2 * half)

    def _statistics(self, x: Tensor) -> Tensor:
        dim = -1 if self.channels else None
        return torch.stack([x.sum(dim), x.square().sum(dim)])

    def _initial_scale(self, mean: Tensor) -> Tensor:
        std = (mean[1] - mean[0].square()).clamp_(min=0).sqrt_()
        return 3 * std if self.signed else 3 * std / math.sqrt(1 - 2 / math.pi)

    def _quantize(self, x: Tensor) -> Tensor:
        return interval(x, self.scale, *self._constants())

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        alpha, beta, gamma = self._constants()
        q = (x * (gamma / self.scale)).clamp_(alpha, beta).round_()
        return q.to(code_dtype(alpha, beta))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"{name} {value!r} is unknown; no quantizer was made. Use one of {', '.join(allowed)}."
        )
