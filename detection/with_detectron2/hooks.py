"""Hooks of the Detectron2 trainer for exact resuming, metrics.jsonl, evaluation and stopping.

Detectron2 restores weights, optimizer, scheduler and iteration. A resumed run would still differ:
its sampler starts over, its random state is new, and RetinaNet's loss normalizer, a running average
in a plain attribute, is reset to 100.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from detectron2.checkpoint import Checkpointer
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils import comm

from lowbit.training.metrics_log import IterationLog, record_scores
from lowbit.training.seeding import seed_everything


class ResumeState(HookBase):
    """Make each step's randomness a function of (seed, iteration), and save the loss normalizer.

    The sampler's position also depends on the iteration only, see `LowbitTrainer.build_train_loader`.

    Args:
        seed: the run's seed; a negative one leaves the random state alone, as Detectron2's SEED does.
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
        return getattr(model, "module", model)  # inside DistributedDataParallel


class MetricsFile(HookBase):
    """Write losses, learning rate and transition rates to metrics.jsonl; register it before the
    scheduler's hook, which changes the learning rate.

    Args:
        folder: folder of metrics.jsonl.
        every: iterations between lines.
    """

    def __init__(self, folder: str, *, every: int) -> None:
        self.folder, self.every = folder, every

    def before_train(self) -> None:
        self.log = IterationLog(
            self.folder,
            start=self.trainer.start_iter,
            total=self.trainer.max_iter,
            every=self.every,
        )

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if self.log.due(iteration):
            latest = self.trainer.storage.latest()
            losses = {k: float(v) for k, (v, _) in latest.items() if "loss" in k}
            self.log.write(iteration, losses, self.trainer.optimizer)


class Evaluation(EvalHook):
    """Evaluate periodically, after given iterations, and at the end; keep the scores.

    Args:
        evaluate: returns Detectron2's nested results; runs on every rank.
        folder: folder of metrics.jsonl.
        every: iterations between evaluations; 0: only those in `at`.
        at: additional iterations.
        at_end: also after the last iteration.
    """

    def __init__(
        self,
        evaluate: Callable[[], dict],
        folder: str,
        *,
        every: int = 0,
        at: Iterable[int] = (),
        at_end: bool = True,
    ) -> None:
        super().__init__(every, self._scored, eval_after_train=at_end)
        self.evaluate, self.folder, self.at = evaluate, folder, frozenset(at)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        due = done in self.at or (self._period > 0 and done % self._period == 0)
        if due and done != self.trainer.max_iter:  # `after_train` evaluates after the last
            self._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # else an error or a signal ended it
            super().after_train()

    def _scored(self) -> dict:
        results = self.evaluate()
        if comm.is_main_process():
            done = min(
                self.trainer.iter + 1, self.trainer.max_iter
            )  # after the last, `iter` is one beyond
            if scores := plain_scores(results):
                record_scores(self.folder, done, scores)
        return results


class SaveAndStop(HookBase):
    """Save the state and stop after the step in which any process received a signal.

    Register it last, after the hooks that change the learning rate, save and evaluate.

    Args:
        checkpointer: the trainer's checkpointer; only the first process writes files.
    """

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer

    def before_step(self) -> None:
        self.trainer.stop.begin_step()

    def after_step(self) -> None:
        if not self.trainer.stop.reached():
            return
        iteration = self.trainer.iter
        if comm.is_main_process():
            self.checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        comm.synchronize()  # the first process to exit could end the others
        raise self.trainer.stop.preempted(
            f"after iteration {iteration + 1} of {self.trainer.max_iter}",
            Path(self.checkpointer.save_dir, f"model_{iteration:07d}.pth"),
        )


def plain_scores(results: dict[str, dict[str, float]]) -> dict[str, float]:
    """Flatten Detectron2's nested results: metrics of boxes keep their names, masks' become `AP_mask`.

    Classes, and metrics without objects, are left out. Without any detection Detectron2 returns nan
    where the precision is 0.
    """
    found: dict[str, float] = {}
    for task, suffix in (("bbox", ""), ("segm", "_mask")):
        scores = {k: float(v) for k, v in results.get(task, {}).items() if "-" not in k}
        if scores and math.isnan(scores["AP"]):
            scores = dict.fromkeys(("AP", "AP50", "AP75"), 0.0)
        found |= {f"{k}{suffix}": v for k, v in scores.items() if not math.isnan(v)}
    return found
