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

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lowbit.quant.kernels import c_kernels, torch_compiled
from lowbit.quant.kernels.affine_grid import AffineGrid, symmetric_grid


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
    """Whether the kernels of `torch_compiled` are used; a compiler of the whole network fuses by itself."""
    return (
        not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and torch_compiled.fused_kernels(tensors[0].device)
        and torch_compiled.is_compatible(*tensors)
    )


class _Affine(torch.autograd.Function):
    """q = clamp(round(v/s) + z, lo, hi);  v̂ = (q - z) s;  v/s as `AffineGrid.ratio` has it.

    Straight-through where the unclamped code is in the closed range [lo, hi], zero outside.
    """

    @staticmethod
    def forward(
        ctx, v: Tensor, s: Tensor, span: Tensor, count: float, z: Tensor | None, lo: int, hi: int
    ) -> Tensor:
        ctx.save_for_backward(v, s, span, z)
        ctx.count, ctx.levels = count, (lo, hi)
        return _affine_forward(v, AffineGrid(s, span, count, z), lo, hi)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, span, z = ctx.saved_tensors
        grid = AffineGrid(s, span, ctx.count, z)
        dv, ds = _affine_backward(v, g, grid, *ctx.levels, ctx.needs_input_grad[1])
        return dv, ds, None, None, None, None, None


class _RectifiedAffine(torch.autograd.Function):
    """`_Affine` of max(v, 0) in one pass; both gradients are zero where v <= 0."""

    @staticmethod
    def forward(
        ctx, v: Tensor, s: Tensor, span: Tensor, count: float, z: Tensor, lo: int, hi: int
    ) -> Tensor:
        ctx.save_for_backward(v, s, span, z)
        ctx.count, ctx.levels = count, (lo, hi)
        return c_kernels.affine_forward(v, AffineGrid(s, span, count, z), lo, hi, least=0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, s, span, z = ctx.saved_tensors
        grid = AffineGrid(s, span, ctx.count, z)
        if c_kernels.supports_like(g, v):
            dv = c_kernels.affine_backward(v, g, grid, *ctx.levels, least=0.0)
        else:
            dv, _ = _affine_backward(v, g, grid, *ctx.levels, scale=False)
            dv = torch.ops.aten.threshold_backward(dv, v, 0)
        return dv, None, None, None, None, None, None


class _Symmetric(torch.autograd.Function):
    """`_Affine` without zero-point whose scale is max|v|/count, differentiated through the maximum.

    The gradient of s reaches only the largest weight, of the tensor or of each channel.
    """

    @staticmethod
    def forward(ctx, v: Tensor, shape: tuple[int, ...], count: float, lo: int, hi: int) -> Tensor:
        ctx.shape, ctx.count, ctx.levels = shape, count, (lo, hi)
        channels = math.prod(shape)
        ctx.native = c_kernels.supports(v)
        if ctx.native:
            out, peak = c_kernels.symmetric_forward(v, channels, count, lo, hi)
        else:
            peak = peaks(torch_compiled.rows(v, channels))
            out = _affine_forward(v, _Symmetric.grid(ctx, peak), lo, hi)
        ctx.save_for_backward(v, peak)
        return out

    @staticmethod
    def grid(ctx, peak: Tensor) -> AffineGrid:
        return symmetric_grid(wide(peak.amax(1)).reshape(ctx.shape), ctx.count)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor):
        v, peak = ctx.saved_tensors
        channels = len(peak)
        if ctx.native and c_kernels.supports_like(g, v):
            return c_kernels.symmetric_backward(v, g, peak, ctx.count, *ctx.levels), *[None] * 4
        dv, ds = _affine_backward(v, g, _Symmetric.grid(ctx, peak), *ctx.levels, True)
        alike = torch_compiled.is_compatible(v, dv)
        if alike:
            rows, flat = torch_compiled.rows(v, channels), torch_compiled.rows(dv, channels)
        else:  # memory orders may differ: use the order of the shape
            rows, flat = v.reshape(channels, -1), dv.reshape(channels, -1)
            peak = peaks(rows)
        top = place_of_peak(rows, peak)  # (C, 1)
        # A channel of zeros has the placeholder scale 1 and sign(0) = 0: no gradient flows.
        share = rows.gather(1, top).sign() * (ds.reshape(-1, 1) / ctx.count)
        flat.scatter_add_(1, top, share.to(dv.dtype))
        return dv if alike else flat.reshape(dv.shape), None, None, None, None


def _compiled_arguments(grid: AffineGrid, lo: int, hi: int) -> tuple[Tensor, ...]:
    """Return span, z, bounds and count as kernels compiled by torch take them."""
    span, z = torch_compiled.column(grid.span), grid.z
    z = torch.zeros_like(span) if z is None else torch_compiled.column(z)
    device = span.device
    return span, z, *(torch_compiled.bounds(*n, device) for n in ((lo, hi), (grid.count, 0.0)))


def _affine_forward(v: Tensor, grid: AffineGrid, lo: int, hi: int) -> Tensor:
    s, z = grid.s, grid.z
    if c_kernels.supports(v, scales=(s, grid.span, z)):
        return c_kernels.affine_forward(v, grid, lo, hi)
    if is_fused(v):
        tensors = torch_compiled.column(s), *_compiled_arguments(grid, lo, hi)
        return torch_compiled.unflat(
            torch_compiled.affine_forward(torch_compiled.flat(v, s), *tensors), v
        )
    q = grid.ratio(wide(v)).round_()
    if z is None:
        q.clamp_(lo, hi)
    else:
        q.add_(z).clamp_(lo, hi).sub_(z)
    return q.mul_(s).to(v.dtype)


