"""The share of predictions that rounding alone decides: float32 against float64."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.data import Center, Crop, Images
from lowbit.quant.float64 import in_float64

KEY = "rounding"  # of a result's details
_MOST, _FEWEST = 512, 32  # images
_BUDGET = 2e11  # operations in float64 over all precisions: a minute or two of a slow core

_logger = logging.getLogger(__name__)


class Sample:
    """Some of the images of a split, spread evenly over it.

    Its `split` has a name of its own, because features of it are float64's and must not be taken for
    the split's.
    """

    def __init__(self, images: Images, count: int) -> None:
        self.places = torch.arange(count) * len(images) // count
        self._images = images
        self.frames, self.name, self.classes = images.frames, images.name, images.classes
        self.split, self.split_sha256 = f"{images.split}, in float64", images.split_sha256
        self.labels, self.ids = images.labels[self.places], images.ids[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def batches(
        self, view: Center | Crop, *, places: Tensor | None = None, **options: Any
    ) -> Iterator[Tensor]:
        chosen = self.places if places is None else self.places[places]
        return self._images.batches(view, places=chosen, **options)


def sample_size(images: int, operations: float) -> int:
    """Return how many of `images` are predicted again, at `operations` for each of them."""
    affordable = max(_FEWEST, int(_BUDGET / max(operations, 1)))
    return min(images, affordable, _MOST)


def rounding_shares(
    predict: Callable[[Images], Mapping[str, Tensor]],
    networks: Sequence[nn.Module],
    images: Images,
    classes: Mapping[str, Tensor],
    *,
    count: int,
) -> dict[str, Any] | None:
    """Predict a sample again with the networks in float64; return how many classes differ.

    Weights, ranges and heads are those of float32, and the features go to the head rounded to it: what
    differs is the rounding inside the networks, as it would on another machine. Most of it comes from
    values near a tie between two codes.

    Args:
        predict: as `Fitted.predict`.
        networks: the modules that it runs images through.
        images: those that were scored.
        classes: predicted for them in float32, (N,) by precision; differences are reported for these.
        count: images in the sample.

    Returns:
        `images`, and `share` in % by precision; None if the network cannot run in float64.
    """
    sample = Sample(images, count)
    try:
        with in_float64(networks):
            exact = predict(sample)
    except RuntimeError as error:
        _logger.warning(
            "The network does not run in float64 (%s); how many predictions rounding decides is not "
            "known.",
            error,
        )
        return None
    share = {
        precision: 100 * (found[sample.places] != exact[precision]).double().mean().item()
        for precision, found in classes.items()
    }
    text = ", ".join(f"{precision} {value:.1f}" for precision, value in share.items())
    _logger.info("predictions that rounding decides (n=%d): %s %%", count, text)
    return {"images": count, "share": share}
