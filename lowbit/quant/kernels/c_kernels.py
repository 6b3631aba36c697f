"""Range and learned-scale quantizers as CPU kernels in C (`kernels.c`), one pass over memory each way.

The system's C compiler builds them in half a second, once per machine: the library is cached in
~/.cache/lowbit-bench (or under XDG_CACHE_HOME) as kernels-INPUTS-CONTENT.so, named by the hashes of
what it was made from and of its own bytes. Opening it takes a millisecond; one whose bytes are not
those that its name says is removed and compiled again, and one that another user wrote, or that lies
where others can write, is not used. Without a home or a folder to write to, each process compiles its
own. A call costs a few microseconds, whereas a function compiled by torch costs tens, and several
seconds at its first call in a process. So they are used wherever they apply, unless
`use_fused_kernels(False)` or LOWBIT_FUSED=0 disables them; without a compiler quantizers run eagerly.

Values and gradients of tensors are those of the eager route, bit for bit; sums over a tensor, the
gradients of scales, are added in another order, which does not depend on the number of threads.
"""

import ctypes
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from lowbit.common.atomic_file import atomic
from lowbit.common.cache_folder import cache_folder, is_private, make_private
from lowbit.quant.kernels import torch_compiled
from lowbit.quant.kernels.affine_grid import AffineGrid

_logger = logging.getLogger(__name__)
_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = (
    "-O3",
    "-shared",
    "-fPIC",
    "-fopenmp",
    # round like the eager operations: no contraction or reassociation
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
)
_VECTORS = {  # as detected by torch; not -march=native: a cluster's machines may share the folder
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mfma", "-mavx512f", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"),
}
_SERIAL = 32768  # elements below which torch's own operations use one thread

_POINTER, _LENGTH, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIZE = (_LENGTH, _LENGTH, ctypes.c_int)  # channels, width, threads
_ARGUMENTS = {
    "lsq_forward": (*[_POINTER] * 3, *_SIZE, *[_NUMBER] * 4),
    "lsq_backward": (*[_POINTER] * 5, *_SIZE, *[_NUMBER] * 5),
    "affine_forward": (*[_POINTER] * 5, *_SIZE, *[_NUMBER] * 4),
    "affine_backward": (*[_POINTER] * 5, *_SIZE, *[_NUMBER] * 4),
    "affine_backward_scale": (*[_POINTER] * 6, *_SIZE, *[_NUMBER] * 3),
    "symmetric_forward": (*[_POINTER] * 3, *_SIZE, *[_NUMBER] * 3),
    "symmetric_backward": (*[_POINTER] * 4, *_SIZE, *[_NUMBER] * 3),
    "interval_forward": (*[_POINTER] * 3, *_SIZE, *[_NUMBER] * 3),
    "interval_backward": (*[_POINTER] * 5, *_SIZE, *[_NUMBER] * 3),
    "sgd_transition_step": (*[_POINTER] * 7, _LENGTH, ctypes.c_int, *[_NUMBER] * 4),
    "blend_transition_step": (*[_POINTER] * 6, _LENGTH, ctypes.c_int, *[_NUMBER] * 2),
}
_COUNTING = ("sgd_transition_step", "blend_transition_step")


