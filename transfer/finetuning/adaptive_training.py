"""Objective, optimizer and log of training one network at several bit-widths."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.data import Images
from lowbit.quant import Precision, all_quantizers, set_precision
from lowbit.quant.adaptive import JointStep
from lowbit.training.seeding import stream
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.objectives import Tally
from lowbit.transfer.finetuning.recipe_optimizer import build_optimizer
from lowbit.transfer.scoring.predict import predicted_classes

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


class Joint:
    """The objective (see `lowbit.transfer.finetuning.objectives`) of a `JointStep`: the sum of its losses.

    The swapped blocks depend on the seed and the step.

    Attributes:
        tallies: of the training images, by bit-width.
    """

    def __init__(self, joint: JointStep, *, seed: int) -> None:
        self.joint, self.seed = joint, seed
        self.tallies = {b: Tally() for b in joint.bits}
        self._losses: Tensor | None = None
        self._teachers = {b: Counter() for b in joint.bits}
        self._steps = 0

    def __call__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        step: int,
        total_steps: int,
        backward: Callable[[Tensor], None],
    ) -> Tensor:
        done = self.joint(
            x,
            y,
            progress=step / max(total_steps - 1, 1),
            generator=stream(self.seed, f"swaps of step {step}"),
            backward=backward,
        )
        for tally, logits in zip(self.tallies.values(), done.outputs, strict=True):
            tally.add(logits, y)
        for b, teacher in zip(self.joint.bits, done.teachers, strict=True):
            if teacher is not None:
                self._teachers[b][f"{teacher}w{teacher}a"] += 1
        if self._losses is None:
            self._losses = done.losses
        else:  # after a restore it is on the CPU
            self._losses = self._losses.to(done.losses.device) + done.losses
        self._steps += 1
        return done.losses.sum()

    def take(self) -> dict[int, dict[str, Any]]:
        """Return each bit-width's loss, top-1 and teachers since the last call; reads the device."""
        losses = (self._losses / self._steps).tolist()
        rows: dict[int, dict[str, Any]] = {}
        for b, loss in zip(self.joint.bits, losses, strict=True):
            rows[b] = {"loss": loss, "train": self.tallies[b].take()}
            if self._teachers[b]:
                chosen = self._teachers[b].most_common()
                rows[b]["teachers"] = {t: n / self._steps for t, n in chosen}
                self._teachers[b].clear()
        self._losses, self._steps = None, 0
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and counts of the current epoch; reads the device."""
        return {
            "tallies": {b: tally.state_dict() for b, tally in self.tallies.items()},
            "losses": None if self._losses is None else self._losses.cpu(),
            "teachers": {b: dict(counts) for b, counts in self._teachers.items()},
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for b, tally in self.tallies.items():
            tally.load_state_dict(state["tallies"][b])
        self._losses, self._steps = state["losses"], state["steps"]
        self._teachers = {b: Counter(counts) for b, counts in state["teachers"].items()}


class Watch:
    """Log each bit-width's loss, top-1 on training and validation images, and teachers."""

    def __init__(
        self, network: nn.Module, objective: Joint, val: Images | None, *, recipe: "Recipe"
    ) -> None:
        self.network, self.objective, self.val, self.recipe = network, objective, val, recipe

    def __call__(self, epoch: int) -> dict[str, Any]:
        rows = self.objective.take()
        if self.val is not None:
            for b, row in rows.items():
                set_precision(self.network, Precision(b, b))
                classes = classes_of(self.network, self.val, recipe=self.recipe)
                row["val"] = 100 * int((classes == self.val.labels).sum()) / len(self.val)
        kinds = ("train", "val") if self.val is not None else ("train",)
        return {
            "accuracy": {k: sum(row[k] for row in rows.values()) / len(rows) for k in kinds},
            "precisions": {f"{b}w{b}a": row for b, row in rows.items()},
        }


def classes_of(network: nn.Module, images: Images, *, recipe: "Recipe") -> Tensor:
    """Return the classes (N,) of all images at the network's precision."""
    return predicted_classes(
        network,
        images,
        center(recipe),
        batch_size=recipe.eval_batch_size,
        workers=recipe.num_workers,
    )


def clip_optimizer(
    network: nn.Module, recipe: "Recipe", *, total_steps: int
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; clips have the section's rate and weight decay."""
    section = recipe.adaptive
    own = {"scale_lr": section.alpha_lr, "scale_weight_decay": section.alpha_weight_decay}
    return build_optimizer(network, recipe.model_copy(update=own), total_steps=total_steps)


def start_clips(network: nn.Module, alpha: float | None) -> None:
    """Set the initial value of every learned clip to `alpha`; None leaves it unchanged."""
    for quantizer in all_quantizers(network):
        if quantizer.learned_clip and alpha is not None:
            quantizer.alpha = alpha
