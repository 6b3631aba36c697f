"""Protocol qat: quantization-aware training of the whole network at each precision."""

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowbit.common.compute_cost import Work
from lowbit.data import Images
from lowbit.quant import FP, Precision
from lowbit.training.job_state import Workspace
from lowbit.training.seeding import seeded
from lowbit.transfer.features.calibration import calibrate_on
from lowbit.transfer.features.views import center
from lowbit.transfer.finetuning.distillation import Distilled, load_teacher
from lowbit.transfer.finetuning.epoch_log import (
    Accuracies,
    Transitions,
    oscillations,
    transition_curve,
)
from lowbit.transfer.finetuning.objectives import CrossEntropy
from lowbit.transfer.finetuning.recipe_optimizer import build_optimizer
from lowbit.transfer.finetuning.starting_network import starting_network
from lowbit.transfer.finetuning.training import Network, Training, total_steps
from lowbit.transfer.recipe.compute_cost import CostInputs, cost_of_start
from lowbit.transfer.recipe.protocol_registry import Fitted, Parts, protocol
from lowbit.transfer.scoring.predict import predicted_classes, predicted_logits

if TYPE_CHECKING:
    from lowbit.transfer.recipe.recipe import Recipe


def _cost(job: CostInputs) -> Work:
    recipe = job.recipe
    trained = sum(precision != FP for precision in recipe.precisions)
    teacher = job.train * job.image if recipe.distillation else 0  # taken as large as the network
    epoch = job.learned + teacher + job.val * job.image
    scoring = len(recipe.precisions) * job.scored * job.image
    return Work(
        operations=trained * recipe.epochs * epoch + scoring,
        disk=len(recipe.precisions) * job.weights,
        **cost_of_start(job),
    )


# Defaults: the CIFAR experiments of transition-rate scheduling, ResNet-20 (SPEC C.6).
@protocol(
    cost=_cost,
    options=(
        "optimizer",
        "nesterov",
        "amp",
        "transition",
        "oscillation",
        "distillation",
        "scale_lr_factor",
        "scale_lr",
        "scale_weight_decay",
        "warmup_fc",
        "fp_start",
        "checkpoint_head",
    ),
    watches=True,
    ranks=True,
    epochs=400,
    lr=0.1,
    weight_decay=1e-4,
    schedule="cosine",
    policy="lsq",
    precisions=("4w4a", "3w3a", "2w2a"),
)
def qat(
    backbone: nn.Module,
    train: Images,
    *,
    recipe: "Recipe",
    workspace: Workspace,
    device: torch.device,
    val: Images | None,
) -> Fitted:
    """Train at each precision from the same full-precision start; FP is that start itself.

    Quantized and calibrated before the first step, so that every learned scale exists when the
    optimizer is built. The policy's rule for last layers applies to the classifier. Every precision
    uses the same images, order and views; each has a part of the workspace.
    """
    start = starting_network(
        backbone, train, recipe=recipe, workspace=workspace, device=device, val=val
    )
    objective = CrossEntropy()
    details: dict[str, Any] = {"start": start.details, "final_loss": {}, "transitions": {}}
    if recipe.distillation is not None:
        teacher, details["teacher"] = load_teacher(
            recipe.distillation,
            num_classes=len(train.classes),
            frames=train.frames,
            device=device,
        )
        objective = Distilled(teacher, recipe.distillation)
    networks, states = {}, {}
    for precision in recipe.precisions:
        part, name = workspace.part(str(precision)), str(precision)
        network = copy.deepcopy(start.network)
        if precision == FP:
            if part.resume() is None:
                part.save(network=network.state_dict())
        else:
            details["calibration"] = _quantize(network, train, precision, recipe, device)
            with seeded(recipe.seed, device):  # regardless of what was trained or resumed before
                details["final_loss"][name] = _train(
                    network,
                    train,
                    precision,
                    objective=objective,
                    recipe=recipe,
                    part=part,
                    device=device,
                    val=val,
                )
            details["transitions"][name] = transition_curve(part.folder)
        networks[name] = network.eval().requires_grad_(False)
        states[precision] = str(part.state_path.relative_to(workspace.folder))
    return Fitted(
        predict=partial(_predict, networks, recipe),
        logits=partial(_predict, networks, recipe, read=predicted_logits),
        networks=tuple(networks.values()),
        details=details,
        artifacts={f"network {precision}": file for precision, file in states.items()},
        parts=Parts(states=states, whole=True),
    )


def _train(
    network: Network,
    train: Images,
    precision: Precision,
    *,
    objective: CrossEntropy | Distilled,
    recipe: "Recipe",
    part: Workspace,
    device: torch.device,
    val: Images | None,
) -> float:
    """Train a quantized network, or resume it; return the last epoch's loss."""
    optimizer = build_optimizer(
        network,
        recipe,
        total_steps=total_steps(recipe, len(train)),
        weight_bits=precision.weight_bits,
    )
    accuracies = Accuracies(network, objective.tally, val, recipe=recipe)
    transitions = Transitions(network, optimizer)
    training = Training(
        network,
        train,
        recipe=recipe,
        device=device,
        objective=objective,
        optimizer=optimizer,
        watch=lambda epoch: {
            **accuracies(epoch),
            **transitions(epoch),
            **oscillations(optimizer),
        },
        kept=transitions.kept,
        what=f"network at {precision}",
    )
    return training.run(part, part.resume())


def _quantize(
    network: Network, train: Images, precision: Precision, recipe: "Recipe", device: torch.device
) -> dict[str, Any]:
    """Quantize at a precision and calibrate; return which images the ranges come from."""
    network.quantize(recipe.policy, precision)
    return calibrate_on(network, train, recipe=recipe, device=device)


def _predict(
    networks: dict[str, Network],
    recipe: "Recipe",
    images: Images,
    read: Callable[..., Tensor] = predicted_classes,
) -> dict[str, Tensor]:
    return {
        precision: read(
            network,
            images,
            center(recipe),
            batch_size=recipe.eval_batch_size,
            workers=recipe.num_workers,
        )
        for precision, network in networks.items()
    }
