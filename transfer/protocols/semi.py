"""Protocol semi: fine-tune the whole network on few labels at each precision."""

import copy
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.quant import FP, Precision, get_policy, quantize
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import stream
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.extract import extract
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.training import Network, Training
from lowbit.transfer.probes.sgd_probe import Classifier, initial_classifier
from lowbit.transfer.recipe.compute_cost import CostInputs
from lowbit.transfer.recipe.protocol_registry import Fitted, Parts, protocol
from lowbit.transfer.scoring.labelled_share import labelled_places

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def _cost(job: CostInputs) -> Work:
    precisions = len(job.recipe.precisions)
    training = job.recipe.epochs * job.recipe.label_fraction * job.learned
    return Work(precisions * (training + job.scored * job.image), disk=precisions * job.weights)


@protocol(
    cost=_cost,
    options=(
        "label_fraction",
        "nesterov",
        "optimizer",
        "amp",
        "scale_lr_factor",
        "scale_lr",
        "scale_weight_decay",
    ),
    epochs=50,
    lr=0.1,
    weight_decay=0.0,
    schedule="cosine",
    label_fraction=0.1,
)
def semi(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
) -> Fitted:
    """Fine-tune at each precision, from the same backbone, on a share of the labels (SPEC B.4).

    "The whole network is fine-tuned at that fixed precision": FP as usual; a lower precision by
    quantization-aware training, quantized and calibrated before the first step, evaluated as
    trained. Every precision has the same images, order and views; the classifier is
    never quantized. Ranges come from training images, whose labels are not used.
    """
    places = labelled_places(train, recipe.label_fraction)
    classifier = initial_classifier(
        backbone.num_features, len(train.classes), generator=stream(recipe.seed, "classifier")
    )
    networks, losses, details, states = {}, {}, {}, {}
    for precision in recipe.precisions:
        part = workspace.part(str(precision))
        network = Network(copy.deepcopy(backbone), *classifier).to(device)
        if precision != FP:
            quantize(network.backbone, get_policy(recipe.policy), precision)
            details["calibration"] = calibrate_on(
                network.backbone, train, recipe=recipe, device=device
            )
        training = Training(network, train, recipe=recipe, device=device, places=places)
        losses[str(precision)] = training.run(part, part.resume())
        networks[precision] = network.eval().requires_grad_(False)
        states[precision] = str(part.state_path.relative_to(workspace.folder))
    return Fitted(
        predict=partial(_predict, networks, recipe),
        details={
            **details,
            "final_loss": losses,
            "labels": {
                "fraction": recipe.label_fraction,
                "images": len(places),
                "ids_sha256": hashlib.sha256(train.ids[places].numpy().tobytes()).hexdigest(),
            },
        },
        artifacts={f"network {precision}": file for precision, file in states.items()},
        parts=Parts(states=states),
    )


def _predict(
    networks: dict[Precision, Network], recipe: "Recipe", images: Images
) -> dict[str, Tensor]:
    found: dict[str, Any] = {}
    for precision, network in networks.items():
        features = partial(extract, network.backbone, view=center(recipe), recipe=recipe)
        head = {precision: (network.fc.weight, network.fc.bias)}
        found |= Classifier(features, head)(images)
    return found
