"""Quantizer kernels that read and write each tensor once, compiled when asked for.

`primitives` computes with a handful of eager operations, each a pass over memory. Here the same
formulas are one kernel forward and one backward, compiled by torch for the device at hand. Compiling
takes some ten seconds in a new process, so it is for runs that last: `use_fused_kernels(True)`, or
LOWBIT_FUSED=1. Without a compiler the eager route stays, with a warning.

One compilation serves every shape and bit-width: kernels see a dense tensor as one dimension (or as
(C, K) where there is a scale a channel), detached, and bit-widths as numbers in a tensor. Compiled on
shaped tensors, or with Python integers, they would be compiled again for each, and after eight of
them torch falls back to eager in silence.

Sums over a tensor add in another order than eagerly, so the two routes agree to rounding, not bit for
bit: a run that is to be repeated exactly repeats its setting.
"""

import logging
import os
import shutil
from collections.abc import Callable
from functools import cache, wraps

import torch
from torch import Tensor

_logger = logging.getLogger(__name__)
_wanted = os.environ.get("LOWBIT_FUSED", "0") not in ("", "0", "no", "false")


def use_fused_kernels(wanted: bool = True) -> bool:
    """Turn the fused kernels on or off for this process; return whether they are on."""
    global _wanted
    _wanted = wanted
    return fused_kernels()


def fused_kernels() -> bool:
    """Whether quantizers use fused kernels: asked for, and a compiler is here."""
    return _wanted and _can_compile()


@cache
def _can_compile() -> bool:
    if torch.cuda.is_available() or shutil.which(os.environ.get("CXX", "g++")):
        return True
    _logger.warning(
        "Fused kernels were asked for, but there is no C++ compiler; quantizers run eagerly. Install "
        "g++, or name a compiler in CXX."
    )
    return False


def fits(*tensors: Tensor) -> bool:
    """Whether the kernels can take these tensors: float32 or half, dense, of one layout."""
    first = tensors[0]
    return all(
        t.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and t.stride() == first.stride()
        and t.numel() > 0
        and _is_dense(t)
        for t in tensors
    )


def _is_dense(t: Tensor) -> bool:
    return t.is_contiguous() or (
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last)
    )


def flat(t: Tensor, scale: Tensor) -> Tensor:
    """View a dense tensor in memory order as (N,), or (C, K) for a scale a channel; detached."""
    t = t.detach()
    if scale.numel() == 1:
        return t.as_strided((t.numel(),), (1,))
    channels = scale.numel()
    return t.as_strided((channels, t.numel() // channels), (t.stride(0), 1))


def unflat(t: Tensor, like: Tensor) -> Tensor:
    """View a kernel's output in the shape and layout of `like`."""
    return t.as_strided(like.shape, like.stride())


def column(scale: Tensor) -> Tensor:
    """Return a scale as (1,) or (C, 1), detached."""
    scale = scale.detach()
    return scale.reshape(1) if scale.numel() == 1 else scale.reshape(-1, 1)


@cache
def bounds(low: float, high: float, device: torch.device) -> Tensor:
    """Return numbers a kernel needs, as a tensor made once."""
    return torch.tensor([low, high], dtype=torch.float32, device=device)


def kernel(function: Callable) -> Callable:
    """Compile a pure elementwise function at its first call, once for any length."""

    @cache
    def compiled() -> Callable:  # not at import: loading the compiler takes a second
        return torch.compile(function, dynamic=True, fullgraph=True)

    @wraps(function)
    def run(*tensors: Tensor):
        return compiled()(*tensors)

    return run


def _clip(x: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, b[0]), b[1])


def _sum(x: Tensor) -> Tensor:
    """Over all elements of (N,), over the rows' of (C, K)."""
    return x.sum(-1)


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
def affine_forward(v: Tensor, s: Tensor, z: Tensor, b: Tensor) -> Tensor:
    """v̂ = (clamp(round(v/s) + z, lo, hi) - z) s."""
    return ((_clip((v.float() / s).round() + z, b) - z) * s).to(v.dtype)


@kernel
def affine_backward(v: Tensor, g: Tensor, s: Tensor, z: Tensor, b: Tensor) -> Tensor:
    """Return ∂v̂/∂v · g, straight through where the code lies in the closed range."""
    q = (v.float() / s).round() + z
    return torch.where((q >= b[0]) & (q <= b[1]), g, 0.0)


@kernel
def affine_backward_scale(
    v: Tensor, g: Tensor, s: Tensor, z: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ∂v̂/∂v · g and the sum of ∂v̂/∂s · g."""
    ratio = v.float() / s
    q = ratio.round() + z
    inside = (q >= b[0]) & (q <= b[1])
    slope = _clip(q, b) - z - torch.where(inside, ratio, 0.0)
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
    return passed.to(g.dtype), _sum(-passed * scaled) / gamma[0]


@kernel
def sgd_transition_step(
    w: Tensor,
    g: Tensor,
    momentum: Tensor,
    code: Tensor,
    u: Tensor,
    s: Tensor,
    hyper: Tensor,
    b: Tensor,
    gamma: Tensor,
) -> Tensor:
    """Step one layer's latent weights by SGD at rate U; return how many codes changed.

    d = g + λ_wd w;  v = μ v + d;  w = w - U v;  then the new codes against the old, all in one pass.
    `w`, `momentum` and `code` are changed in place; hyper is (λ_wd, μ).
    """
    v = momentum * hyper[1] + (g + hyper[0] * w)
    stepped = w - u * v
    now = _clip(stepped * (gamma[0] / s), b).round().to(code.dtype)
    changed = (now != code).sum()
    momentum.copy_(v)
    w.copy_(stepped)
    code.copy_(now)
    return changed
