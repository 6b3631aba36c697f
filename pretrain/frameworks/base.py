"""Base of frameworks, which embed views at a precision and compare embeddings."""

from functools import cached_property

from fvcore.common.registry import Registry
from torch import Tensor, nn

from lowbit.common.suggest import did_you_mean
from lowbit.pretrain.frameworks.options import FrameworkOptions
from lowbit.quant import Precision, QuantPolicy, quantize, set_precision

FRAMEWORKS = Registry("FRAMEWORKS")
FRAMEWORKS.__doc__ = """
Registry of self-supervised frameworks. Register a function (backbone, options) -> Framework; its
name is the recipe's `framework`. Each of the `FrameworkOptions` that is None means the published
value.
"""


class Embedding:
    """One view at one precision, computed on demand and cached.

    Args:
        framework: its networks embed the view.
        view: (N, 3, H, W).
        precision: of the embedding network.
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
        """The target that others predict, (N, dim), without gradient: a key, or sg(z)."""
        return self.framework.key(self)


class Encoder(nn.Module):
    """f: the backbone and the projector, the only part a policy quantizes."""

    def __init__(self, backbone: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector

    def forward(self, view: Tensor) -> Tensor:
        return self.projector(self.backbone(view))  # (N, dim)


class Framework(nn.Module):
    """Base of the frameworks. The encoder has the weights; its precision is set at each embedding.

    Args:
        backbone: (N, 3, H, W) -> (N, num_features).
        projector: (N, num_features) -> (N, dim).
        predictor: (N, dim) -> (N, dim), outside the encoder, so that no policy can quantize it.
    """

    symmetric = True  # whether both views predict; False: only the first does

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
        """Finish an optimizer step, after the weights changed."""

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
        """Return the target that others predict for an embedding: sg(z)."""
        return embedding.z.detach()

    def compare(self, online: Embedding, target: Embedding) -> Tensor:
        """Return the loss of `online` -> `target`, averaged over the batch."""
        raise NotImplementedError

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return the framework's loss of a - b: the mean of a -> b and b -> a, if it has both."""
        if not self.symmetric:
            return self.compare(a, b)
        return (self.compare(a, b) + self.compare(b, a)) / 2


def create_framework(
    name: str, backbone: nn.Module, options: FrameworkOptions | None = None
) -> Framework:
    """Build a framework by name around a backbone, at full precision; options default to published values.

    Raises:
        ValueError: unknown framework.
    """
    check_framework(name)
    return FRAMEWORKS.get(name)(backbone, options or FrameworkOptions())


def check_framework(name: str) -> None:
    """Raise ValueError with close matches for an unregistered name."""
    if name not in FRAMEWORKS:
        known = sorted(key for key, _ in FRAMEWORKS)
        raise ValueError(
            f"there is no framework {name!r}; nothing was trained."
            f"{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
