"""t-SNE of a backbone's features at each precision, coloured by class. (CQ Fig. 2)

Features are the backbone's, before any projection head. t-SNE keeps neighbours, not distances or
sizes of clusters; the nearest-neighbour accuracy given with each plot is computed in the
feature space itself.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lowbit.common.plot_style import COLOURS, panels
from lowbit.data import Split, normalization, normalize
from lowbit.quant import (
    Precision,
    calibrate,
    quantize,
    require_asked,
    reuse_weights,
    set_precision,
)

NEIGHBOURS = 20
_CLASSES = len(COLOURS)  # as many as there are distinct colours
_CALIBRATION = 512  # training images, as many as transfer uses
_BATCH = 256
_PERPLEXITY = 30.0


def pick(test: Split, *, images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return at most `images` test images and labels, drawn from the first ten classes at most."""
    places = (test.labels < _CLASSES).nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    places = places[order[:images]].sort().values
    return test.images[places], test.labels[places]


def features(
    backbone: nn.Module,
    images: Tensor,
    *,
    train: Split,
    precisions: Sequence[Precision],
    policy: str,
    size: int,
) -> dict[Precision, Tensor]:
    """Return the features (N, D) of uint8 images (N, 3, H, W), at each precision.

    The backbone is quantized in place and calibrated on training images in a pinned order. Its
    device is used.

    Args:
        backbone: not quantized yet.
        images: to embed.
        train: its images set the activation ranges, its name the normalization.
        precisions: FP, or bits for weights and activations.
        policy: name of a quantization policy.
        size: side of a view, pixels.
    """
    backbone.eval()
    quantize(backbone, policy)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(train), generator=generator)[:_CALIBRATION]
    calibrate(backbone, _views(backbone, train.images[order], train.name, size))
    found = {}
    for precision in precisions:
        set_precision(backbone, precision)
        bar = tqdm(
            _views(backbone, images, train.name, size),
            desc=f"features at {precision}",
            total=-(-len(images) // _BATCH),
            disable=None,  # no bar without a terminal
            leave=False,
        )
        with torch.no_grad(), reuse_weights(backbone), require_asked(backbone):
            found[precision] = torch.cat([backbone(view).cpu() for view in bar])
    return found


def embed(features: Tensor, *, seed: int) -> np.ndarray:
    """Return t-SNE coordinates (N, 2) of features (N, D), initialized by their principal components.

    Perplexity is 30, or a third of the available neighbours if that is less.
    """
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
    return tsne.fit_transform(features.numpy())


def neighbour_accuracy(features: Tensor, labels: Tensor, *, k: int = NEIGHBOURS) -> float:
    """Return the share of images, in %, whose k nearest neighbours vote for their class.

    Euclidean distances; of classes with equally many votes, the lowest label wins.
    """
    if len(features) <= k:
        raise ValueError(
            f"{len(features)} images do not have {k} neighbours each; nothing was drawn. Ask for more "
            "images."
        )
    near = NearestNeighbors(n_neighbors=k).fit(features.numpy())
    others = near.kneighbors(return_distance=False)  # (N, k): without the image itself
    votes = F.one_hot(labels[torch.from_numpy(others)]).sum(1)  # (N, classes)
    return 100 * float((votes.argmax(1) == labels).double().mean())


def draw(
    points: pd.DataFrame, accuracy: dict[tuple[str, str], float], classes: Sequence[str]
) -> Figure:
    """Plot one row per checkpoint and one column per precision, points coloured by class.

    Args:
        points: columns checkpoint, precision, label, x, y.
        accuracy: `neighbour_accuracy` by checkpoint and precision.
        classes: their names by label.
    """
    rows, columns = (list(points[c].unique()) for c in ("checkpoint", "precision"))
    side = 10 / max(2, len(columns))
    figure, grid = panels(len(rows), len(columns), width=side * len(columns), height=side)
    for (checkpoint, precision), panel in points.groupby(["checkpoint", "precision"]):
        axes = grid[rows.index(checkpoint), columns.index(precision)]
        _scatter(axes, panel, classes)
        found = accuracy[checkpoint, precision]
        axes.set_title(f"{checkpoint} at {precision}: {NEIGHBOURS}-NN {found:.1f} %")
    for axes in grid[-1]:
        axes.set_xlabel("t-SNE 1 (no unit)")
    for axes in grid[:, 0]:
        axes.set_ylabel("t-SNE 2 (no unit)")
    return figure


def _scatter(axes, panel: pd.DataFrame, classes: Sequence[str]) -> None:
    for label, members in panel.groupby("label"):
        axes.scatter(members.x, members.y, s=5, color=COLOURS[label], linewidths=0)
    for label, members in panel.groupby("label"):
        # The name is placed where the class is densest, so that classes are not identified by colour alone.
        axes.annotate(
            classes[label],
            (members.x.median(), members.y.median()),
            horizontalalignment="center",
            verticalalignment="center",
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.75},
        )
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")


def _views(backbone: nn.Module, images: Tensor, dataset: str, size: int) -> Iterator[Tensor]:
    """Yield batches of whole images, resized bicubically if needed, and normalized."""
    device = next(backbone.parameters()).device
    for batch in images.split(_BATCH):
        batch = batch.to(device)
        if batch.shape[-2:] != (size, size):
            large = F.interpolate(batch.float(), size=(size, size), mode="bicubic", antialias=True)
            batch = large.round_().clamp_(0, 255).to(torch.uint8)
        yield normalize(batch, *normalization(dataset))
