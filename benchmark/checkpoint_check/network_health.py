"""Check a network at a precision: its features, its gradients and a probe on its features.

Few images are used: these are sanity checks, not scores.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lowbit.backbones import pyramid_info
from lowbit.data import Center, open_images
from lowbit.quant import (
    FP,
    Precision,
    quantized_layers,
    require_asked,
    reuse_weights,
    set_precision,
)
from lowbit.quant.float64 import in_float64
from lowbit.quant.structure.unfused_attention import unfused_attention

CALIBRATION_IMAGES = 32
_LEARNING_IMAGES = (2, 16)  # fewest and most images in the pass with gradients
_LEARNING_BUDGET = 1e12  # operations over all precisions: half a minute of a slow core
_PROBE_IMAGES = (100, 400)  # half of them for training
_PROBE_BUDGET = 2e12
_BATCH = 50
_ROUNDING_IMAGES = 50  # predicted in float64 too, which takes several times as long


@dataclass(frozen=True)
class Response:
    """The effect of one precision on a batch of images.

    Attributes:
        finite: whether features and gradients are finite.
        cosine: cosine of the features with those in full precision, mean over images.
        reached: number of weights with a non-zero gradient.
        weights: number of quantized weights.
    """

    finite: bool
    cosine: float
    reached: int
    weights: int


class Subject:
    """A quantized network with the digits it is tested on, as many as its cost allows.

    Args:
        network: quantized, in eval mode.
        precisions: number of precisions that share the budgets.
    """

    def __init__(self, network: nn.Module, *, precisions: int) -> None:
        self.network = network
        self.size = input_size(network)
        self._view = Center(self.size, self.size)
        self._train, self._test = (open_images("digits", split) for split in ("train", "test"))
        self.flops = _flops(network, self.images(1))
        share = self.flops * precisions
        fewest, most = _LEARNING_IMAGES
        self._learning = int(min(max(_LEARNING_BUDGET / 3 / share, fewest), most))
        self.probe_images = min(int(_PROBE_BUDGET / share), _PROBE_IMAGES[1])
        self._full: Tensor | None = None

    def images(self, count: int, *, split: str = "train") -> Tensor:
        """Return the split's first digits, (count, 3, size, size), normalized, cycling through classes."""
        source = self._train if split == "train" else self._test
        return next(
            source.batches(
                self._view, batch_size=count, device="cpu", places=torch.arange(count), workers=0
            )
        )

    @property
    def can_probe(self) -> bool:
        """Whether enough digits fit in the budget for a meaningful probe."""
        return self.probe_images >= _PROBE_IMAGES[0]

    def respond(self, precision: Precision) -> Response:
        """Run one forward and one backward pass.

        Raises:
            ValueError: a quantizer that is on was never asked, with or without gradients.
        """
        images = self.images(self._learning)
        if self._full is None:
            set_precision(self.network, FP)
            with torch.no_grad():
                self._full = self.network(images)
        set_precision(self.network, precision)
        weights = [layer.weight for layer in quantized_layers(self.network).values()]
        with require_asked(self.network), torch.no_grad():
            self.network(images[:1])  # as it is scored
        with require_asked(self.network):
            features = self.network(images)  # (N, D)
        gradients = torch.autograd.grad(features.square().mean(), weights, allow_unused=True)
        found = [g for g in gradients if g is not None]
        return Response(
            finite=all(bool(t.isfinite().all()) for t in (features, *found)),
            cosine=F.cosine_similarity(features.detach(), self._full, dim=1).mean().item(),
            reached=sum(bool(g.any()) for g in found),
            weights=len(weights),
        )

    def probe(self, precision: Precision) -> tuple[float, int, int]:
        """Classify held-out digits by a ridge classifier on their features.

        Returns:
            Its accuracy in %; of how many of the first digits it predicts another class from features
            computed in float64, so that rounding alone decides; and how many were compared.
        """
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        set_precision(self.network, precision)
        half = self.probe_images // 2
        train, test = (self._features(half, split) for split in ("train", "test"))
        classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
        classifier.fit(train, self._train.labels[:half].numpy())
        found = classifier.predict(test)
        accuracy = 100 * float((found == self._test.labels[:half].numpy()).mean())
        count = min(half, _ROUNDING_IMAGES)
        with in_float64([self.network]):
            exact = classifier.predict(self._features(count, "test"))
        return accuracy, int((found[:count] != exact).sum()), count

    def chance(self) -> float:
        """Return the upper limit of a guessing probe, in %: 4 standard deviations above 10 %."""
        half = self.probe_images // 2
        return 10 + 400 * math.sqrt(0.1 * 0.9 / half)

    @torch.no_grad()
    def _features(self, count: int, split: str) -> np.ndarray:
        with reuse_weights(self.network), require_asked(self.network):
            batches = self.images(count, split=split).split(_BATCH)
            return torch.cat([self.network(batch) for batch in batches]).numpy()


def input_size(network: nn.Module) -> int:
    """Return the image side for the network: its required size, else twice its last stride."""
    config = getattr(network, "default_cfg", None) or {}
    if config.get("fixed_input_size"):
        return config["input_size"][-1]
    try:
        return max(32, 2 * pyramid_info(network)[-1].stride)
    except ValueError:  # no pyramid
        return 64


@torch.no_grad()
def _flops(network: nn.Module, images: Tensor) -> int:
    with unfused_attention(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() or 1
