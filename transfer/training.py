"""Supervised SGD on the whole network, resumable bit for bit."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import Images
from transfer.divergence import check_finite
from transfer.seeding import minibatches, stream
from transfer.views import crop
from transfer.workspace import Workspace

if TYPE_CHECKING:
    from transfer.recipe import Recipe


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


class Training:
    """Train a network on augmented views of labelled images.

    The object owns all that the next step depends on: network, optimizer and random streams;
    `state` hands it out and `restore` takes it back.

    Args:
        network: on `device`; it is put in train mode.
        train: the images and labels.
        recipe: optimizer, schedule, epochs, views and seed.
        places: of the images to train on, in `train`; default all.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Images,
        *,
        recipe: "Recipe",
        device: torch.device,
        places: Tensor | None = None,
    ) -> None:
        self.places = (torch.arange(len(train)) if places is None else places).to(device)
        self.network, self.recipe, self.device = network, recipe, device
        self.train, self.labels = train, train.labels.to(device)
        self.optimizer = torch.optim.SGD(
            network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
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
            workspace.log_epoch(epoch, epochs, lr=lr, loss={"train": loss})
            if epoch + 1 == epochs:  # nothing is left to train: the weights are enough
                workspace.save(epochs, loss=loss, network=self.network.state_dict())
            elif (epoch + 1) % every == 0:
                workspace.save(epoch + 1, loss=loss, **self.state())
        return loss

    def _epoch(self, epoch: int) -> float:
        lr = self.recipe.learning_rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
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
        losses = torch.stack(
            [self._step(x, self.labels[batch]) for x, batch in zip(views, batches, strict=True)]
        )
        first_step = epoch * len(batches)
        check_finite(losses, first_step=first_step, lr=lr, what="fine-tuned network")
        return losses.mean().item()

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(self.network(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

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
            "rng": rng,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back a state; that of a finished training is its network alone."""
        self.network.load_state_dict(state["network"])
        if "optimizer" not in state:
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["rng"]["order"])
        self.draws.set_state(state["rng"]["views"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
