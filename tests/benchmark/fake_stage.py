"""A stage that takes no time; `behave` says how it ends. Copied under the names of the stages.

Each run appends `begin` and `end` lines to `journal`, which is how tests count who ran what; and
`double` if it found another process in its folder.
"""

import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

import lowbit
from lowbit.common.atomic_file import atomic
from lowbit.common.compute_cost import Work

VERSION = 1
_STAGE = __name__.rpartition(".")[2]
__path__ = [f"{folder}/{_STAGE}" for folder in lowbit.__path__]  # the real stage's other modules
_TASKS = {
    "pretrain": "pretrain",
    "transfer": "classification",
    "detection": "detection",
    "deploy": "deployment",
}
_METRICS = {"pretrain": "loss", "transfer": "top1", "detection": "AP", "deploy": "top1"}
_DESCRIBED = (  # of `deploy`
    "networks", "dataset", "protocol", "image_size", "policy", "data_root", "detection"
)  # fmt: skip
_logger = logging.getLogger(__name__)


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    cosmetic: ClassVar = frozenset(
        {"name", "journal", "sleep", "steps", "device", "cache_dir", "num_gpus", *_DESCRIBED}
    )

    name: str = "fake"
    architecture: str | None = None
    checkpoint: str | None = None
    detector: str | None = None
    networks: str | None = None  # of `deploy`, and what describes them
    dataset: str = "fakes"
    protocol: str = "fake"
    image_size: int = 32
    policy: str = "ssql"
    data_root: str | None = None
    detection: dict | None = None
    random_backbone: bool = False
    precisions: tuple[str, ...] = ("FP",)
    lr: float = Field(1.0, gt=0, description="learning rate")
    behave: str = "well"
    seed: int = 0
    sleep: float = 0.0
    steps: int = Field(0, description="how many are taken; `sleep` s each, with a state after each")
    journal: str = os.devnull
    device: str = "cpu"
    cache_dir: str | None = "of its own"
    size: float = 0.0
    num_gpus: int = 1


def missing_data(recipe):
    if recipe.behave == "data missing":
        return "There are no fakes here. Get them: python get_fakes.py"
    return None


def identity(recipe):
    if recipe.behave == "no data":
        raise FileNotFoundError("There is no data; nothing was run. Get it.")
    return {
        "task": _TASKS[_STAGE],
        "dataset": "fakes",
        "protocol": "fake",
        "method": "Fake" if _STAGE == "pretrain" else "-",
        "engine": "torch",
        "policy": "ssql",
        "policy_fingerprint": "f" * 12,
        "policy_on_board": _STAGE != "detection",
        "split_sha256": "0" * 64,
        "image_size": 32,
    }


def work(recipe):
    if recipe.architecture is None or not recipe.size:
        return None
    shared = 9 * recipe.size if recipe.cache_dir is None else 0.0
    return Work(recipe.size, disk=10**6, shared_operations=shared, shared_disk=int(shared))


@contextlib.contextmanager
def process_group():
    os.environ["JOINED"] = os.environ["WORLD_SIZE"]
    yield


def run(recipe, folder):
    _journal(recipe, "begin", folder)
    with _alone(recipe, folder):
        return _run(recipe, folder)


def _run(recipe, folder):
    state = folder / "state.txt"
    state.write_text(state.read_text() + "+" if state.exists() else "+")
    _logger.info("learning at %g", recipe.lr)
    print("printed to stdout", flush=True)
    while recipe.behave == "wait" and not Path(recipe.journal).with_name("go on").exists():
        time.sleep(0.01)
    _train(recipe, folder) if recipe.steps else time.sleep(recipe.sleep)
    for _ in range(25 if recipe.behave == "raise" else 0):
        _logger.info("one more line")
    if recipe.behave == "preempted" and state.read_text() == "+":  # the first time only
        sys.exit(os.EX_TEMPFAIL)
    _misbehave(recipe.behave)
    value = float("nan") if recipe.behave == "nan" else _value(recipe)
    (folder / "checkpoint.pth").write_text(f"made with seed {recipe.seed} at {recipe.lr}")
    (folder / "network.pth").write_text(f"trained with seed {recipe.seed} at {recipe.lr}")
    _journal(recipe, "end", folder)
    return {
        "measurements": [
            {
                "metric": _METRICS[_STAGE],
                "value": value - index,
                "unit": "%",
                "n": 100,
                "precision": precision,
                "split": "test",
            }
            for index, precision in enumerate(recipe.precisions)
        ],
        "artifacts": {
            "checkpoint": "checkpoint.pth",
            **{f"network {precision}": "network.pth" for precision in recipe.precisions},
            **({"scored networks": "network.pth"} if recipe.behave != "without networks" else {}),
        },
        "checkpoint": {"method": "Fake", "architecture": "fakenet", "sha256": None},
        "details": {
            "attempts": len(state.read_text()),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "joined": os.environ.get("JOINED"),
        },
    }


@contextlib.contextmanager
def _alone(recipe, folder):
    """Note if another job's process is in this folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if os.environ.get("RANK", "0") == "0":
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        _journal(recipe, "double", folder)
        raise
    finally:
        os.close(handle)


def _train(recipe, folder):
    """Take the steps that are left, writing the state after each, in two parts."""
    last, curve = folder / "last.pth", folder / "metrics.jsonl"
    done = last.read_text().splitlines() if last.exists() else []
    for step in range(len(done), recipe.steps):
        done.append(f"{recipe.seed} {step} {recipe.lr}")
        with atomic(last) as file:
            file.write("\n".join(done).encode()[: 4 * step])
            file.flush()
            time.sleep(recipe.sleep)
            file.write("\n".join(done).encode()[4 * step :])
    curve.write_text("".join(json.dumps({"step": line}) + "\n" for line in done))


def _misbehave(how):
    if how == "raise beside" and os.environ["RANK"] == "1":
        raise ValueError("The second process broke.")
    if how == "raise beside":
        time.sleep(300)
    if how == "raise":
        raise ValueError("The fake broke; nothing was scored. Mend it.")
    if how == "full disk":
        with open("/dev/full", "w") as file:
            file.write("a state")
    if how == "full disk, says torch":
        import torch

        torch.save({"weight": torch.zeros(99)}, "/dev/full")
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(300)
    if how == "abort":
        os.abort()
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)


def _value(recipe):
    made = Path(recipe.checkpoint).read_text() if recipe.checkpoint else ""
    return 50.0 + recipe.seed + len(made) / 100


def _journal(recipe, event, folder):
    with open(recipe.journal, "a") as file:
        file.write(f"{event} {_STAGE} {folder.name} {os.getpid()}\n")
