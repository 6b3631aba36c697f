"""Cases of `tools/bench.py qat`: what quantization-aware training costs beside plain training."""

from collections.abc import Iterator

import bench_adaptive
import bench_transition
from timing import Case


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    repeats = 3 if quick else 15
    yield from bench_transition.sgd_steps(repeats)
    yield from bench_transition.adam_steps(repeats)
    yield from bench_transition.device_reads()
    yield from bench_adaptive.adaptive_cases(quick)
