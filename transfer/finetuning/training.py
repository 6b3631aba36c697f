"""Supervised training of the whole network, resumable bit for bit."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.data import Images
from lowbit.quant import QuantPolicy, get_policy, quantize
from lowbit.quant.policy import FULL
from lowbit.transfer.divergence import check_finite
from lowbit.transfer.features.views import crop
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.optimizers import build_optimizer
from lowbit.transfer.seeding import minibatches, num_minibatches, stream
from lowbit.transfer.workspace import Workspace

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe

_FORMATS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Network(nn.Module):
    """A backbone and the linear classifier on it, started from a weight (C, D) and a bias (C,)."""

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.fc.weight.copy_(weight)
            self.fc.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.backbone(x))

    def quantize(self, policy: QuantPolicy | str | dict) -> None:
        """Quantize the backbone, and the classifier where the policy does, each by its own names.

        A policy's rules so mean the layers that they mean to a backbone alone.
        """
        policy = get_policy(policy)
        quantize(self.backbone, policy)
        last = policy.rule("fc", first=False, last=True)
        activation = last.activation if policy.activation_side == "input" else FULL
        if (last.weight, activation) != (FULL, FULL):
            quantize(nn.ModuleDict({"fc": self.fc}), policy)


class Training:
    """Train a network on augmented views of labelled images.

    The object owns all that the next step depends on: network, optimizer, loss scaler and random
    streams; `state` hands it out and `restore` takes it back.

    Args:
        network: on `device`; it is put in train mode.
        train: the images and labels.
        recipe: optimizer, schedule, epochs, views, number format and seed.
        places: of the images to train on, in `train`; default all.
        objective: what is minimized, see `lowbit.transfer.finetuning.objectives`.
        optimizer: default the recipe's. The schedule multiplies each group's first learning rate.
        watch: called after each epoch with its number; what it returns is written to the curve.
        kept: objects with `state_dict` and `load_state_dict` whose state goes with the training's.
        what: is trained, for the message when it diverges.
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
        self.watch, self.kept, self.what = watch, dict(kept or {}), what
        self.total_steps = total_steps(recipe, len(self.places))
        self.optimizer = optimizer or build_optimizer(network, recipe, total_steps=self.total_steps)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.dtype = _FORMATS[recipe.amp]
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "fp16")
        self.order = stream(recipe.seed, "order")
        self.draws = stream(recipe.seed, "views")

    def run(self, workspace: Workspace, state: dict[str, Any] | None) -> float:
        """Train from `state`, or from the start, to the last epoch; return its mean loss.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        epochs, every = self.recipe.epochs, self.recipe.checkpoint_every
        if state is not None:
            self.restore(state)
        done, loss = (state["epoch"], state["loss"]) if state else (0, float("nan"))
        self.network.train()
        for epoch in range(done, epochs):
            loss = self._epoch(epoch)
            lr = self.recipe.learning_rate(epoch)
            seen = self.watch(epoch)
            workspace.log_epoch(epoch, epochs, lr=lr, loss={"train": loss}, **seen)
            if epoch + 1 == epochs:  # nothing is left to train: the weights are enough
                workspace.save(epochs, loss=loss, network=self.network.state_dict())
            elif (epoch + 1) % every == 0:
                workspace.save(epoch + 1, loss=loss, **self.state())
        return loss

    def _epoch(self, epoch: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.scheduled(group["initial_lr"], epoch)
        drawn = minibatches(
            len(self.places), self.recipe.batch_size, self.order, device=self.device
        )
        batches = [self.places[batch] for batch in drawn]
        views = self.train.batches(
            crop(self.recipe, k=epoch),
            batch_size=self.recipe.batch_size,
            device=self.device,
            places=batches,
            workers=self.recipe.num_workers,
            generator=self.draws,
        )
        first_step = epoch * len(batches)
        losses = torch.stack(
            [
                self._step(x, self.labels[batch], step)
                for step, (x, batch) in enumerate(zip(views, batches, strict=True), first_step)
            ]
        )
        lr = self.recipe.learning_rate(epoch)
        check_finite(losses, first_step=first_step, lr=lr, what=self.what)
        return losses.mean().item()

    def _step(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            loss = self.objective(
                self.network,
                x,
                y,
                step=step,
                total_steps=self.total_steps,
                backward=self.backward,
            )
        # A step whose gradients overflow in fp16 never reaches the optimizer.
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, scaled up where fp16 would lose them."""
        with torch.autocast(self.device.type, enabled=False):
            self.scaler.scale(loss).backward()

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on."""
        rng = {"order": self.order.get_state(), "views": self.draws.get_state()}
        # torch's own generators: dropout and stochastic depth draw from them.
        rng["cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "kept": {name: owner.state_dict() for name, owner in self.kept.items()},
            "rng": rng,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back a state; that of a finished training is its network alone."""
        self.network.load_state_dict(state["network"])
        if "optimizer" not in state:
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, owner in self.kept.items():
            owner.load_state_dict(state["kept"][name])
        self.order.set_state(state["rng"]["order"])
        self.draws.set_state(state["rng"]["views"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)


def total_steps(recipe: "Recipe", images: int) -> int:
    """Return the steps of a training on so many images."""
    return recipe.epochs * num_minibatches(images, recipe.batch_size)
