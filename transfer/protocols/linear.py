"""Linear evaluation: a classifier on the features of the frozen, already quantized backbone."""

import logging
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data import Split
from quant import get_policy, quantize
from transfer.calibration import calibrate_on
from transfer.classifiers import Classifier, fit_linear, initial_classifier
from transfer.features import extract_at
from transfer.protocols import Fitted, protocol
from transfer.seeding import stream
from transfer.views import Views
from transfer.workspace import Workspace

if TYPE_CHECKING:
    from transfer.recipe import Recipe

_logger = logging.getLogger(__name__)


@protocol(options=("augment_views",), epochs=100, lr=30.0, weight_decay=0.0)
def linear(
    backbone: nn.Module,
    train: Split,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
) -> Fitted:
    """Quantize and calibrate first, then train one classifier a precision (SSQL, SPEC A.8).

    The backbone is frozen: eval mode, no gradient, no statistic touched. Its features are computed
    once a precision, so that all epochs cost one forward pass of the training images; with
    `augment_views` = K, K passes over augmented views, of which epoch e trains on view e mod K.
    """
    workspace.resume()
    views = Views.of(recipe)
    backbone.to(device).eval().requires_grad_(False)
    quantize(backbone, get_policy(recipe.policy))
    calibration = calibrate_on(backbone, train, views, recipe=recipe, device=device)
    features = _cached_features(backbone, train, views, recipe)
    _logger.info("%d x features %s (precisions, N, D)", len(features), tuple(features[0].shape))

    def on_epoch(epoch: int, lr: float, losses: Tensor) -> None:
        loss = dict(zip(recipe.precisions, losses.tolist(), strict=True))
        workspace.log_epoch(epoch, recipe.epochs, lr=lr, loss=loss)

    weight, bias = fit_linear(
        features,
        train.labels,
        initial_classifier(
            features[0].shape[-1], len(train.classes), generator=stream(recipe.seed, "classifier")
        ),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        generator=stream(recipe.seed, "order"),
        on_epoch=on_epoch,
    )
    heads = dict(zip(recipe.precisions, zip(weight, bias, strict=True), strict=True))
    return Fitted(
        predict=Classifier(backbone, heads, views.center, batch_size=recipe.eval_batch_size),
        details={"calibration": calibration, "augment_views": recipe.augment_views},
    )


def _cached_features(
    backbone: nn.Module, train: Split, views: Views, recipe: "Recipe"
) -> list[Tensor]:
    """Return the features (P, N, D) of the plain images, or of each of the augmented views."""
    at_all_precisions = partial(
        extract_at,
        backbone,
        train.images,
        precisions=recipe.precisions,
        batch_size=recipe.eval_batch_size,
    )
    if recipe.augment_views == 0:
        return [at_all_precisions(make_view=lambda: views.center)]

    def view_maker(k: int):  # every precision sees the same k-th view
        return lambda: partial(views.augmented, generator=stream(recipe.seed, f"view {k}"))

    return [at_all_precisions(make_view=view_maker(k)) for k in range(recipe.augment_views)]
