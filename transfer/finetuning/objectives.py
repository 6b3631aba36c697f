"""What a training minimizes: from a batch to gradients and the loss that a curve shows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tally:
    """How many images of an epoch were classified rightly, counted on the device."""

    def __init__(self) -> None:
        self._right: Tensor | int = 0
        self._seen = 0

    @torch.no_grad()
    def add(self, logits: Tensor, y: Tensor) -> None:
        """Count a batch, logits (B, C) and labels (B,)."""
        self._right = self._right + (logits.argmax(dim=1) == y).sum()
        self._seen += len(y)

    def take(self) -> float:
        """Return the top-1 in percent and begin anew; reads the device."""
        top1 = 100 * int(self._right) / self._seen
        self._right, self._seen = 0, 0
        return top1

    def state_dict(self) -> dict[str, int]:
        """Return the counts so far; reads the device."""
        return {"right": int(self._right), "seen": self._seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting where the state was taken."""
        self._right, self._seen = state["right"], state["seen"]


class CrossEntropy:
    """Mean cross-entropy with the labels.

    An objective is called with a network in train mode, under autocast where the recipe has it, and
    a batch. It passes its loss to `backward`, once or in several parts whose gradients add up, and
    returns it detached. Whatever it draws is a function of a seed and `step` alone; what it counts
    over an epoch is its state.

    Attributes:
        tally: of the training images; whoever logs an epoch takes it.
    """

    def __init__(self) -> None:
        self.tally = Tally()

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
        logits = network(x).float()
        loss = self.loss(logits, x, y)
        backward(loss)
        self.tally.add(logits, y)
        return loss.detach()

    def loss(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return what is minimized, from the logits (B, C) of images x with labels y."""
        return F.cross_entropy(logits, y)

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted in the epoch under way."""
        return {"tally": self.tally.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.tally.load_state_dict(state["tally"])
