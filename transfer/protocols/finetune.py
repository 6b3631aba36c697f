"""Fine-tuning: train the whole network once in full precision, then quantize it afterwards."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data import Split
from quant import get_policy, quantize
from transfer.calibration import calibrate_on
from transfer.classifiers import Classifier, fit_linear, initial_classifier
from transfer.features import extract
from transfer.protocols import Fitted, protocol
from transfer.seeding import stream
from transfer.training import Network, Training
from transfer.views import Views
from transfer.workspace import Workspace

if TYPE_CHECKING:
    from transfer.recipe import Recipe


@protocol(options=("warmup_fc",), epochs=50, lr=1e-3, weight_decay=1e-4)
def finetune(
    backbone: nn.Module,
    train: Split,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
) -> Fitted:
    """Fine-tune once in full precision, then quantize the result at each precision (SSQL, A.8).

    Backbone and classifier learn together, batch norm in train mode, on augmented views. The
    result is calibrated once and only its bits are changed between precisions; the classifier is
    never quantized.
    """
    views = Views.of(recipe)
    backbone.to(device)
    state = workspace.resume()
    classifier = initial_classifier(
        backbone.num_features, len(train.classes), generator=stream(recipe.seed, "classifier")
    )
    if recipe.warmup_fc is not None and state is None:
        classifier = _linear_classifier(backbone, train, classifier, views=views, recipe=recipe)
    network = Network(backbone, *classifier).to(device)
    training = Training(network, train, views=views, recipe=recipe, device=device)
    loss = training.run(workspace, state)

    network.eval().requires_grad_(False)
    quantize(network.backbone, get_policy(recipe.policy))
    calibration = calibrate_on(network.backbone, train, views, recipe=recipe, device=device)
    heads = dict.fromkeys(recipe.precisions, (network.fc.weight, network.fc.bias))
    return Fitted(
        predict=Classifier(
            network.backbone, heads, views.center, batch_size=recipe.eval_batch_size
        ),
        details={"calibration": calibration, "final_loss": loss},
        artifacts={"network": workspace.state_path.name},
    )


def _linear_classifier(
    backbone: nn.Module,
    train: Split,
    initial: tuple[Tensor, Tensor],
    *,
    views: Views,
    recipe: "Recipe",
) -> tuple[Tensor, Tensor]:
    """Return the linear protocol's full-precision classifier, weight (C, D) and bias (C,)."""
    backbone.eval()
    features = extract(backbone, train.images, views.center, batch_size=recipe.eval_batch_size)
    weight, bias = fit_linear(
        [features[None]],
        train.labels,
        initial,
        epochs=recipe.warmup_fc.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.warmup_fc.learning_rate,
        momentum=recipe.momentum,
        weight_decay=0.0,
        generator=stream(recipe.seed, "warm-up order"),
    )
    return weight[0], bias[0]
