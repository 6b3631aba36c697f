"""metrics.jsonl: training metrics, one JSON line per epoch or every few iterations.

A training that was stopped or killed and resumed ends with the same file as an uninterrupted one:
opening it drops lines beyond the resumed state, which are written again, and a truncated last line.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lowbit.common.atomic_file import atomic

METRICS = "metrics.jsonl"

_logger = logging.getLogger(__name__)

Line = dict[str, Any]


class MetricsLog:
    """Append lines to `folder/metrics.jsonl`.

    Args:
        folder: where the file is or will be.
        in_state: whether the resumed state already includes what a line describes.
    """

    def __init__(self, folder: str | Path, *, in_state: Callable[[Line], bool]) -> None:
        self.path = Path(folder) / METRICS
        if self.path.exists():
            _keep(self.path, in_state)

    def append(self, line: Line) -> None:
        """Write a line."""
        _append(self.path, line)


class IterationLog(MetricsLog):
    """The losses, learning rate and transition rates of a training that counts iterations.

    Under transition-rate scheduling a line has `transitions`: the target R and, in the order of
    `names`, each layer's running rate K and adaptive learning rate U (lists `running` and `lr`, and
    what else the optimizer's `rates()` gives). What dampens or freezes oscillating weights adds its
    report as `oscillation`. Lines without an `iteration` are left alone.

    Args:
        folder: where metrics.jsonl is or will be.
        start: completed iterations.
        total: iterations in all.
        every: iterations between lines; the last iteration always gets one.
    """

    def __init__(self, folder: str | Path, *, start: int, total: int, every: int) -> None:
        super().__init__(folder, in_state=lambda line: line.get("iteration", 0) <= start)
        self.total, self.every = total, every

    def due(self, iteration: int) -> bool:
        """Whether iteration number `iteration`, counted from 0, gets a line."""
        return (iteration + 1) % self.every == 0 or iteration + 1 == self.total

    def write(
        self, iteration: int, losses: dict[str, float], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the line of an iteration; a transition-rate optimizer adds its rates."""
        line: Line = {"iteration": iteration + 1, **losses}
        line["lr"] = optimizer.param_groups[0]["lr"]
        text = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        if hasattr(optimizer, "rates"):
            rates = optimizer.rates()
            line["transitions"] = rates
            mean = sum(rates["running"]) / len(rates["running"])
            text += f", transition rate {mean:.2e} (target {rates['target']:.2e})"
        if hasattr(optimizer, "oscillation"):
            line["oscillation"] = optimizer.oscillation.report()
        self.append(line)
        _logger.info("iteration %d/%d: %s, lr %.2e", iteration + 1, self.total, text, line["lr"])


def record_scores(folder: str | Path, iteration: int, scores: dict[str, float]) -> None:
    """Write the scores after an iteration, replacing any earlier line for it."""
    path = Path(folder) / METRICS
    if path.exists():
        _keep(path, lambda line: line.get("iteration") != iteration or "scores" not in line)
    plain = {name: float(value) for name, value in scores.items()}
    _append(path, {"iteration": iteration, "scores": plain})


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a metrics.jsonl without a truncated last one; empty without a file."""
    return [json.loads(text) for text in _whole_lines(path)] if path.exists() else []


def read_curve(folder: str | Path) -> list[dict[str, float]]:
    """Return the scores of a run's evaluations with their iterations, in order."""
    lines = read_lines(Path(folder) / METRICS)
    return [{"iteration": x["iteration"], **x["scores"]} for x in lines if "scores" in x]


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [text for text in lines if text.endswith("\n")]


def _keep(path: Path, wanted: Callable[[Line], bool]) -> None:
    kept = [text for text in _whole_lines(path) if wanted(json.loads(text))]
    with atomic(path) as file:
        file.write("".join(kept).encode())


def _append(path: Path, line: Line) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
