"""What jobs take of a machine and of a cluster."""

from types import SimpleNamespace

import pytest

from lowbit.benchmark.executors.resources import (
    Demands,
    Gpus,
    Peaks,
    share_of_threads,
    visible_gpus,
)


def test_threads_are_shared_out_and_omp_num_threads_is_a_limit(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [share_of_threads(8, workers) for workers in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [share_of_threads(8, workers) for workers in (1, 4, 8)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("visible", "count", "gpus"),
    [(None, 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("GPU-ab, GPU-cd", 2, ["GPU-ab", "GPU-cd"])],
)
def test_gpus_are_named_as_the_environment_names_them(monkeypatch, visible, count, gpus):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_gpus_are_dealt_out_least_used_first():
    gpus = Gpus(["3", "5"], workers=4)  # two jobs each
    taken = [gpus.take(1), gpus.take(1), gpus.take(2)]
    assert taken == [("3",), ("5",), ("3", "5")]
    assert gpus.take(1) is None
    gpus.give(taken[1])
    assert gpus.take(2) is None  # the other is full
    assert gpus.take(1) == ("5",)


def test_jobs_share_a_machine_without_gpus():
    gpus = Gpus([], workers=2)
    assert [gpus.take(1), gpus.take(8)] == [(), ()]


def job(**recipe):
    return SimpleNamespace(
        recipe=recipe, stage="transfer", label=SimpleNamespace(architecture="resnet18")
    )


GB = 2**30
BIG = {"CPU": 64.0, "GPU": 8.0, "memory": 256.0 * GB}
SMALL = {"CPU": 8.0, "GPU": 2.0, "memory": 32.0 * GB}
HEAD = {"CPU": 4.0, "memory": 8.0 * GB}


def test_a_job_asks_for_a_gpu_a_process_and_the_cores_there_are_for_one(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    demands = Demands([HEAD, BIG, SMALL])
    assert (demands.workers, demands.threads) == (10, 4)
    assert demands.of(job()) == {"num_cpus": 4, "num_gpus": 1}
    assert demands.of(job(num_gpus=8)) == {"num_cpus": 32, "num_gpus": 8}
    assert demands.of(job(device="cpu")) == {"num_cpus": 4, "num_gpus": 0}
    assert demands.problem(job(num_gpus=8)) is None
    problem = demands.problem(job(num_gpus=16))
    assert "asks for 16 GPUs, and no machine of the cluster has more than 8" in problem
    assert "set num_gpus of its recipe to 8" in problem


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [(1, None, (8, 1)), (2, None, (16, 1)), (2, 4, (4, 4)), (2, 1, (1, 8)), (2, 40, (40, 1))],
)
def test_without_gpus_cores_are_shared_out(monkeypatch, machines, workers, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    demands = Demands([{"CPU": 8.0}] * machines, workers)
    assert (demands.workers, demands.threads) == expected
    assert demands.of(job())["num_cpus"] == expected[1]
    assert demands.of(job(num_gpus=2))["num_gpus"] == 0


def test_memory_is_what_such_jobs_took_with_room_to_spare():
    peaks, demands = Peaks(), Demands([HEAD, BIG])
    assert peaks.of(job(name="a")) is None
    for peak in (1000.0, 3000.0, 2000.0, None):
        peaks.note(job(name="a"), SimpleNamespace(peak_memory_mb=peak))
    assert peaks.of(job(name="a", seed=5)) == 3000.0
    assert peaks.of(job(name="b")) is None
    assert demands.of(job(), peaks.of(job(name="a")))["memory"] == 3600 * 2**20
    assert demands.of(job(), 1e9)["memory"] == 256 * GB  # no more than there is anywhere
