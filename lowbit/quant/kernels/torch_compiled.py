"""Quantizer kernels that read and write each tensor once, compiled by torch for the current device.

`range_quantize` uses several eager operations, each a pass over memory and, on a GPU, a
kernel launch. Here the same formulas are one kernel forward and one backward. CUDA tensors always use
them. On a CPU the C kernels of `c_kernels` handle float32 tensors at once, where torch spends three to
twelve seconds of a new process on compiling; what they do not support (half types) is compiled on
request, by `use_fused_kernels(True)` or LOWBIT_FUSED=1.
`use_fused_kernels(False)` and LOWBIT_FUSED=0 turn all of them off. Without a compiler the eager route
is used, with a warning.

One compilation covers every shape and bit-width: kernels see a dense tensor as one dimension (or as
(C, K) with one scale per channel), detached, and bit-widths as numbers in a tensor. Compiled on
shaped tensors, or with Python integers, they would be compiled again for each, and after eight of
them torch silently falls back to eager.

Sums over a tensor add in another order than eagerly, so the two routes agree to rounding, not bit for
bit: repeating a run exactly requires the same setting.
"""

import logging
import os
import shutil
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec

import torch
from torch import Tensor

from lowbit.common.input_files.environment import fused
from lowbit.quant.kernels.affine_grid import ratio

_logger = logging.getLogger(__name__)

# torch's cache of graphs does not tell vector widths apart that it chose itself: machines that share the cache
# would run loops of the wrong width, and half the values would be wrong.
_VECTOR_BITS = {"AVX2": 256, "AVX512": 512}
_wanted = fused()


def use_fused_kernels(wanted: bool | None) -> None:
    """Use fused kernels in this process: everywhere, nowhere, or (None) wherever they pay off at once.

    None means torch-compiled ones on CUDA, and those of `c_kernels` on a CPU.
    """
    global _wanted
    _wanted = wanted


def is_enabled() -> bool:
    """Whether kernels that need no compilation by torch are used: unless all were turned off."""
    return _wanted is not False


def fused_kernels(device: torch.device | str = "cpu") -> bool:
    """Whether kernels compiled by torch are used for tensors on `device`."""
    kind = torch.device(device).type
    return (kind == "cuda" if _wanted is None else _wanted) and _can_compile(kind)


@cache
def _can_compile(kind: str) -> bool:
    if kind == "cuda":
        tool, found = "Triton (pip install triton)", find_spec("triton") is not None
    else:
        tool = "a C++ compiler (g++, or the one named in CXX)"
        found = shutil.which(os.environ.get("CXX", "g++")) is not None
    if not found:
        _logger.warning("Fused kernels need %s, which is missing; quantizers run eagerly.", tool)
    return found


def is_compatible(*tensors: Tensor) -> bool:
    """Whether the kernels support these tensors: float32 or half, dense, of one layout."""
    stride = tensors[0].stride()
    for t in tensors:  # no generator expression: torch.compile traces through here
        known = t.dtype in (torch.float32, torch.bfloat16, torch.float16)
        if not known or t.stride() != stride or t.numel() == 0 or not is_dense(t):
            return False
    return True


def is_dense(t: Tensor) -> bool:
    return t.is_contiguous() or (
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    )


def flat(t: Tensor, scale: Tensor) -> Tensor:
    """View a dense tensor in memory order as (N,), or (C, K) for a scale per channel; detached."""
    t = t.detach()
    return t.as_strided((t.numel(),), (1,)) if scale.numel() == 1 else rows(t, scale.numel())


