"""Fake-quantization with a learned scale: LSQ and the interval quantizer of transition rates.

Pure functions with hand-written gradients, under the rules of `lowbit.quant.kernels.range_quantize`.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.kernels.range_quantize import (
    beyond,
    is_fused,
    masked,
    run,
    weighted_sum,
    wide,
)

SMALLEST_SCALE = 2.0**-23
"""The least magnitude of a learned scale; a smaller one, such as 0, acts as this.

Divided by it, activations and gradients of ordinary size stay finite in float32."""


def _learned_step(s: Tensor, ratio: float) -> Tensor:
    step = s.abs().clamp_(min=SMALLEST_SCALE)
    return step if ratio == 1 else step.mul_(ratio)


class _Lsq(torch.autograd.Function):
    """LSQ Eqs. 1-5: v̂ = s round(clip(v/s, -Q_N, Q_P)), with the learned step's gradient."""

    @staticmethod
    def forward(
        ctx, v: Tensor, s: Tensor, q_n: int, q_p: int, grad_scale: float, ratio: float
    ) -> Tensor:
        ctx.save_for_backward(v, s)
        ctx.q_n, ctx.q_p, ctx.ratio = q_n, q_p, ratio
        ctx.factor = grad_scale / ratio
        ctx.native = c_kernels.supports(v, scales=(s,))
        if ctx.native:
            return c_kernels.lsq_forward(v, s, SMALLEST_SCALE, ratio, -q_n, q_p)
        s = _learned_step(s, ratio)
        if is_fused(v):
            bounds = torch_compiled.bounds(-q_n, q_p, v.device)
            out = torch_compiled.lsq_forward(
                torch_compiled.flat(v, s), torch_compiled.column(s), bounds
            )
            return torch_compiled.unflat(out, v)
        return (wide(v) * (1 / s)).clamp_(-q_n, q_p).round_().mul_(s).to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s = ctx.saved_tensors
        none = (None,) * 4
        both = ctx.needs_input_grad[0] and ctx.needs_input_grad[1]
        if both and ctx.native and c_kernels.supports_like(g, v):
            numbers = SMALLEST_SCALE, ctx.ratio, ctx.factor, -ctx.q_n, ctx.q_p
            return *c_kernels.lsq_backward(v, g, s, *numbers), *none
        factor = torch.where(s < 0, -ctx.factor, ctx.factor)
        s = _learned_step(s, ctx.ratio)
        if both and is_fused(v, g):
            bounds = torch_compiled.bounds(-ctx.q_n, ctx.q_p, v.device)
            flat = torch_compiled.flat(v, s), torch_compiled.flat(g, s)
            dv, ds = torch_compiled.lsq_backward(*flat, torch_compiled.column(s), bounds)
            return torch_compiled.unflat(dv, v), ds.reshape(s.shape) * factor, *none
        ratio, upstream = wide(v) * (1 / s), wide(g)
        dv = ds = None
        if ctx.needs_input_grad[0]:
            dv = masked(upstream, ratio, -ctx.q_n, ctx.q_p).to(g.dtype)  # LSQ Eq. 5
        if ctx.needs_input_grad[1]:
            # Eq. 3: round(v/s) - v/s inside; -Q_N or Q_P, as the clamped ratio already is, outside
            passed = masked(ratio, ratio, -ctx.q_n, ctx.q_p)
            q = ratio.clamp_(-ctx.q_n, ctx.q_p).round_().sub_(passed)
            ds = weighted_sum(q, upstream, s.shape) * factor
        return dv, ds, *none


def lsq(
    v: Tensor, s: Tensor, q_n: int, q_p: int, grad_scale: float = 1.0, *, ratio: float = 1.0
) -> Tensor:
    """Quantize with a learned step size (LSQ, Esser et al. 2020, Eqs. 1-5).

    Args:
        v: any shape.
        s: scale, one element or broadcastable against `v`. The step is its magnitude, not below
            `SMALLEST_SCALE`, times `ratio`; its gradient is that of |s|, and 1 at 0.
        q_n: number of negative levels Q_N (0 for unsigned data).
        q_p: highest level Q_P.
        grad_scale: g = 1/sqrt(N Q_P), multiplied into the gradient of `s`.
        ratio: of the step to `s`; the gradient is divided by it, so that SGD moves the step as if it
            were the parameter.

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
    return run(_Lsq, v, s, q_n, q_p, grad_scale, ratio)


class _Interval(torch.autograd.Function):
    """TR Eq. 13: x_q = round(clip(γx/s, α, β)) / γ, straight-through inside the clip range."""

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, alpha: int, beta: int, gamma: int) -> Tensor:
        ctx.save_for_backward(x, s)
        ctx.alpha, ctx.beta, ctx.gamma = alpha, beta, gamma
        if c_kernels.supports(x, scales=(s,)):
            return c_kernels.interval_forward(x, s, alpha, beta, gamma)
        if is_fused(x):
            numbers = (
                torch_compiled.bounds(alpha, beta, x.device),
                torch_compiled.bounds(gamma, 0, x.device),
            )
            out = torch_compiled.interval_forward(
                torch_compiled.flat(x, s), torch_compiled.column(s), *numbers
            )
            return torch_compiled.unflat(out, x)
        q = (wide(x) * (gamma / s)).clamp_(alpha, beta).round_()
        return q.div_(gamma).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, s = ctx.saved_tensors
        if all(ctx.needs_input_grad[:2]) and c_kernels.supports(x, g, scales=(s,)):
            low, high = (beyond(b, o, x.dtype) for b, o in ((ctx.alpha, -1), (ctx.beta, 1)))
            return *c_kernels.interval_backward(x, g, s, low, high, ctx.gamma), None, None, None
        if all(ctx.needs_input_grad[:2]) and is_fused(x, g):
            bounds = torch_compiled.bounds(ctx.alpha, ctx.beta, x.device)
            gamma = torch_compiled.bounds(ctx.gamma, 0, x.device)
            flat = torch_compiled.flat(x, s), torch_compiled.flat(g, s)
            dx, ds = torch_compiled.interval_backward(
                *flat, torch_compiled.column(s), bounds, gamma
            )
            return torch_compiled.unflat(dx, x), ds.reshape(s.shape), None, None, None
        scaled = wide(x) * (ctx.gamma / s)
        low = beyond(ctx.alpha, -1, scaled.dtype)
        high = beyond(ctx.beta, 1, scaled.dtype)
        passed = masked(wide(g), scaled, low, high)
        dx = ds = None
        if ctx.needs_input_grad[1]:
            # ∂x_q/∂s = -x/s² = -(γx/s)/(γs)
            scaled.clamp_(low, high)  # an infinite value times its masked gradient would be NaN
            ds = weighted_sum(scaled, passed, s.shape).div_(s * -ctx.gamma)
        if ctx.needs_input_grad[0]:
            dx = passed.div_(s).to(g.dtype)
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
    return run(_Interval, x, s, alpha, beta, gamma)
