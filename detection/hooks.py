"""Hooks of the Detectron2 trainer: what a resume needs beyond its own, and metrics.jsonl.

Detectron2 restores weights, optimizer, scheduler and iteration. A resumed run then still differs:
its sampler starts over, its random state is fresh, and RetinaNet's loss normalizer, an average kept
as a plain attribute, is back at 100.
"""

from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from detection.recorder import Recorder
from detection.sampler import seed_everything


class ResumeState(HookBase):
    """Make each step's randomness a function of (seed, iteration), and keep the loss normalizer.

    The sampler's position is one as well: see `LowbitTrainer.build_train_loader`.

    Args:
        seed: the run's; negative leaves the random state alone, as Detectron2's SEED does.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        if self.seed >= 0:
            world, rank = comm.get_world_size(), comm.get_rank()
            seed_everything(self.seed, (self.trainer.iter + 1) * world + rank)

    def state_dict(self) -> dict[str, Any]:
        """Return {} before the first step, or for a detector without a normalizer."""
        normalizer = getattr(self._detector(), "loss_normalizer", None)
        return {} if normalizer is None else {"loss_normalizer": float(normalizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._detector().loss_normalizer = state["loss_normalizer"]

    def _detector(self):
        model = self.trainer.model
        return getattr(model, "module", model)  # behind DistributedDataParallel


class MetricsFile(HookBase):
    """Write losses, learning rate and transition rates to metrics.jsonl; register it before the
    scheduler's hook, which moves the learning rate on.

    Args:
        folder: of metrics.jsonl.
        every: iterations between lines.
    """

    def __init__(self, folder: str, *, every: int) -> None:
        self.folder, self.every = folder, every

    def before_train(self) -> None:
        self.recorder = Recorder(
            self.folder,
            start=self.trainer.start_iter,
            total=self.trainer.max_iter,
            every=self.every,
        )

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if self.recorder.due(iteration):
            latest = self.trainer.storage.latest()
            losses = {k: float(v) for k, (v, _) in latest.items() if "loss" in k}
            self.recorder.write(iteration, losses, self.trainer.optimizer)
