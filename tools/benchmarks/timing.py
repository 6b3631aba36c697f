"""Rows of a benchmark: ratios that survive a busy machine (variants in turn in one process, medians of
CPU time), and bytes moved through memory."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lowbit.quant import use_fused_kernels


@dataclass(frozen=True)
class Case:
    """A row of a benchmark: what was timed, against what, and the target ratio."""

    case: str
    ours_s: float | None
    against: str
    against_s: float | None
    ratio: float
    target: float | None = None
    moved_mib: float | None = None  # memory traffic of our variant


def ratio_rows(
    variants: Mapping[str, Callable[[], object]],
    against: str,
    repeats: int,
    targets: Mapping[str, float],
    *,
    note: str,
    moved_mib: Mapping[str, float] | None = None,
) -> Iterator[Case]:
    """Time every variant in turn, `repeats` rounds after one to warm up, and compare medians.

    The ratio of a round is taken within it, so that a machine that slows down slows both sides; the
    row's ratio is the median of the rounds'.
    """
    for run in variants.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    for name, own in seconds.items():
        if name == against:
            continue
        ratios = [a / b for a, b in zip(own, seconds[against], strict=True)]
        yield Case(
            f"{name} ({note})",
            statistics.median(own),
            against,
            statistics.median(seconds[against]),
            statistics.median(ratios),
            targets.get(name),
            (moved_mib or {}).get(name),
        )


class _Moved(TorchDispatchMode):
    """Count the bytes that eager operations read and write; a view moves none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.nbytes for t in tensors)
        return out


def moved_mib(run: Callable) -> float:
    """Return MiB read and written by one call, eagerly."""
    use_fused_kernels(False)
    with _Moved() as moved:
        run()
    return moved.bytes / 2**20
