"""Prepare the server that jobs are forked from; it imports this last, and nothing else does.

Starting and ending a forked process takes time for every page of the server's memory, and so does
every page that the process writes to. Therefore what each job would do alike is done here once, and
the memory is put into pages of 2 MiB instead of 4 KiB.
"""

import ctypes
import gc
import re
from collections.abc import Iterator
from pathlib import Path

from lowbit.benchmark.executors.worker import log_to_stderr
from lowbit.benchmark.results.build_result import versions

_HUGE = 2 * 2**20  # bytes of a huge page, on x86-64 and on ARM with pages of 4 KiB
_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1; older kernels refuse it, and pages stay small
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0\s*(?:\[heap\])?")


def use_huge_pages() -> None:
    """Put the private memory of this process that no file backs into huge pages, where that works."""
    try:
        mappings = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for start, length in _whole_pages(mappings):
        advise(start, length, _COLLAPSE)


def _whole_pages(mappings: list[str]) -> Iterator[tuple[int, int]]:
    """Yield address and length, in bytes, of what whole huge pages can hold."""
    for found in filter(None, map(_MAPPING.fullmatch, mappings)):
        start = -(-int(found[1], 16) // _HUGE) * _HUGE
        end = int(found[2], 16) // _HUGE * _HUGE
        if start < end:
            yield start, end - start


versions()
log_to_stderr()
gc.freeze()  # else a job's first full collection would write to every object, and copy all of them
use_huge_pages()
