"""How far an exported graph agrees with the network that it comes from, beside that network's own noise.

A quantized network amplifies rounding: where a value lies between two codes, the last bit decides. So
its simulation in float64 does not agree with itself in float32 on every image either. That is the
noise floor, below which a graph cannot be told from the simulation.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowbit.data import Center, Images
from lowbit.export.runtime import Session
from lowbit.quant.float64 import in_float64
from lowbit.training.seeding import stream

ENOUGH = 0.98
"""Agreement that passes though the noise floor is above it: onnxruntime rounds a convolution's bias to integers."""
_BATCH = 50


@dataclass(frozen=True)
class Agreement:
    """Agreement with the simulation in float32.

    Attributes:
        images: how many were compared.
        floor: of the simulation in float64.
        graphs: of each exported graph, by name.
        measure: "predictions": share of images with the same class; "cosine": mean cosine of features.
    """

    images: int
    floor: float
    graphs: Mapping[str, float]
    measure: str

    def passes(self, name: str) -> bool:
        """Whether a graph agrees as well as the simulation with itself, or nearly on all images."""
        return self.graphs[name] >= min(self.floor, ENOUGH)

    def below_floor(self, name: str) -> bool:
        """Whether a graph agrees less than the simulation with itself, in the four digits that are shown."""
        return round(self.graphs[name], 4) < round(self.floor, 4)


def some_images(images: Images, count: int) -> Tensor:
    """Return the places of `count` images, the same for every network; all if there are fewer."""
    order = torch.randperm(len(images), generator=stream(0, "agreement"))
    return order[:count].sort().values


def batches(images: Images, view: Center, places: Tensor | None = None) -> Iterable[Tensor]:
    """Yield views of images (B, 3, size, size), in batches."""
    return images.batches(view, batch_size=_BATCH, device="cpu", places=places)


@torch.no_grad()
def compare(
    network: nn.Module, sessions: Mapping[str, Session], images: Iterable[Tensor], *, classes: bool
) -> Agreement:
    """Compare exported graphs with the network that they come from.

    Args:
        network: in eval mode, on the CPU.
        sessions: graphs by name.
        images: batches (B, 3, size, size).
        classes: whether outputs are logits, whose largest is compared; else features.
    """
    sums, total = dict.fromkeys(["floor", *sessions], 0.0), 0
    for x in images:
        simulated = network(x)
        with in_float64([network]):
            found = {"floor": network(x)}
        for name, session in sessions.items():
            found[name] = torch.from_numpy(session.run(x.numpy())[0])
        for name, output in found.items():
            sums[name] += _agreeing(output, simulated, classes)
        total += len(x)
    shares = {name: value / total for name, value in sums.items()}
    return Agreement(total, shares.pop("floor"), shares, "predictions" if classes else "cosine")


def predicted(session: Session, images: Iterable[Tensor]) -> Tensor:
    """Return the classes (N,) that a graph predicts."""
    found = [np.argmax(session.run(x.numpy())[0], axis=1) for x in images]
    return torch.from_numpy(np.concatenate(found))


def _agreeing(output: Tensor, simulated: Tensor, classes: bool) -> float:
    if classes:
        return (output.argmax(1) == simulated.argmax(1)).sum().item()
    return F.cosine_similarity(output.double(), simulated.double()).sum().item()
