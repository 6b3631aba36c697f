"""A run under way: it trains, looks at its losses, saves, stops when told to, and goes on later."""

import json
import logging
from pathlib import Path
from typing import Any

import torch

from lowbit.common.preemption import Preempted, Stop, stop_requests
from lowbit.data.views.training_views import ViewSource, view_source
from lowbit.pretrain import distributed, state
from lowbit.pretrain.knn import knn_accuracies
from lowbit.pretrain.monitor import Monitor, watching
from lowbit.pretrain.recipe import VERSION, Recipe
from lowbit.pretrain.trainer import Trainer

_logger = logging.getLogger(__name__)

CHECK_EVERY = 50  # steps between looks at the losses of the steps before


class Run:
    """What is left to train, and the state on disk from which it may go on.

    Args:
        trainer: at its start; a state in the folder takes it further.
        folder: of the run.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.recipe, self.folder = trainer, trainer.recipe, folder
        split, results = trainer.source.split_sha256, trainer.recipe.results()
        self._key = json.dumps({"version": VERSION, "split_sha256": split, "recipe": results})
        self._metrics: dict[str, Any] = {}  # of the last whole epoch
        self._saved: int | None = None  # steps done in the newest state
        self._labelled: dict[str, ViewSource] | None = None  # for kNN

    @property
    def done(self) -> int:
        """Steps done."""
        return self.trainer.epoch * self.trainer.steps + self.trainer.position

    def train(self) -> dict[str, Any]:
        """Train to the end; return the metrics of the last epoch."""
        self._resume()
        options = {"steps": self.trainer.steps, "start": self.done, "device": self.trainer.device}
        with watching(self.recipe, self.folder, **options) as monitor, stop_requests() as stop:
            while self.trainer.epoch < self.recipe.epochs:
                self._train_epoch(monitor, stop)
        return self._metrics

    def _train_epoch(self, monitor: Monitor, stop: Stop) -> None:
        trainer, agreement = self.trainer, distributed.Agreement(stop)
        monitor.begin_epoch(trainer.epoch)
        agreement.offer()
        for _ in trainer.train_epoch():
            monitor.step()
            if trainer.position % CHECK_EVERY == 0:
                self._glance(monitor)
            stopping = agreement.reached()
            if trainer.position < trainer.steps:
                if stopping:
                    self._stop(stop)
                agreement.offer()
        trainer.record.fold()
        self._refuse_divergence(trainer.divergence())
        metrics = trainer.end_epoch()
        self._metrics = {"epoch": trainer.epoch, "step": self.done, **metrics}
        speed = monitor.speed()  # before kNN takes its time
        monitor.end_epoch(self._metrics, speed=speed, knn=self._knn())
        over = trainer.epoch == self.recipe.epochs
        if over or trainer.epoch % self.recipe.checkpoint_every == 0:
            self._save()
        if stopping and not over:
            self._stop(stop)

    def _glance(self, monitor: Monitor) -> None:
        """Look at the losses that have arrived since the last time; they are some steps old."""
        record = self.trainer.record
        if len(losses := record.losses()):
            self._refuse_divergence(self.trainer.divergence(weights=False))
            monitor.glance(self.done, float(losses[-1]))
        record.fold()

    def _knn(self) -> dict[str, float]:
        recipe, trainer = self.recipe, self.trainer
        if not recipe.knn_every or trainer.epoch % recipe.knn_every:
            return {}
        if self._labelled is None:
            self._labelled = {
                part: open_source(recipe, part, device=trainer.device) for part in ("train", "val")
            }
        policy = recipe.quant_policy or "ssql"
        return knn_accuracies(trainer.framework.backbone, policy, **self._labelled)

    def _stop(self, stop: Stop) -> None:
        """Save in the middle of everything and leave."""
        self.trainer.record.fold()
        self._refuse_divergence(self.trainer.divergence())
        if self._saved != self.done:
            self._save()
        raise Preempted(
            f"stopped by signal {stop.signum or 'of another process'} after step "
            f"{self.trainer.position} of {self.trainer.steps} in epoch {self.trainer.epoch + 1}; "
            f"{self.folder / state.STATE} holds the state. The same command goes on from it "
            "(lowbit-bench pretrain: with --resume)."
        )

    def _save(self) -> None:
        content = {
            "key": self._key,
            "metrics": json.dumps(self._metrics),
            "trainer": self.trainer.state_dict(),
        }
        if distributed.rank() == 0:
            state.save(self.folder, content, keep=self.recipe.keep_checkpoints)
        distributed.barrier()
        self._saved = self.done

    def _resume(self) -> None:
        found = state.load(self.folder)
        if found is None:
            return
        content, path = found
        if content["key"] != self._key:
            raise ValueError(
                f"{path} is the state of another recipe; nothing was trained. Choose another output "
                "folder, or delete this one to start over."
            )
        self.trainer.load_state_dict(content["trainer"])
        self._metrics = json.loads(content["metrics"])
        self._saved = self.done
        _logger.info(
            "resumed from %s after epoch %d and %d steps",
            path,
            self.trainer.epoch,
            self.trainer.position,
        )

    def _refuse_divergence(self, problem: str | None) -> None:
        if problem is None:
            return
        steps = self.trainer.steps
        good = "none was before it"
        if self._saved:
            good = (
                f"{self.folder / state.STATE} holds the last good state, of epoch "
                f"{self._saved // steps}"
                + f" and {self._saved % steps} steps"
                * (self._saved % steps > 0)
            )
        raise FloatingPointError(
            f"{problem} in epoch {self.trainer.epoch + 1} of {self.recipe.epochs}; "
            f"training stopped and nothing after it was saved ({good}). Lower lr (now "
            f"{self.recipe.lr:g}), lengthen warmup_epochs, or narrow the range of bits."
        )


def open_source(recipe: Recipe, split: str, *, device: torch.device) -> ViewSource:
    """Open a split of the recipe's image set for this process."""
    return view_source(
        recipe.dataset,
        split,
        root=recipe.data_root,
        size=recipe.image_size,
        augmentation=recipe.augmentation.model_dump(),
        device=device,
        workers=recipe.num_workers,
        seed=recipe.seed,
        rank=distributed.rank(),
    )
