"""Features that two jobs want at the same time are computed once."""

import multiprocessing
import os
import time

import torch

from lowbit.transfer.features.feature_cache import FeatureCache

CONTEXT = multiprocessing.get_context("fork")


def _get(folder, together, sums):
    def compute():
        with (folder / "computed").open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)  # the others come meanwhile
        yield torch.arange(6.0).reshape(2, 3)

    together.wait()
    cache = FeatureCache(folder / "features", {"network": "n"})
    sums.put(float(cache.get({"count": 2}, compute).sum()))


def test_two_at_once_compute_once(tmp_path):
    torch.set_num_threads(1)
    together, sums = CONTEXT.Barrier(3), CONTEXT.SimpleQueue()
    jobs = [CONTEXT.Process(target=_get, args=(tmp_path, together, sums)) for _ in range(3)]
    for job in jobs:
        job.start()
    found = [sums.get() for _ in jobs]
    for job in jobs:
        job.join()
    assert found == [15.0] * 3
    assert len((tmp_path / "computed").read_text().splitlines()) == 1


def test_what_gives_way_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_CACHE_GB", "1e-9")
    cache = FeatureCache(tmp_path, {})
    cache.get({"count": 2}, lambda: iter([torch.zeros(2, 3)]))
    assert list(tmp_path.iterdir()) == []
