"""Stands for torch where jobs of the fake stages run: what a job's process asks of it, for no import time."""

from types import SimpleNamespace

cuda = SimpleNamespace(is_initialized=lambda: False)


def set_num_threads(threads):
    pass
