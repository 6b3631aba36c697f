"""Supervised training of the whole network, resumable bit for bit."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.data import Images
from lowbit.quant import FP, Precision, QuantPolicy, get_policy, quantize
from lowbit.quant.policies.rule import FULL
from lowbit.training.divergence import check_finite
from lowbit.training.job_state import Workspace
from lowbit.training.mixed_precision import MixedPrecision
from lowbit.training.seeding import (
    global_states,
    minibatches,
    num_minibatches,
    restore_global_states,
    stream,
)
from lowbit.training.stopping import stop_request
from lowbit.transfer.features.views import crop
from lowbit.transfer.finetuning.epoch_log import EpochLog
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.finetuning.recipe_optimizer import build_optimizer

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


class Network(nn.Module):
    """A backbone with a linear classifier, initialized by a weight (C, D) and a bias (C,)."""

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.fc.weight.copy_(weight)
            self.fc.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.backbone(x))

    def quantize(self, policy: QuantPolicy | str | dict, precision: Precision = FP) -> None:
        """Quantize the backbone and, if the policy does, the classifier, each by its own names.

        So a policy's rules match the same layers as in a backbone alone.
        """
        policy = get_policy(policy)
        quantize(self.backbone, policy, precision)
        last = policy.rule("fc", first=False, last=True)
        activation = last.activation if policy.activation_side == "input" else FULL
        if (last.weight, activation) != (FULL, FULL):
            quantize(nn.ModuleDict({"fc": self.fc}), policy, precision)


class Training:
    """Train a network on augmented views of labelled images.

    The object has all that the next step depends on: network, optimizer, loss scaler, random
    streams and the position in the epoch; `state` returns it and `restore` sets it.

    Args:
        network: on `device`; it is put in train mode.
        train: the images and labels.
        recipe: optimizer, schedule, epochs, views, number format and seed.
        places: indices in `train` of the images to train on; default all.
        objective: the loss, see `lowbit.transfer.finetuning.objectives`.
        optimizer: default the recipe's. The schedule multiplies each group's initial learning rate.
        watch: called after each epoch with its number; its result is written to the curve.
        kept: objects with `state_dict` and `load_state_dict` whose state is saved with the training's.
        what: name of the trained network, for the divergence message.

    Attributes:
        epoch: epochs done.
        losses: of the current epoch's steps so far, on the device.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        *,
        recipe: "Recipe",
        device: torch.device,
        places: Tensor | None = None,
        objective: Callable[..., Tensor] | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        watch: Callable[[int], dict[str, Any]] = lambda epoch: {},
        kept: Mapping[str, Any] | None = None,
        what: str = "fine-tuned network",
    ) -> None:
        self.places = (torch.arange(len(train)) if places is None else places).to(device)
        self.network, self.recipe, self.device = network, recipe, device
        self.train, self.labels = train, train.labels.to(device)
        self.objective = CrossEntropy() if objective is None else objective
        self.watch, self.what = watch, what
        self.total_steps = total_steps(recipe, len(self.places))
        self.optimizer = optimizer or build_optimizer(network, recipe, total_steps=self.total_steps)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.arithmetic = MixedPrecision(device, amp=recipe.amp or "off")
        self.order = stream(recipe.seed, "order")
        self.draws = stream(recipe.seed, "views")
        self.epoch, self.losses = 0, []
        self._mean_loss = float("nan")  # of the last whole epoch
        self._order_state: Tensor | None = None  # at the start of the current epoch
        self._parts = {
            "network": network,
            "optimizer": self.optimizer,
            "arithmetic": self.arithmetic,
            "objective": self.objective,
            **(kept or {}),
        }

    def run(self, workspace: Workspace, state: dict[str, Any] | None) -> float:
        """Train from `state`, or from the start, to the last epoch; return its mean loss.

        Raises:
            FloatingPointError: the loss is not finite.
            Preempted: a stop signal came; the state was saved after the current step.
        """
        if state is not None:
            self.restore(state)
        log = EpochLog(workspace.folder, epochs=self.recipe.epochs, done=self.epoch)
        self.network.train()
        with stop_request() as stop:
            while self.epoch < self.recipe.epochs:
                if self.train_epoch(stop.reached):
                    self._end_epoch(log)
                else:
                    self._check_finite()
                stopping = stop.reached()
                self._save_if_due(workspace, stopping=stopping)
                if stopping:
                    steps = f" and {len(self.losses)} steps" * bool(self.losses)
                    place = f"after {self.epoch} of {self.recipe.epochs} epochs{steps}"
                    raise stop.preempted(place, workspace.state_path)
        return self._mean_loss

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Take the remaining steps of the current epoch; return whether all were taken.

        Args:
            stop: checked after each step but the last; true skips the rest.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.scheduled(group["initial_lr"], self.epoch)
        self._order_state = self.order.get_state()
        drawn = minibatches(
            len(self.places), self.recipe.batch_size, self.order, device=self.device
        )
        batches = [self.places[batch] for batch in drawn]
        left = batches[len(self.losses) :]
        views = self.train.batches(
            crop(self.recipe, k=self.epoch),
            batch_size=self.recipe.batch_size,
            device=self.device,
            places=left,
            workers=self.recipe.num_workers,
            generator=self.draws,
        )
        first_step = self.epoch * len(batches)
        for x, batch in zip(views, left, strict=True):
            step = first_step + len(self.losses)
            self.losses.append(self._step(x, self.labels[batch], step))
            if len(self.losses) < len(batches) and stop():
                return False
        return True

    def _end_epoch(self, log: EpochLog) -> None:
        """Check the epoch's losses, log it, and advance to the next."""
        self._check_finite()
        self._mean_loss = torch.stack(self.losses).mean().item()
        lr = self.recipe.learning_rate(self.epoch)
        log.write(self.epoch, lr=lr, loss={"train": self._mean_loss}, **self.watch(self.epoch))
        self.epoch, self.losses = self.epoch + 1, []

    def _save_if_due(self, workspace: Workspace, *, stopping: bool) -> None:
        if self.epoch == self.recipe.epochs:  # training is complete: the weights are enough
            weights = self.network.state_dict()
            workspace.save(epoch=self.epoch, loss=self._mean_loss, network=weights)
        elif stopping or self.epoch % self.recipe.checkpoint_every == 0:
            workspace.save(**self.state())

    def _check_finite(self) -> None:
        check_finite(
            torch.stack(self.losses),
            first_step=self.epoch * (self.total_steps // self.recipe.epochs),
            lr=self.recipe.learning_rate(self.epoch),
            what=self.what,
        )

    def _step(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with self.arithmetic.autocast():
            loss = self.objective(
                self.network,
                x,
                y,
                step=step,
                total_steps=self.total_steps,
                backward=self.arithmetic.backward,
            )
        self.arithmetic.step(self.optimizer)
        return loss

    def state(self) -> dict[str, Any]:
        """Return everything the next step depends on."""
        order = self._order_state if self.losses else self.order.get_state()
        return {
            "epoch": self.epoch,
            "loss": self._mean_loss,
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
            # torch's own generators: dropout and stochastic depth draw from them.
            "rng": {"order": order, "views": self.draws.get_state(), **global_states(self.device)},
            **{name: part.state_dict() for name, part in self._parts.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state; a finished training's is only its network."""
        self.epoch, self._mean_loss = state["epoch"], state["loss"]
        if "optimizer" not in state:
            self.network.load_state_dict(state["network"])
            return
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.losses = list(state["losses"].to(self.device).unbind())
        self.order.set_state(state["rng"]["order"])
        self.draws.set_state(state["rng"]["views"])
        restore_global_states(state["rng"], self.device)


def total_steps(recipe: "Recipe", images: int) -> int:
    """Return the number of steps of a training on that many images."""
    return recipe.epochs * num_minibatches(images, recipe.batch_size)