def rows(t: Tensor, channels: int) -> Tensor:
    """View a dense tensor as (C, K), each channel in memory order; copy one that is not dense."""
    if not is_dense(t):
        return t.reshape(channels, -1)
    return t.as_strided((channels, t.numel() // channels), (t.numel() // channels, 1))


def unflat(t: Tensor, like: Tensor) -> Tensor:
    """View a kernel's output in the shape and layout of `like`."""
    return t.as_strided(like.shape, like.stride())


def column(scale: Tensor) -> Tensor:
    """Return a scale as (1,) or (C, 1), detached."""
    scale = scale.detach()
    return scale.reshape(1) if scale.numel() == 1 else scale.reshape(-1, 1)


@cache
def bounds(low: float, high: float, device: torch.device) -> Tensor:
    """Return a kernel's numeric arguments as a tensor, created once."""
    return torch.tensor([low, high], dtype=torch.float32, device=device)


def kernel(function: Callable) -> Callable:
    """Compile a pure elementwise function at its first call, once for all lengths."""

    @cache
    def compiled() -> Callable:  # not at import: loading the compiler takes a second
        width = _VECTOR_BITS.get(torch.backends.cpu.get_cpu_capability())
        options = {"cpp.simdlen": width}
        return torch.compile(function, dynamic=True, fullgraph=True, options=options)

    @wraps(function)
    def run(*tensors: Tensor):
        # Of a view torch would compile for the shape, strides and rank of the tensor behind it, too.
        return compiled()(*[t.data for t in tensors])

    return run


def _clip(x: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, b[0]), b[1])


def _sum(x: Tensor) -> Tensor:
    """Sum over all elements of (N,), or over each row of (C, K)."""
    return x.sum(-1)


@kernel
def chunk_peaks(chunks: Tensor) -> Tensor:
    """Largest magnitude over the last dimension."""
    return chunks.abs().amax(-1)


@kernel
def lsq_forward(v: Tensor, s: Tensor, b: Tensor) -> Tensor:
    """v̂ = s round(clip(v/s, -Q_N, Q_P))."""
    return (_clip(v.float() * (1 / s), b).round() * s).to(v.dtype)


@kernel
def lsq_backward(v: Tensor, g: Tensor, s: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return ∂v̂/∂v · g and the sum of ∂v̂/∂s · g (LSQ Eqs. 3 and 5)."""
    ratio = v.float() * (1 / s)
    inside = (ratio > b[0]) & (ratio < b[1])
    slope = _clip(ratio, b).round() - torch.where(inside, ratio, 0.0)
    return torch.where(inside, g, 0.0), _sum(slope * g.float())


@kernel
def affine_forward(
    v: Tensor, s: Tensor, span: Tensor, z: Tensor, b: Tensor, count: Tensor
) -> Tensor:
    """v̂ = (clamp(round(v/s) + z, lo, hi) - z) s; v/s is v/span · count[0]."""
    q = ratio(v.float(), span, count[0]).round() + z
    return ((_clip(q, b) - z) * s).to(v.dtype)


@kernel
def affine_backward(
    v: Tensor, g: Tensor, span: Tensor, z: Tensor, b: Tensor, count: Tensor
) -> Tensor:
    """Return ∂v̂/∂v · g, straight through where the code is in the closed range."""
    q = ratio(v.float(), span, count[0]).round() + z
    return torch.where((q >= b[0]) & (q <= b[1]), g, 0.0)


@kernel
def affine_backward_scale(
    v: Tensor, g: Tensor, span: Tensor, z: Tensor, b: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ∂v̂/∂v · g and the sum of ∂v̂/∂s · g."""
    exact = ratio(v.float(), span, count[0])
    q = exact.round() + z
    inside = (q >= b[0]) & (q <= b[1])
    slope = _clip(q, b) - z - torch.where(inside, exact, 0.0)
    return torch.where(inside, g, 0.0), _sum(slope * g.float())


@kernel
def interval_forward(x: Tensor, s: Tensor, b: Tensor, gamma: Tensor) -> Tensor:
    """x_q = round(clip(γx/s, α, β)) / γ; γ = gamma[0]."""
    return (_clip(x.float() * (gamma[0] / s), b).round() / gamma[0]).to(x.dtype)


@kernel
def interval_backward(
    x: Tensor, g: Tensor, s: Tensor, b: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """Return g/s inside the closed clip range, and the sum of -g x/s² there."""
    scaled = x.float() * (gamma[0] / s)
    inside = (scaled >= b[0]) & (scaled <= b[1])
    passed = torch.where(inside, g.float(), 0.0) / s
    return passed.to(g.dtype), _sum(-passed * _clip(scaled, b)) / gamma[0]


@kernel
def _sgd_transition_step(
    w: Tensor,
    g: Tensor,
    momentum: Tensor,
    old: Tensor,
    new: Tensor,
    u: Tensor,
    inverse: Tensor,
    hyper: Tensor,
    b: Tensor,
) -> Tensor:
    """Step one layer's latent weights by SGD at rate U; return how many codes changed.

    d = g + λ_wd w;  v = μ v + d;  w = w - U v;  then the new codes against the old, all in one pass.
    `w`, `momentum` and `new` are overwritten; `inverse` is γ/s, hyper is (λ_wd, μ). The new codes have
    a separate buffer: writing them over the old ones would take a second pass.
    """
    v = momentum * hyper[1] + (g + hyper[0] * w)
    stepped = w - u * v
    now = _clip(stepped * inverse, b).round()
    changed = torch.where(now == old.float(), 0.0, 1.0).sum()  # integer sums are not vectorized
    momentum.copy_(v)
    w.copy_(stepped)
    new.copy_(now.to(new.dtype))
    return changed


def sgd_transition_step(
    *tensors: Tensor, decay: float, momentum: float, levels: tuple[int, int]
) -> Tensor:
    """`_sgd_transition_step` with numbers for hyper and b."""
    device = tensors[0].device
    return _sgd_transition_step(*tensors, bounds(decay, momentum, device), bounds(*levels, device))


@kernel
def _blend_transition_step(
    w: Tensor, start: Tensor, old: Tensor, new: Tensor, share: Tensor, inverse: Tensor, b: Tensor
) -> Tensor:
    """Keep `share` of a step that led from `start` to `w`; return how many codes changed."""
    stepped = torch.lerp(start, w, share)
    now = _clip(stepped * inverse, b).round()
    changed = torch.where(now == old.float(), 0.0, 1.0).sum()
    w.copy_(stepped)
    new.copy_(now.to(new.dtype))
    return changed


def blend_transition_step(*tensors: Tensor, levels: tuple[int, int]) -> Tensor:
    """`_blend_transition_step` with numbers for b."""
    return _blend_transition_step(*tensors, bounds(*levels, tensors[0].device))
