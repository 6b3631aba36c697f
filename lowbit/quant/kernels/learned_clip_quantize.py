"""Fake-quantization with learned clips and binary values: LSQ+, PACT, EWGS and sign.

Pure functions with hand-written gradients, under the rules of `lowbit.quant.kernels.range_quantize`.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lowbit.quant.kernels.range_quantize import beyond, masked, run, weighted_sum, wide


class _LsqPlus(torch.autograd.Function):
    """LSQ+ : v̂ = s round(clip((v - β)/s, 0, n)) + β with learned s and β."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, beta: Tensor, n: int, grad_scale: float) -> Tensor:
        ctx.save_for_backward(v, s, beta)
        ctx.n, ctx.grad_scale = n, grad_scale
        q = (wide(v) - beta).div_(s).clamp_(0, n).round_()
        return q.mul_(s).add_(beta).to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, beta = ctx.saved_tensors
        ratio, upstream = (wide(v) - beta).div_(s), wide(g)
        dv = masked(upstream, ratio, 0, ctx.n)
        ds = db = None
        if ctx.needs_input_grad[2]:  # 0 inside, 1 outside
            db = (upstream.sum() - dv.sum()).reshape(beta.shape).mul_(ctx.grad_scale)
        if ctx.needs_input_grad[1]:
            passed = masked(ratio, ratio, 0, ctx.n)
            q = ratio.clamp_(0, ctx.n).round_().sub_(passed)
            ds = weighted_sum(q, upstream, s.shape).mul_(ctx.grad_scale)
        return dv.to(g.dtype), ds, db, None, None


def lsq_plus(v: Tensor, s: Tensor, beta: Tensor, n: int, grad_scale: float = 1.0) -> Tensor:
    """Quantize with a learned step and offset (LSQ+, Bhalgat et al. 2020), codes 0..n.

    ∂v̂/∂s is LSQ's at (v-β)/s; ∂v̂/∂β is 0 inside the range and 1 outside.

    Args:
        v: any shape.
        s: positive step, (1,).
        beta: offset β, (1,), the value of code 0.
        n: highest code.
        grad_scale: multiplied into the gradients of `s` and `beta`.
    """
    return run(_LsqPlus, v, s, beta, n, grad_scale)


class _Pact(torch.autograd.Function):
    """PACT: y = clip(x, 0, α) rounded to n steps of α/n."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        s = alpha / n
        return (wide(x) / s).clamp_(0, n).round_().mul_(s).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, alpha = ctx.saved_tensors
        ratio, upstream = wide(x) / alpha, wide(g)
        below = masked(upstream, ratio, beyond(0, -1, ratio.dtype), 1)  # 0 <= x < α
        dalpha = None
        if ctx.needs_input_grad[1]:  # 1 where x >= α, with no rounding residual inside
            dalpha = masked(upstream, ratio, beyond(1, -0.5, ratio.dtype), math.inf)
            dalpha = dalpha.sum().reshape(alpha.shape)
        return below.to(g.dtype), dalpha, None


def pact(x: Tensor, alpha: Tensor, n: int) -> Tensor:
    """Clip at a learned level and round (PACT, Choi et al. 2018): codes 0..n, step α/n.

    ∂y/∂x = 1 for 0 <= x < α; ∂y/∂α = 1 for x >= α and 0 elsewhere.

    Example:
        >>> alpha = torch.tensor([2.0], requires_grad=True)
        >>> pact(torch.tensor([-1.0, 0.6, 1.9, 5.0]), alpha, 3).tolist()
        [0.0, 0.6666666865348816, 2.0, 2.0]
    """
    return run(_Pact, x, alpha, n)


class _Ewgs(torch.autograd.Function):
    """EWGS: x_n = clip((x-l)/w, 0, 1) rounded to n steps, w = u - l; both bounds learned."""

    @staticmethod
    def forward(ctx, x: Tensor, lower: Tensor, width: Tensor, n: int, delta: float) -> Tensor:
        ctx.save_for_backward(x, lower, width)
        ctx.n, ctx.delta = n, delta
        unit = (wide(x) - lower).div_(width).clamp_(0, 1)
        return unit.mul_(n).round_().div_(n).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, lower, width = ctx.saved_tensors
        upstream = wide(g)
        ratio = (wide(x) - lower).div_(width)
        unit = ratio.clamp(0, 1)
        residual = (unit * ctx.n).round_().div_(-ctx.n).add_(unit)  # x_n - x_q
        corrected = residual.mul_(upstream.sign()).mul_(ctx.delta).add_(1).mul_(upstream)
        low, high = beyond(0, -1, ratio.dtype), beyond(1, 1, ratio.dtype)
        dx = masked(corrected, ratio, low, high).div_(width)  # the closed interval
        dl = dw = None
        if ctx.needs_input_grad[1]:
            dl = -dx.sum_to_size(lower.shape)
        if ctx.needs_input_grad[2]:
            dw = -weighted_sum(unit, dx, width.shape)
        return dx.to(g.dtype), dl, dw, None, None


def ewgs(x: Tensor, lower: Tensor, width: Tensor, n: int, delta: float) -> Tensor:
    """Round x_n = clip((x-l)/w, 0, 1) to n steps with EWGS's gradient (Lee et al. 2021).

    The rounding passes g (1 + δ sign(g) (x_n - x_q)); the clip passes it in the closed interval. With
    δ = 0 this is the straight-through estimator.

    Args:
        x: any shape.
        lower: l, one element or broadcastable against `x`.
        width: w = u - l, positive, shaped like `lower`.
        n: steps.
        delta: δ.
    """
    return run(_Ewgs, x, lower, width, n, delta)


class _Sign(torch.autograd.Function):
    """sign(x) with sign(0) = +1; gradient inside |x/s| <= 1, constant or Bi-Real's polynomial."""

    @staticmethod
    def forward(ctx, x: Tensor, s: Tensor, polynomial: bool) -> Tensor:
        ctx.save_for_backward(x, s)
        ctx.polynomial = polynomial
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        x, s = ctx.saved_tensors
        ratio = wide(x) / s
        bound = beyond(1, 1, ratio.dtype)
        passed = masked(wide(g), ratio, -bound, bound)
        ratio.clamp_(-1, 1)
        if ctx.polynomial:
            passed = passed.mul_(2 - 2 * ratio.abs())
        dx = passed.div_(s)
        ds = -weighted_sum(ratio, dx, s.shape) if ctx.needs_input_grad[1] else None
        return dx.to(g.dtype), ds, None


def sign(x: Tensor, s: Tensor, *, polynomial: bool = False) -> Tensor:
    """Binarize to ±1, sign(0) = +1, as the sign of x/s: the gradient is 1/s where |x| <= s.

    Args:
        x: any shape.
        s: positive scale, one element or broadcastable against `x`; its gradient is -x/s² there.
        polynomial: use Bi-Real Net's slope 2 - 2|x/s| instead of 1 (Liu et al. 2018; ReActNet).
    """
    return run(_Sign, x, s, polynomial)
