"""Run a training: check losses, save states, stop on a signal, resume."""

import json
from pathlib import Path
from typing import Any

import torch

from lowbit.data.views.training_views import ViewSource, view_source
from lowbit.pretrain.knn import knn_accuracies
from lowbit.pretrain.monitor import Monitor, watching
from lowbit.pretrain.recipe import VERSION, Recipe
from lowbit.pretrain.trainer import Trainer
from lowbit.training import distributed
from lowbit.training.divergence import diverged
from lowbit.training.job_state import Workspace
from lowbit.training.stopping import StopRequest, stop_request

CHECK_EVERY = 50  # steps between checks of earlier losses


class Run:
    """The rest of a training, resumed from the state on disk if there is one.

    Args:
        trainer: at its start; advanced to the state in the folder.
        folder: of the run.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self.trainer, self.recipe, self.folder = trainer, trainer.recipe, folder
        key = {
            "version": VERSION,
            "split_sha256": trainer.source.split_sha256,
            "recipe": trainer.recipe.results(),
        }
        self._workspace = Workspace(folder, key=key, keep=trainer.recipe.keep_checkpoints)
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
        with watching(self.recipe, self.folder, **options) as monitor, stop_request() as stop:
            while self.trainer.epoch < self.recipe.epochs:
                self._train_epoch(monitor, stop)
        return self._metrics

    def _train_epoch(self, monitor: Monitor, stop: StopRequest) -> None:
        trainer = self.trainer
        monitor.begin_epoch(trainer.epoch)
        stop.begin_step()
        for _ in trainer.train_epoch():
            monitor.step()
            if trainer.position % CHECK_EVERY == 0:
                self._glance(monitor)
            stopping = stop.reached()
            if trainer.position < trainer.steps:
                if stopping:
                    self._stop(stop)
                stop.begin_step()
        trainer.record.fold()
        self._refuse_divergence(trainer.divergence())
        metrics = trainer.end_epoch()
        self._metrics = {"epoch": trainer.epoch, "step": self.done, **metrics}
        speed = monitor.speed()  # before the slow kNN
        monitor.end_epoch(self._metrics, speed=speed, knn=self._knn())
        over = trainer.epoch == self.recipe.epochs
        if over or trainer.epoch % self.recipe.checkpoint_every == 0:
            self._save()
        if stopping and not over:
            self._stop(stop)

    def _glance(self, monitor: Monitor) -> None:
        """Check the losses that arrived since the last call; they are some steps old."""
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

    def _stop(self, stop: StopRequest) -> None:
        """Save the state within an epoch and stop."""
        self.trainer.record.fold()
        self._refuse_divergence(self.trainer.divergence())
        if self._saved != self.done:
            self._save()
        raise stop.preempted(
            f"after step {self.trainer.position} of {self.trainer.steps} in epoch "
            f"{self.trainer.epoch + 1}",
            self._workspace.state_path,
        )

    def _save(self) -> None:
        metrics = json.dumps(self._metrics)
        self._workspace.save(metrics=metrics, trainer=self.trainer.state_dict())
        self._saved = self.done

    def _resume(self) -> None:
        state = self._workspace.resume()
        if state is not None:
            self.trainer.load_state_dict(state["trainer"])
            self._metrics = json.loads(state["metrics"])
            self._saved = self.done

    def _refuse_divergence(self, problem: str | None) -> None:
        if problem is None:
            return
        steps = self.trainer.steps
        good = "no state was saved before"
        if self._saved:
            epochs, more = divmod(self._saved, steps)
            good = (
                f"{self._workspace.state_path} holds the last good state, of epoch {epochs}"
                + f" and {more} steps" * (more > 0)
            )
        raise diverged(
            f"{problem} in epoch {self.trainer.epoch + 1} of {self.recipe.epochs}",
            last_good=good,
            advice=f"Lower lr (now {self.recipe.lr:g}), lengthen warmup_epochs, or narrow the range "
            "of bits.",
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
