"""What a training minimizes: from a batch to gradients and the loss that a curve shows."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tally:
    """How many images of an epoch were classified rightly, counted on the device."""

    def __init__(self) -> None:
        self._right: Tensor | None = None
        self._seen = 0

    @torch.no_grad()
    def add(self, logits: Tensor, y: Tensor) -> None:
        """Count a batch, logits (B, C) and labels (B,)."""
        right = (logits.argmax(dim=1) == y).sum()
        self._right = right if self._right is None else self._right + right
        self._seen += len(y)

    def take(self) -> float:
        """Return the top-1 in percent and begin anew; reads the device."""
        top1 = 100 * int(self._right) / self._seen
        self._right, self._seen = None, 0
        return top1


class CrossEntropy:
    """Mean cross-entropy with the labels.

    An objective is called with a network in train mode, under autocast where the recipe has it, and
    a batch. It passes its loss to `backward`, once or in several parts whose gradients add up, and
    returns it detached. Whatever it draws is a function of a seed and `step` alone, so that a
    resumed training needs no more state.

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
