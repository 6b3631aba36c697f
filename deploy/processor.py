"""The processor of this machine, as far as integer kernels depend on it."""

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
# What integer kernels look for, the widest first; the names are the flags of /proc/cpuinfo.
_EXTENSIONS = {
    "amx_int8": "AMX-INT8",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX512",
    "avx2": "AVX2",
    "i8mm": "I8MM",  # Arm
    "asimddp": "DotProd",
}
_SHOWN = 3  # of them


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        model: its name.
        instruction_set: the extensions that integer kernels may use, or "-".
        cores: how many this process may use.
    """

    model: str
    instruction_set: str
    cores: int


@cache
def this_processor() -> Processor:
    """Return this machine's processor; what the system does not say is "-"."""
    try:
        text = _CPUINFO.read_text()
    except OSError:
        text = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Processor(*read_cpuinfo(text), cores)


def read_cpuinfo(text: str) -> tuple[str, str]:
    """Return model and instruction set of the first processor in the text of /proc/cpuinfo.

    Example:
        >>> read_cpuinfo("model name\\t: A CPU (R)\\nflags\\t\\t: fpu avx2 avx512bw avx512_vnni\\n")
        ('A CPU (R)', 'AVX512-VNNI AVX512 AVX2')
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    found = [shown for flag, shown in _EXTENSIONS.items() if flag in flags][:_SHOWN]
    return fields.get("model name") or platform.processor() or "-", " ".join(found) or "-"
