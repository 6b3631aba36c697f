"""Fake-quantization from a range, as pure functions with hand-written gradients.

Each function rounds to a grid in the forward pass and defines explicitly where gradient passes in the
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

from lowbit.quant.kernels import c_kernels, torch_compiled


def wide(x: Tensor) -> Tensor:
    """Return `x` in the type used to compute quantization."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class _NoContext:
    """Stands for an autograd context where nothing is differentiated."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        pass


def run(function: type[torch.autograd.Function], *args) -> Tensor:
    """Apply an autograd function; while `torch.jit.trace` records, only its operations.

    A trace that contains Python functions could not be saved."""
    if torch.jit.is_tracing():
        return function.forward(_NoContext(), *args)
    return function.apply(*args)


def masked(g: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return `g` where low < x < high, else 0: one vectorized pass and no boolean tensor."""
    return torch.ops.aten.hardtanh_backward(g, x, low, high)


def beyond(bound: float, outward: float, dtype: torch.dtype) -> float:
    """Return the next number beyond `bound`, so that an open comparison includes it."""
    info = torch.finfo(dtype)
    return bound + outward * max(abs(bound) * info.eps, info.tiny)


def weighted_sum(q: Tensor, g: Tensor, shape: torch.Size) -> Tensor:
    """Return the sum of q·g over the axes along which a tensor of `shape` was broadcast."""
    if shape.numel() == 1 and not torch.compiler.is_compiling():  # a compiler fuses the sum itself
        return torch.dot(q.flatten(), g.flatten()).reshape(shape)
    return q.mul_(g).sum_to_size(shape)


_CHUNK = 64


def peaks(rows: Tensor) -> Tensor:
    """Return the largest magnitudes of each row's chunks, (C, K) -> (C, chunks), in one pass.

    Their maximum is the row's, and they help to locate it: `argmax` over a dimension is not
    vectorized on a CPU and takes ten times as long.
    """
    channels, width = rows.shape
    if c_kernels.supports(rows):
        return c_kernels.largest_magnitudes(rows)
    chunks = rows.reshape(-1, width if width % _CHUNK else _CHUNK)
    if is_fused(rows):
        found = torch_compiled.chunk_peaks(chunks)
    else:
        found = torch.maximum(chunks.amax(1), chunks.amin(1).neg_())
    return found.reshape(channels, -1)


def place_of_peak(rows: Tensor, peaks: Tensor) -> Tensor:
    """Return the first index of each row's largest magnitude, (C, 1), from `peaks(rows)`."""
    chunks = rows.unflatten(1, (peaks.shape[1], -1))  # (C, chunks, width)
    chunk = peaks.argmax(1, keepdim=True)  # (C, 1)
    inside = chunks.gather(1, chunk[:, :, None].expand(-1, 1, chunks.shape[2])).squeeze(1)
    return chunk * chunks.shape[2] + inside.abs().argmax(1, keepdim=True)


def is_fused(*tensors: Tensor) -> bool:
    return (
        not torch.jit.is_tracing()
        and torch_compiled.fused_kernels(tensors[0].device)
        and torch_compiled.is_compatible(*tensors)
    )


def _zero_column(z: Tensor | None, s: Tensor) -> Tensor:
    return torch.zeros_like(torch_compiled.column(s)) if z is None else torch_compiled.column(z)


class _Affine(torch.autograd.Function):
    """q = clamp(round(v/s) + z, lo, hi);  v̂ = (q - z) s.

    Straight-through where the unclamped code is in the closed range [lo, hi], zero outside.
    """

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, z: Tensor | None, lo: int, hi: int) -> Tensor:
        ctx.save_for_backward(v, s, z)
        ctx.lo, ctx.hi = lo, hi
        return _affine_forward(v, s, z, lo, hi)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, z = ctx.saved_tensors
        dv, ds = _affine_backward(v, g, s, z, ctx.lo, ctx.hi, ctx.needs_input_grad[1])
        return dv, ds, None, None, None


class _Symmetric(torch.autograd.Function):
    """`_Affine` without zero-point whose scale is max|v|/n, differentiated through the maximum.

    The gradient of s reaches only the largest weight, of the tensor or of each channel.
    """

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, peak: Tensor, lo: int, hi: int, n: float) -> Tensor:
        ctx.save_for_backward(v, s, peak)
        ctx.lo, ctx.hi, ctx.n = lo, hi, n
        return _affine_forward(v, s, None, lo, hi)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, peak = ctx.saved_tensors
        dv, ds = _affine_backward(v, g, s, None, ctx.lo, ctx.hi, True)
        if peak.numel() == s.numel() and c_kernels.supports(v, dv, scales=(s,)):
            c_kernels.add_at_peak(v, dv, ds, peak, ctx.n)
            return dv, None, None, None, None, None
        alike = torch_compiled.is_compatible(v, dv)
        if alike:
            rows, flat = torch_compiled.rows(v, s.numel()), torch_compiled.rows(dv, s.numel())
        else:  # memory orders may differ: use the order of the shape
            rows, flat = v.reshape(s.numel(), -1), dv.reshape(s.numel(), -1)
            peak = peaks(rows)
        top = place_of_peak(rows, peak)  # (C, 1)
        # A channel of zeros has the placeholder scale 1 and sign(0) = 0: no gradient flows.
        share = rows.gather(1, top).sign() * (ds.reshape(-1, 1) / ctx.n)
        flat.scatter_add_(1, top, share.to(dv.dtype))
        return dv if alike else flat.reshape(dv.shape), None, None, None, None, None


