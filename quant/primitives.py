"""Fake-quantization as pure functions with hand-written gradients.

Each function rounds to a grid in the forward pass and says explicitly where gradient passes in the
backward pass. `torch.clamp` is never differentiated: since torch 2.14 its gradient is zero at its
bounds, which would silently stop every value coded with the lowest or highest level.

Only the input and the scale are kept for the backward pass; codes and masks are recomputed. The
arithmetic is float32 (float64 for float64 input) whatever the input's type, because bf16 and fp16
cannot hold 8-bit levels. A scale has one element, or one per output channel of a weight, in a shape
that broadcasts against the input.

Legend: v input, s scale (step size), z zero-point, q code, g incoming gradient.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _wide(x: Tensor) -> Tensor:
    """Return `x` in the type quantization is computed in."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sum `x` over the axes along which a tensor of `shape` was broadcast against it."""
    if shape.numel() == 1:
        return x.sum().reshape(shape)
    return x.sum_to_size(shape)


class _Affine(torch.autograd.Function):
    """q = clamp(round(v/s) + z, lo, hi);  v̂ = (q - z) s.

    Straight-through where the unclamped code lies in the closed range [lo, hi], zero outside.
    """

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, z: Tensor | float, lo: int, hi: int) -> Tensor:
        ctx.save_for_backward(v, s, z if isinstance(z, Tensor) else None)
        ctx.z, ctx.lo, ctx.hi = z, lo, hi
        q = (_wide(v) / s).round_()
        # clamp(q + z, lo, hi) - z in one step: the bounds move instead of the tensor
        return _clamp_(q, lo - z, hi - z).mul_(s).to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, z = ctx.saved_tensors
        z = ctx.z if z is None else z
        ratio = _wide(v) / s
        q = ratio.round()
        low, high = ctx.lo - z, ctx.hi - z
        passes = (q >= low).logical_and_(q <= high)
        dv = ds = None
        if ctx.needs_input_grad[0]:
            dv = g * passes
        if ctx.needs_input_grad[1]:
            q = _clamp_(q, low, high).sub_(ratio.mul_(passes))  # q - v/s inside, q outside
            ds = _sum_to(q.mul_(g), s.shape)
        return dv, ds, None, None, None


def _clamp_(x: Tensor, low, high) -> Tensor:
    """Clamp in place between two bounds that are both numbers or both tensors."""
    if isinstance(low, Tensor):
        return torch.minimum(torch.maximum(x, low, out=x), high, out=x)
    return x.clamp_(low, high)


def fake_quantize(v: Tensor, s: Tensor, z: Tensor | float, lo: int, hi: int) -> Tensor:
    """Round `v` to the affine grid (q - z) s with codes lo..hi (SSQL; Jacob et al. 2018).

    Differentiable in `v`, and in `s` where it requires gradient (SSQL's weight scale does).

    Args:
        v: any shape.
        s: positive scale, broadcastable against `v`.
        z: zero-point on the code axis, a whole number or an integer-valued tensor shaped like `s`.
        lo: lowest code.
        hi: highest code.

    Example:
        >>> v = torch.tensor([-1.0, 0.24, 0.26, 9.0], requires_grad=True)
        >>> y = fake_quantize(v, torch.tensor([0.5]), 0, -2, 1)
        >>> y.tolist(), torch.autograd.grad(y.sum(), v)[0].tolist()
        ([-1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0])
    """
    return _Affine.apply(v, s, z, lo, hi)


