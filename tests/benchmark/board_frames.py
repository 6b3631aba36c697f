"""Results frames as a finished suite leaves them, made from a formula: what the board's tests read."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lowbit.quant import Precision, get_policy

PRECISIONS = ("FP", "8w8a", "5w5a", "4w4a", "3w3a", "2w2a")
CHECKPOINTS = {  # label -> (method, accuracy in full precision, how fast bits cost accuracy)
    "untrained": ("untrained", 71.0, 1.6),
    "simsiam-r10": ("SimSiam", 88.0, 1.5),
    "simclr-r10": ("SimCLR", 88.2, 1.4),
    "ssql-r10": ("SSQL", 91.5, 0.5),
    "cq-c-r10": ("CQ-C", 90.4, 0.7),
}
DATASETS = {"digits": (540, 4.0), "cifar10": (10_000, -9.0), "cifar100": (10_000, -32.0)}
PROTOCOLS = {"linear": 0.0, "finetune": 5.0}
POLICY = {name: get_policy(name).fingerprint for name in ("ssql", "lsq", "tr")} | {"-": "-"}
SPLITS = {
    "digits": "d1" * 32,
    "cifar10": "c1" * 32,
    "cifar100": "c2" * 32,
    "digit-scenes": "e5" * 32,
}


def row(**changes) -> dict:
    """Return one measurement as the results frame has it; anything may be changed."""
    base = {
        "job_id": "0" * 12,
        "status": "completed",
        "reason": "",
        "checkpoint": "ssql-r10",
        "method": "SSQL",
        "architecture": "resnet10_slim",
        "task": "classification",
        "dataset": "digits",
        "protocol": "linear",
        "training": "-",
        "precision": "4w4a",
        "metric": "top1",
        "value": 90.0,
        "unit": "%",
        "n": 540,
        "split": "test",
        "seed": 0,
        "engine": "torch",
        "policy": "ssql",
        "policy_fingerprint": POLICY["ssql"],
        "split_sha256": SPLITS["digits"],
        "protocol_version": 1,
        "image_size": 32,
        "source": "measured",
    } | changes
    return {"policy_on_board": base["task"] != "detection" and base["protocol"] != "qat"} | base


def failure(reason: str, *, status: str = "failed", **changes) -> dict:
    """Return the row of a job that gave no number."""
    return row(status=status, reason=reason, value=math.nan, n=math.nan, **changes)


def seeds(values: Iterable[float], **changes) -> list[dict]:
    """Return one row a seed with these values."""
    return [row(value=v, seed=s, job_id=f"{s:012x}", **changes) for s, v in enumerate(values)]


def make_frame(*, n_seeds: int = 3) -> pd.DataFrame:
    """Return a suite of five checkpoints: classification, detection, failures, pretraining."""
    draw = np.random.default_rng(0)
    rows = [*_classification(draw, n_seeds), *_detection(draw, min(n_seeds, 2)), *_pretraining()]
    rows += [
        failure(
            "linear probe diverged at step 312: loss nan; nothing was scored. Lower lr.",
            checkpoint="byol-r10",
            method="BYOL",
            precision=precision,
            job_id="f" * 12,
            metric="-",
            split="-",
        )
        for precision in PRECISIONS
    ]
    rows.append(
        failure(
            "cifar100 is not on this machine; nothing was scored.",
            status="skipped",
            seed=2,
            checkpoint="ssql-r10",
            dataset="cifar100",
            protocol="finetune",
            job_id="e" * 12,
            split_sha256=SPLITS["cifar100"],
            metric="-",
            split="-",
        )
    )
    return pd.DataFrame(rows)


def _classification(draw: np.random.Generator, n_seeds: int) -> Iterable[dict]:
    for label, (method, top, cost) in CHECKPOINTS.items():
        for dataset, (images, easier) in DATASETS.items():
            for protocol, gain in PROTOCOLS.items():
                for precision in PRECISIONS:
                    bits = Precision.parse(precision).weight_bits
                    center = (
                        top + easier + gain * (1 - top / 100) - cost * 2.0 ** (6 - min(bits, 9))
                    )
                    for seed in range(n_seeds):
                        value = float(np.clip(draw.normal(center, 0.35), 1, 99.6))
                        for split, shift in (("test", 0.0), ("val", 0.6)):
                            yield row(
                                job_id=f"{label[:4]}{dataset[-3:]}{protocol[:3]}{seed}",
                                checkpoint=label, method=method, dataset=dataset, protocol=protocol,
                                precision=precision, value=value + shift, split=split, n=images,
                                seed=seed, split_sha256=SPLITS[dataset],
                            )  # fmt: skip


def _detection(draw: np.random.Generator, n_seeds: int) -> Iterable[dict]:
    plan = (("fp", "-", "FP", 0.0), ("lsq", "lsq", "4w4a", 6.0), ("sgdt", "tr", "4w4a", 3.5))
    for label, (method, top, cost) in list(CHECKPOINTS.items())[1:4]:
        for training, policy, precision, drop in plan:
            for seed in range(n_seeds):
                ap = float(draw.normal(top - 45 - drop * cost, 0.5))
                for metric, value in (("AP", ap), ("AP50", ap * 1.55), ("AP75", ap * 1.05)):
                    yield row(
                        job_id=f"det{label[:4]}{training}{seed}", task="detection", metric=metric,
                        checkpoint=label, method=method, dataset="digit-scenes",
                        protocol="retinanet", training=training, precision=precision, value=value, n=200, seed=seed,
                        engine="torchvision", policy=policy, policy_fingerprint=POLICY[policy],
                        split_sha256=SPLITS["digit-scenes"], image_size=128,
                    )  # fmt: skip


def _pretraining() -> Iterable[dict]:
    for label, (method, _, _) in CHECKPOINTS.items():
        for metric, value, unit in (("loss", -0.91, "-"), ("feature_std", 0.08, "-")):
            yield row(
                job_id=f"pre{label[:4]}", task="pretrain", checkpoint=label, method=method,
                protocol="simsiam", precision="FP", metric=metric, value=value, unit=unit, n=1077,
                split="train",
            )  # fmt: skip
