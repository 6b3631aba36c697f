"""What every framework is: it embeds a view at a precision and compares two embeddings."""

from functools import cached_property
from typing import TYPE_CHECKING

from fvcore.common.registry import Registry
from torch import Tensor, nn

from lowbit.common.suggest import did_you_mean
from lowbit.quant import Precision, QuantPolicy, quantize, set_precision

if TYPE_CHECKING:
    from lowbit.pretrain.recipe import Recipe

FRAMEWORKS = Registry("FRAMEWORKS")
FRAMEWORKS.__doc__ = """
Registry of self-supervised frameworks. Register a function (backbone, recipe) -> Framework; its
name is the recipe's `framework`. It reads its widths from `recipe.dim` and `recipe.hidden_dim`,
where None asks for the published ones.
"""


class Embedding:
    """One view at one precision. What is asked for is computed then, and once.

    Args:
        framework: whose networks embed it.
        view: (N, 3, H, W).
        precision: of the network that embeds it.
    """

    def __init__(self, framework: "Framework", view: Tensor, precision: Precision) -> None:
        self.framework, self.view, self.precision = framework, view, precision

    @cached_property
    def z(self) -> Tensor:
        """The encoder's projection, (N, dim)."""
        return self.framework.project(self.view, self.precision)

    @cached_property
    def p(self) -> Tensor:
        """The prediction made from z, (N, dim); z itself in a framework without a predictor."""
        return self.framework.predict(self.z)

    @cached_property
    def k(self) -> Tensor:
        """What others predict, (N, dim), which no gradient reaches: a key, or sg(z)."""
        return self.framework.key(self)


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

    Args:
        backbone: (N, 3, H, W) -> (N, num_features).
        projector: (N, num_features) -> (N, dim).
        predictor: (N, dim) -> (N, dim), outside the encoder, so that no policy can quantize it.
    """

    symmetric = True  # whether both views predict; False: the first alone does

    def __init__(
        self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = Encoder(backbone, projector)
        self.predictor = predictor

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    def quantize(self, policy: QuantPolicy) -> None:
        """Quantize the layers of the encoder that a policy names, in place."""
        quantize(self.encoder, policy)

    def begin_step(self, progress: float) -> None:
        """Prepare an optimizer step, before the first embedding; `progress` of training is in 0..1."""

    def end_step(self) -> None:
        """Finish an optimizer step, after the weights moved."""

    def embed(self, view: Tensor, precision: Precision) -> Embedding:
        """Return the embedding of a view (N, 3, H, W) at `precision`; nothing is computed yet."""
        return Embedding(self, view, precision)

    def project(self, view: Tensor, precision: Precision) -> Tensor:
        """Return z = f(view) with the encoder at `precision`."""
        set_precision(self.encoder, precision)
        return self.encoder(view)

    def predict(self, z: Tensor) -> Tensor:
        """Return p = h(z)."""
        return z if self.predictor is None else self.predictor(z)

    def key(self, embedding: Embedding) -> Tensor:
        """Return what others predict of an embedding: sg(z)."""
        return embedding.z.detach()

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        """Return the loss of `online` -> `target`, averaged over the batch."""
        raise NotImplementedError

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return the framework's own loss of a - b: the mean of a -> b and b -> a, if it has both."""
        if not self.symmetric:
            return self.compare(a, b)
        return (self.compare(a, b) + self.compare(b, a)) / 2


def create_framework(backbone: nn.Module, recipe: "Recipe") -> Framework:
    """Build the framework a recipe names around a backbone, at full precision."""
    check_framework(recipe.framework)
    return FRAMEWORKS.get(recipe.framework)(backbone, recipe)


def check_framework(name: str) -> None:
    """Refuse a name that is not registered, with close matches."""
    if name not in FRAMEWORKS:
        known = sorted(key for key, _ in FRAMEWORKS)
        raise ValueError(
            f"there is no framework {name!r}; nothing was trained."
            f"{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
