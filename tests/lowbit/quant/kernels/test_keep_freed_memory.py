"""Freed memory that is kept costs no page faults when it is wanted again."""

import subprocess
import sys

PROGRAM = """
import resource, torch
from lowbit.quant import keep_freed_memory
torch.set_num_threads(1)
if {keep} and not keep_freed_memory():
    raise SystemExit("this C library has no mallopt")
def work():
    for _ in range(20):
        torch.ones(2 ** 21).add(1)  # two blocks of 8 MiB, freed at once
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep):
    command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_keeping_freed_memory_ends_page_faults():
    faults = page_faults(keep=True)
    assert faults < 100  # without, some versions of torch take 40 blocks of 2,048 pages each
    assert faults <= page_faults(keep=False)
