"""A pairing's interface to a training step: views, precisions, cached embeddings."""

from contextlib import AbstractContextManager
from weakref import ref

import torch
from torch import Generator, Tensor

from lowbit.data.views.training_views import Batch
from lowbit.pretrain.frameworks import Embedding, Framework
from lowbit.quant import Precision, observe

Range = tuple[int, int]


class Bits:
    """Draw bit-widths on the host, without synchronizing with a device.

    Args:
        generator: a generator of the CPU.
        weight, activation: inclusive ranges of `independent`.
        shared: inclusive range of `shared`.
    """

    def __init__(
        self, generator: Generator, *, weight: Range, activation: Range, shared: Range
    ) -> None:
        self.generator = generator
        self.weight, self.activation, self.range = weight, activation, shared

    def independent(self) -> Precision:
        """Draw b_w and b_a, each uniform in its own range (SSQL)."""
        return Precision(self._integer(self.weight), self._integer(self.activation))

    def shared(self) -> Precision:
        """Draw one q for weights and activations (Contrastive Quant), with replacement."""
        q = self._integer(self.range)
        return Precision(q, q)

    def _integer(self, bounds: Range) -> int:
        low, high = bounds
        return int(torch.randint(low, high + 1, (), generator=self.generator))


class Step:
    """Operations a pairing may use in one step, and a record of them.

    Args:
        framework: embeds and compares.
        batch: makes views of the images.
        bits: draws precisions.

    Attributes:
        drawn: the precisions drawn, in order.
        embeddings: those requested, in order.
    """

    def __init__(self, framework: Framework, batch: Batch, *, bits: Bits) -> None:
        self.framework = framework
        self._batch, self._bits = batch, bits
        self.drawn: list[Precision] = []
        self._embedded: dict[tuple[int, Precision], Embedding] = {}
        self._groups: dict[Precision, list[ref[Embedding]]] = {}
        self._views: list[Tensor] = []  # kept alive: their ids are keys

    @property
    def embeddings(self) -> list[Embedding]:
        return list(self._embedded.values())

    def views(self) -> tuple[Tensor, Tensor]:
        """Draw the two views v1, v2 of every image."""
        self._views += [self._batch.view(), self._batch.view()]
        return self._views[-2], self._views[-1]

    def image(self) -> Tensor:
        """Return x, the images only resized and normalized."""
        self._views.append(self._batch.image())
        return self._views[-1]

    def draw_independent(self) -> Precision:
        """Draw (b_w, b_a) for the whole network and this step."""
        self.drawn.append(self._bits.independent())
        return self.drawn[-1]

    def draw_shared(self) -> Precision:
        """Draw one q for weights and activations of the whole network."""
        self.drawn.append(self._bits.shared())
        return self.drawn[-1]

    def observing(self) -> AbstractContextManager[None]:
        """Reset activation ranges from the full-precision passes within the block."""
        return observe(self.framework.encoder, reset=True)

    def embed(self, view: Tensor, precision: Precision) -> Embedding:
        """Return the embedding of a view at a precision, cached in the step and computed on comparison.

        Views of one precision that are embedded before the first is compared go through the network in one
        pass.
        """
        key = (id(view), precision)
        if key not in self._embedded:
            group = self._groups.setdefault(precision, [])
            self._embedded[key] = self.framework.embed(view, precision, group)
        return self._embedded[key]

    def compare(self, *ways: tuple[Embedding, Embedding]) -> Tensor:
        """Return the loss of online -> target, averaged over directions; targets get no gradient.

        A framework whose second view never predicts (MoCo v2) uses only the first direction.
        """
        ways = ways if self.framework.symmetric else ways[:1]
        return torch.stack([self.framework.compare(*way) for way in ways]).mean()

    def both_ways(self, a: Embedding, b: Embedding) -> Tensor:
        """Return the framework's loss of a pair, a - b."""
        return self.framework.both_ways(a, b)
