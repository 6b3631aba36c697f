"""What every framework is: it embeds a view at a precision and compares two embeddings."""

import difflib
from typing import TYPE_CHECKING, NamedTuple

from fvcore.common.registry import Registry
from torch import Tensor, nn

from quant import Precision, set_precision

if TYPE_CHECKING:
    from pretrain.recipe import Recipe

FRAMEWORKS = Registry("FRAMEWORKS")
FRAMEWORKS.__doc__ = """
Registry of self-supervised frameworks. Register a function (backbone, recipe) -> Framework; its
name is the recipe's `framework`. It reads its widths from `recipe.dim` and `recipe.hidden_dim`,
where None asks for the published ones.
"""


class Embedding(NamedTuple):
    """One view at one precision, (N, dim) each.

    z: the projection, which others predict.
    p: the prediction made from z; z itself in a framework without a predictor.
    """

    z: Tensor
    p: Tensor

    def stopped(self) -> "Embedding":
        """Return the same values as a target, which no gradient reaches: sg(.)."""
        return Embedding(self.z.detach(), self.p.detach())


class Encoder(nn.Module):
    """f: the backbone and the projector. This is what a policy quantizes, and nothing else."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, view: Tensor) -> Tensor:
        return self.projector(self.backbone(view))  # (N, dim)


class Framework(nn.Module):
    """Base of the frameworks. The encoder owns the weights; its precision is set at each embedding.

    A subclass gives `compare`, and `predict` if it has a predictor: a module outside the encoder, so
    that no policy can quantize it.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    def embed(self, view: Tensor, precision: Precision) -> Embedding:
        """Embed a view (N, 3, H, W) with the encoder at `precision`."""
        set_precision(self.encoder, precision)
        z = self.encoder(view)
        return Embedding(z, self.predict(z))

    def predict(self, z: Tensor) -> Tensor:
        """Return p = h(z)."""
        return z

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        """Return the loss of `online` -> `target`, averaged over the batch."""
        raise NotImplementedError

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return the loss of a - b: the mean of a -> b and b -> a."""
        return (self.compare(a, b) + self.compare(b, a)) / 2


def create_framework(backbone: nn.Module, recipe: "Recipe") -> Framework:
    """Build the framework a recipe names around a backbone, at full precision."""
    check_framework(recipe.framework)
    return FRAMEWORKS.get(recipe.framework)(backbone, recipe)


def check_framework(name: str) -> None:
    """Refuse a name that is not registered, with close matches."""
    if name not in FRAMEWORKS:
        known = sorted(key for key, _ in FRAMEWORKS)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"there is no framework {name!r}; nothing was trained. {hint}Known: {', '.join(known)}."
        )