def _affine_forward(v: Tensor, s: Tensor, z: Tensor | None, lo: int, hi: int) -> Tensor:
    if c_kernels.supports(v, scales=(s, z)):
        return c_kernels.affine_forward(v, s, z, lo, hi)
    if is_fused(v):
        tensors = (
            torch_compiled.column(s),
            _zero_column(z, s),
            torch_compiled.bounds(lo, hi, v.device),
        )
        return torch_compiled.unflat(
            torch_compiled.affine_forward(torch_compiled.flat(v, s), *tensors), v
        )
    q = (wide(v) / s).round_()
    if z is None:
        q.clamp_(lo, hi)
    else:
        q.add_(z).clamp_(lo, hi).sub_(z)
    return q.mul_(s).to(v.dtype)


def _affine_backward(
    v: Tensor, g: Tensor, s: Tensor, z: Tensor | None, lo: int, hi: int, scale: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of v and, if `scale`, of s."""
    if c_kernels.supports(v, g, scales=(s, z)):
        if scale:
            return c_kernels.affine_backward_scale(v, g, s, z, lo, hi)
        return c_kernels.affine_backward(v, g, s, z, lo, hi), None
    if is_fused(v, g):
        tensors = (
            torch_compiled.column(s),
            _zero_column(z, s),
            torch_compiled.bounds(lo, hi, v.device),
        )
        flat = torch_compiled.flat(v, s), torch_compiled.flat(g, s)
        if not scale:
            return torch_compiled.unflat(torch_compiled.affine_backward(*flat, *tensors), v), None
        dv, ds = torch_compiled.affine_backward_scale(*flat, *tensors)
        return torch_compiled.unflat(dv, v), ds.reshape(s.shape)
    ratio, upstream = wide(v) / s, wide(g)
    q = ratio.round() if scale else ratio.round_()
    if z is not None:
        q.add_(z)
    inside = lo - 0.5, hi + 0.5  # q is an integer, so an open comparison half a level further out
    dv = masked(upstream, q, *inside).to(g.dtype)
    if not scale:
        return dv, None
    passed = masked(ratio, q, *inside)
    q.clamp_(lo, hi)
    if z is not None:
        q.sub_(z)
    q.sub_(passed)  # q - v/s inside, q outside
    return dv, weighted_sum(q, upstream, s.shape)


def fake_quantize(v: Tensor, s: Tensor, z: Tensor | None, lo: int, hi: int) -> Tensor:
    """Round `v` to the affine grid (q - z) s with codes lo..hi (SSQL; Jacob et al. 2018).

    Differentiable in `v`, and in `s` where it requires gradient (SSQL's weight scale does).

    Args:
        v: any shape.
        s: positive scale, broadcastable against `v`.
        z: zero-point on the code axis, whole numbers shaped like `s`; None for 0.
        lo: lowest code.
        hi: highest code.

    Example:
        >>> v = torch.tensor([-1.0, 0.24, 0.26, 9.0], requires_grad=True)
        >>> y = fake_quantize(v, torch.tensor([0.5]), None, -2, 1)
        >>> y.tolist(), torch.autograd.grad(y.sum(), v)[0].tolist()
        ([-1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0])
    """
    return run(_Affine, v, s, z, lo, hi)


class _Anchored(torch.autograd.Function):
    """v̂ = s round((v - a)/s) + a without a clamp; gradient 1 everywhere, none to s or a."""

    @staticmethod
    def forward(ctx, v: Tensor, s: Tensor, anchor: Tensor | None, floor: bool) -> Tensor:
        q = wide(v) / s if anchor is None else (wide(v) - anchor).div_(s)
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
    return run(_Anchored, v, s, anchor, floor)


def fake_quantize_symmetric(v: Tensor, s: Tensor, peak: Tensor, bits: int) -> Tensor:
    """Quantize to -2^(b-1)..2^(b-1)-1 with s = max|v|/((2^b-1)/2), gradient through the maximum.

    As official SSQL computes its weight scale, which it does not detach (SPEC A.4): the largest weight
    of each channel, besides its own gradient, receives that of the scale.

    Args:
        v: weights; dimension 0 is the channel where `s` has more than one element.
        s: the scale of `v`, detached, 1 for a channel of zeros.
        peak: `peaks` of the rows of `v`, detached.
        bits: b.
    """
    half = 2 ** (bits - 1)
    return run(_Symmetric, v, s, peak, -half, half - 1, (2**bits - 1) / 2)


def code_dtype(lo: int, hi: int) -> torch.dtype:
    """Return the narrowest integer type that holds codes lo..hi."""
    if lo >= -128 and hi <= 127:
        return torch.int8
    return torch.uint8 if lo >= 0 and hi <= 255 else torch.int32
