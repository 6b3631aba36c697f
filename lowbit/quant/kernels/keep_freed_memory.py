"""Let the C library keep freed memory, in huge pages.

glibc returns large freed blocks to the system and reacquires them page by page: a quantizer's passes over
8 MiB activations then spend most of their time in page faults (measured: LSQ's backward pass 12.3 ms
against 3.4 ms). In pages of 4 KiB such a pass also waits for the address of each page: in pages of 2 MiB
the passes of a ResNet-18 step took 0.6 of their time. Processes that train call this once; it changes no
result.
"""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # the most glibc accepts on 64 bits
_DEFAULT_MMAP_MAX = 65536
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 2**21  # mman.h, x86 and most ARM
_HEAP = 3 * 2**29  # bytes; more than the trim threshold could not be kept


@cache
def keep_freed_memory() -> bool:
    """Raise malloc's thresholds for this process; return whether that was possible (glibc).

    The next 1.5 GiB of its heap are to lie in huge pages, where the system has them. Addresses are
    reserved for them, memory only when it is used.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), (_M_TRIM_THRESHOLD, 2**31 - 1))
    kept = all(mallopt(name, value) == 1 for name, value in settings)
    if (
        kept and mallopt(_M_MMAP_MAX, 0) == 1
    ):  # so that the block is of the heap, which grows for it
        _advise_huge_pages(libc)
        mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
    return kept


def _advise_huge_pages(libc: ctypes.CDLL) -> None:
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.free.argtypes = [ctypes.c_void_p]
    block = libc.malloc(_HEAP)
    if block is None:  # an address limit
        return
    start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
    libc.madvise(start, (block + _HEAP - start) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
    libc.free(block)
