"""Training objectives: from a batch to gradients and the logged loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tally:
    """Count an epoch's correctly classified images on the device."""

    def __init__(self) -> None:
        self._right: Tensor | int = 0
        self._seen = 0

    @torch.no_grad()
    def add(self, logits: Tensor, y: Tensor) -> None:
        """Count a batch, logits (B, C) and labels (B,)."""
        self._right = self._right + (logits.argmax(dim=1) == y).sum()
        self._seen += len(y)

    def take(self) -> float:
        """Return the top-1 in percent and reset; reads the device."""
        top1 = 100 * int(self._right) / self._seen
        self._right, self._seen = 0, 0
        return top1

    def state_dict(self) -> dict[str, int]:
        """Return the counts so far; reads the device."""
        return {"right": int(self._right), "seen": self._seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the counts from a saved state."""
        self._right, self._seen = state["right"], state["seen"]


class CrossEntropy:
    """Mean cross-entropy with the labels.

    An objective is called with a network in train mode, under autocast if the recipe sets it, and
    a batch. It passes its loss to `backward`, once or in several parts whose gradients add up, and
    returns it detached. Its random draws depend only on a seed and `step`; its counts
    over an epoch are its state.

    Attributes:
        tally: of the training images; read when an epoch is logged.
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
        """Return the loss for the logits (B, C) of images x with labels y."""
        return F.cross_entropy(logits, y)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of the current epoch."""
        return {"tally": self.tally.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.tally.load_state_dict(state["tally"])
