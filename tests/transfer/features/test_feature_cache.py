"""Features are computed once, whatever kills a job or damages a file."""

import itertools
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from lowbit.transfer.features import feature_cache
from lowbit.transfer.features.feature_cache import FeatureCache

CONTEXT = multiprocessing.get_context("fork")


def _get(folder, together, sums):
    def compute(start):
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
    cache.get({"count": 2}, lambda start: iter([torch.zeros(2, 3)]))
    assert list(tmp_path.iterdir()) == []


ROWS = torch.arange(60.0).reshape(20, 3)


def _batches(start):
    return iter(ROWS[start:].split(4))


@pytest.fixture
def cached(tmp_path):
    """Features in a cache; a function reads them, and returns whether they were computed again."""

    def _read(compute=_batches):
        calls = []
        cache = FeatureCache(tmp_path, {"network": "n"})
        found = cache.get({"count": 20}, lambda start: calls.append(start) or compute(start))
        assert found.equal(ROWS)
        return calls

    assert _read() == [0] and _read() == []
    return _read


def _npy(folder):
    (path,) = folder.glob("*.npy")
    return path


def _save(path, array):
    with path.open("wb") as file:
        np.save(file, array)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 40),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "no header": lambda path: os.truncate(path, 60),
    "empty": lambda path: os.truncate(path, 0),
    "fewer rows": lambda path: _save(path, ROWS[:10].numpy()),
    "other columns": lambda path: _save(path, torch.ones(20, 2).numpy()),
    "doubles": lambda path: _save(path, ROWS.double().numpy()),
    "one dimension": lambda path: _save(path, np.ones(20, "f4")),
    "objects": lambda path: _save(path, np.array([{}] * 20)),
    "no NumPy file": lambda path: path.write_bytes(b"features " * 50),
    "other values": lambda path: _save(path, ROWS.flip(0).numpy()),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\1"),
    "no sidecar": lambda path: path.with_suffix(".json").unlink(),
    "damaged sidecar": lambda path: path.with_suffix(".json").write_text("{"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_named_and_computed_again(cached, tmp_path, caplog, how):
    DAMAGES[how](_npy(tmp_path))
    assert cached() == [0]
    assert f"{_npy(tmp_path)} is damaged (" in caplog.text
    assert cached() == []


def test_a_file_from_before_there_were_checksums_is_read(cached, tmp_path):
    _npy(tmp_path).with_suffix(".json").write_text(json.dumps({"network": "n", "count": 20}))
    assert cached() == []


def test_the_last_bytes_of_a_large_file_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_BLOCK", 16)
    monkeypatch.setattr(feature_cache, "_BLOCKS", 4)
    path, seen = tmp_path / "file", set()
    for last in (0, 1):
        path.write_bytes(bytes(999) + bytes([last]))
        with path.open("rb") as file:
            seen.add(feature_cache._checksum(file))
    assert len(seen) == 2


def _killed(start):
    """Compute three batches, and die."""
    yield from itertools.islice(_batches(start), 3)
    os._exit(9)


def _fork(function):
    process = CONTEXT.Process(target=function)
    process.start()
    process.join()
    assert process.exitcode == 9


def test_what_a_killed_job_computed_is_continued(cached, tmp_path, monkeypatch):
    for path in tmp_path.iterdir():
        path.unlink()
    monkeypatch.setattr(feature_cache, "_SYNC", 0.0)
    _fork(lambda: cached(_killed))
    (part,) = tmp_path.glob("*.part")
    assert part.suffixes == [".12", ".part"]
    with part.open("ab") as file:
        file.write(b"a batch that did not reach the disk")
    assert cached() == [12]
    assert not [*tmp_path.glob("*.part")] and cached() == []


def test_killed_jobs_leave_one_part_at_most(cached, tmp_path):
    left = [_npy(tmp_path).with_suffix(f".{rows}.part") for rows in (8, 999)]
    for path in (*left, tmp_path / f".{_npy(tmp_path).stem}.npy.x.tmp"):
        path.write_bytes(b"x" * 100)
    _npy(tmp_path).unlink()
    assert cached() == [0]  # none of them is a part
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".lock", ".npy"]