def _affine_backward(
    v: Tensor, g: Tensor, grid: AffineGrid, lo: int, hi: int, scale: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of v and, if `scale`, of s."""
    s, z = grid.s, grid.z
    if c_kernels.supports(v, g, scales=(s, grid.span, z)):
        if scale:
            return c_kernels.affine_backward_scale(v, g, grid, lo, hi)
        return c_kernels.affine_backward(v, g, grid, lo, hi), None
    if is_fused(v, g):
        tensors = _compiled_arguments(grid, lo, hi)
        flat = torch_compiled.flat(v, s), torch_compiled.flat(g, s)
        if not scale:
            return torch_compiled.unflat(torch_compiled.affine_backward(*flat, *tensors), v), None
        dv, ds = torch_compiled.affine_backward_scale(*flat, *tensors)
        return torch_compiled.unflat(dv, v), ds.reshape(s.shape)
    ratio, upstream = grid.ratio(wide(v)), wide(g)
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


def fake_quantize(
    v: Tensor,
    s: Tensor,
    z: Tensor | None,
    lo: int,
    hi: int,
    *,
    span: Tensor | None = None,
    count: float = 1.0,
) -> Tensor:
    """Round `v` to the affine grid (q - z) s with codes lo..hi (SSQL; Jacob et al. 2018).

    Differentiable in `v`, and in `s` where it requires gradient.

    Args:
        v: any shape.
        s: positive scale, broadcastable against `v`.
        z: zero-point on the code axis, whole numbers shaped like `s`; None for 0.
        lo: lowest code.
        hi: highest code.
        span: `count` times `s` before it was rounded (`AffineGrid`); None for `s`.
        count: steps in `span`.

    Example:
        >>> v = torch.tensor([-1.0, 0.24, 0.26, 9.0], requires_grad=True)
        >>> y = fake_quantize(v, torch.tensor([0.5]), None, -2, 1)
        >>> y.tolist(), torch.autograd.grad(y.sum(), v)[0].tolist()
        ([-1.0, 0.0, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0])
    """
    return run(_Affine, v, s, s if span is None else span, count, z, lo, hi)


def fake_quantize_rectified(v: Tensor, grid: AffineGrid, lo: int, hi: int) -> Tensor | None:
    """Quantize relu(v) in one pass; None where no kernel does."""
    if not c_kernels.supports(v, scales=(grid.s, grid.span, grid.z)):
        return None
    return run(_RectifiedAffine, v, grid.s, grid.span, grid.count, grid.z, lo, hi)


class _Anchored(torch.autograd.Function):
    """v̂ = s round((v - a)/s) + a without a clamp; gradient 1 everywhere, none to s or a."""

    @staticmethod
    def forward(
        ctx, v: Tensor, s: Tensor, span: Tensor, count: float, anchor: Tensor | None, floor: bool
    ) -> Tensor:
        q = AffineGrid(s, span, count).ratio(wide(v) if anchor is None else wide(v) - anchor)
        q = (q.floor_() if floor else q.round_()).mul_(s)
        return (q if anchor is None else q.add_(anchor)).to(v.dtype)

    @staticmethod
    def backward(ctx, g: Tensor):
        return g, None, None, None, None, None


def fake_quantize_anchored(
    v: Tensor,
    s: Tensor,
    anchor: Tensor | None = None,
    *,
    floor: bool = False,
    span: Tensor | None = None,
    count: float = 1.0,
) -> Tensor:
    """Round `v` to multiples of `s`, counted from 0 or from `anchor` (Contrastive Quant, Eq. 9).

    The range that `s` was taken from is the range of `v`, so nothing lies outside and there is no
    clamp. The gradient is 1 everywhere; the scale is not differentiated.

    Args:
        v: any shape.
        s: positive scale, broadcastable against `v`.
        anchor: where the grid starts; None for the literal Eq. 9, whose grid contains 0.
        floor: round down instead of to nearest (adds a one-sided bias of s/2).
        span: `count` times `s` before it was rounded (`AffineGrid`); None for `s`.
        count: steps in `span`.
    """
    return run(_Anchored, v, s, s if span is None else span, count, anchor, floor)


def fake_quantize_symmetric(v: Tensor, shape: tuple[int, ...], bits: int) -> Tensor:
    """Quantize to -2^(b-1)..2^(b-1)-1 with s = max|v|/((2^b-1)/2), gradient through the maximum.

    As official SSQL computes its weight scale, which it does not detach (SPEC A.4): the largest weight
    of each channel, besides its own gradient, receives that of the scale. That weight lies on a tie:
    -max|v| has the code -2^(b-1) from 2 bits on, max|v| the highest one.

    Args:
        v: weights.
        shape: of the scale; dimension 0 is the channel where it has more than one element.
        bits: b.
    """
    half = 2 ** (bits - 1)
    return run(_Symmetric, v, shape, (2**bits - 1) / 2, -half, half - 1)


def code_dtype(lo: int, hi: int) -> torch.dtype:
    """Return the narrowest integer type that holds codes lo..hi."""
    if lo >= -128 and hi <= 127:
        return torch.int8
    return torch.uint8 if lo >= 0 and hi <= 255 else torch.int32