class _Anchored(torch.autograd.Function):
    """v̂ = s round((v - a)/s) + a without a clamp; gradient 1 everywhere, none to s or a."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, anchor: Tensor | None, floor: bool) -> Tensor:
        q = _wide(v) / s if anchor is None else (_wide(v) - anchor).div_(s)
        q = (q.floor_() if floor else q.round_()).mul_(s)
        return (q if anchor is None else q.add_(anchor)).to(v.dtype)

    @staticmethod
    def backward(ctx, g: Tensor):
        return g, None, None, None


def fake_quantize_anchored(
    v: Tensor, s: Tensor, anchor: Tensor | None = None, *, floor: bool = False
) -> Tensor:
    """Round `v` to multiples of `s`, counted from 0 or from `anchor` (Contrastive Quant, Eq. 9).

    The range that `s` was taken from is the range of `v`, so nothing lies outside and there is no
    clamp. The gradient is 1 everywhere; the scale is not differentiated.

    Args:
        v: any shape.
        s: positive scale, broadcastable against `v`.
        anchor: where the grid starts; None for the literal Eq. 9, whose grid contains 0.
        floor: round down instead of to nearest (adds a one-sided bias of s/2).
    """
    return _Anchored.apply(v, s, anchor, floor)


class _Lsq(torch.autograd.Function):
    """LSQ Eqs. 1-5: v̂ = s round(clip(v/s, -Q_N, Q_P)), with the learned step's gradient."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, q_n: int, q_p: int, grad_scale: float) -> Tensor:
        ctx.save_for_backward(v, s)
        ctx.q_n, ctx.q_p, ctx.grad_scale = q_n, q_p, grad_scale
        return (_wide(v) / s).clamp_(-q_n, q_p).round_().mul_(s).to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s = ctx.saved_tensors
        ratio = _wide(v) / s
        inside = (ratio > -ctx.q_n).logical_and_(ratio < ctx.q_p)  # LSQ Eqs. 3 and 5
        dv = ds = None
        if ctx.needs_input_grad[0]:
            dv = g * inside
        if ctx.needs_input_grad[1]:
            # round(v/s) - v/s inside; -Q_N or Q_P, which the clamped ratio already is, outside
            q = ratio.clamp(-ctx.q_n, ctx.q_p).round_().sub_(ratio.mul_(inside))
            ds = _sum_to(q.mul_(g), s.shape).mul_(ctx.grad_scale)
        return dv, ds, None, None, None


def lsq(v: Tensor, s: Tensor, q_n: int, q_p: int, grad_scale: float = 1.0) -> Tensor:
    """Quantize with a learned step size (LSQ, Esser et al. 2020, Eqs. 1-5).

    Args:
        v: any shape.
        s: positive step size, one element or broadcastable against `v`.
        q_n: number of negative levels Q_N (0 for unsigned data).
        q_p: highest level Q_P.
        grad_scale: g = 1/sqrt(N Q_P), multiplied into the gradient of `s`.

    Example:
        >>> s = torch.tensor([1.0], requires_grad=True)
        >>> for v in (0.4, 0.6, 3.4, -9.0, 9.0):
        ...     (ds,) = torch.autograd.grad(lsq(torch.tensor([v]), s, 4, 3).sum(), s)
        ...     print(f"{v} -> {ds.item():.1f}")
        0.4 -> -0.4
        0.6 -> 0.4
        3.4 -> 3.0
        -9.0 -> -4.0
        9.0 -> 3.0
    """
    return _Lsq.apply(v, s, q_n, q_p, grad_scale)


class _Interval(torch.autograd.Function):
    """TR Eq. 13: x_q = round(clip(γx/s, α, β)) / γ, straight-through inside the clip range."""

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, alpha: int, beta: int, gamma: int) -> Tensor:
        ctx.save_for_backward(x, s)
        ctx.alpha, ctx.beta, ctx.gamma = alpha, beta, gamma
        q = (_wide(x) * (gamma / s)).clamp_(alpha, beta).round_()
        return q.div_(gamma).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, s = ctx.saved_tensors
        scaled = _wide(x) * (ctx.gamma / s)
        inside = (scaled >= ctx.alpha).logical_and_(scaled <= ctx.beta)
        dx = ds = None
        passed = g * inside
        if ctx.needs_input_grad[1]:
            # ∂x_q/∂s = -x/s² = -(γx/s)/(γs)
            ds = _sum_to(scaled.mul_(passed), s.shape).div_(s * -ctx.gamma)
        if ctx.needs_input_grad[0]:
            dx = (passed / s).to(g.dtype)
        return dx, ds, None, None, None


def interval(x: Tensor, s: Tensor, alpha: int, beta: int, gamma: int) -> Tensor:
    """Quantize to the fixed output interval [α/γ, β/γ] (transition-rate scheduling, Eq. 13).

    The output is not scaled back by `s`: a normalization, or a learned output scale, must follow.
    Inside the clip range ∂x_q/∂x = 1/s and ∂x_q/∂s = -x/s²; both are 0 outside.

    Example:
        >>> x = torch.tensor([-0.23, -0.22, 0.08])      # s=.3, b=2: thresholds ±.075, -.225
        >>> interval(x, torch.tensor([0.3]), -2, 1, 2).tolist()
        [-1.0, -0.5, 0.5]
    """
    return _Interval.apply(x, s, alpha, beta, gamma)


def code_dtype(lo: int, hi: int) -> torch.dtype:
    """Return the narrowest integer type that holds codes lo..hi."""
    if lo >= -128 and hi <= 127:
        return torch.int8
    return torch.uint8 if lo >= 0 and hi <= 255 else torch.int32