def test_what_killed_jobs_left_counts_and_gives_way(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_CACHE_GB", "1e-6")
    for number in range(5):
        for name in (f"{number:032}.8.part", f".{number:032}.npy.x.tmp"):
            (tmp_path / name).write_bytes(b"x" * 300)
            os.utime(tmp_path / name, (number, number))
    FeatureCache(tmp_path, {}).get({"count": 2}, lambda start: iter([torch.zeros(2, 3)]))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert len([*tmp_path.glob("*.npy")]) == 1


def test_what_is_being_computed_does_not_give_way(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWBIT_CACHE_GB", "1e-9")

    def compute(start):
        (tmp_path / "busy.lock").touch()
        busy = tmp_path / "busy.8.part"
        busy.touch()
        with feature_cache.exclusive_lock(tmp_path / "busy.lock", "it"):
            feature_cache._give_way(tmp_path, limit=0)
            assert busy.exists()
        yield torch.zeros(2, 3)

    FeatureCache(tmp_path, {}).get({"count": 2}, compute)
    assert list(tmp_path.iterdir()) == []


OTHERS = 2 * ROWS


def _several(cache, compute):
    return cache.get_all([{"count": 20, "of": "rows"}, {"count": 20, "of": "others"}], compute)


def test_several_are_computed_in_one_pass(tmp_path):
    calls = []

    def compute(missing, start):
        calls.append((list(missing), start))
        kept = [(ROWS, OTHERS)[place] for place in missing]
        return zip(*(rows[start:].split(4) for rows in kept), strict=True)

    cache = FeatureCache(tmp_path, {})
    for _ in range(2):
        found = _several(cache, compute)
        assert found[0].equal(ROWS) and found[1].equal(OTHERS)
    assert calls == [([0, 1], 0)]
    rows = tmp_path / _npy_of(tmp_path, "rows")
    rows.unlink()
    assert _several(cache, compute)[0].equal(ROWS)
    assert calls[1:] == [([0], 0)]


def _npy_of(folder, name):
    for sidecar in folder.glob("*.json"):
        if json.loads(sidecar.read_text())["facts"]["of"] == name:
            return sidecar.with_suffix(".npy")
    raise AssertionError(name)


def test_several_continue_together_from_where_the_last_of_them_was_left(tmp_path, monkeypatch):
    """One was safely on disk further than the other when the job was killed."""
    monkeypatch.setattr(feature_cache, "_SYNC", -1.0)
    starts = []

    def compute(missing, start, stop=None):
        starts.append(start)
        for first in range(start, 20, 4):
            if first == stop:
                raise KeyboardInterrupt
            yield [(ROWS, OTHERS)[place][first : first + 4] for place in missing]

    cache = FeatureCache(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        _several(cache, lambda missing, start: compute(missing, start, stop=12))
    parts = sorted(tmp_path.glob("*.part"))
    assert [part.suffixes[0] for part in parts] == [".12", ".12"]
    parts[0].rename(str(parts[0]).replace(".12.", ".8."))
    found = _several(cache, compute)
    assert starts == [0, 8]
    assert found[0].equal(ROWS) and found[1].equal(OTHERS)
    assert not list(tmp_path.glob("*.part"))


def test_those_that_another_job_computes_are_waited_for_and_not_computed_again(tmp_path):
    """Two jobs ask for overlapping features in opposite orders, which must not block them."""
    names, together = ("a", "b", "c"), CONTEXT.Barrier(2)

    def job(wanted):
        def compute(missing, start):
            time.sleep(0.2)
            with (tmp_path / "computed").open("a") as file:
                file.writelines(f"{wanted[place]}\n" for place in missing)
            yield [torch.full((2, 3), float(names.index(wanted[place]))) for place in missing]

        together.wait()
        found = FeatureCache(tmp_path / "kept", {}).get_all(
            [{"count": 2, "of": name} for name in wanted], compute
        )
        right = all(x.eq(names.index(n)).all() for n, x in zip(wanted, found, strict=True))
        os._exit(0 if right else 1)

    torch.set_num_threads(1)
    jobs = [CONTEXT.Process(target=job, args=(wanted,)) for wanted in (("a", "b"), ("c", "b", "a"))]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join(60)
    assert [process.exitcode for process in jobs] == [0, 0]
    assert sorted((tmp_path / "computed").read_text().split()) == ["a", "b", "c"]