@cache
def library() -> ctypes.CDLL | None:
    """Open the kernels, compiled first if need be; None if that is impossible."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        _logger.info("There is no C compiler (cc, or the one named in CC); quantizers run eagerly.")
        return None
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
    command = [compiler, *_FLAGS, *vectors, str(_SOURCE)]
    key = repr((_FLAGS, vectors, platform.machine())).encode() + _SOURCE.read_bytes()
    try:
        library = _open(command, cache_folder(), f"kernels-{_digest(key)}")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        _logger.warning(
            "The C kernels could not be built (%s %s); quantizers run eagerly.",
            error,
            said.decode(errors="replace"),
        )
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(library, name).argtypes = arguments
        getattr(library, name).restype = _LENGTH if name in _COUNTING else None
    return library


def _open(command: list[str], base: Path | None, name: str) -> ctypes.CDLL:
    """Open the library in the cache; else compile it, and keep it there if that is possible."""
    if base is not None and (file := _whole(base, name)):
        return ctypes.CDLL(str(file))
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{name}.so"
        subprocess.run([*command, "-o", made, "-lm"], check=True, capture_output=True)
        kept = base and _keep(made.read_bytes(), base, name)
        return ctypes.CDLL(str(kept or made))  # stays open when the file is removed


def _whole(base: Path, name: str) -> Path | None:
    """Return the library if it has the bytes that it was written with, and only this user wrote them.

    Other bytes could crash a job, and another user's run with this one's rights.
    """
    try:
        files = sorted(base.glob(f"{name}-*.so")) if is_private(base.stat()) else []
    except OSError:
        return None
    for file in files:
        try:
            if not file.is_file() or not is_private(file.lstat()):
                _logger.warning("%s was written by another user, or can be; it is not used.", file)
                continue
            if file.stem == f"{name}-{_digest(file.read_bytes())}":
                return file
            file.unlink()
        except OSError as error:
            _logger.warning("%s cannot be used (%s).", file, error)
        else:
            _logger.warning("%s was damaged; the kernels are compiled again.", file)
    return None


def _keep(content: bytes, base: Path, name: str) -> Path | None:
    """Write the library to the cache for the next process; None if that is impossible."""
    file = base / f"{name}-{_digest(content)}.so"
    try:
        make_private(base)
        with atomic(file) as written:  # other processes may be doing the same
            written.write(content)
        file.chmod(0o644)  # the umask may let others write
    except OSError as error:
        _logger.info("The C kernels are compiled in each process: %s", error)
        return None
    return file


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def is_recorded() -> bool:
    """Whether torch records operations (compiling, exporting, tracing), which a call of C would leave out.

    A tracer would take what the kernel wrote for a constant, and the graph would have no input.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode()


def supports(*tensors: Tensor, scales: tuple[Tensor | None, ...] = ()) -> bool:
    """Whether the kernels are enabled and support these tensors, of one layout, and their scales."""
    if is_recorded() or not torch_compiled.is_enabled():
        return False
    for t in tensors:
        plain = type(t) in (Tensor, nn.Parameter)  # no tensor subclasses or proxies
        if not plain or t.dtype != torch.float32 or not t.is_cpu:
            return False
    shape = tensors[0].shape
    for s in scales:
        if s is None:
            continue
        one = s.numel() == 1 and 0 < s.dim() <= len(shape)
        each = s.dim() == len(shape) and s.shape[0] == s.numel() == shape[0]
        if not (one or each) or s.dtype != torch.float32 or not s.is_contiguous():
            return False
    return torch_compiled.is_compatible(*tensors) and library() is not None


def supports_like(g: Tensor, v: Tensor) -> bool:
    """Whether the kernels support a gradient `g` of a tensor `v` that they supported."""
    alike = type(g) is Tensor and g.dtype == torch.float32 and g.is_cpu and g.stride() == v.stride()
    return alike and torch_compiled.is_enabled() and not torch.compiler.is_compiling()


def supports_steps(codes: Tensor) -> bool:
    """Whether the kernels are enabled and support steps of float32 weights with such codes."""
    return (
        codes.is_cpu
        and codes.dtype == torch.int8
        and torch_compiled.is_enabled()
        and library() is not None
    )


def _size(v: Tensor, s: Tensor) -> tuple[int, int, int]:
    n, channels = v.numel(), s.numel()
    return channels, n // channels, threads(n)


def threads(n: int) -> int:
    return torch.get_num_threads() if n > _SERIAL else 1


def address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def lsq_forward(v: Tensor, s: Tensor, least: float, ratio: float, lo: float, hi: float) -> Tensor:
    """v̂ = step round(clip(v/step, lo, hi)) with step = max(|s|, least) ratio."""
    out = torch.empty_like(v)
    library().lsq_forward(address(v), address(out), address(s), *_size(v, s), least, ratio, lo, hi)
    return out


def lsq_backward(
    v: Tensor,
    g: Tensor,
    s: Tensor,
    least: float,
    ratio: float,
    factor: float,
    lo: float,
    hi: float,
) -> tuple[Tensor, Tensor]:
    """Return ∂v̂/∂v · g, and the sum of ∂v̂/∂step · g times `factor` and the sign of s (LSQ Eqs. 3, 5)."""
    dv, ds = torch.empty_like(v), torch.empty_like(s)
    places = address(v), address(g), address(dv), address(ds), address(s)
    library().lsq_backward(*places, *_size(v, s), least, ratio, factor, lo, hi)
    return dv, ds


