"""Scales from the range of the data: SSQL's and Contrastive Quant's quantizers."""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from lowbit.quant.kernels import torch_compiled
from lowbit.quant.kernels.affine_grid import AffineGrid, ratio, symmetric_grid
from lowbit.quant.kernels.range_quantize import (
    code_dtype,
    fake_quantize,
    fake_quantize_anchored,
    fake_quantize_rectified,
    fake_quantize_symmetric,
    wide,
)
from lowbit.quant.precision import MAX_BITS
from lowbit.quant.quantizers.base import Quantizer, is_recomputation, one_of, register
from lowbit.quant.quantizers.observers import Observer


@register
class MinMax(Quantizer):
    """Scale from the range of the data, never learned (SSQL; Contrastive Quant Eq. 9).

    Schemes, with n = 2^b - 1:
        symmetric: s = max|x| / (n/2), codes -2^(b-1) .. 2^(b-1)-1 (SSQL's weights).
        affine: s = (max-min)/n, z = -round(min/s), codes 0..n (SSQL's activations).
        zero_anchored: s = (max-min)/n, multiples of s, no clamp (CQ Eq. 9).
        min_anchored: s = (max-min)/n, multiples of s counted from min (the CQ authors' other code).

    A ratio x/s is computed as x over the range, times the steps in it, so that a tie at an end of the
    range is exact on every machine (`AffineGrid`), and is rounded to the even code.

    Ranges:
        call: of each tensor.
        observed: of all batches seen while observing, then fixed.
        running: of each tensor in train mode; their exponential average in eval mode. A pass that
            activation checkpointing repeats is not averaged again.

    If the range is empty (a dead channel, a constant), s is the constant's magnitude, or 1 for
    zeros: that channel stays exact and the others are quantized as usual.

    Args:
        scheme: one of the four above.
        range: one of the three above.
        rounding: "round" (half to even) or "floor".
        scale_gradient: symmetric only: let gradient flow through max|x|, as the official SSQL code
            does for weights.
        momentum: weight of the past in a running range, and in the observer's moving average.
        observer: how an observed range is computed, see `Observer`.
        percentile: of the percentile observer.
    """

    moves_with_weights = True
    version = 2  # 1: x / s, whose rounding decided the codes of the largest weights

    def __init__(
        self,
        *,
        scheme: str = "affine",
        range: str = "observed",
        rounding: str = "round",
        scale_gradient: bool = False,
        momentum: float = 0.9,
        observer: str = "minmax",
        percentile: float = 99.99,
        **place,
    ) -> None:
        super().__init__(**place)
        one_of("scheme", scheme, ("symmetric", "affine", "zero_anchored", "min_anchored"))
        one_of("range", range, ("call", "observed", "running"))
        one_of("rounding", rounding, ("round", "floor"))
        if rounding == "floor" and scheme not in ("zero_anchored", "min_anchored"):
            raise ValueError(
                f"rounding 'floor' has no meaning for scheme {scheme!r}; no quantizer was made. Use "
                "scheme 'zero_anchored' or 'min_anchored'."
            )
        if scale_gradient and (scheme, range) != ("symmetric", "call"):
            raise ValueError(
                f"scale_gradient has no meaning for scheme {scheme!r} with range {range!r}; no "
                "quantizer was made. Use scheme 'symmetric' and range 'call', or omit it."
            )
        self.scheme, self.range, self.rounding = scheme, range, rounding
        self.scale_gradient, self.momentum = scale_gradient, momentum
        self.signed = scheme != "affine"
        if range != "call":
            if self.channels is not None:
                raise ValueError(
                    f"range {range!r} keeps one range per tensor, but one scale for each of "
                    f"{self.channels} channels was requested; no quantizer was made. Use range 'call'."
                )
            self._settings = {"momentum": momentum, "percentile": percentile}
            self.observer = observer
            self._observer = Observer(observer, **self._settings)
            size = (
                MAX_BITS + 1 if observer == "mse" else 1
            )  # one range for all bits, or one per bit-width
            self.register_buffer("q_min", torch.full((size,), math.inf))
            self.register_buffer("q_max", torch.full((size,), -math.inf))

    @property
    def mirrored(self) -> str | None:
        return None if self.range == "call" else "q_min"

    @property
    def ranges_need_full_precision(self) -> bool:
        return self.range == "observed"

    @property
    def depends_on_batch(self) -> bool:
        return self.range != "observed" or self.observer != "minmax"

    @property
    def ready(self) -> bool:
        live = self.range == "call" or (self.range == "running" and self.training)
        return live or self.initialized

    def reset(self) -> None:
        if self.range != "call":
            self.q_min.fill_(math.inf)
            self.q_max.fill_(-math.inf)
            self._observer = Observer(self.observer, **self._settings)
            self.initialized = False

    def observe(self, x: Tensor) -> None:
        if self.range == "call" or x.numel() == 0:
            return
        if self.range == "running":
            self._update_running(*(r.reshape(1) for r in torch.aminmax(x)))
        else:
            self._observer.update(x)

    @torch.no_grad()
    def finish(self) -> None:
        if self.range == "running" and self.initialized:
            self._merge_running()
        if self.range != "observed" or self._observer.low is None:
            return
        self._observer.merge()
        low, high = self._observer.range()
        self.q_min.copy_(low)
        self.q_max.copy_(high)
        self.initialized = True

    def _merge_running(self) -> None:
        """Average the ranges over the ranks of a distributed run."""
        if dist.is_available() and dist.is_initialized():
            for value in (self.q_min, self.q_max):
                dist.all_reduce(value)
                value /= dist.get_world_size()

    def levels(self) -> tuple[int, int]:
        """Return the lowest and the highest code of a clamped scheme."""
        half = 2 ** (self._bits - 1)
        return (-half, half - 1) if self.scheme == "symmetric" else (0, 2 * half - 1)

    def _ranges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.range == "observed" or (self.range == "running" and not self.training):
            return self._kept_range()
        return self._range_of(x.detach())

    def _kept_range(self) -> tuple[Tensor, Tensor]:
        if len(self.q_min) > 1:
            place = slice(self._bits, self._bits + 1)
            return self.q_min[place], self.q_max[place]
        return self.q_min, self.q_max

    def _range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return low and high of one tensor, in the shape of the scale."""
        if self.channels is None:
            low, high = torch.aminmax(x)
        else:  # two vectorized passes; aminmax over a dimension is not vectorized
            rows = torch_compiled.rows(x, len(x))
            low, high = rows.amin(1), rows.amax(1)
        return low.reshape(self.scale_shape), high.reshape(self.scale_shape)

    def _update_running(self, low: Tensor, high: Tensor) -> None:
        if self.initialized:
            self.q_min.lerp_(low.to(self.q_min.dtype), 1 - self.momentum)
            self.q_max.lerp_(high.to(self.q_max.dtype), 1 - self.momentum)
        else:
            self.q_min.copy_(low)
            self.q_max.copy_(high)
            self.initialized = True

    def _grid_of(self, low: Tensor, high: Tensor) -> AffineGrid:
        low, high = (r if r.dtype == torch.float64 else r.float() for r in (low, high))
        n = 2**self._bits - 1
        if self.scheme == "symmetric":
            return symmetric_grid(torch.maximum(high.abs(), low.abs()), n / 2)
        span = high - low
        constant = torch.where(high == 0, torch.ones_like(high), high.abs())
        s = torch.where(span > 0, span / n, constant)
        span = torch.where(span > 0, span, constant * n)
        z = ratio(low, span, float(n)).round_().neg_() if self.scheme == "affine" else None
        return AffineGrid(s, span, float(n), z)

    @property
    def scale(self) -> Tensor:
        if self.range == "call":
            raise AttributeError(
                "this MinMax takes its scale from each tensor and stores none; call "
                "grid(x) for the scale of a tensor."
            )
        return self._grid_of(*self._kept_range()).s

    def _quantize(self, x: Tensor) -> Tensor:
        if self.scale_gradient and not torch.jit.is_tracing():
            return fake_quantize_symmetric(x, self.scale_shape, self._bits)
        low, high = self._ranges(x)
        if self.range == "running" and self.training and not is_recomputation():
            self._update_running(low, high)
        s, span, count, z = self._grid_of(low, high)
        if self.scheme in ("symmetric", "affine"):
            return fake_quantize(x, s, z, *self.levels(), span=span, count=count)
        anchor = low if self.scheme == "min_anchored" else None
        floor = self.rounding == "floor"
        return fake_quantize_anchored(x, s, anchor, floor=floor, span=span, count=count)

    def rectified(self, x: Tensor) -> Tensor | None:
        if not (self.active and self.range == "observed" and self.scheme == "affine" and x.numel()):
            return None
        self.follow_copies()
        if not self.ready:
            return None
        return fake_quantize_rectified(x, self._grid_of(*self._kept_range()), *self.levels())

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        low, high = self._ranges(x)
        grid = self._grid_of(low, high)
        if self.scheme in ("symmetric", "affine"):
            lo, hi = self.levels()
            q = grid.ratio(wide(x)).round_()
            q = q if grid.z is None else q.add_(grid.z)
            return q.clamp_(lo, hi).to(code_dtype(lo, hi))
        q = grid.ratio(wide(x) - low if self.scheme == "min_anchored" else wide(x))
        return (q.floor_() if self.rounding == "floor" else q.round_()).to(torch.int32)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        low, high = self._ranges(x)
        s, _, _, z = self._grid_of(low, high)
        if self.scheme == "min_anchored":
            return s, low
        return s, 0.0 if z is None else -z * s

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "q_min" in state_dict:
            self.follow_copies()

    def follow_buffers(self) -> None:
        self.initialized = bool(torch.isfinite(self.q_min).all())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scheme={self.scheme}, range={self.range}"
