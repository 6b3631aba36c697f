"""SimCLR (Chen et al. 2020), with the three-layer head that Contrastive Quant's CIFAR runs use."""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.frameworks.base import FRAMEWORKS, Embedding, Framework

if TYPE_CHECKING:
    from pretrain.recipe import Recipe


@FRAMEWORKS.register()
def simclr(backbone: nn.Module, recipe: "Recipe") -> "SimCLR":
    """Build SimCLR; every layer of the head is as wide as the backbone's features by default."""
    width = backbone.num_features
    return SimCLR(
        backbone,
        dim=recipe.dim or width,
        hidden_dim=recipe.hidden_dim or width,
        temperature=recipe.temperature,
    )


class SimCLR(Framework):
    """Contrast projections; both sides get gradient, and there is no predictor.

    Args:
        backbone: (N, 3, H, W) -> (N, num_features).
        dim: width of z.
        hidden_dim: width of the head's two hidden layers.
        temperature: of NT-Xent.
    """

    def __init__(
        self, backbone: nn.Module, *, dim: int, hidden_dim: int, temperature: float
    ) -> None:
        widths = (backbone.num_features, hidden_dim, hidden_dim, dim)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, bias=False), nn.BatchNorm1d(fan_out), nn.ReLU()]
        super().__init__(backbone, nn.Sequential(*layers[:-1]))  # no ReLU at the end
        self.temperature = temperature

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        return nt_xent(online.z, target.z, temperature=self.temperature)

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return NT-Xent once: it is symmetric, unless one side is a stopped target."""
        return self.compare(a, b)


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """Return the normalized temperature-scaled cross entropy of two sets of features (N, dim).

    Row i of `a` and row i of `b` are each other's positive; the 2N - 2 other rows of both are
    negatives. No similarity is clamped. Symmetric in a and b.

    Example:
        >>> x = torch.eye(2)
        >>> round(float(nt_xent(x, x, temperature=1.0)), 4)       # log(1 + 2 / e)
        0.5514
    """
    n = len(a)
    features = F.normalize(torch.cat([a, b]), dim=1)  # (2N, dim)
    logits = features @ features.T / temperature  # (2N, 2N)
    itself = torch.eye(2 * n, dtype=torch.bool, device=a.device)
    logits = logits.masked_fill(itself, -torch.inf)
    positives = torch.arange(2 * n, device=a.device).roll(n)  # i <-> i + N
    return F.cross_entropy(logits, positives)