def affine_forward(
    v: Tensor, grid: AffineGrid, lo: float, hi: float, least: float = -math.inf
) -> Tensor:
    """v̂ = (clamp(round(v/s) + z, lo, hi) - z) s, of max(v, least)."""
    out = torch.empty_like(v)
    places = address(v), address(out), address(grid.s), address(grid.span), address(grid.z)
    library().affine_forward(*places, *_size(v, grid.s), grid.count, least, lo, hi)
    return out


def affine_backward(
    v: Tensor, g: Tensor, grid: AffineGrid, lo: float, hi: float, least: float = -math.inf
) -> Tensor:
    """Return ∂v̂/∂v · g, straight through where the code is in the closed range and v > least."""
    dv = torch.empty_like(v)
    places = address(v), address(g), address(dv), address(grid.span), address(grid.z)
    library().affine_backward(*places, *_size(v, grid.s), grid.count, least, lo, hi)
    return dv


def affine_backward_scale(
    v: Tensor, g: Tensor, grid: AffineGrid, lo: float, hi: float
) -> tuple[Tensor, Tensor]:
    """Return ∂v̂/∂v · g and the sum of ∂v̂/∂s · g."""
    dv, ds = torch.empty_like(v), torch.empty_like(grid.s)
    places = address(v), address(g), address(dv), address(ds), address(grid.span), address(grid.z)
    library().affine_backward_scale(*places, *_size(v, grid.s), grid.count, lo, hi)
    return dv, ds


def symmetric_forward(
    v: Tensor, channels: int, count: float, lo: float, hi: float
) -> tuple[Tensor, Tensor]:
    """Return v̂ with s = max|v| / count, of each channel, and those maxima, (C, 1)."""
    out, peak = torch.empty_like(v), v.new_empty(channels, 1)
    library().symmetric_forward(
        address(v), address(out), address(peak), *_size(v, peak), count, lo, hi
    )
    return out, peak


def symmetric_backward(
    v: Tensor, g: Tensor, peak: Tensor, count: float, lo: float, hi: float
) -> Tensor:
    """Return ∂v̂/∂v · g, through the maxima as well."""
    dv = torch.empty_like(v)
    places = address(v), address(g), address(dv), address(peak)
    library().symmetric_backward(*places, *_size(v, peak), count, lo, hi)
    return dv


def interval_forward(x: Tensor, s: Tensor, lo: float, hi: float, gamma: float) -> Tensor:
    """x_q = round(clip(γx/s, lo, hi)) / γ."""
    out = torch.empty_like(x)
    library().interval_forward(address(x), address(out), address(s), *_size(x, s), lo, hi, gamma)
    return out


def interval_backward(
    x: Tensor, g: Tensor, s: Tensor, lo: float, hi: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Return g/s where lo < γx/s < hi, and the sum of -g x/s² there."""
    dx, ds = torch.empty_like(x), torch.empty_like(s)
    places = address(x), address(g), address(dx), address(ds), address(s)
    library().interval_backward(*places, *_size(x, s), lo, hi, gamma)
    return dx, ds


def sgd_transition_step(
    *tensors: Tensor, decay: float, momentum: float, levels: tuple[int, int]
) -> int:
    """Step one layer by SGD at rate U, as `torch_compiled` does; return how many codes changed.

    Args:
        tensors: flat weights, gradients, momenta, last and next codes; U and γ/s, (1,).
    """
    n = tensors[0].numel()
    numbers = decay, momentum, *levels
    return library().sgd_transition_step(*map(address, tensors), n, threads(n), *numbers)


def blend_transition_step(*tensors: Tensor, levels: tuple[int, int]) -> int:
    """Keep a share of a step, as `torch_compiled` does; return how many codes changed.

    Args:
        tensors: flat weights, where they started, last and next codes; the share and γ/s, (1,).
    """
    n = tensors[0].numel()
    return library().blend_transition_step(*map(address, tensors), n, threads(n), *levels)
