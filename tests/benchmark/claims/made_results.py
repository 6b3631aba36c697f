"""Result files that claims are tried on, written in a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmark.result_folders import write

CLAIM = {
    "id": "ssql-4w4a",
    "paper": "SSQL",
    "table": "Table 12",
    "says": "SSQL is more accurate than SimSiam at 4w4a.",
    "a": {"method": "SSQL"},
    "b": {"method": "SimSiam"},
    "datasets": ["cifar10"],
    "precisions": ["4w4a"],
    "matters": 0.5,
}


class Runs:
    """A runs folder in which pretrainings and their scores are written one by one."""

    def __init__(self, folder: Path):
        self.folder, self._count = folder, 0

    def pretrain(self, method: str, seed: int, *, epochs: int = 20, **recipe: Any) -> str:
        """Write a pretraining and return its job's id."""
        job = self._id()
        details = recipe.pop("details", {}) | {"steps": 16 * epochs}
        write(
            self.folder,
            job,
            stage="pretrain",
            name=f"{method} seed {seed}",
            inputs={},
            recipe={"seed": seed, "epochs": epochs, "dataset": "digits", "lr": 0.05, **recipe},
            identity=_identity("pretrain", "simsiam/plain"),
            checkpoint=_checkpoint(method, seed),
            details=details,
            values={"FP": -0.5},
        )
        return job

    def score(
        self,
        method: str,
        pretraining: str,
        pretrain_seed: int | None,
        values: Mapping[str, float],
        *,
        seed: int = 0,
        protocol: str = "linear",
        identity: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        **recipe: Any,
    ) -> str:
        """Write the score of a pretraining's backbone and return its job's id."""
        job = self._id()
        inputs = {"checkpoint": {"path": "a.pth", "sha256": "ab" * 32, "job_id": pretraining}}
        write(
            self.folder,
            job,
            inputs=inputs,
            recipe={"seed": seed, "protocol": protocol, "epochs": 100, **recipe},
            identity=_identity("classification", protocol) | dict(identity or {}),
            checkpoint=_checkpoint(method, pretrain_seed),
            details=dict(details or {}),
            values=values,
        )
        return job

    def method(
        self, method: str, by_seed: Mapping[int, Mapping[str, float]], **recipe: Any
    ) -> None:
        """Write a pretraining for each seed, and its score."""
        for seed, values in by_seed.items():
            self.score(method, self.pretrain(method, seed), seed, values, **recipe)

    def _id(self) -> str:
        self._count += 1
        return f"c{self._count:011x}"


def _identity(task: str, protocol: str) -> dict[str, Any]:
    return {
        "task": task,
        "dataset": "digits",
        "protocol": protocol,
        "training": "-",
        "image_size": 32,
        "engine": "torch",
        "policy": "ssql",
        "policy_fingerprint": "a" * 12,
        "split_sha256": "d1" * 32,
    }


def _checkpoint(method: str, seed: int | None) -> dict[str, Any]:
    return {
        "name": method if seed is None else f"{method} seed {seed}",
        "method": method,
        "architecture": "resnet10_slim",
        "pretraining": method,
        "pretrain_seed": seed,
    }
