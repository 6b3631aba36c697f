"""Protocol finetune: train the whole network in full precision, then quantize it."""

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.quant import get_policy, quantize
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import stream
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.extract import extract
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.starting_network import linear_classifier
from lowbit.transfer.finetuning.training import Network, Training
from lowbit.transfer.probes.sgd_probe import Classifier, initial_classifier
from lowbit.transfer.recipe.compute_cost import CostInputs
from lowbit.transfer.recipe.protocol_registry import Fitted, Parts, protocol

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def _cost(job: CostInputs) -> Work:
    scoring = len(job.recipe.precisions) * job.scored * job.image
    warm_up = job.train * job.image if job.recipe.warmup_fc else 0
    return Work(job.recipe.epochs * job.learned + warm_up + scoring, disk=job.weights)


@protocol(
    cost=_cost,
    options=("warmup_fc", "nesterov", "optimizer", "amp"),
    ranks=True,
    epochs=50,
    lr=1e-3,
    weight_decay=1e-4,
)
def finetune(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
) -> Fitted:
    """Fine-tune once in full precision, then quantize the result at each precision (SSQL, A.8).

    Backbone and classifier are trained together, batch norm in train mode, on augmented views. The
    result is calibrated once and only its bits are changed between precisions; the classifier is
    never quantized.
    """
    backbone.to(device)
    state = workspace.resume()
    classifier = initial_classifier(
        backbone.num_features, len(train.classes), generator=stream(recipe.seed, "classifier")
    )
    if recipe.warmup_fc is not None and state is None:
        part = workspace.part("warm-up")
        classifier = linear_classifier(
            backbone, train, classifier, recipe=recipe, workspace=part, state=part.resume()
        )
    network = Network(backbone, *classifier).to(device)
    training = Training(network, train, recipe=recipe, device=device)
    loss = training.run(workspace, state)

    network.eval().requires_grad_(False)
    quantize(network.backbone, get_policy(recipe.policy))
    calibration = calibrate_on(network.backbone, train, recipe=recipe, device=device)
    heads = dict.fromkeys(recipe.precisions, (network.fc.weight, network.fc.bias))
    features = partial(extract, network.backbone, view=center(recipe), recipe=recipe)
    scored = Classifier(features, heads)
    return Fitted(
        predict=scored,
        logits=scored.logits,
        networks=(network.backbone,),
        details={"calibration": calibration, "final_loss": loss},
        artifacts={"network": workspace.state_path.name},
        parts=Parts(
            states=dict.fromkeys(recipe.precisions, workspace.state_path.name),
            calibrated=network.backbone,
        ),
    )
