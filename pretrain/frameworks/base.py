"""Base of frameworks, which embed views at a precision and compare embeddings."""

from collections.abc import Callable
from functools import cached_property
from weakref import ref

from fvcore.common.registry import Registry
from torch import Tensor, nn

from lowbit.common.suggest import did_you_mean
from lowbit.pretrain.frameworks.options import FrameworkOptions
from lowbit.pretrain.frameworks.together import together
from lowbit.quant import Precision, QuantPolicy, quantize, set_precision

FRAMEWORKS = Registry("FRAMEWORKS")
FRAMEWORKS.__doc__ = """
Registry of self-supervised frameworks. Register a function (backbone, options) -> Framework; its
name is the recipe's `framework`. Each of the `FrameworkOptions` that is None means the published
value.
"""


class Embedding:
    """One view at one precision, computed on demand and cached, with its group's in one pass.

    Args:
        framework: its networks embed the view.
        view: (N, 3, H, W).
        precision: of the embedding network.
        group: references to the step's embeddings at this precision; this one's is added. They are weak:
            a step's tensors are freed when it ends, not when Python looks for cycles.
    """

    def __init__(
        self,
        framework: "Framework",
        view: Tensor,
        precision: Precision,
        group: "list[ref[Embedding]] | None" = None,
    ) -> None:
        self.framework, self.view, self.precision = framework, view, precision
        self._group = [] if group is None else group
        self._group.append(ref(self))

    @cached_property
    def z(self) -> Tensor:
        """The encoder's projection, (N, dim)."""
        return self._of_group("z", self.framework.project)

    @cached_property
    def p(self) -> Tensor:
        """The prediction made from z, (N, dim); z itself in a framework without a predictor."""
        return self._of_group("p", self.framework.predict)

    @cached_property
    def k(self) -> Tensor:
        """The target that others predict, (N, dim), without gradient: a key, or sg(z)."""
        return self._of_group("k", self.framework.keys)

    def _of_group(self, name: str, compute: "Callable[[list[Embedding]], list[Tensor]]") -> Tensor:
        """Compute a value of all embeddings of the group that do not have it yet; return this one's."""
        alive = (each for each in (reference() for reference in self._group) if each is not None)
        waiting = [each for each in alive if name not in vars(each)]
        for each, value in zip(waiting, compute(waiting), strict=True):
            vars(each)[name] = value
        return vars(self)[name]


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

    def embed(
        self, view: Tensor, precision: Precision, group: list[ref[Embedding]] | None = None
    ) -> Embedding:
        """Return the embedding of a view (N, 3, H, W) at `precision`; nothing is computed yet.

        Args:
            group: of the step's embeddings at this precision, computed together if both views predict.
        """
        return Embedding(self, view, precision, group if self.symmetric else None)

    def project(self, embeddings: list[Embedding]) -> list[Tensor]:
        """Return z = f(view) of embeddings of one precision."""
        set_precision(self.encoder, embeddings[0].precision)
        return together(self.encoder, [each.view for each in embeddings])

    def predict(self, embeddings: list[Embedding]) -> list[Tensor]:
        """Return p = h(z) of embeddings."""
        z = [each.z for each in embeddings]
        return z if self.predictor is None else together(self.predictor, z)

    def keys(self, embeddings: list[Embedding]) -> list[Tensor]:
        """Return the targets that others predict for embeddings of one precision: sg(z)."""
        return [each.z.detach() for each in embeddings]

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
