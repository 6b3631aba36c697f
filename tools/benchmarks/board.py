"""Cases of `bench.py sweep` on results: the time to read and show a hundred thousand."""

import contextlib
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

from lowbit.benchmark.results.result_file import RESULT
from lowbit.tools.benchmarks.timing import Case

RESULTS = 100_000
LOAD, BUILD = 3.0, 10.0  # s allowed for reading again, and for building the board
FIRST, ROUNDS = 1.65, 3  # the first reading of all over the plain one, at most; rounds of both
PRECISIONS = ("FP", "8w8a", "6w6a", "5w5a", "4w4a", "3w3a", "2w4a")
DATASETS = ("cifar10", "cifar100", "flowers102", "pets", "dtd", "food101", "caltech101")
PROTOCOLS = ("linear", "finetune", "knn")
CHECKPOINTS, SEEDS, IMAGES = 138, 5, 10_000


def cases(quick: bool) -> Iterator[Case]:
    """Write result files with one number each, read them for the first time and again, and build the board.

    The first reading, which checks each file and leaves a cache, is set against the least that reading files
    takes in one process of Python: listing the folder, opening each file and parsing its JSON.
    """
    from lowbit.benchmark.leaderboard import build
    from lowbit.benchmark.results.comparability import normalize
    from lowbit.benchmark.results.frame import load_frame

    count = RESULTS // 10 if quick else RESULTS
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        for result in islice(_results(), count):
            (runs / result["job_id"]).mkdir()
            (runs / result["job_id"] / RESULT).write_text(json.dumps(result, indent=2))
        load_frame(runs)
        rounds = [(_first(runs), _seconds(lambda: _plain(runs))) for _ in range(ROUNDS)]
        first, plain = map(statistics.median, zip(*rounds, strict=True))
        over = statistics.median(first / plain for first, plain in rounds)
        again = _seconds(lambda: load_frame(runs))
        frame = normalize(load_frame(runs))
        assert len(frame) == count
        built = _seconds(lambda: build.build_from(frame, runs))
        size = (runs / "leaderboard" / "index.html").stat().st_size
    what = f"read {count:,} result files the first time"
    yield Case(what, first, "list, open, json.loads", plain, over, None if quick else FIRST)
    yield Case(f"read {count:,} result files again", again, "budget", LOAD, again / LOAD, 1.0)
    what = f"their board in four formats, a page of {size / 2**20:.1f} MiB"
    yield Case(what, built, "budget", BUILD, built / BUILD, 1.0)


def _first(runs: Path) -> float:
    from lowbit.benchmark.results.frame import load_frame
    from lowbit.benchmark.results.records.record_cache import CACHE

    (runs / CACHE).unlink()
    return _seconds(lambda: load_frame(runs))


def _plain(runs: Path) -> None:
    for name in sorted(os.listdir(runs)):
        with contextlib.suppress(OSError), open(f"{runs}/{name}/{RESULT}", "rb") as file:
            json.loads(file.read())


def _seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _results() -> Iterator[dict]:
    every = product(range(CHECKPOINTS), DATASETS, PROTOCOLS, range(SEEDS), enumerate(PRECISIONS))
    for number, (checkpoint, dataset, protocol, seed, (place, precision)) in enumerate(every):
        right = 8_800 - 60 * checkpoint % 997 - 150 * place**2 + 37 * (number % 11) + 5 * seed
        share = right / IMAGES
        measurement = {
            "metric": "top1", "value": 100 * share, "unit": "%", "n": IMAGES,
            "stderr": 100 * math.sqrt(share * (1 - share) / IMAGES),
            "precision": precision, "split": "test",
        }  # fmt: skip
        identity = {
            "task": "classification", "dataset": dataset, "protocol": protocol, "engine": "torch",
            "policy": "ssql", "policy_fingerprint": "f" * 12, "split_sha256": "0" * 64,
            "image_size": 224,
        }  # fmt: skip
        name = f"checkpoint-{checkpoint:03}"
        yield {
            "schema_version": 2, "job_id": f"{number:012x}", "question": f"{number:012x}",
            "stage": "transfer", "protocol_version": 1, "status": "completed",
            "measurements": [measurement], "precisions": [precision],
            "recipe": {"dataset": dataset, "protocol": protocol, "seed": seed, "epochs": 100},
            "inputs": {"checkpoint": {"path": f"{name}.pth", "sha256": name, "job_id": None}},
            "identity": identity, "seconds": 60.0, "device": "cpu",
            "checkpoint": {"name": name, "method": "SSQL", "architecture": "resnet50"},
        }  # fmt: skip
