"""Monitor a run: progress bar, log lines, metrics.jsonl and TensorBoard."""

import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lowbit.pretrain.recipe import Recipe
from lowbit.training import distributed
from lowbit.training.metrics_log import MetricsLog

TENSORBOARD = "tensorboard"
_QUIET = 60.0  # seconds between log lines in a long epoch

_logger = logging.getLogger(__name__)


class Monitor:
    """Report the progress of a run everywhere it is shown; only rank 0 uses it.

    Args:
        recipe: of the run.
        folder: of the run; metrics of earlier steps are kept, those of later ones dropped.
        steps: steps per epoch.
        start: steps done earlier.
        device: whose memory is reported.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, steps: int, start: int, device: torch.device
    ) -> None:
        self.recipe, self.steps, self.device = recipe, steps, device
        done = start // steps if steps else 0
        self._log = MetricsLog(folder, in_state=lambda line: line["epoch"] <= done)
        self._since, self._images = time.perf_counter(), 0
        self._spoke = self._since
        self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)
        self._bar = tqdm(
            total=recipe.epochs * steps * recipe.batch_size,
            initial=start * recipe.batch_size,
            unit="img",
            unit_scale=True,
            disable=None,  # without a terminal
        )

    def step(self) -> None:
        """Count a step."""
        self._images += self.recipe.batch_size
        self._bar.update(self.recipe.batch_size)

    def glance(self, done: int, loss: float) -> None:
        """Record the loss of an earlier step, after `done` steps."""
        self._writer.add_scalar("step/loss", loss, done)
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        now = time.perf_counter()
        if now - self._spoke > _QUIET:
            self._spoke = now
            _logger.info(
                "step %d/%d  loss %.4f  %.0f images/s",
                done,
                self.recipe.epochs * self.steps,
                loss,
                self.speed(),
            )

    def end_epoch(self, metrics: dict[str, Any], *, speed: float, knn: dict[str, float]) -> None:
        """Record an epoch."""
        machine = {"images_per_s": round(speed, 1), "peak_memory_mb": self._peak_memory()}
        line = {**metrics, **({"knn": knn} if knn else {}), **machine}
        self._log.append(line)
        for name, value in _scalars(line):
            self._writer.add_scalar(name, value, metrics["step"])
        self._writer.flush()
        accuracies = "".join(f"  kNN {name} {value:.1f} %" for name, value in knn.items())
        _logger.info(
            "epoch %d/%d  loss %.4f  feature std %.3f  lr %.4g%s  %.0f images/s",
            metrics["epoch"],
            self.recipe.epochs,
            metrics["loss"],
            metrics["feature_std"],
            metrics["lr"],
            accuracies,
            speed,
        )

    def begin_epoch(self, epoch: int) -> None:
        """Start the clock of an epoch, counted from 0."""
        self._since, self._images = time.perf_counter(), 0
        self._bar.set_description(f"epoch {epoch + 1}/{self.recipe.epochs}")

    def speed(self) -> float:
        """Return the images per second in this epoch so far."""
        return self._images / (time.perf_counter() - self._since)

    def close(self) -> None:
        """Close the progress bar and writers."""
        self._bar.close()
        self._writer.close()

    def _peak_memory(self) -> float:
        """Return the peak memory of the device or, on a CPU, of the process."""
        if self.device.type == "cuda":
            return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


class _Silence:
    """Monitor of the other ranks, which report nothing."""

    def step(self) -> None: ...
    def glance(self, done: int, loss: float) -> None: ...
    def begin_epoch(self, epoch: int) -> None: ...
    def end_epoch(self, metrics: dict[str, Any], **also: Any) -> None: ...
    def speed(self) -> None: ...
    def close(self) -> None: ...


@contextmanager
def watching(
    recipe: Recipe, folder: Path, *, steps: int, start: int, device: torch.device
) -> Iterator[Monitor | _Silence]:
    """Open the monitor of a run, with log lines above its progress bar."""
    if distributed.rank():
        yield _Silence()
        return
    monitor = Monitor(recipe, folder, steps=steps, start=start, device=device)
    try:
        with logging_redirect_tqdm():
            yield monitor
    finally:
        monitor.close()


def _scalars(line: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Flatten nested numbers to TensorBoard names."""
    for name, value in line.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name}/")
        elif name not in ("epoch", "step"):
            yield f"{prefix}{name}", value
