"""Result files of deploy jobs, written in a line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lowbit.benchmark.results.result_file import Result, write_result
from tests.benchmark.board_frames import POLICY, SPLITS

WHERE = {
    "engine": "openvino 2026.4.1",
    "processor": "A CPU (R)",
    "instruction_set": "AVX512-VNNI AVX2",
    "cores": 2,
    "products": "exact",
}
PLACES = ("1t_b1", "1t_b8", "allt_b1", "allt_b8")

Number = float | tuple[float, float, float]  # a value, or with the ends of its interval


def write_deployment(
    runs: Path,
    job_id: str,
    at: Mapping[str, Mapping[str, Number]],
    *,
    name: str = "mine",
    architecture: str = "resnet18",
    policy: str = "ssql",
    seed: int = 0,
    operations: Mapping[str, int] | None = None,
    **identity: Any,
) -> None:
    """Write the result of a deploy job.

    Args:
        runs: the runs folder.
        job_id: its id.
        at: its numbers by precision and metric.
        name, architecture: of its checkpoint.
        policy, seed: of its networks.
        operations: bit-operations by precision; None: as a result without costs.
        identity: changes to WHERE, and other facts of its identity.
    """
    measurements = [
        _measurement(metric, number) | {"precision": precision}
        for precision, numbers in at.items()
        for metric, number in numbers.items()
    ]
    result = Result.model_validate(
        {
            "schema_version": 3,
            "job_id": job_id,
            "question": f"question {job_id}",
            "stage": "deploy",
            "protocol_version": 1,
            "status": "completed",
            "measurements": measurements,
            "precisions": list(at),
            "costs": {
                precision: {"weight_bytes": 1, "bit_operations": count}
                for precision, count in (operations or {}).items()
            },
            "recipe": {"seed": seed},
            "inputs": {"checkpoint": {"path": "a.pth", "sha256": name * 8, "job_id": None}},
            "identity": {
                "task": "deployment",
                "dataset": "digits",
                "protocol": "linear",
                "image_size": 32,
                "policy": policy,
                "policy_fingerprint": POLICY.get(policy, "-"),
                "policy_on_board": False,
                "split_sha256": SPLITS["digits"],
                **WHERE,
                **identity,
            },
            "checkpoint": {"name": name, "method": "SSQL", "architecture": architecture},
        }
    )
    (runs / job_id).mkdir(parents=True)
    write_result(runs / job_id, result)


def some_numbers(draw: np.random.Generator, precision: str) -> dict[str, Number]:
    """Draw all numbers of a network at a precision."""
    ratio = 1.0 if precision == "FP" else float(draw.uniform(0.2, 0.9))
    numbers: dict[str, Number] = {
        "top1": (score := float(draw.uniform(50, 95)), score - 2, score + 2),
        "file_bytes": float(draw.integers(10**6, 10**8)),
        "packed_bytes": float(draw.integers(10**5, 10**6)),
        "peak_memory": 1e8,
        "integer_layers": 19.0,
        "layers": 20.0,
        "agreement": float(draw.uniform(98, 100)),
        "noise_floor": float(draw.uniform(98, 100)),
    }
    for place in PLACES:
        numbers[f"latency_{place}"] = 8.0 * ratio
        numbers[f"latency_ratio_{place}"] = (ratio, ratio - 0.03, ratio + 0.05)
    return numbers


def _measurement(metric: str, number: Number) -> dict[str, Any]:
    value, *ends = number if isinstance(number, tuple) else (number,)
    timed = metric.startswith("latency_ratio")
    found = {"metric": metric, "value": value, "unit": _unit(metric), "n": 540, "split": "test"}
    if ends:
        found |= {"low": ends[0], "high": ends[1], "interval": "quartiles" if timed else "wilson"}
    return found


def _unit(metric: str) -> str:
    if metric.startswith("latency_ratio"):
        return "of FP"
    if metric.startswith("latency"):
        return "ms"
    if metric in ("integer_layers", "layers"):
        return "layers"
    return "bytes" if metric.endswith(("_bytes", "_memory")) else "%"
