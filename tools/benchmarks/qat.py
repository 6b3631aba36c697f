"""Cases of `lowbit-bench bench qat`: what quantization-aware training costs beside plain training."""

from collections.abc import Iterator

from lowbit.tools.benchmarks import adaptive, transition
from lowbit.tools.benchmarks.timing import Case


def cases(quick: bool = False) -> Iterator[Case]:
    """Yield the rows of the table, group by group; each group is one interleaved run."""
    repeats = 3 if quick else 15
    yield from transition.sgd_steps(repeats)
    yield from transition.adam_steps(repeats)
    yield from transition.device_reads()
    yield from adaptive.adaptive_cases(quick)
