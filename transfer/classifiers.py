"""Linear classifiers of several precisions, trained and applied as one batched problem."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quant import Precision, set_precision
from transfer.divergence import check_finite
from transfer.features import extract
from transfer.seeding import minibatches


def initial_classifier(
    num_features: int, num_classes: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a weight (C, D) from N(0, 0.01^2) and a bias (C,) of zero (MoCo's and SimSiam's fc)."""
    weight = torch.empty(num_classes, num_features).normal_(std=0.01, generator=generator)
    return weight, torch.zeros(num_classes)


class LinearFit:
    """Train P classifiers on P sets of features of the same images by SGD.

    Every classifier sees the same minibatches in the same order; what `nn.Linear`,
    `F.cross_entropy` and `torch.optim.SGD` would do for each of them is done for all of them with
    one batched product forward and one backward. The gradient of the mean cross-entropy is known,
    (softmax(x W' + b) - onehot(y)) / B, so no graph is built.

    The object owns weight (P, C, D), bias (P, C) and their momentum.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, momentum: float, weight_decay: float):
        self.weight, self.bias = weight, bias
        self.momentum, self.weight_decay = momentum, weight_decay
        self._weight_velocity = torch.zeros_like(weight)
        self._bias_velocity = torch.zeros_like(bias)

    def step(self, x: Tensor, y: Tensor, *, lr: float) -> Tensor:
        """Take one step on features x (P, B, D) and labels y (B,); return the losses (P,)."""
        index = y.expand(len(x), -1).unsqueeze(-1)  # (P, B, 1)
        logits = torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)  # (P, B, C)
        log_p = F.log_softmax(logits, dim=-1)
        loss = log_p.gather(-1, index).mean(dim=(1, 2)).neg_()
        residual = log_p.exp_()
        residual.scatter_add_(-1, index, residual.new_tensor(-1.0).expand_as(index))
        residual.div_(len(y))  # d loss / d logits
        # torch.optim.SGD: v <- m v + (g + wd w), w <- w - lr v
        self._weight_velocity.baddbmm_(residual.mT, x, beta=self.momentum)
        self._bias_velocity.mul_(self.momentum).add_(residual.sum(dim=1))
        if self.weight_decay:
            self._weight_velocity.add_(self.weight, alpha=self.weight_decay)
            self._bias_velocity.add_(self.bias, alpha=self.weight_decay)
        self.weight.add_(self._weight_velocity, alpha=-lr)
        self.bias.add_(self._bias_velocity, alpha=-lr)
        return loss


@torch.no_grad()
def fit_linear(
    features: Sequence[Tensor],
    labels: Tensor,
    initial: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: Callable[[int], float],
    momentum: float,
    weight_decay: float,
    generator: torch.Generator,
    on_epoch: Callable[[int, float, Tensor], None] = lambda epoch, lr, loss: None,
) -> tuple[Tensor, Tensor]:
    """Fit one classifier a precision and return weight (P, C, D) and bias (P, C).

    Args:
        features: cached views, each (P, N, D); epoch e trains on view e mod K.
        labels: (N,).
        initial: weight (C, D) and bias (C,) from which every classifier starts.
        learning_rate: rate of an epoch, counted from 0.
        generator: draws the order of the images, on the CPU.
        on_epoch: called with the epoch, its rate and the mean losses (P,).

    Raises:
        FloatingPointError: a loss is not finite.
    """
    count, device = len(features[0]), features[0].device
    weight, bias = (t.to(device).repeat(count, *[1] * t.dim()) for t in initial)
    fit = LinearFit(weight, bias, momentum=momentum, weight_decay=weight_decay)
    labels = labels.to(device)
    step = 0
    for epoch in range(epochs):
        x, lr = features[epoch % len(features)], learning_rate(epoch)
        batches = minibatches(len(labels), batch_size, generator, device=device)
        losses = torch.stack(
            [fit.step(x.index_select(1, batch), labels[batch], lr=lr) for batch in batches]
        )  # (steps, P)
        check_finite(losses.sum(dim=1), first_step=step, lr=lr, what="linear classifier")
        step += len(batches)
        on_epoch(epoch, lr, losses.mean(dim=0))
    return fit.weight, fit.bias


class Classifier:
    """Predict classes at any of its precisions: a quantized backbone and a linear head for each.

    Args:
        backbone: quantized, calibrated, in eval mode.
        heads: precision -> weight (C, D) and bias (C,), never quantized.
        view: uint8 images to the network's input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: dict[str, tuple[Tensor, Tensor]],
        view: Callable[[Tensor], Tensor],
        *,
        batch_size: int,
    ) -> None:
        self.backbone, self.heads, self.view = backbone, heads, view
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the predicted classes (N,) of uint8 images at every precision, on the CPU."""
        predictions = {}
        for precision, (weight, bias) in self.heads.items():
            set_precision(self.backbone, Precision.parse(precision))
            x = extract(self.backbone, images, self.view, batch_size=self.batch_size)
            predictions[precision] = F.linear(x, weight, bias).argmax(dim=1).cpu()
        return predictions
